"""What the losses of a run whose learning rate rises step by step say of a good one.

Numbers in, numbers out.

Smith 2017, https://arxiv.org/abs/1506.01186, section 3.3. Knows no network and no run.
"""

from collections.abc import Sequence
import dataclasses
import math

import numpy as np

# A loss that is this many times the least so far is that of weights which are lost.
_WORSE = 4.0
# Of the loss so far, in the average that is held against that.
_KEPT = 0.9
# Standard deviation of the smoothing, as a share of the sweep.
_WIDTH = 1 / 40


@dataclasses.dataclass(frozen=True)
class Finding:
  """What a sweep says.

  Attributes:
    smoothed: [n] the losses, smoothed.
    suggested: the rate at which the loss falls fastest, per factor of the rate; None where it never
      falls.
    lowest: the rate of the least loss, which is too high to train with; None likewise.
  """

  smoothed: np.ndarray
  suggested: float | None
  lowest: float | None


def rates(low: float, high: float, steps: int) -> np.ndarray:
  """Returns rising learning rates with the same factor from each to the next, [steps] float64."""
  return np.geomspace(low, high, steps)


def is_lost(losses: Sequence[float]) -> bool:
  """Whether the last loss is no number, or a running average far above the least that it has
  had.
  """
  average, least = 0.0, math.inf
  for number, loss in enumerate(losses, 1):
    average = _KEPT * average + (1 - _KEPT) * loss
    told = average / (1 - _KEPT**number)  # as if the losses had always been those so far
    if not math.isfinite(told) or told > _WORSE * least:
      return True
    least = min(least, told)
  return False


def smoothed(losses: Sequence[float], total: int) -> np.ndarray:
  """Returns the losses with each replaced by a mean of its neighbours: normally weighted, on both
  sides, so that none is late.

  Args:
    losses: [n] finite.
    total: length of the sweep as it was meant, n or more.
  """
  places = np.arange(len(losses))
  apart = (places[:, None] - places) / max(total * _WIDTH, 1e-9)
  weights = np.exp(-(apart**2) / 2)
  return weights @ np.asarray(losses, np.float64) / weights.sum(axis=1)


def find(rates: np.ndarray, losses: Sequence[float]) -> Finding:
  """Finds where the loss falls fastest.

  Args:
    rates: [total] as from `rates`.
    losses: [n] finite, of the first n of them.
  """
  curve = smoothed(losses, len(rates))
  if len(curve) < 3:
    return Finding(curve, None, None)
  end = int(np.argmin(curve))
  slopes = np.gradient(curve, np.log(rates[: len(curve)]))[: end + 1]
  steepest = int(np.argmin(slopes))
  # From the first loss the fall must be more than what comes of adding in another order.
  if slopes[steepest] >= 0 or curve[0] - curve[end] <= 1e-3 * abs(curve[0]):
    return Finding(curve, None, None)
  return Finding(curve, float(rates[steepest]), float(rates[end]))
