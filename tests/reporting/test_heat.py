import dataclasses

import samples

from imgclf.reporting import heat
from imgclf.reporting.contents import ClassRow, Confusion


def report(matrix, confusions=()):
  """A report of classes `a`, `b` and so on with this matrix."""
  names = "abcdefgh"[: len(matrix)]
  rows = [
    ClassRow(name, sum(counts), 0.0, 0.0, 0.0, None, None, None)
    for name, counts in zip(names, matrix, strict=True)
  ]
  return dataclasses.replace(
    samples.bare(), classes=names, class_rows=rows, matrix=matrix, confusions=confusions
  )


def test_colours_follow_the_share_of_the_row_with_steps_of_their_own_on_the_diagonal():
  cells = heat.matrix(report([[960, 0, 40], [1, 1, 2], [5, 495, 0]]))
  assert [[cell.step for cell in row] for row in cells] == [[7, 0, 3], [6, 1, 7], [2, 7, 0]]
  assert [cell.kind for cell in cells[1]] == ["wrong", "right", "wrong"]


def test_shares_are_of_all_examples_of_a_class_those_that_could_not_be_read_among_them():
  made = report([[45, 5], [0, 10]])
  rows = [dataclasses.replace(made.class_rows[0], n=100), made.class_rows[1]]
  cells = heat.matrix(dataclasses.replace(made, class_rows=rows))
  assert cells[0][1].text == "a taken for b: 5, 5.00% of a"
  assert cells[0][0].text == "a recognised: 45, 45.00% of a" and cells[0][0].step == 1


def test_a_cell_with_pictures_has_the_link_of_its_pair():
  made = report(
    [[1, 2], [3, 4]], [Confusion(1, 0, 3, 3 / 7, [8, 9]), Confusion(0, 1, 2, 2 / 3, [])]
  )
  cells = heat.matrix(made)
  assert (cells[1][0].link, cells[0][1].link, cells[0][0].link) == ("pair-1-0", "", "")
  first, second = heat.pairs(made)
  assert (first.truth, first.predicted, first.n, first.link) == ("b", "a", 3, "pair-1-0")
  assert first.examples == (8, 9) and second.link == ""


def test_the_legend_has_a_text_for_each_colour():
  assert heat.legend("wrong") == [
    *("below 1%", "1 to 2%", "2 to 5%", "5 to 10%", "10 to 20%", "20 to 50%", "50% and more")
  ]
  assert heat.legend("right")[0] == "below 50%" and len(heat.legend("right")) == 7
