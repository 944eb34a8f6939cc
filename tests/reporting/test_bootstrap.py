"""Intervals against the binomial distribution, against the long way round, and where resamples tell
nothing."""

import numpy as np
import pytest
from scipy import stats

from imgclf import metrics
from imgclf.reporting import bootstrap


def predictions(label, predicted, confidence=None, loss=None, in_top5=None):
  n = len(label)
  label, predicted = np.asarray(label, np.int32), np.asarray(predicted, np.int32)
  return metrics.Predictions(
    index=np.arange(n),
    label=label,
    predicted=predicted,
    in_top5=label == predicted if in_top5 is None else np.asarray(in_top5),
    loss=np.zeros(n) if loss is None else np.asarray(loss),
    confidence=np.full(n, 0.5) if confidence is None else np.asarray(confidence),
  )


def random_case(n, classes, seed=0):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, classes, n)
  predicted = np.where(rng.random(n) < 0.7, label, rng.integers(0, classes, n))
  predicted[::17] = -1
  return predictions(
    label, predicted, rng.random(n), rng.exponential(size=n), (label == predicted) | (label > 2)
  )


def test_of_a_share_they_are_those_of_the_binomial_distribution():
  rows = predictions(np.zeros(2000), np.arange(2000) >= 1600)  # 80% are right
  low, high = bootstrap.intervals(rows, 2)["accuracy"]
  expected = stats.binom(2000, 0.8).interval(0.95)
  assert low == pytest.approx(expected[0] / 2000, abs=0.0025)
  assert high == pytest.approx(expected[1] / 2000, abs=0.0025)


def test_of_a_mean_they_are_those_of_the_normal_distribution():
  loss = np.random.default_rng(1).exponential(size=3000)
  low, high = bootstrap.intervals(predictions(np.zeros(3000), np.zeros(3000), loss=loss), 2)["loss"]
  half = 1.96 * loss.std() / np.sqrt(3000)
  assert (low, high) == pytest.approx((loss.mean() - half, loss.mean() + half), abs=half / 8)


def test_each_resample_has_the_figures_that_evaluation_would_give_it():
  """The long way: draw the same examples, evaluate them as a set of their own, take the
  percentiles."""
  rows = random_case(200, 4)
  rng = np.random.Generator(np.random.PCG64(5))
  told = []
  for _ in range(40):
    drawn = rng.integers(200, size=200)
    columns = {name: getattr(rows, name)[drawn] for name in ("label", "predicted", "in_top5")}
    columns |= {name: getattr(rows, name)[drawn] for name in ("loss", "confidence")}
    told.append(metrics.figures(metrics.Predictions(index=np.arange(200), **columns), list("abcd")))
  found = bootstrap.intervals(rows, 4, resamples=40, seed=5)
  value = metrics.figures(rows, list("abcd"))["ece"]
  for name, interval in found.items():
    expected = np.quantile([figures[name] for figures in told], [0.025, 0.975])
    if name == "ece":
      mirrored = 2 * value - expected[::-1]
      expected = [max(0, min(mirrored[0], value)), max(mirrored[1], value)]
    assert interval == pytest.approx(tuple(expected), abs=1e-12), name
  assert len(found) == 7


def test_the_interval_of_ece_holds_the_true_one_where_plain_percentiles_do_not():
  """A model that is 3% too sure everywhere; 400 examples make its ECE 5% on average, and resamples
  of them 6%."""
  rng = np.random.default_rng(2)
  held = held_plainly = 0
  for seed in range(40):
    confidence = rng.uniform(0.55, 1, 400)
    predicted = (rng.random(400) > confidence - 0.03).astype(int)
    rows = predictions(np.zeros(400), predicted, confidence)
    value = metrics.figures(rows, "ab")["ece"]
    low, high = bootstrap.intervals(rows, 2, resamples=200, seed=seed)["ece"]
    assert low <= value <= high
    held += low <= 0.03 <= high
    held_plainly += 2 * value - high <= 0.03 <= 2 * value - low
  assert held >= 36
  assert held_plainly <= 20


def test_the_same_seed_gives_the_same_intervals():
  rows = random_case(100, 3)
  assert bootstrap.intervals(rows, 3, seed=1) == bootstrap.intervals(rows, 3, seed=1)
  assert bootstrap.intervals(rows, 3, seed=1) != bootstrap.intervals(rows, 3, seed=2)


@pytest.mark.parametrize("n", [1, 360])
def test_where_all_are_right_the_exact_interval_of_the_binomial_stands_in(n):
  rows = predictions(np.zeros(n), np.zeros(n))
  found = bootstrap.intervals(rows, 2, resamples=20)
  exact = stats.binomtest(n, n).proportion_ci(0.95, method="exact")
  assert found["accuracy"] == pytest.approx((exact.low, 1))
  assert found["f1_macro"] is None  # 1 in every resample
  none = bootstrap.intervals(predictions(np.zeros(n), np.ones(n)), 2, resamples=20)
  exact = stats.binomtest(0, n).proportion_ci(0.95, method="exact")
  assert none["accuracy"] == pytest.approx((0, exact.high))


def test_without_an_image_that_could_be_read_loss_and_ece_have_no_interval():
  found = bootstrap.intervals(predictions([0, 1], [-1, -1], in_top5=[False, False]), 2)
  assert found["loss"] is None and found["ece"] is None
  assert found["accuracy"][0] == 0
