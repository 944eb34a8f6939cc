"""Which checkpoints stay, by steps and scores alone."""

import itertools
import math

import pytest

from imgclf.retention import ranking, retained


def test_the_newest_stays_whatever_the_scores():
  for scores in ({1: 5.0, 2: 4.0}, {1: -math.inf, 2: -math.inf}, {2: 0.0}):
    assert 2 in retained(scores, latest=1, best=0, every=None)
  assert retained({}, latest=2, best=1, every=3) == set()
  assert retained({4: 1.0}, latest=5, best=5, every=None) == {4}


@pytest.mark.parametrize(
  ("scores", "ranked"),
  [
    ({}, []),
    ({1: 0.1, 2: 0.3, 3: 0.2}, [2, 3, 1]),
    ({3: 0.5, 1: 0.5, 2: 0.5}, [1, 2, 3]),  # of equals the earlier, in whatever order they come
    ({1: -math.inf, 2: -5.0, 3: math.nan}, [2]),
  ],
)
def test_the_ranking_is_best_first_and_leaves_out_what_has_no_score(scores, ranked):
  assert ranking(scores) == ranked


@pytest.mark.parametrize(
  ("latest", "best", "every", "kept"),
  [
    (1, 0, None, {8}),
    (3, 0, None, {6, 7, 8}),
    (1, 1, None, {2, 8}),
    (1, 3, None, {2, 3, 5, 8}),
    # The first at or after 4 and 8; none for 0.
    (1, 0, 4, {5, 8}),
    (1, 0, 3, {3, 6, 8}),
    (2, 1, 4, {2, 5, 7, 8}),
    (1, 0, 100, {8}),
    (9, 9, 1, {1, 2, 3, 5, 6, 7, 8}),
  ],
)
def test_what_stays_is_the_latest_the_best_and_one_an_interval(latest, best, every, kept):
  scores = {1: 0.1, 2: 0.9, 3: 0.8, 5: 0.7, 6: math.nan, 7: 0.2, 8: 0.3}
  assert retained(scores, latest=latest, best=best, every=every) == kept
  # In whatever order the steps come.
  for order in itertools.islice(itertools.permutations(scores), 0, 5040, 500):
    shuffled = {step: scores[step] for step in order}
    assert retained(shuffled, latest=latest, best=best, every=every) == kept
