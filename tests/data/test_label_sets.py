"""Cells of class names become rows of 0 and 1, and these become words."""

import numpy as np
import pytest

from imgclf.data import label_sets
from imgclf.errors import UserError


def test_a_cell_holds_any_number_of_names():
  assert label_sets.names("dog| cat ", "|", "line 2") == ("dog", "cat")
  assert label_sets.names("dog", "|", "line 2") == ("dog",)
  assert label_sets.names("", "|", "line 2") == ()
  assert label_sets.names("a b; c", "; ", "line 2") == ("a b", "c")


@pytest.mark.parametrize(
  ("cell", "words"),
  [
    ("cat|", "has a name that is empty"),
    ("cat||dog", "has a name that is empty"),
    ("|", "has a name that is empty"),
    ("cat|dog|cat", "names 'cat' twice; name it once"),
  ],
)
def test_a_name_that_is_empty_or_there_twice_is_refused_with_its_line(cell, words):
  with pytest.raises(UserError, match=rf"^set, line 7: the label .*{words}"):
    label_sets.names(cell, "|", "set, line 7")


def test_rows_have_a_one_for_each_name_and_say_them_again():
  rows = label_sets.multi_hot([("b", "a"), (), ("c",)], {"a": 0, "b": 1, "c": 2})
  assert rows.dtype == np.uint8
  assert rows.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
  assert label_sets.counts(rows, 3).tolist() == [1, 1, 1]
  assert [label_sets.words(row, "abc") for row in rows] == ["a, b", "no class", "c"]


def test_one_class_an_image_is_counted_and_named_as_it_was():
  assert label_sets.counts(np.array([2, 0, 2]), 4).tolist() == [1, 0, 2, 0]
  assert label_sets.words(1, "abc") == label_sets.words(np.int32(1), "abc") == "b"
  assert label_sets.blank(2, ()).dtype == np.int32


def test_labels_of_another_set_become_those_of_the_run():
  # The other set knows c and a; the run a, b, c, d.
  label_map = np.array([2, 0], np.int32)
  mapped = label_sets.relabelled(np.array([[1, 0], [1, 1], [0, 0]], np.uint8), label_map, 4)
  assert mapped.dtype == np.uint8
  assert mapped.tolist() == [[0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
  assert label_sets.relabelled(np.array([1, 0], np.int32), label_map, 4).tolist() == [0, 2]
