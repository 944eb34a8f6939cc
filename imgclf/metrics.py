"""Predictions of single examples in, the figures of an evaluation out; numpy on the host.

Knows no model, device or file: what is counted here was predicted elsewhere, and who calls writes
the result.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any, TypeVar

import numpy as np

ECE_BINS = 15

# A dataclass of columns.
Rows = TypeVar("Rows", bound=Any)


@dataclasses.dataclass(frozen=True)
class Predictions:
  """What a model said of each example of a split; one row an example, in any order.

  Attributes:
    index: [n] integer, position of the example in the split.
    label: [n] integer, the true class.
    predicted: [n] integer, the class with the largest probability; -1 for an image that could not
      be read.
    in_top5: [n] bool, whether the true class is among the min(5, classes) most probable ones.
    loss: [n] float, cross-entropy of the true class in nats, without label smoothing.
    confidence: [n] float in [0, 1], the largest softmax probability.
    logits: [n, classes] float32, where they were asked for; of an image that could not be read they
      say nothing.
  """

  index: np.ndarray
  label: np.ndarray
  predicted: np.ndarray
  in_top5: np.ndarray
  loss: np.ndarray
  confidence: np.ndarray
  logits: np.ndarray | None = None


def figures(predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
  """Returns the figures of an evaluation as plain Python values, in the layout of `eval/*.json`.

  Precision, recall and F1 are 0 where their denominator is 0. Their macro averages run over the
  classes that occur as a label or as a prediction, as in scikit-learn's
  `precision_recall_fscore_support(average="macro", zero_division=0)`. The order of the rows changes
  no bit of the result. A NaN loss or confidence gives a NaN `loss` or `ece` and leaves the rest as
  it is.

  An image that could not be read is a wrong answer: it is in `n`, in the shares and in its class's
  recall, but in no column of the confusion matrix, and there is no loss or confidence of it.

  Args:
    predictions: every example of the split once.
    classes: the names of all classes; a label is a position in it.

  Returns:
    n: examples counted.
    unreadable: how many of them could not be read.
    loss: mean cross-entropy in nats.
    accuracy, top5_accuracy: shares of n.
    precision_macro, recall_macro, f1_macro: see above.
    recall_worst: the least recall of a class with examples.
    ece: expected calibration error, see `expected_calibration_error`.
    per_class: one of {name, n, precision, recall, f1} for each class; n counts the true examples.
    confusion_matrix: [classes][classes] counts; rows are the truth, columns the prediction.

  Raises:
    ValueError: if the indices are not 0 to n-1, each once (an example was lost or counted twice;
      a split that lacks only its end looks whole from here, so the caller holds `n` against its
      size), if there is no example, or if a label or prediction is not a class.
  """
  predictions = in_order(predictions)
  n, count = len(predictions.index), len(classes)
  label = _classes_of("label", predictions.label, count)
  read = predictions.predicted != -1
  predicted = _classes_of("predicted", predictions.predicted[read], count)
  correct = label[read] == predicted
  pairs = np.bincount(label[read] * count + predicted, minlength=count * count)
  confusion = pairs.reshape(count, count)
  hits, said = np.diag(confusion), confusion.sum(axis=0)
  actual = np.bincount(label, minlength=count)
  precision, recall = ratio(hits, said), ratio(hits, actual)
  f1 = ratio(2 * hits, actual + said)
  occurs = actual + said > 0
  return {
    "n": n,
    "unreadable": n - int(read.sum()),
    "loss": float(np.mean(predictions.loss[read], dtype=np.float64)) if read.any() else math.nan,
    "accuracy": int(correct.sum()) / n,
    "top5_accuracy": int(predictions.in_top5[read].sum()) / n,
    "precision_macro": float(precision[occurs].mean()),
    "recall_macro": float(recall[occurs].mean()),
    "f1_macro": float(f1[occurs].mean()),
    "recall_worst": float(recall[actual > 0].min()),
    "ece": (
      expected_calibration_error(predictions.confidence[read], correct) if read.any() else math.nan
    ),
    "per_class": [
      {"name": name, "n": int(a), "precision": float(p), "recall": float(r), "f1": float(f)}
      for name, a, p, r, f in zip(classes, actual, precision, recall, f1, strict=True)
    ],
    "confusion_matrix": confusion.tolist(),
  }


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
  """Mean distance of confidence and accuracy over bins of confidence, weighted by their examples.

  Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3, with 15 bins of equal
  width. As there, bin m holds (m-1)/15 < confidence <= m/15: an edge belongs to the bin below it,
  and 0 to the first.

  Args:
    confidence: [n] float in [0, 1], n > 0.
    correct: [n] bool, whether the most probable class is the true one.
  """
  confidence = confidence.astype(np.float64)
  bins = confidence_bins(confidence)
  # Within a bin, count * |accuracy - mean confidence| = |correct - sum of confidence|.
  gaps = np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS)
  return float(np.abs(gaps).sum() / len(confidence))


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
  """Returns the bin of each confidence, from 0 to ECE_BINS - 1; see
  `expected_calibration_error`.
  """
  edges = np.arange(ECE_BINS + 1) / ECE_BINS
  # The clip takes in 0, a softmax that rounding lifted above 1, and NaN, which sorts last.
  places = np.searchsorted(edges, confidence.astype(np.float64), side="left")
  return np.clip(places - 1, 0, ECE_BINS - 1)


def in_order(predictions: Rows) -> Rows:
  """Returns the rows by index, so that float sums do not depend on the order of arrival.

  Args:
    predictions: or another dataclass of columns, one of which is `index`.

  Raises:
    ValueError: if the indices are not 0 to n-1, each once, or a column has another length.
  """
  columns = {
    f.name: np.asarray(getattr(predictions, f.name))
    for f in dataclasses.fields(predictions)
    if getattr(predictions, f.name) is not None
  }
  n = len(columns["index"])
  matrices = ("logits",) if isinstance(predictions, Predictions) else ("logits", "label")
  for name, column in columns.items():
    if column.shape[:1] != (n,) or column.ndim > 1 + (name in matrices):
      raise ValueError(f"predictions.{name} has the shape {column.shape}, index has ({n},)")
  if n == 0:
    raise ValueError("there are no predictions to evaluate")
  order = np.argsort(columns["index"], kind="stable")
  index = columns["index"][order]
  repeated = index[1:][index[1:] == index[:-1]]
  if len(repeated):
    raise ValueError(f"{len(repeated)} predictions repeat an example, the first at {repeated[0]}")
  wrong = np.flatnonzero(index != np.arange(n))
  if len(wrong):
    raise ValueError(
      f"the predictions are not of examples 0 to {n - 1}: {index[wrong[0]]} came in place of {wrong[0]}"
    )
  return type(predictions)(**{name: column[order] for name, column in columns.items()})


def _classes_of(name: str, values: np.ndarray, count: int) -> np.ndarray:
  values = values.astype(np.int64)
  if len(values) and (values.min() < 0 or values.max() >= count):
    raise ValueError(
      f"predictions.{name} runs from {values.min()} to {values.max()}; there are {count} classes"
    )
  return values


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
  """Returns part / whole, [n] float64, 0 where whole is 0."""
  return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
