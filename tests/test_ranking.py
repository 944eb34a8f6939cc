"""Curves and areas are scikit-learn's, ties and all, and what is drawn lies on them."""

import numpy as np
import pytest
from sklearn import metrics as reference

from imgclf import ranking


def case(n, share, decimals, seed=0):
  """Scores that tell something of the class; few decimals make many ties."""
  rng = np.random.default_rng(seed)
  positive = rng.random(n) < share
  return np.round(rng.random(n) * 0.8 + 0.2 * positive, decimals).astype(np.float32), positive


CASES = [(2000, 0.3, 7), (2000, 0.01, 7), (500, 0.5, 1), (30, 0.2, 1), (3000, 0.9, 2)]


@pytest.mark.parametrize("arguments", CASES)
def test_areas_are_scikit_learns(arguments):
  scores, positive = case(*arguments)
  ranked = ranking.rank(scores, positive)
  assert ranking.average_precision(ranked) == pytest.approx(
    reference.average_precision_score(positive, scores), abs=1e-12
  )
  assert ranking.roc_auc(ranked) == pytest.approx(
    reference.roc_auc_score(positive, scores), abs=1e-12
  )


def test_areas_by_hand():
  """Scores 4 3 2 2 1 of + - + - +: precisions 1, 2/4 (with its tie), 3/5; of six pairs 3 right, 1
  tied."""
  ranked = ranking.rank(np.array([4, 3, 2, 2, 1]), np.array([True, False, True, False, True]))
  assert ranking.average_precision(ranked) == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
  assert ranking.roc_auc(ranked) == pytest.approx((2 + 0.5) / 6)
  recall, precision = ranking.precision_recall(ranked)
  assert recall == pytest.approx([0, 1 / 3, 2 / 3, 1])
  assert precision == pytest.approx([1, 1, 1 / 2, 3 / 5])
  x, y = ranking.roc(ranked)
  assert list(zip(x, y)) == [
    *[(0, 0), (0, 0), (0, pytest.approx(1 / 3)), (0.5, pytest.approx(1 / 3))],
    *[(1, pytest.approx(2 / 3)), (1, pytest.approx(2 / 3)), (1, 1), (1, 1)],
  ]


@pytest.mark.parametrize("arguments", CASES)
def test_what_is_drawn_lies_on_scikit_learns_curves(arguments):
  scores, positive = case(*arguments)
  ranked = ranking.rank(scores, positive)
  x, y = ranking.roc(ranked)
  assert len(x) <= ranking.POINTS
  assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
  false, true, _ = reference.roc_curve(positive, scores, drop_intermediate=False)
  for point in zip(x, y):
    # Between two scores of positive examples the reference has more points, on the same straight
    # lines.
    assert np.hypot(false - point[0], true - point[1]).min() < 1e-9 or np.any(
      np.isclose(true, point[1])
    )
  recall, precision = ranking.precision_recall(ranked)
  assert len(recall) <= ranking.POINTS
  assert (recall[0], recall[-1]) == (0, 1)
  known = reference.precision_recall_curve(positive, scores)
  for point in zip(recall[1:], precision[1:]):
    assert np.hypot(known[1] - point[0], known[0] - point[1]).min() < 1e-9


def test_thinned_curves_have_nearly_the_area_of_the_whole_one():
  scores, positive = case(20000, 0.4, 7)
  ranked = ranking.rank(scores, positive)
  x, y = ranking.roc(ranked)
  assert len(x) > 150
  assert reference.auc(x, y) == pytest.approx(ranking.roc_auc(ranked), abs=1e-3)


@pytest.mark.parametrize("positive", [[True] * 3, [False] * 3])
def test_without_both_kinds_there_is_no_area(positive):
  ranked = ranking.rank(np.array([0.1, 0.2, 0.3]), np.array(positive))
  assert ranking.average_precision(ranked) is None
  assert ranking.roc_auc(ranked) is None
