"""Answers on images of several classes in, the figures of an evaluation out; numpy on the host.

Knows no model, device or file, as imgclf/metrics.py, which counts images of one class each.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from imgclf import metrics, ranking


@dataclasses.dataclass(frozen=True)
class Answers:
  """What a model said of each example of a split; one row an example, in any order.

  Attributes:
    index: [n] integer, position of the example in the split.
    label: [n, classes] uint8, 1 where an image has a class.
    logits: [n, classes] float32; a class is said to be there from 0 on, a probability of 1/2.
    loss: [n] float, binary cross-entropy in nats, the mean over classes.
    read: [n] bool, False for an image that could not be read, whose logits and loss say nothing.
  """

  index: np.ndarray
  label: np.ndarray
  logits: np.ndarray
  loss: np.ndarray
  read: np.ndarray


def figures(answers: Answers, classes: Sequence[str]) -> dict[str, Any]:
  """Returns the figures of an evaluation as plain Python values, in the layout of `eval/*.json`.

  A class's average precision is scikit-learn's `average_precision_score`, exact and with ties;
  their mean runs over the classes that some image has. Precision, recall and F1 are those of saying
  a class from a probability of 1/2 on, and 0 where their denominator is 0. Their macro averages run
  over the classes that some image has or that are said of some, as in `imgclf.metrics.figures`. The
  order of the rows changes no bit of the result. What is NaN makes `loss` and the average
  precisions of its classes, and their mean, NaN.

  An image that could not be read is a wrong answer that says no class: it is in `n`, and its
  classes are missed. It has no place in a ranking, and the classes that it has are never found
  there.

  Args:
    answers: every example of the split once.
    classes: the names of all classes; a label is a row over it.

  Returns:
    n, unreadable, loss: as in `imgclf.metrics.figures`, the loss being the binary cross-entropy.
    mAP: mean of the average precisions; NaN if no image has a class. exact_match: share of n of the
    images whose classes are all said, and no other. f1_micro: F1 of all decisions taken together.
    precision_macro, recall_macro, f1_macro: see above. labels_per_image: mean number of classes
    that an image has. per_class: one of {name, n, average_precision, precision, recall, f1} for
    each class; n counts the images that have
      it, and average_precision is None where none has.

  Raises:
    ValueError: as `imgclf.metrics.figures`.
  """
  answers = metrics.in_order(answers)
  n, read = len(answers.index), answers.read
  if answers.label.shape != (n, len(classes)) or answers.logits.shape != (n, len(classes)):
    raise ValueError(
      f"labels {answers.label.shape} and logits {answers.logits.shape} are not of {len(classes)} classes"
    )
  there, said = answers.label > 0, (answers.logits >= 0) & read[:, None]
  actual, claimed = there.sum(axis=0), said.sum(axis=0)
  hits = (there & said).sum(axis=0)
  precision, recall = metrics.ratio(hits, claimed), metrics.ratio(hits, actual)
  f1 = metrics.ratio(2 * hits, actual + claimed)
  occurs = actual + claimed > 0
  precisions = [
    average_precision(answers.logits[read, label], there[read, label], int(actual[label]))
    for label in range(len(classes))
  ]
  found = [value for value in precisions if value is not None]
  macro = {
    name: float(values[occurs].mean()) if occurs.any() else 0.0
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1))
  }
  return {
    "n": n,
    "unreadable": n - int(read.sum()),
    "loss": float(np.mean(answers.loss[read], dtype=np.float64)) if read.any() else math.nan,
    "mAP": float(np.mean(found)) if found else math.nan,
    "exact_match": int((np.all(there == said, axis=1) & read).sum()) / n,
    "f1_micro": float(
      metrics.ratio(2 * hits.sum(keepdims=True), (actual + claimed).sum(keepdims=True))[0]
    ),
    **{f"{name}_macro": value for name, value in macro.items()},
    "labels_per_image": float(actual.sum() / n),
    "per_class": [
      {
        "name": name,
        "n": int(actual[label]),
        "average_precision": precisions[label],
        "precision": float(precision[label]),
        "recall": float(recall[label]),
        "f1": float(f1[label]),
      }
      for label, name in enumerate(classes)
    ],
  }


def average_precision(scores: np.ndarray, positive: np.ndarray, positives: int) -> float | None:
  """Returns a class's average precision; None where no example has it, NaN for a score that is no
  number.

  Args:
    scores: [n] floats, of the examples that were ranked.
    positive: [n] bool, those that have the class.
    positives: how many have it, those that were not ranked among them.
  """
  if not positives:
    return None
  if np.isnan(scores).any():
    return math.nan
  share = np.count_nonzero(positive) / positives
  if not share or positive.all():
    return share
  ranked = ranking.average_precision(ranking.rank(scores, positive))
  assert ranked is not None
  return share * ranked
