"""Temperature scaling: one number that makes a classifier as sure as it is right; numpy on the
host.

Guo et al., "On Calibration of Modern Neural Networks", 2017, https://arxiv.org/abs/1706.04599,
section 4.2: logits are divided by the temperature that makes the mean loss least on examples that
the model was not trained on. No class changes its rank. Knows no model and no file.
"""

from collections.abc import Iterator
import math
from typing import NamedTuple

import numpy as np

# A temperature beyond these says more of the examples than of the model: probabilities are all
# alike, or all 0 and 1.
COLDEST, HOTTEST = 1 / 20, 20.0

# A temperature that is less certain than that, as a share of itself, is told to be so.
UNCERTAIN = 0.2

# Values of a block of rows, so that 50,000 examples of 1,000 classes take 8 MB of float64 and not
# 400.
_BLOCK = 1 << 20


class Fit(NamedTuple):
  """A temperature, and what to know of it.

  Attributes:
    temperature: from COLDEST to HOTTEST.
    note: a sentence for the reader: why it is not the minimum, where it is not, or how uncertain it
      is, where that matters; else None.
  """

  temperature: float
  note: str | None


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Fit:
  """Finds the temperature of least mean cross-entropy.

  The mean loss is convex in the inverse temperature, so that its slope rises and has one root:
  Newton's method, with a bisection where a step would leave the bracket. Where every label has the
  largest logit there is no minimum (the loss falls to 0 as the temperature does), and 1 is
  returned: that all of a sample are right is no evidence for probabilities of 1.

  The standard error, of which few examples leave much, is the one that holds also where the
  probabilities are wrong (White 1982, https://doi.org/10.2307/1912526, the "sandwich").

  Args:
    logits: [n, classes] floats, finite, n > 0.
    labels: [n] integer, the true classes.
  """
  rows = np.arange(len(labels))
  others = logits.copy()
  others[rows, labels] = -np.inf
  if (logits[rows, labels] > others.max(axis=1)).all():
    return Fit(1.0, "every example is right, so that no temperature is the best; it stays 1")
  del others
  low, high = 1 / HOTTEST, 1 / COLDEST
  if _slope(logits, labels, low)[0] >= 0:
    return Fit(HOTTEST, f"the best temperature is above {HOTTEST:g}, the highest that is taken")
  if _slope(logits, labels, high)[0] <= 0:
    return Fit(COLDEST, f"the best temperature is below {COLDEST:g}, the lowest that is taken")
  inverse = 1.0
  while True:
    slope, curvature, square = _slope(logits, labels, inverse)
    low, high = (inverse, high) if slope < 0 else (low, inverse)
    following = inverse - slope / curvature if curvature > 0 else math.nan
    if not low < following < high:
      following = (low + high) / 2
    if abs(following - inverse) <= 1e-9 * inverse:
      error = math.sqrt(square / len(labels)) / (curvature * inverse) if curvature else math.inf
      return Fit(1 / following, _doubt(error) if error > UNCERTAIN else None)
    inverse = following


def _doubt(error: float) -> str:
  size = f"{error:.0%} of it" if error < 1 else "larger than itself"
  return f"its standard error is {size}: more validation images would tell it better"


def losses(logits: np.ndarray, labels: np.ndarray, temperature: float) -> np.ndarray:
  """Returns each example's cross-entropy at a temperature.

  Args:
    logits: [n, classes] floats.
    labels: [n] integer, the true classes.
    temperature: above 0.

  Returns:
    [n] float64, in nats.
  """
  found = np.empty(len(labels))
  for rows in _blocks(logits):
    scaled = logits[rows].astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    own = scaled[np.arange(len(scaled)), labels[rows]]
    found[rows] = np.log(np.exp(scaled).sum(axis=1)) - own
  return found


def to_probabilities(logits: np.ndarray, temperature: float) -> None:
  """Turns logits into probabilities at a temperature, in place: those of a thousand classes take
  the memory once.

  Args:
    logits: [n, classes] float32 or float64, writable.
    temperature: above 0.
  """
  for rows in _blocks(logits):
    scaled = logits[rows].astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    logits[rows] = weights / weights.sum(axis=1, keepdims=True)


def _blocks(logits: np.ndarray) -> Iterator[slice]:
  size = max(1, _BLOCK // logits.shape[1])
  for start in range(0, len(logits), size):
    yield slice(start, start + size)


def _slope(logits: np.ndarray, labels: np.ndarray, inverse: float) -> tuple[float, float, float]:
  """First and second derivative of the mean loss by the inverse temperature: of an example, the
  mean of the logits under its probabilities less the label's logit; and their variance. Third, the
  mean square of the first.
  """
  slope = curvature = square = 0.0
  for rows in _blocks(logits):
    z = logits[rows].astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    weights = np.exp(inverse * z)
    weights /= weights.sum(axis=1, keepdims=True)
    mean = (weights * z).sum(axis=1)
    each = mean - z[np.arange(len(z)), labels[rows]]
    slope += float(each.sum())
    square += float((each * each).sum())
    curvature += float((weights * (z - mean[:, None]) ** 2).sum())
  return slope / len(labels), curvature / len(labels), square / len(labels)
