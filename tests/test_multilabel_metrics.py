"""The figures of several classes an image are those by hand and scikit-learn's."""

import dataclasses
import math

import numpy as np
import pytest
from sklearn import metrics as reference

from imgclf.multilabel_metrics import Answers, average_precision, figures


def answers(label, logits, **columns):
  label = np.array(label, np.uint8)
  made = Answers(
    index=np.arange(len(label)),
    label=label,
    logits=np.array(logits, np.float32),
    loss=np.arange(len(label), dtype=np.float32),
    read=np.ones(len(label), bool),
  )
  return dataclasses.replace(made, **columns)


def drawn(n=200, classes=6, decimals=1, seed=0):
  """Logits that know something of the labels; few decimals make many ties.

  The last class is on no image.
  """
  rng = np.random.default_rng(seed)
  label = rng.random((n, classes)) < np.linspace(0.05, 0.6, classes)
  label[:, -1] = False
  logits = np.round(rng.normal(size=(n, classes)) + 1.5 * label - 1, decimals)
  return answers(label, logits)


@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_figures_are_scikit_learns_ties_and_all(decimals):
  given = drawn(decimals=decimals)
  found = figures(given, "abcdef")
  label, said = given.label, given.logits >= 0
  # The last class has no positives: scikit-learn would make 0 of it, with a warning.
  macro = reference.average_precision_score(label[:, :5], given.logits[:, :5], average="macro")
  assert found["mAP"] == pytest.approx(macro, abs=1e-12)
  each = reference.average_precision_score(label[:, :5], given.logits[:, :5], average=None)
  rows = found["per_class"]
  assert [row["average_precision"] for row in rows[:5]] == pytest.approx(each, abs=1e-12)
  assert rows[5]["average_precision"] is None
  for average, name in (("micro", "f1_micro"), ("macro", "f1_macro")):
    f1 = reference.f1_score(label, said, average=average, zero_division=0)
    assert found[name] == pytest.approx(f1, abs=1e-12)
  told = reference.precision_recall_fscore_support(label, said, average=None, zero_division=0)
  for values, name in zip(told, ("precision", "recall", "f1", "n")):
    assert [row[name] for row in rows] == pytest.approx(values, abs=1e-12)
  assert found["exact_match"] == pytest.approx(reference.accuracy_score(label, said))
  assert found["labels_per_image"] == pytest.approx(label.sum() / len(label))
  assert found["loss"] == pytest.approx(np.arange(200).mean())


def test_figures_by_hand():
  label = [[1, 0], [0, 0], [1, 1], [0, 0]]
  logits = [[2, -1], [3, -2], [1, 4], [-1, 0]]
  found = figures(answers(label, logits), ["a", "b"])
  # a: ranked 1, 0, 2, 3; found at places 2 and 3: (1/2 + 2/3) / 2. b: found at place 1.
  assert found["per_class"][0]["average_precision"] == pytest.approx(7 / 12)
  assert found["per_class"][1]["average_precision"] == 1
  assert found["mAP"] == pytest.approx((7 / 12 + 1) / 2)
  # Said: a of 0, 1, 2; b of 2 and 3 (0 is said). Right: a twice, b once, of 3 there and 5 said.
  assert found["f1_micro"] == pytest.approx(2 * 3 / (3 + 5))
  assert found["f1_macro"] == pytest.approx((4 / 5 + 2 / 3) / 2)
  assert found["exact_match"] == 2 / 4
  assert found["n"] == 4 and found["unreadable"] == 0 and found["labels_per_image"] == 3 / 4


def test_the_order_of_the_rows_changes_no_bit():
  given = drawn()
  order = np.random.default_rng(1).permutation(200)
  columns = {f.name: getattr(given, f.name)[order] for f in dataclasses.fields(given)}
  assert figures(Answers(**columns), "abcdef") == figures(given, "abcdef")


def test_an_image_that_could_not_be_read_is_wrong_and_its_classes_are_missed():
  label = [[1, 0], [1, 1], [0, 0]]
  # Logits and loss of the last two say nothing.
  logits = [[2, -1], [math.nan, 9], [-1, -1]]
  read = np.array([True, False, False])
  found = figures(answers(label, logits, read=read), ["a", "b"])
  assert (found["n"], found["unreadable"]) == (3, 2)
  assert found["exact_match"] == 1 / 3  # the third would be right had it been read
  assert found["per_class"][0] | {"name": ""} == {
    **{"name": "", "n": 2, "average_precision": 0.5},
    **{"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3)},
  }
  assert found["per_class"][1]["average_precision"] == 0
  assert found["mAP"] == 0.25
  assert found["loss"] == 0


def test_of_a_split_without_any_class_there_is_no_map():
  found = figures(answers([[0, 0]] * 3, [[-1, -1]] * 3), ["a", "b"])
  assert math.isnan(found["mAP"])
  assert found["f1_micro"] == found["f1_macro"] == 0
  assert found["exact_match"] == 1


def test_a_class_on_every_image_has_an_average_precision_of_1():
  scores, there = np.array([1.0, 2.0, 2.0]), np.ones(3, bool)
  assert average_precision(scores, there, 3) == 1
  assert reference.average_precision_score(there, scores) == 1


def test_nan_is_no_rank():
  found = figures(answers([[1, 1], [0, 1]], [[math.nan, 1], [0, 2]]), ["a", "b"])
  assert math.isnan(found["per_class"][0]["average_precision"])
  assert math.isnan(found["mAP"])
  assert found["per_class"][1]["average_precision"] == 1


@pytest.mark.parametrize(
  ("columns", "words"),
  [
    ({"index": np.array([0, 0])}, "1 predictions repeat an example"),
    ({"index": np.array([0, 2])}, "are not of examples 0 to 1"),
    ({"label": np.ones((2, 3), np.uint8)}, "are not of 2 classes"),
    ({"loss": np.ones((2, 2))}, r"predictions.loss has the shape \(2, 2\)"),
  ],
)
def test_an_example_that_is_lost_twice_there_or_of_another_shape_is_an_error(columns, words):
  with pytest.raises(ValueError, match=words):
    figures(dataclasses.replace(answers(np.eye(2), np.eye(2)), **columns), ["a", "b"])
