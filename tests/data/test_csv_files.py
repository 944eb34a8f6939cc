import os

import numpy as np
import pytest

from imgclf.data import csv_files, files
from imgclf.errors import UserError


@pytest.fixture
def make(tmp_path):
  """Writes a table and the images 0.png to 9.png beside it; returns the table's path."""
  for i in range(10):
    (tmp_path / f"{i}.png").write_text(f"image {i}")

  def write(*lines, encoding="utf-8", end="\n"):
    (tmp_path / "set.csv").write_bytes("".join(line + end for line in lines).encode(encoding))
    return str(tmp_path / "set.csv")

  return write


def contents(classes, found):
  """Every record of every split as (split, class, content)."""
  return sorted(
    (split, classes[record.label], record.data.decode())
    for split, source in found.items()
    for record in source.read(range(source.shard_lengths[0]))
  )


SPLIT = [
  ("test", "cat", "image 2"),
  ("train", "cat", "image 0"),
  ("train", "dog", "image 1"),
  ("validation", "dog", "image 3"),
]


@pytest.mark.parametrize(("encoding", "end"), [("utf-8", "\n"), ("utf-8-sig", "\r\n")])
def test_a_table_with_splits(make, encoding, end):
  lines = [
    "path,label,split",
    "0.png,cat,train",
    "1.png,dog,Train",
    "",
    "2.png,cat,test",
    "3.png,dog,val",
  ]
  classes, found, notes = csv_files.read(make(*lines, encoding=encoding, end=end))
  assert classes == ("cat", "dog")
  assert contents(classes, found) == SPLIT
  assert notes == []


def test_columns_in_any_order_quotes_spaces_and_unread_columns(make, tmp_path):
  (tmp_path / "a, b.png").write_text("comma")
  lines = ["Split, LABEL ,path,author", 'train, cat ,"a, b.png",me', "train,dog,1.png,me"]
  classes, found, notes = csv_files.read(make(*lines))
  assert contents(classes, found) == [("train", "cat", "comma"), ("train", "dog", "image 1")]
  assert notes == ["columns that are not read: author"]


def test_without_splits_the_hash_of_the_relative_path_decides(make, tmp_path):
  lines = ["path,label", *(f"{i}.png,{'ab'[i % 2]}" for i in range(9)), f"{tmp_path}/9.png,b"]
  classes, found, _ = csv_files.read(make(*lines))
  numbers = files.split_numbers(files.digests([f"{i}.png" for i in range(10)]))
  assert contents(classes, found) == sorted(
    (files.SPLITS[number], "ab"[i % 2], f"image {i}") for i, number in enumerate(numbers)
  )


def test_integer_labels_are_sorted_by_value_and_others_as_text():
  assert csv_files.class_order(["10", "9", "-1", "2"]) == ["-1", "2", "9", "10"]
  assert csv_files.class_order(["10", "9", "nine"]) == ["10", "9", "nine"]


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    ([], "line 1: has no column 'path' (found: nothing)"),
    (["0.png,cat"], "line 1: has no column 'path' (found: 0.png, cat)"),
    (["path,class", "0.png,a"], "line 1: has no column 'label' (found: path, class)"),
    (["path,label,Path", "0.png,a,b"], "line 1: has twice the column 'path'"),
    (["path,label"], "lists no images"),
    (["path,label", "0.png,a", "1.png,"], "line 3: the label is empty"),
    (["path,label", ",a"], "line 2: the path is empty"),
    (["path,label", "0.png,a", "", "1.png"], "line 4: cells: 1, but the header has 2"),
    (["path,label", "0.png,a,b"], "line 2: cells: 3, but the header has 2"),
    (
      ["path,label,split", "0.png,a,dev"],
      "line 2: 'dev' is no split; allowed are train, validation",
    ),
    (["path,label,split", "0.png,a,"], "line 2: '' is no split"),
    (["path,label", "0.png,a", "none.png,b"], "line 3: no such file: "),
    (["path,label", "0.png,a", "./0.png,b"], "line 3: ./0.png is listed already in line 2"),
    (["path,label", '0.png,"a'], "is not CSV"),
  ],
)
def test_a_wrong_line_is_named_by_its_number(make, lines, message):
  path = make(*lines)
  with pytest.raises(UserError) as caught:
    csv_files.read(path)
  assert str(caught.value).startswith(f"csv:{path}")
  assert message in str(caught.value)
  assert "\n" not in str(caught.value)


def test_with_a_separator_a_cell_holds_any_number_of_classes(make):
  lines = ["path,label,split", "0.png,dog|cafe\u0301,train", "1.png,,train", "2.png,cat,test"]
  classes, found, notes = csv_files.read(make(*lines), None, "|")
  assert classes == ("caf\u00e9", "cat", "dog")
  assert notes == ["classes without an image in train: 1 (cat)"]
  train = {record.data: record.label.tolist() for record in found["train"].read([0, 1])}
  assert train == {b"image 0": [1, 0, 1], b"image 1": [0, 0, 0]}
  assert found["train"].labels.dtype == np.uint8
  assert found["test"].labels.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    (["path,label", "0.png,a", "1.png,a|b|a"], "line 3: the label 'a|b|a' names 'a' twice"),
    (["path,label", "0.png,a|"], "line 2: the label 'a|' has a name that is empty"),
    (["path,label", "0.png,", "1.png,"], "no image has a class"),
    (["path,label", ",a"], "line 2: the path is empty"),
  ],
)
def test_a_wrong_cell_of_several_classes_is_named_by_its_line(make, lines, message):
  path = make(*lines)
  with pytest.raises(UserError) as caught:
    csv_files.read(path, None, "|")
  assert str(caught.value).startswith(f"csv:{path}")
  assert message in str(caught.value)


def test_without_a_separator_a_cell_is_one_class_whatever_it_holds(make):
  classes, found, _ = csv_files.read(make("path,label,split", "0.png,a|b,train", "1.png,a,train"))
  assert classes == ("a", "a|b")
  assert sorted(found["train"].labels.tolist()) == [0, 1]


def test_other_encodings_and_missing_tables_are_refused(make, tmp_path):
  with pytest.raises(UserError, match="is not UTF-8 text; save it as UTF-8"):
    csv_files.read(make("path,label", "0.png,caf\u00e9", encoding="latin-1"))
  with pytest.raises(UserError, match=r"none\.csv: can't be read \(No such file"):
    csv_files.read(str(tmp_path / "none.csv"))
  with pytest.raises(UserError, match="can't be read"):
    csv_files.read(str(tmp_path))
  os.mkfifo(tmp_path / "pipe.csv")
  with pytest.raises(UserError, match=r"can't be read \(a pipe, socket or device, not a file\)"):
    csv_files.read(str(tmp_path / "pipe.csv"))
