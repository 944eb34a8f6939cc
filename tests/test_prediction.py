"""What is told of an image: the best classes, none of them, or why there is no answer."""

import types

import numpy as np
import pytest

from imgclf import prediction
from imgclf.classifier import Answers
from imgclf.errors import UserError
from imgclf.prediction import Prediction, Teller

CLASSES = ("cat", "dog", "fox")
ROWS = np.array([[0.2, 0.7, 0.1], [0.4, 0.2, 0.4], [0.25, 0.25, 0.5]], np.float32)


def told(top_k=2, threshold=None, features=None):
  """Five inputs, of which the second, third and fifth have answers."""
  inputs = types.SimpleNamespace(names=list("abcde"), errors={0: "a: gone", 3: "d: broken"})
  answers = Answers(0, 5, np.array([1, 2, 4]), np.zeros((3, 2, 2, 3), np.uint8), ROWS, features)
  return Teller(CLASSES, top_k, threshold).tell(answers, inputs)


def test_every_input_has_its_place_and_the_best_classes_come_first():
  assert told() == [
    Prediction("a", None, None, (), "a: gone"),
    Prediction("b", "dog", 0.7, (("dog", 0.7), ("cat", 0.2))),
    # Of equals the lower label.
    Prediction("c", "cat", 0.4, (("cat", 0.4), ("fox", 0.4))),
    Prediction("d", None, None, (), "d: broken"),
    Prediction("e", "fox", 0.5, (("fox", 0.5), ("cat", 0.25))),
  ]
  for place, row in zip((1, 2, 4), ROWS):
    np.testing.assert_array_equal(told()[place].probabilities, row)
  assert told()[0].probabilities is None and told()[1].features is None


def test_a_batch_may_begin_anywhere():
  inputs = types.SimpleNamespace(names=list("abcde"), errors={4: "e: gone"})
  answers = Answers(3, 5, np.array([3]), np.zeros((1, 2, 2, 3), np.uint8), ROWS[:1], None)
  assert [each.name for each in Teller(CLASSES, 1, None).tell(answers, inputs)] == ["d", "e"]


def test_all_classes_are_told_where_there_are_no_more():
  assert [label for label, _ in told(top_k=99)[1].top] == ["dog", "cat", "fox"]


@pytest.mark.parametrize(
  ("threshold", "labels"),
  [
    (0.0, ["dog", "cat", "fox"]),
    (0.4, ["dog", "cat", "fox"]),  # 0.4 is not below 0.4, though float32's is above float64's
    (0.45, ["dog", None, "fox"]),
    (0.7, ["dog", None, None]),
    (0.71, [None, None, None]),
    (1.0, [None, None, None]),
  ],
)
def test_below_the_threshold_an_image_is_none_and_keeps_its_probabilities(threshold, labels):
  read = [each for each in told(threshold=threshold) if each.error is None]
  assert [each.label for each in read] == labels
  assert [each.is_none for each in read] == [label is None for label in labels]
  assert [each.top for each in read] == [each.top for each in told() if each.error is None]
  assert [each.probability for each in read] == [0.7, 0.4, 0.5]


def test_what_cannot_be_read_is_not_none_of_the_classes():
  assert [each.is_none for each in told(threshold=1.0)] == [False, True, True, False, True]


def test_features_go_along():
  features = np.arange(6, dtype=np.float32).reshape(3, 2)
  assert [
    None if f is None else f.tolist() for f in (each.features for each in told(features=features))
  ] == [None, [0, 1], [2, 3], None, [4, 5]]


@pytest.mark.parametrize(
  ("top_k", "threshold", "words"),
  [
    (0, None, "--top_k=0: must be at least 1"),
    (-3, 0.5, "--top_k=-3"),
    (1, 1.01, "--threshold=1.01: is a probability; give 0 to 1"),
    (1, -0.1, "--threshold=-0.1"),
    (1, float("nan"), "--threshold=nan"),
  ],
)
def test_numbers_without_a_meaning_are_refused(top_k, threshold, words):
  with pytest.raises(UserError, match=f"^{words}"):
    prediction.check(top_k, threshold, flag="--")
  with pytest.raises(UserError, match=f"^{words[2:]}"):
    prediction.check(top_k, threshold)
  prediction.check(1, 0.0)
  prediction.check(1, 1.0)
