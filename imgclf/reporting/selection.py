"""Which examples of a split a report shows, within a number of pictures.

Knows no model, file or picture.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from imgclf.reporting import picks
from imgclf.reporting.contents import Confusion
from imgclf.reporting.judging import Judged

# Pictures of a gallery, of a cell of the confusion matrix, and of all together: with their heat
# maps some 5 MB.
GALLERY, CELL, MOST_PICTURES = 24, 8, 300


@dataclasses.dataclass(frozen=True)
class Selection:
  """Positions in the split, by what they are shown for.

  Attributes:
    mistakes, uncertain, label_errors, better, worse: as in `imgclf.reporting.contents`.
    confusions: with the numbers of their examples.
    numbers: all of them, each once.
    notes: what was left out.
  """

  mistakes: list[int]
  uncertain: list[int]
  label_errors: list[int]
  better: list[int]
  worse: list[int]
  confusions: list[Confusion]
  numbers: list[int]
  notes: list[str]


def select(
  judged: Judged, classes: int, better: Sequence[int] = (), worse: Sequence[int] = ()
) -> Selection:
  """Chooses the examples that are shown.

  Galleries come first. What is left of `MOST_PICTURES` goes to the cells of the confusion matrix
  off its diagonal: one to each, the largest cell first, then a second one, and so on.

  Args:
    judged: the answers.
    classes: how many there are.
    better, worse: positions that only this run, only another one gets right.
  """
  rows, places = judged.after, judged.places
  labels, predicted = rows.label[places], rows.predicted[places]
  confidence = rows.confidence[places]

  def numbers(found: np.ndarray) -> list[int]:
    return places[found].tolist()

  mistakes = numbers(picks.confident_mistakes(labels, predicted, confidence))
  uncertain = numbers(picks.least_certain(judged.probabilities, GALLERY))
  label_errors = numbers(picks.likely_label_errors(judged.probabilities, labels))
  galleries = (mistakes[:GALLERY], uncertain, label_errors[:GALLERY], list(better), list(worse))
  chosen = dict.fromkeys(number for gallery in galleries for number in gallery)
  pairs = picks.confused_pairs(labels, predicted, confidence, classes)
  cells = [numbers(found[:CELL]) for _, _, found in pairs]
  for depth in range(CELL):
    for cell in cells:
      if depth < len(cell) and len(chosen) < MOST_PICTURES:
        chosen[cell[depth]] = None
  of_class = np.bincount(rows.label, minlength=classes)
  confusions = [
    Confusion(
      truth=truth,
      predicted=said,
      n=len(found),
      share=len(found) / int(of_class[truth]),
      examples=[number for number in cell if number in chosen],
    )
    for (truth, said, found), cell in zip(pairs, cells, strict=True)
  ]
  notes = []
  if len(label_errors) > GALLERY:
    notes.append(
      f"Confident learning doubts {len(label_errors):,} labels; the {GALLERY} it doubts most are shown. The less "
      "accurate a model, the more of them are right."
    )
  shown = sum(number in chosen for number in mistakes)
  if shown < len(mistakes):
    notes.append(
      f"{shown:,} of {len(mistakes):,} wrong answers are shown with their pictures: at most {CELL} of a pair of "
      f"classes, and {MOST_PICTURES} pictures in all."
    )
  return Selection(*galleries, confusions=confusions, numbers=list(chosen), notes=notes)
