"""The confusion matrix as cells with a step of colour and a way to their pictures. Knows no markup.

A matrix is a picture of shares: each row is one class's examples, so that rare classes show as well
as frequent ones.
"""

import bisect
from collections.abc import Sequence
import dataclasses
import itertools

from imgclf.reporting import wording
from imgclf.reporting.contents import Report

# Up to so many classes a cell has its number in it; of more, it is a square of colour.
MOST_WITH_NUMBERS = 20
# Shares of the true class at which a cell gets the next of seven colours. Few examples are
# confused, so the steps start low; most are right, so those of the diagonal start high.
WRONG_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
RIGHT_STEPS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# Of a list of pairs, without a matrix and beside one.
MOST_PAIRS, PAIRS_BESIDE_MATRIX = 200, 10


@dataclasses.dataclass(frozen=True)
class Cell:
  """A cell of the matrix.

  Attributes:
    n: examples.
    kind: `right` on the diagonal, else `wrong`.
    step: of the colour, 1 to 7; 0 for a cell without examples.
    text: what it says, in words; empty for a cell without examples.
    link: the id of its pictures; empty where there are none.
  """

  n: int
  kind: str
  step: int
  text: str
  link: str


@dataclasses.dataclass(frozen=True)
class Pair:
  """A pair of classes that is confused: names, examples, share of the true class, and the pictures,
  if any.
  """

  truth: str
  predicted: str
  n: int
  share: float
  link: str
  examples: tuple[int, ...]


def pairs(report: Report) -> list[Pair]:
  """Returns the pairs of the report in its order, with the ids of their pictures."""
  return [
    Pair(
      report.classes[each.truth],
      report.classes[each.predicted],
      each.n,
      each.share,
      _link(each.truth, each.predicted) if each.examples else "",
      tuple(each.examples),
    )
    for each in report.confusions
  ]


def matrix(report: Report) -> list[list[Cell]] | None:
  """Returns the cells, rows the truth; None where the report has no matrix."""
  if report.matrix is None:
    return None
  links = {
    (each.truth, each.predicted): _link(each.truth, each.predicted)
    for each in report.confusions
    if each.examples
  }
  names = [wording.name(name, 30) for name in report.classes]
  return [
    [
      _cell(n, row, column, report.class_rows[row].n, names, links.get((row, column), ""))
      for column, n in enumerate(counts)
    ]
    for row, counts in enumerate(report.matrix)
  ]


def _cell(n: int, row: int, column: int, total: int, names: Sequence[str], link: str) -> Cell:
  kind = "right" if row == column else "wrong"
  if n == 0:
    return Cell(0, kind, 0, "", "")
  share = n / total
  step = 1 + bisect.bisect_right(RIGHT_STEPS if row == column else WRONG_STEPS, share)
  taken = "recognised" if row == column else f"taken for {names[column]}"
  text = f"{names[row]} {taken}: {wording.count(n)}, {wording.percent(share)} of {names[row]}"
  return Cell(n, kind, step, text, link)


def _link(truth: int, predicted: int) -> str:
  # Of numbers alone, so that no name gets into an id.
  return f"pair-{truth}-{predicted}"


def legend(kind: str) -> list[str]:
  """Returns what the seven colours of a kind of cell stand for, as text."""
  edges = RIGHT_STEPS if kind == "right" else WRONG_STEPS
  texts = [f"{100 * edge:g}" for edge in edges]
  between = [f"{low} to {high}" for low, high in itertools.pairwise(texts)]
  return [f"below {texts[0]}%", *(f"{text}%" for text in between), f"{texts[-1]}% and more"]
