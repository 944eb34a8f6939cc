"""Sweeps of learning rates whose best place is known beforehand."""

import math

import numpy as np
import pytest

from imgclf import sweep


def test_rates_rise_by_the_same_factor():
  np.testing.assert_allclose(sweep.rates(1e-3, 10, 5), [1e-3, 1e-2, 0.1, 1, 10], rtol=1e-12)


@pytest.mark.parametrize(
  ("losses", "lost"),
  [
    ([1.0, 1.0, 9.1], False),
    # The average of 1, 1 and x is (0.81 + 0.9 + x) / 2.71 by weights, which is four at x = 9.13.
    ([1.0, 1.0, 9.2], True),
    ([2.0, math.nan], True),
    ([2.0, math.inf], True),
    ([5.0], False),
    ([], False),
  ],
)
def test_training_is_lost_at_four_times_the_least_average_or_no_number(losses, lost):
  assert sweep.is_lost(losses) is lost


def test_smoothing_is_late_nowhere():
  line = np.arange(200.0)
  np.testing.assert_allclose(sweep.smoothed(line, 200)[30:170], line[30:170], rtol=1e-9)
  np.testing.assert_allclose(sweep.smoothed([3.0] * 7, 200), [3.0] * 7, rtol=1e-12)
  # A fall stays where it is: half way down at its own place.
  step = np.where(line < 100, 2.0, 0.0)
  assert sweep.smoothed(step, 200)[99:101].mean() == pytest.approx(1, abs=1e-9)


def falling_at(rate, rates):
  """A loss that falls from 2 to 1 around a rate, most steeply at it, and rises from a hundred times
  it on."""
  decades = np.log10(rates / rate)
  return 2 - 1 / (1 + np.exp(-4 * decades)) + 3 / (1 + np.exp(-6 * (decades - 2.5)))


@pytest.mark.parametrize("rate", [1e-4, 3e-3, 1e-1])
def test_the_suggestion_is_where_the_loss_falls_fastest(rate):
  rates = sweep.rates(1e-6, 10, 200)
  noise = np.random.default_rng(0).normal(0, 0.01, 200)
  clean = falling_at(rate, rates)
  found = sweep.find(rates, list(clean + noise))
  # Within three of the 29 steps to a power of ten.
  assert abs(math.log10(found.suggested / rate)) < 0.11
  least = rates[np.argmin(clean)]
  assert abs(math.log10(found.lowest / least)) < 0.3


@pytest.mark.parametrize("losses", [[2.3] * 50, list(np.linspace(1, 3, 50)), [2.0, 1.0], []])
def test_where_the_loss_does_not_fall_nothing_is_suggested(losses):
  found = sweep.find(sweep.rates(1e-6, 10, 50), losses)
  assert (found.suggested, found.lowest) == (None, None)
