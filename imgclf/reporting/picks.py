"""Which examples a person should look at: mistakes, doubts, labels that are likely wrong; numpy on
the host.

Knows no model, no file and no picture. Places are those in the arrays that are given.
"""

from collections.abc import Iterator

import numpy as np

MOST_CONFUSIONS = 200
_BLOCK = 1 << 20  # values


def confident_mistakes(
  labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
) -> np.ndarray:
  """Returns the places of the wrong answers, the most confident first; of equals, in order.

  Args:
    labels: [n] integer, the true classes.
    predicted: [n] integer.
    confidence: [n] float, probability of the predicted class.
  """
  wrong = np.flatnonzero(labels != predicted)
  return wrong[np.argsort(-confidence[wrong], kind="stable")]


def least_certain(probabilities: np.ndarray, most: int) -> np.ndarray:
  """Returns the places of the examples with the least distance between their two most probable
  classes.

  Args:
    probabilities: [n, classes] floats.
    most: how many places.
  """
  if probabilities.shape[1] < 2:
    return np.arange(min(most, len(probabilities)))
  margins = np.empty(len(probabilities))
  for rows in _blocks(probabilities):
    two = np.partition(probabilities[rows], -2, axis=1)[:, -2:]
    margins[rows] = two[:, 1] - two[:, 0]
  return np.argsort(margins, kind="stable")[:most]


def likely_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Returns the places of examples whose label is likely wrong, by confident learning, the
  likeliest first.

  Northcutt, Jiang and Chuang, "Confident Learning", 2021, https://arxiv.org/abs/1911.00068, section
  3.1: a class's threshold is the mean of its probability over the examples that have it as their
  label. An example is counted for the class of the largest probability among those that reach their
  threshold; where that is another class than its label, the label is likely wrong (the off-diagonal
  of the confident joint). They are ranked by how far the label's probability is below the largest
  of the others (section 3.2, normalised margin).

  The probabilities must come from a model that was not trained on these examples: one that was has
  learned the wrong labels too.

  Args:
    probabilities: [n, classes] floats.
    labels: [n] integer, as they were given.
  """
  n, classes = probabilities.shape
  own = probabilities[np.arange(n), labels].astype(np.float64)
  counts = np.bincount(labels, minlength=classes)
  # No example can be counted for a class that has none: nothing tells what confidence it deserves.
  thresholds = np.full(classes, np.inf)
  sums = np.bincount(labels, weights=own, minlength=classes)
  thresholds[counts > 0] = sums[counts > 0] / counts[counts > 0]
  margins = np.full(n, np.nan)
  for rows in _blocks(probabilities):
    block, given = probabilities[rows], labels[rows]
    # A mean of equal probabilities, such as ones, may be above them by a rounding.
    reached = np.where(block >= thresholds - 1e-6, block, -1)
    counted = np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), given)
    others = block.copy()
    others[np.arange(len(block)), given] = -1
    margins[rows] = np.where(counted != given, own[rows] - others.max(axis=1), np.nan)
  found = np.flatnonzero(~np.isnan(margins))
  return found[np.argsort(margins[found], kind="stable")]


def confused_pairs(
  labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, classes: int
) -> list[tuple[int, int, np.ndarray]]:
  """Returns the cells of the confusion matrix off its diagonal that hold an example, the largest
  first.

  Args:
    labels: [n] integer, the true classes.
    predicted: [n] integer.
    confidence: [n] float, probability of the predicted class.
    classes: how many there are.

  Returns:
    Truth, prediction and the places of the examples, the most confident first; at most
    `MOST_CONFUSIONS`. Of cells of the same size the one of the lower labels comes first.
  """
  wrong = confident_mistakes(labels, predicted, confidence)
  cells = labels[wrong].astype(np.int64) * classes + predicted[wrong]
  there, counts = np.unique(cells, return_counts=True)
  largest = there[np.argsort(-counts, kind="stable")][:MOST_CONFUSIONS]
  return [(int(c) // classes, int(c) % classes, wrong[cells == c]) for c in largest]


def _blocks(probabilities: np.ndarray) -> Iterator[slice]:
  """Rows of a few megabytes, so that what is made of them is small beside the probabilities."""
  size = max(1, _BLOCK // probabilities.shape[1])
  for start in range(0, len(probabilities), size):
    yield slice(start, start + size)
