import math
import random

import pytest

from imgclf.reporting import axes


def texts(axis):
  return [text for _, text in axis.ticks]


def test_ends_and_ticks_are_round_numbers_around_the_values():
  axis = axes.fit([0.21, 2.31], "nats", 200, 0)
  assert (axis.low, axis.high) == (0.0, 2.5)
  assert texts(axis) == ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5"]
  assert [at for at, _ in axis.ticks] == [200, 160, 120, 80, 40, 0]
  assert axis.place(0.625) == 150 and axis.place(-9) == 200 and axis.place(9) == 0


def test_shares_are_in_percent_and_keep_within_0_and_1():
  assert texts(axes.fit([0.0, 1.0], "", 0, 1, percent=True, floor=0.0, ceiling=1.0)) == [
    *("0%", "20%", "40%", "60%", "80%", "100%")
  ]
  axis = axes.fit([0.9912, 0.9987], "", 0, 100, percent=True, floor=0.0, ceiling=1.0)
  assert axis.high <= 1.0 and texts(axis)[0] == "99.0%" and texts(axis)[-1] == "100.0%"


@pytest.mark.parametrize(
  ("low", "high", "expected"),
  [
    (50, 4050, ["1k", "2k", "3k", "4k"]),
    (0, 450_000, ["0", "100k", "200k", "300k", "400k"]),
    (0, 5_000_000, ["0", "1M", "2M", "3M", "4M", "5M"]),
    (1, 2, ["1", "2"]),
    (3, 3, ["2", "3", "4"]),
    (10, 30, ["10", "15", "20", "25", "30"]),
  ],
)
def test_steps_of_a_run_end_where_the_run_does_with_ticks_at_whole_numbers(low, high, expected):
  axis = axes.fit([low, high], "step", 0, 300, tight=True)
  assert texts(axis) == expected
  assert low == high or (axis.low, axis.high) == (low, high)


@pytest.mark.parametrize(
  ("value", "step", "expected"),
  [
    (0.3, 0.1, "0.3"),
    (3 * 0.1, 0.1, "0.3"),
    (0.0005, 0.0001, "0.0005"),
    (5e-5, 1e-5, "5e-5"),
    (1.2e-10, 2e-11, "1.2e-10"),
    (-0.0, 0.5, "0.0"),
    (-1e-17, 0.1, "0.0"),
    (1500, 500, "1,500"),
    (12, 2, "12"),
  ],
)
def test_a_tick_has_the_decimals_that_its_step_needs(value, step, expected):
  assert axes.tick_text(value, step) == expected


def test_any_finite_values_give_few_ticks_that_differ_and_lie_within_the_ends():
  draw = random.Random(0)
  for _ in range(500):
    size = 10 ** draw.uniform(-12, 12)
    low = draw.choice([0.0, draw.uniform(-size, size)])
    values = [low, low + draw.choice([0.0, size, size * 1e-3])]
    floor = 0.0 if min(values) >= 0 else None
    axis = axes.fit(values, "", 0, 100, floor=floor)
    assert axis.low <= min(values) * (1 + 1e-9 * math.copysign(1, -min(values)))
    assert axis.high >= max(values) * (1 - 1e-9 * math.copysign(1, max(values)))
    assert 2 <= len(axis.ticks) <= 8 and all(-0.1 <= at <= 100.1 for at, _ in axis.ticks)
    assert len({at for at, _ in axis.ticks}) == len(axis.ticks)
    assert floor is None or axis.low >= 0


def test_values_that_are_all_at_an_end_still_have_an_axis():
  for value in (0.0, 1.0):
    axis = axes.fit([value, value], "", 0, 100, percent=True, floor=0.0, ceiling=1.0)
    assert axis.low <= value <= axis.high and 0 <= axis.low < axis.high <= 1
  assert axes.fit([], "", 0, 100).low == 0
