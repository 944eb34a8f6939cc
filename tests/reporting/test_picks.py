"""Who is shown: orders by hand, and label errors that were planted in real digits."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_predict

from imgclf.reporting import picks


def test_mistakes_come_with_the_most_confident_first():
  labels, predicted = np.array([0, 1, 1, 0, 1]), np.array([0, 0, 1, 1, 0])
  confidence = np.array([0.9, 0.6, 0.8, 0.7, 0.6])
  assert picks.confident_mistakes(labels, predicted, confidence).tolist() == [3, 1, 4]


@pytest.mark.parametrize("block", [3, 1 << 20])
def test_the_least_certain_have_two_classes_close_together(monkeypatch, block):
  monkeypatch.setattr(picks, "_BLOCK", block)
  rows = np.array([[0.8, 0.15, 0.05], [0.4, 0.25, 0.35], [0.45, 0.45, 0.1], [0.05, 0.55, 0.4]])
  assert picks.least_certain(rows, 3).tolist() == [2, 1, 3]
  assert picks.least_certain(rows, 9).tolist() == [2, 1, 3, 0]


@pytest.mark.parametrize("block", [3, 1 << 20])
def test_label_errors_by_hand(monkeypatch, block):
  """Thresholds: class 0 (0.9 + 0.5 + 0.1) / 3 = 0.5, class 1 (0.8 + 0.6 + 0.4) / 3 = 0.6; class 2
  has no example."""
  monkeypatch.setattr(picks, "_BLOCK", block)
  rows = np.array(
    [
      *([0.9, 0.1, 0.0], [0.5, 0.1, 0.4]),
      [0.1, 0.7, 0.2],  # reaches 1's threshold alone: likely a 1
      *([0.1, 0.8, 0.1], [0.4, 0.6, 0.0]),
      [0.52, 0.4, 0.08],  # reaches 0's threshold, by less
    ]
  )
  labels = np.array([0, 0, 0, 1, 1, 1])
  assert picks.likely_label_errors(rows, labels).tolist() == [2, 5]
  # Whatever is said of class 2, there is no threshold for it; and 0.45 reaches none.
  rows[2], rows[5] = [0.0, 0.0, 1.0], [0.45, 0.4, 0.15]
  assert picks.likely_label_errors(rows, labels).tolist() == []


def test_where_two_thresholds_are_reached_the_larger_probability_counts():
  rows = np.array([[0.45, 0.55], [0.4, 0.6], [0.35, 0.65], [0.8, 0.2]])
  labels = np.array([0, 0, 1, 1])
  # Thresholds (0.45 + 0.4) / 2 = 0.425 and (0.65 + 0.2) / 2 = 0.425: the first example reaches
  # both.
  assert picks.likely_label_errors(rows, labels).tolist() == [3, 1, 0]


def test_labels_that_were_planted_in_digits_are_found():
  images, truth = load_digits(return_X_y=True)
  rng = np.random.default_rng(0)
  planted = rng.choice(len(truth), 40, replace=False)
  labels = truth.copy()
  labels[planted] = (truth[planted] + rng.integers(1, 10, 40)) % 10
  model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
  probabilities = cross_val_predict(model, images, labels, cv=5, method="predict_proba")
  found = picks.likely_label_errors(probabilities, labels)
  assert len(set(found) & set(planted)) >= 36
  # Most of the likeliest are planted ones, the rest digits that a linear model takes for others.
  # Chance: one.
  assert len(set(found[:40]) & set(planted)) > 28


def test_confused_pairs_come_with_the_largest_first():
  labels, predicted = np.array([0, 0, 1, 2, 2, 0, 1]), np.array([1, 1, 0, 0, 2, 1, 1])
  confidence = np.array([0.5, 0.9, 0.4, 0.3, 0.9, 0.7, 0.9])
  pairs = picks.confused_pairs(labels, predicted, confidence, 3)
  assert [(t, p, places.tolist()) for t, p, places in pairs] == [
    (0, 1, [1, 5, 0]),
    (1, 0, [2]),
    (2, 0, [3]),
  ]


def test_of_many_confused_pairs_200_are_kept():
  labels = np.arange(300)
  pairs = picks.confused_pairs(labels, (labels + 1) % 300, np.full(300, 0.5), 300)
  assert len(pairs) == 200
  assert pairs[0][:2] == (0, 1)
