"""Which examples are shown, and that what is left out is told."""

import numpy as np

from imgclf import metrics
from imgclf.reporting import selection
from imgclf.reporting.judging import Judged


def judged(label, predicted, confidence, classes, places=None):
  """Answers with so much for the predicted class, the rest for the true one or, if it is that, for
  the next."""
  label, predicted = np.asarray(label), np.asarray(predicted)
  n = len(label)
  places = np.arange(n) if places is None else np.asarray(places)
  probabilities = np.zeros((n, classes), np.float32)
  probabilities[np.arange(n), np.where(predicted == label, (label + 1) % classes, label)] = (
    1 - np.asarray(confidence)
  )
  probabilities[np.arange(n), predicted] = confidence
  rows = metrics.Predictions(
    *(np.arange(n), label, predicted, label == predicted, np.ones(n), np.asarray(confidence))
  )
  return Judged(rows, rows, places, probabilities[places])


def test_a_small_split_is_shown_with_all_that_is_wrong():
  case = judged([0, 0, 1, 1, 0], [0, 1, 1, 0, 1], [0.9, 0.8, 0.6, 0.7, 0.95], 2)
  found = selection.select(case, 2, better=[2], worse=[3])
  assert found.mistakes == [4, 1, 3]
  assert found.uncertain == [2, 3, 1, 0, 4]
  assert (found.better, found.worse) == ([2], [3])
  assert [(c.truth, c.predicted, c.n, c.examples) for c in found.confusions] == [
    (0, 1, 2, [4, 1]),
    (1, 0, 1, [3]),
  ]
  assert [c.share for c in found.confusions] == [2 / 3, 1 / 2]
  assert sorted(found.numbers) == [0, 1, 2, 3, 4]
  assert found.notes == []


def test_an_image_that_could_not_be_read_is_shown_nowhere_and_counts_in_the_share():
  case = judged([0, 0, 0, 1], [1, 0, 1, 1], [0.9, 0.9, 0.8, 0.9], 2)
  unread = metrics.Predictions(
    *(case.after.index, case.after.label, np.array([-1, 0, 1, 1]), case.after.in_top5),
    *(case.after.loss, case.after.confidence),
  )
  found = selection.select(Judged(unread, unread, np.array([1, 2, 3]), case.probabilities[1:]), 2)
  assert found.mistakes == [2]
  assert [(c.n, c.share, c.examples) for c in found.confusions] == [(1, 1 / 3, [2])]
  assert 0 not in found.numbers


def test_of_many_mistakes_every_pair_of_classes_gets_a_picture_before_one_gets_two():
  """20 classes, each taken for each other twice: 380 cells, 760 wrong answers."""
  pairs = [(t, p) for t in range(20) for p in range(20) if t != p] * 2
  label, predicted = np.array(pairs).T
  confidence = np.linspace(0.6, 0.9, len(pairs))
  found = selection.select(judged(label, predicted, confidence, 20), 20)
  assert len(found.numbers) == len(set(found.numbers)) == selection.MOST_PICTURES
  assert len(found.confusions) == 200
  shown = [len(cell.examples) for cell in found.confusions]
  assert set(shown) == {1, 2}
  assert len(found.mistakes) == len(found.uncertain) == selection.GALLERY
  assert set(found.mistakes) | set(found.uncertain) <= set(found.numbers)
  for cell in found.confusions:
    for number in cell.examples:
      assert (label[number], predicted[number]) == (cell.truth, cell.predicted)
  (doubts, pictures) = found.notes if len(found.notes) == 2 else ("", *found.notes)
  told = sum(number in found.numbers for number in range(760))
  assert pictures.startswith(f"{told} of 760 wrong answers are shown")
  assert len(found.label_errors) <= selection.GALLERY
  assert ("doubts" in doubts) == (len(found.label_errors) == selection.GALLERY)
