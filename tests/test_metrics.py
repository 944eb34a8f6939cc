"""The figures of an evaluation against scikit-learn, and against small examples worked out by
hand."""

import dataclasses
from fractions import Fraction
import json
import math

import numpy as np
import pytest
from sklearn import metrics as reference

from imgclf import metrics

NAMES = [f"class {i}" for i in range(1000)]


def predictions(label, predicted, *, in_top5=None, loss=None, confidence=None, index=None):
  n = len(label)
  return metrics.Predictions(
    index=np.arange(n) if index is None else np.asarray(index),
    label=np.asarray(label, np.int32),
    predicted=np.asarray(predicted, np.int32),
    in_top5=np.ones(n, bool) if in_top5 is None else np.asarray(in_top5),
    loss=np.zeros(n, np.float32) if loss is None else np.asarray(loss, np.float32),
    confidence=np.ones(n, np.float32) if confidence is None else np.asarray(confidence, np.float32),
  )


def of_logits(logits, label):
  """Predictions from logits by definition, in float64."""
  label = np.asarray(label)
  shares = np.exp(logits - logits.max(axis=1, keepdims=True))
  shares /= shares.sum(axis=1, keepdims=True)
  ranked = np.argsort(-logits, axis=1)
  return shares, predictions(
    label,
    ranked[:, 0],
    in_top5=(ranked[:, :5] == label[:, None]).any(axis=1),
    loss=-np.log(shares[np.arange(len(label)), label]),
    confidence=shares.max(axis=1),
  )


def random_case(n, classes, label_classes, seed):
  rng = np.random.default_rng(seed)
  label = rng.integers(0, label_classes, n)
  logits = rng.normal(size=(n, classes))
  logits[np.arange(n), label] += 1.5
  return label, *of_logits(logits, label)


def shuffled(rows, seed):
  order = np.random.default_rng(seed).permutation(len(rows.index))
  columns = dataclasses.asdict(rows).items()
  return metrics.Predictions(**{k: v[order] for k, v in columns if v is not None})


# The third case has classes that never are the truth, the last ones that never occur at all.
@pytest.mark.parametrize(
  ("n", "classes", "label_classes"),
  [(500, 10, 10), (7, 2, 2), (300, 12, 5), (2000, 1000, 1000), (50, 1000, 20)],
)
def test_figures_equal_scikit_learn(n, classes, label_classes):
  label, shares, rows = random_case(n, classes, label_classes, seed=n + classes)
  found = metrics.figures(rows, NAMES[:classes])
  every = list(range(classes))
  assert found["n"] == n
  assert found["accuracy"] == pytest.approx(
    reference.accuracy_score(label, rows.predicted), abs=1e-12
  )
  assert found["loss"] == pytest.approx(reference.log_loss(label, shares, labels=every), abs=1e-6)
  if classes > 5:
    top5 = reference.top_k_accuracy_score(label, shares, k=5, labels=every)
    assert found["top5_accuracy"] == pytest.approx(top5, abs=1e-12)
  macro = reference.precision_recall_fscore_support(
    label, rows.predicted, average="macro", zero_division=0
  )
  for key, expected in zip(("precision_macro", "recall_macro", "f1_macro"), macro):
    assert found[key] == pytest.approx(expected, abs=1e-12)
  per_class = reference.precision_recall_fscore_support(
    label, rows.predicted, labels=every, zero_division=0
  )
  for key, expected in zip(("precision", "recall", "f1", "n"), per_class):
    np.testing.assert_allclose([row[key] for row in found["per_class"]], expected, atol=1e-12)
  confusion = reference.confusion_matrix(label, rows.predicted, labels=every)
  assert found["confusion_matrix"] == confusion.tolist()


def test_three_classes_worked_out_by_hand():
  # Truth against prediction: cat 2 right, 1 called dog; dog 1 right; owl never right, called cat
  # once.
  rows = predictions(
    [0, 0, 0, 1, 2],
    [0, 0, 1, 1, 0],
    in_top5=[True, True, True, True, False],
    loss=[0.5, 0.25, 1.0, 0.25, 3.0],
  )
  found = metrics.figures(rows, ["cat", "dog", "owl"])
  assert found["confusion_matrix"] == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]
  assert (found["n"], found["loss"], found["accuracy"]) == (5, 1.0, 0.6)
  assert found["top5_accuracy"] == 0.8
  # precision cat 2/3, dog 1/2, owl 0/0; recall 2/3, 1, 0; F1 2/3, 2/3, 0.
  assert found["precision_macro"] == pytest.approx((2 / 3 + 1 / 2) / 3)
  assert found["recall_macro"] == pytest.approx((2 / 3 + 1) / 3)
  assert found["recall_worst"] == 0
  # A class without examples has no recall.
  seen = predictions([0, 0, 1], [0, 1, 1], in_top5=[True] * 3, loss=[1.0] * 3)
  assert metrics.figures(seen, ["cat", "dog", "owl"])["recall_worst"] == 0.5
  assert found["f1_macro"] == pytest.approx(4 / 9)
  assert found["per_class"][1] == {
    "name": "dog",
    "n": 1,
    "precision": 0.5,
    "recall": 1.0,
    "f1": pytest.approx(2 / 3),
  }
  assert found["per_class"][2] == {
    "name": "owl",
    "n": 1,
    "precision": 0.0,
    "recall": 0.0,
    "f1": 0.0,
  }


def test_a_class_that_never_occurs_is_listed_but_not_averaged():
  found = metrics.figures(predictions([0, 0], [0, 0]), ["cat", "dog"])
  assert found["f1_macro"] == 1.0
  assert found["per_class"][1] == {
    "name": "dog",
    "n": 0,
    "precision": 0.0,
    "recall": 0.0,
    "f1": 0.0,
  }


def test_a_single_class_and_a_single_example():
  found = metrics.figures(predictions([0], [0], loss=[0.0]), ["cat"])
  assert (found["accuracy"], found["f1_macro"], found["ece"]) == (1.0, 1.0, 0.0)
  assert found["confusion_matrix"] == [[1]]


def test_calibration_error_worked_out_by_hand():
  # Bin (0.6, 0.667]: confidences 0.625, 0.640625, one of two right: |1 - 1.265625| = 0.265625.
  # Bin (0.933, 1]: confidences 1 and 0.9375, one of two right: |1 - 1.9375| = 0.9375.
  rows = predictions([0, 0, 0, 0], [0, 1, 0, 1], confidence=[0.625, 0.640625, 1.0, 0.9375])
  assert metrics.figures(rows, NAMES[:2])["ece"] == pytest.approx(1.203125 / 4, abs=1e-12)


def test_calibration_error_equals_the_definition_in_exact_fractions():
  rng = np.random.default_rng(3)
  confidence = rng.uniform(0, 1, 400).astype(np.float32)
  correct = rng.uniform(size=400) < 0.7
  bins: dict[int, list[tuple[Fraction, bool]]] = {}
  for c, right in zip(confidence, correct):
    share = Fraction(float(c))
    bins.setdefault(math.ceil(share * 15), []).append((share, bool(right)))
  expected = sum(
    Fraction(len(rows), 400)
    * abs(Fraction(sum(r for _, r in rows), len(rows)) - sum(c for c, _ in rows) / len(rows))
    for rows in bins.values()
  )
  found = metrics.expected_calibration_error(confidence, correct)
  assert found == pytest.approx(float(expected), abs=1e-12)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
  # 1/3 = 5/15 is an edge. Wrong there and right just above it, the gaps add up in two bins
  # (1/3 + 0.64) / 2; in one bin they would cancel to |1 - 0.693| / 2 = 0.153.
  confidence = np.array([5 / 15, 0.36])
  found = metrics.expected_calibration_error(confidence, np.array([False, True]))
  assert found == pytest.approx((1 / 3 + 0.64) / 2)


def test_confidences_of_zero_and_just_above_one_are_counted():
  confidence = np.array([0.0, np.nextafter(np.float32(1), np.float32(2))], np.float32)
  found = metrics.expected_calibration_error(confidence, np.array([False, True]))
  assert found == pytest.approx(0.0, abs=1e-6)


def test_the_order_of_arrival_changes_no_bit():
  _, _, rows = random_case(5000, 10, 10, seed=1)
  # Losses of a trained network span many orders of magnitude, and their sums round.
  small = np.float32(10) ** np.random.default_rng(4).uniform(-12, 1, 5000).astype(np.float32)
  rows = dataclasses.replace(rows, loss=small)
  expected = json.dumps(metrics.figures(rows, NAMES[:10]))
  for seed in range(5):
    assert json.dumps(metrics.figures(shuffled(rows, seed), NAMES[:10])) == expected
  # The order matters to a plain sum, or this test could not fail.
  sums = {float(np.mean(shuffled(rows, seed).loss, dtype=np.float64)) for seed in range(20)}
  assert len(sums) > 1


def test_an_example_counted_twice_is_refused():
  with pytest.raises(ValueError, match="1 predictions repeat an example, the first at 2"):
    metrics.figures(predictions([0] * 4, [0] * 4, index=[0, 2, 1, 2]), ["cat"])


@pytest.mark.parametrize("index", [[0, 1, 3], [1, 2, 3], [-1, 0, 1]])
def test_a_missing_example_is_refused(index):
  with pytest.raises(ValueError, match="not of examples 0 to 2"):
    metrics.figures(predictions([0] * 3, [0] * 3, index=index), ["cat"])


def test_no_example_at_all_is_refused():
  with pytest.raises(ValueError, match="no predictions"):
    metrics.figures(predictions([], []), ["cat"])


@pytest.mark.parametrize(("label", "predicted"), [([0, 2], [0, 0]), ([0, 0], [0, -2])])
def test_a_label_that_is_no_class_is_refused(label, predicted):
  with pytest.raises(ValueError, match="there are 2 classes"):
    metrics.figures(predictions(label, predicted), NAMES[:2])


def test_columns_of_different_length_are_refused():
  rows = dataclasses.replace(predictions([0, 0], [0, 0]), loss=np.zeros(3, np.float32))
  with pytest.raises(ValueError, match=r"loss has the shape \(3,\)"):
    metrics.figures(rows, ["cat"])


def test_a_nan_loss_stays_nan_and_spoils_nothing_else():
  rows = predictions([0, 1], [0, 1], loss=[math.nan, 0.5], confidence=[math.nan, 0.5])
  found = metrics.figures(rows, NAMES[:2])
  assert math.isnan(found.pop("loss")) and math.isnan(found.pop("ece"))
  json.dumps(found, allow_nan=False)
  assert found["accuracy"] == 1.0


def test_all_values_are_plain_python():
  _, _, rows = random_case(40, 6, 6, seed=2)

  def check(value):
    if isinstance(value, dict):
      value = list(value.values())
    if isinstance(value, list):
      for item in value:
        check(item)
    else:
      assert type(value) in (int, float, str)

  check(metrics.figures(rows, NAMES[:6]))


def test_an_image_that_could_not_be_read_is_a_wrong_answer_and_stays_in_n():
  """By hand: of 5 examples 2 are right; of class 1, with 3 examples, one is right and one
  unreadable."""
  found = metrics.figures(
    predictions([0, 0, 1, 1, 1], [0, 1, 1, 0, -1], loss=[1, 1, 1, 1, 99], in_top5=[True] * 5),
    ["cat", "dog"],
  )
  assert (found["n"], found["unreadable"]) == (5, 1)
  assert (found["accuracy"], found["top5_accuracy"]) == (2 / 5, 4 / 5)
  assert found["confusion_matrix"] == [[1, 1], [1, 1]]
  assert [row["recall"] for row in found["per_class"]] == [1 / 2, 1 / 3]
  assert [row["precision"] for row in found["per_class"]] == [1 / 2, 1 / 2]
  assert [row["n"] for row in found["per_class"]] == [2, 3]
  assert found["loss"] == 1.0


def test_where_no_image_could_be_read_accuracy_is_zero_and_loss_unknown():
  found = metrics.figures(predictions([0, 1], [-1, -1]), ["cat", "dog"])
  assert (found["n"], found["unreadable"], found["accuracy"]) == (2, 2, 0.0)
  assert math.isnan(found["loss"]) and math.isnan(found["ece"])


def test_logits_come_into_the_order_of_the_split_with_their_examples():
  rows = dataclasses.replace(
    predictions([0, 1, 1], [0, 1, 0], index=[2, 0, 1]), logits=np.arange(6.0).reshape(3, 2)
  )
  ordered = metrics.in_order(rows)
  assert ordered.label.tolist() == [1, 1, 0]
  assert ordered.logits.tolist() == [[2, 3], [4, 5], [0, 1]]
  with pytest.raises(ValueError, match=r"predictions.logits has the shape \(2, 2\)"):
    metrics.in_order(dataclasses.replace(rows, logits=rows.logits[:2]))
