import math

import numpy as np
import pytest

from imgclf.exporting import verification


def pixels(count):
  return np.arange(count * 3, dtype=np.uint8).reshape(count, 1, 1, 3)


def rows(batch):
  """Two numbers for each image, which follow from its first value."""
  first = batch[:, 0, 0, 0].astype(np.float32) / 256
  return np.stack([first, 1 - first], 1)


@pytest.mark.parametrize(
  ("count", "sizes"),
  [(1, [1, 2]), (2, [1, 1, 2]), (16, [1] * 16 + [16]), (40, [1] * 16 + [16, 16, 8])],
)
def test_images_come_alone_and_in_another_batch(count, sizes):
  assert [len(batch) for batch in verification.batches(pixels(count))] == sizes


def test_every_image_is_looked_at():
  seen = np.concatenate(list(verification.batches(pixels(40))))
  assert set(seen[:, 0, 0, 0].tolist()) == set(range(0, 120, 3))


def test_the_largest_difference_is_that_of_one_value_in_one_batch():
  def other(batch):
    found = rows(batch)
    found[batch[:, 0, 0, 0] == 60, 1] += 0.25  # of image 20 of 40
    return found

  assert verification.largest_difference(rows, rows, pixels(40)) == 0
  assert verification.largest_difference(rows, other, pixels(40)) == 0.25


def test_what_is_right_for_one_image_alone_may_be_wrong_in_a_batch():
  shuffled = lambda batch: rows(batch)[::-1]  # noqa: E731
  assert verification.largest_difference(rows, shuffled, pixels(5)) == 12 / 256


def test_what_is_no_number_differs_infinitely():
  nothing = lambda batch: rows(batch) * np.float32(math.nan)  # noqa: E731
  assert verification.largest_difference(rows, nothing, pixels(2)) == math.inf


@pytest.mark.parametrize(
  "other", [lambda batch: rows(batch)[:, :1], lambda batch: rows(batch).astype(np.float64)]
)
def test_results_of_another_shape_or_type_are_an_error(other):
  with pytest.raises(ValueError, match=r"gives float\d\d \[1, \d\], not float32 \[1, 2\]"):
    verification.largest_difference(rows, other, pixels(2))


def test_latency_is_the_median_of_calls_that_take_turns(monkeypatch):
  now = 0.0
  calls = []

  def lasting(name, *seconds):
    left = iter(seconds)

    def function(image):
      nonlocal now
      calls.append(name)
      now += next(left, seconds[-1])

    return function

  monkeypatch.setattr(verification.time, "perf_counter", lambda: now)
  # Called once, then eleven times a turn, of which the first is not counted: 8 and 7 seconds leave
  # no trace, and neither does the one slow call that is counted move a median.
  slow_starts = lasting("a", 9, 8, *[0.25] * 9, 0.5, 7, 0.25)
  found = verification.latencies([slow_starts, lasting("b", 9, 8, 60, 1)], pixels(1))
  assert found == [250, 1000]
  # More than two seconds, so no more than two turns.
  assert "".join(calls) == "ab" + 2 * ("a" * 11 + "b" * 11)
