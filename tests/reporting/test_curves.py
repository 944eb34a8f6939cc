import pytest

from imgclf.reporting import curves


def lines(values, split="train", key="loss"):
  return [{"step": step, "split": split, key: value} for step, value in values]


def test_each_curve_has_the_figures_of_its_split_by_rising_steps():
  found = curves.curves(
    [
      *lines([(10, 2.0), (20, 1.5)]),
      *lines([(20, 0.7)], "validation", "accuracy"),
      *lines([(20, 0.7)], "validation", "f1_macro"),
      *lines([(10, 0.1), (20, 0.2)], "train", "learning_rate"),
    ]
  )
  assert list(found) == ["train loss", "validation accuracy", "learning_rate"]
  assert (found["train loss"].steps, found["train loss"].values) == ([10, 20], [2.0, 1.5])
  assert found["validation accuracy"].values == [0.7]


def test_steps_that_were_made_again_count_once_as_they_were_made_last():
  found = curves.curves(lines([(10, 3.0), (20, 2.0), (10, 2.5), (15, 2.2)]))["train loss"]
  assert (found.steps, found.values) == ([10, 15, 20], [2.5, 2.2, 2.0])


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "2.0", True, 10**400])
def test_what_is_no_finite_number_is_a_gap(value):
  found = curves.curves(lines([(10, 3.0), (20, value)]))["train loss"]
  assert found.values == [3.0, None]
  assert curves.curves(lines([(20, value)])) == {}  # and gaps alone are no curve


def test_long_runs_are_thinned_and_keep_ends_spikes_and_gaps():
  values = {step: 1.0 + step % 7 for step in range(100_000)}
  values |= {43_210: 99.0, 70_001: -5.0, 55_555: None}
  found = curves.curves(lines(values.items()))["train loss"]
  assert 600 <= len(found.steps) <= 1000
  assert found.steps == sorted(set(found.steps))
  assert (found.steps[0], found.steps[-1]) == (0, 99_999)
  told = dict(zip(found.steps, found.values))
  assert (told[43_210], told[70_001], told[55_555]) == (99.0, -5.0, None)
  assert all(told[step] == values[step] for step in told)


@pytest.mark.parametrize("n", [999, 1000, 1001, 1400])
def test_there_are_never_more_than_1000_points(n):
  found = curves.curves(lines((step, float(step % 3)) for step in range(n)))["train loss"]
  assert len(found.steps) <= 1000
  assert len(found.steps) == n or n > 1000
