"""Figures, diagrams and tables of made-up answers, against scikit-learn and by hand."""

import itertools

import numpy as np
import pytest
from sklearn import metrics as reference

from imgclf import metrics
from imgclf.reporting import answers
from imgclf.reporting.judging import Judged, Temperature

CLASSES = ["ant", "bee", "cat", "dog"]


def judged(n=300, seed=0, unread=()):
  """Answers of a model that is right in two of three cases; class `dog` never is the truth."""
  rng = np.random.default_rng(seed)
  label = rng.integers(0, 3, n).astype(np.int32)
  logits = rng.normal(size=(n, 4))
  logits[np.arange(n), label] += 1.5
  probabilities = np.exp(logits)
  probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
  predicted = probabilities.argmax(axis=1).astype(np.int32)
  predicted[list(unread)] = -1
  rows = metrics.Predictions(
    index=np.arange(n),
    label=label,
    predicted=predicted,
    in_top5=np.ones(n, bool),
    loss=-np.log(probabilities[np.arange(n), label]),
    confidence=probabilities.max(axis=1),
  )
  places = np.flatnonzero(predicted != -1)
  return Judged(rows, rows, places, probabilities[places])


def test_the_summary_has_each_figure_within_its_interval():
  rows = judged().after
  figures = metrics.figures(rows, CLASSES)
  found = answers.summary(rows, CLASSES)
  assert [figure.name for figure in found] == list(answers.SUMMARY)
  for figure in found:
    assert figure.value == figures[figure.name]
    if figure.name == "top5_accuracy":  # all of four classes are among the five first
      assert (figure.low, figure.high) == (pytest.approx(0.025 ** (1 / 300)), 1)
    else:
      assert figure.low <= figure.value <= figure.high
      assert figure.high > figure.low


def test_the_bins_hold_what_the_calibration_error_is_made_of():
  case = judged(unread=[3, 70])
  bins = answers.reliability(case.after)
  assert len(bins) == 15 and sum(b.n for b in bins) == 298
  assert (bins[0].low, bins[-1].high) == (0, 1)
  assert all(one.high == two.low for one, two in itertools.pairwise(bins))
  ece = sum(b.n * abs(b.confidence - b.accuracy) for b in bins if b.n) / 298
  figures = metrics.figures(case.after, CLASSES)
  assert ece == pytest.approx(figures["ece"], abs=1e-12)
  # Four probabilities that sum to 1 have one of a quarter at least.
  assert [(b.n, b.confidence, b.accuracy) for b in bins[:3]] == [(0, None, None)] * 3
  for b in bins:
    assert b.n == 0 or b.low < b.confidence <= b.high
  told = answers.calibration(case, Temperature(1.5, "validation", 10, {}, None))
  assert (told.temperature, told.fitted_on, told.fitted_n) == (1.5, "validation", 10)
  assert (told.ece_after, told.loss_after) == pytest.approx((figures["ece"], figures["loss"]))


def test_rows_of_classes_have_scikit_learns_areas():
  case = judged(unread=[3, 70])
  labels = case.after.label[case.places]
  _, _, rows = answers.curves_and_classes(case, CLASSES)
  for label, row in enumerate(rows[:3]):
    own = case.probabilities[:, label]
    assert row.average_precision == pytest.approx(
      reference.average_precision_score(labels == label, own), abs=1e-9
    )
    assert row.roc_auc == pytest.approx(reference.roc_auc_score(labels == label, own), abs=1e-9)
  assert sum(row.n for row in rows) == 300
  assert rows[3].name == "dog" and rows[3].n == 0
  assert (rows[3].average_precision, rows[3].roc_auc, rows[3].confused_with) == (None, None, None)
  wrong = case.after.predicted[(case.after.label == 0) & (case.after.predicted > 0)]
  assert rows[0].confused_with == CLASSES[np.bincount(wrong).argmax()]


def test_curves_are_the_micro_average_and_the_classes_with_the_smallest_areas():
  case = judged()
  labels = case.after.label
  right = np.eye(4, dtype=bool)[labels]
  precision_recall, roc, rows = answers.curves_and_classes(case, CLASSES)
  assert precision_recall[0].name == roc[0].name == "all classes"
  assert precision_recall[0].area == pytest.approx(
    reference.average_precision_score(right, case.probabilities, average="micro"), abs=1e-9
  )
  flat = right.ravel(), case.probabilities.ravel()
  assert roc[0].area == pytest.approx(reference.roc_auc_score(*flat), abs=1e-9)
  areas = {row.name: row.roc_auc for row in rows if row.roc_auc is not None}
  assert [curve.name for curve in roc[1:]] == sorted(areas, key=areas.get)
  assert len(precision_recall) == 4  # class `dog` has none


def test_of_many_classes_nine_are_drawn():
  n, classes = 400, 30
  rng = np.random.default_rng(1)
  probabilities = rng.dirichlet(np.ones(classes), n).astype(np.float32)
  label = rng.integers(0, classes, n)
  rows = metrics.Predictions(
    np.arange(n), label, probabilities.argmax(axis=1), label > 5, np.ones(n), probabilities.max(1)
  )
  case = Judged(rows, rows, np.arange(n), probabilities)
  precision_recall, roc, table = answers.curves_and_classes(case, [str(k) for k in range(classes)])
  assert len(precision_recall) == len(roc) == 10
  assert max(c.area for c in roc[1:]) <= sorted(row.roc_auc for row in table)[8]
