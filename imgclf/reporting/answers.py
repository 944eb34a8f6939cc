"""From the answers to every example to the figures, diagrams and tables of a report.

Knows no model, file or picture.
"""

from collections.abc import Callable, Sequence

import numpy as np

from imgclf import metrics, ranking
from imgclf.reporting import bootstrap
from imgclf.reporting.contents import Bin, Calibration, ClassRow, Curve, Figure
from imgclf.reporting.judging import Judged, Temperature, loss_and_ece

SUMMARY = (
  *("accuracy", "top5_accuracy", "loss"),
  *("precision_macro", "recall_macro", "f1_macro", "ece"),
)
Draw = Callable[[ranking.Ranking], tuple[list[float], list[float]]]

# Classes that are drawn beside the average: more lines can't be told apart.
CURVES = 9


def summary(rows: metrics.Predictions, classes: Sequence[str]) -> list[Figure]:
  """Returns the figures of a split with their intervals.

  Args:
    rows: every example once.
    classes: names by label.
  """
  figures = metrics.figures(rows, classes)
  ends = bootstrap.intervals(rows, len(classes))
  return [Figure(name, _finite(figures[name]), *(ends[name] or (None, None))) for name in SUMMARY]


def _finite(value: float) -> float | None:
  return value if np.isfinite(value) else None


def calibration(judged: Judged, temperature: Temperature) -> Calibration:
  """Returns confidence against accuracy before and after the temperature."""
  loss_before, ece_before = loss_and_ece(judged.before)
  loss_after, ece_after = loss_and_ece(judged.after)
  return Calibration(
    temperature=temperature.value,
    fitted_on=temperature.fitted_on,
    fitted_n=temperature.n,
    ece_before=ece_before,
    ece_after=ece_after,
    loss_before=loss_before,
    loss_after=loss_after,
    before=reliability(judged.before),
    after=reliability(judged.after),
  )


def reliability(rows: metrics.Predictions) -> list[Bin]:
  """Returns the bins of the reliability diagram; images that could not be read are in none."""
  read = rows.predicted != -1
  correct = rows.predicted[read] == rows.label[read]
  confidence = rows.confidence[read].astype(np.float64)
  bins = metrics.confidence_bins(confidence)
  counts, sums, hits = (
    np.bincount(bins, weights=weights, minlength=metrics.ECE_BINS)
    for weights in (None, confidence, correct)
  )
  return [
    Bin(
      low=k / metrics.ECE_BINS,
      high=(k + 1) / metrics.ECE_BINS,
      n=int(n),
      confidence=float(sums[k] / n) if n else None,
      accuracy=float(hits[k] / n) if n else None,
    )
    for k, n in enumerate(counts)
  ]


def matrix(rows: metrics.Predictions, classes: Sequence[str]) -> list[list[int]]:
  """Returns the confusion matrix, [classes][classes] counts; rows are the truth."""
  counts: list[list[int]] = metrics.figures(rows, classes)["confusion_matrix"]
  return counts


def curves_and_classes(
  judged: Judged, classes: Sequence[str]
) -> tuple[list[Curve], list[Curve], list[ClassRow]]:
  """Returns precision-recall curves, ROC curves, and the table of classes.

  The micro average comes first: each example and class is a pair that is right or wrong, ranked by
  its probability. Then come up to `CURVES` classes, those with the smallest area.
  """
  labels = judged.after.label[judged.places]
  figures = metrics.figures(judged.after, classes)
  precisions: list[float | None] = []
  aucs: list[float | None] = []
  for label in range(len(classes)):
    ranked = ranking.rank(judged.probabilities[:, label], labels == label)
    precisions.append(ranking.average_precision(ranked))
    aucs.append(ranking.roc_auc(ranked))
  matrix = np.array(figures["confusion_matrix"])
  np.fill_diagonal(matrix, 0)
  rows = [
    ClassRow(
      **row,
      average_precision=precisions[label],
      roc_auc=aucs[label],
      confused_with=classes[int(matrix[label].argmax())] if matrix[label].any() else None,
    )
    for label, row in enumerate(figures["per_class"])
  ]
  right = np.zeros(judged.probabilities.shape, bool)
  right[np.arange(len(labels)), labels] = True
  micro = ranking.rank(judged.probabilities.ravel(), right.ravel())
  del right

  def drawn(areas: list[float | None], draw: Draw) -> list[Curve]:
    found = []
    for label, area in _smallest(areas):
      ranked = ranking.rank(judged.probabilities[:, label], labels == label)
      x, y = draw(ranked)
      found.append(Curve(classes[label], x, y, area))
    return found

  average = "all classes"
  precision_recall, roc = [], []
  area, auc = ranking.average_precision(micro), ranking.roc_auc(micro)
  if area is not None and auc is not None:
    precision_recall = [Curve(average, *ranking.precision_recall(micro), area)]
    roc = [Curve(average, *ranking.roc(micro), auc)]
  precision_recall += drawn(precisions, ranking.precision_recall)
  return precision_recall, roc + drawn(aucs, ranking.roc), rows


def _smallest(areas: Sequence[float | None]) -> list[tuple[int, float]]:
  """Labels and areas, the smallest `CURVES` of those that there are, the smallest first."""
  there = [(label, area) for label, area in enumerate(areas) if area is not None]
  return sorted(there, key=lambda pair: pair[1])[:CURVES]
