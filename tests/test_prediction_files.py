"""CSV, JSON Lines and Parquet hold the same predictions, each in its layout; what is half written
is not there."""

import csv
import json
import math
import os

import numpy as np
import pyarrow
from pyarrow import parquet
import pytest

from imgclf import prediction_files
from imgclf.errors import UserError
from imgclf.prediction import Guess, Prediction

# 0.1 as float32 is 0.100000001490116...
FEATURES = np.array([0.1, -2.5, 3e-9], np.float32)
TOLD = [
  Prediction("a.png", "cat", 0.75, (Guess("cat", 0.75), Guess("=dog", 0.1)), None, None, FEATURES),
  Prediction("gone.png", None, None, (), "gone.png: cannot be read (No such file or directory)"),
  Prediction(
    "-c.png", None, 0.5, (Guess("=dog", 0.5), Guess("cat", 0.25)), None, None, 2 * FEATURES
  ),
]


def written(path, told=TOLD, *, threshold=True, features=None):
  with prediction_files.writer(path, threshold=threshold, features=features) as write:
    write(told[:1])
    write(told[1:])
  return path


def predictions(*guesses):
  return [{"rank": r, "label": label, "probability": p} for r, (label, p) in enumerate(guesses, 1)]


def test_csv_has_a_row_for_each_class_and_one_of_rank_0_for_none_of_them(tmp_path):
  with open(written(tmp_path / "x.csv"), newline="", encoding="utf-8") as file:
    assert list(csv.reader(file)) == [
      ["path", "rank", "label", "probability", "error"],
      ["a.png", "1", "cat", "0.75", ""],
      ["a.png", "2", "'=dog", "0.1", ""],
      ["gone.png", "", "", "", "gone.png: cannot be read (No such file or directory)"],
      ["'-c.png", "0", "none of these", "", ""],
      ["'-c.png", "1", "'=dog", "0.5", ""],
      ["'-c.png", "2", "cat", "0.25", ""],
    ]


SETS = [
  Prediction(
    *("a.png", "cat", 0.75, (Guess("cat", 0.75), Guess("=dog", 0.5)), None),
    probabilities=np.array([0.5, 0.75], np.float32),
    labels=(Guess("cat", 0.75), Guess("=dog", 0.5)),
  ),
  TOLD[1],
  Prediction(
    *("-c.png", None, 0.25, (Guess("=dog", 0.25), Guess("cat", 0.1)), None),
    probabilities=np.array([0.25, 0.1], np.float32),
  ),
]


def test_of_several_classes_an_image_csv_is_a_table_with_a_probability_of_each(tmp_path):
  sets = prediction_files.LabelSets(["=dog", "cat"], "|")
  path = tmp_path / "x.csv"
  with prediction_files.writer(path, threshold=False, features=None, sets=sets) as write:
    write(SETS)
  with open(path, newline="", encoding="utf-8") as file:
    assert list(csv.reader(file)) == [
      ["path", "label", "error", "p(=dog)", "p(cat)"],
      ["a.png", "cat|=dog", "", "0.5", "0.75"],
      ["gone.png", "", "gone.png: cannot be read (No such file or directory)", "", ""],
      ["'-c.png", "", "", "0.25", "0.1"],
    ]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_of_several_classes_an_image_the_other_files_list_those_that_it_has(tmp_path, ending):
  sets = prediction_files.LabelSets(["=dog", "cat"], "|")
  path = tmp_path / f"x.{ending}"
  with prediction_files.writer(path, threshold=True, features=None, sets=sets) as write:
    write(SETS)
  if ending == "jsonl":
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
  else:
    rows = parquet.read_table(path).to_pylist()
  assert [row["labels"] for row in rows] == [["cat", "=dog"], [], []]
  assert [len(row["predictions"]) for row in rows] == [2, 0, 2]
  assert all("none_of_these" not in row for row in rows)


def test_jsonl_has_an_object_for_each_image(tmp_path):
  text = written(tmp_path / "x.jsonl", features=3).read_text(encoding="utf-8")
  # The shortest decimals that are these float32.
  assert '"features": [0.1, -2.5, 3e-09]' in text
  assert [json.loads(line) for line in text.splitlines()] == [
    {
      "path": "a.png",
      "predictions": predictions(("cat", 0.75), ("=dog", 0.1)),
      "error": None,
      "none_of_these": False,
      "features": [0.1, -2.5, 3e-9],
    },
    {
      "path": "gone.png",
      "predictions": [],
      "error": "gone.png: cannot be read (No such file or directory)",
      "none_of_these": False,
      "features": None,
    },
    {
      "path": "-c.png",
      "predictions": predictions(("=dog", 0.5), ("cat", 0.25)),
      "error": None,
      "none_of_these": True,
      "features": [0.2, -5.0, 6e-9],
    },
  ]


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_what_was_not_asked_for_has_no_field(tmp_path, name):
  path = written(tmp_path / name, threshold=False)
  if name == "x.jsonl":
    names = list(json.loads(path.read_text().splitlines()[0]))
  else:
    names = parquet.read_schema(path).names
  assert names == ["path", "predictions", "error"]


def test_parquet_has_a_row_for_each_image_and_features_of_fixed_size(tmp_path):
  table = parquet.read_table(written(tmp_path / "x.parquet", features=3))
  assert table.schema.field("features").type == pyarrow.list_(pyarrow.float32(), 3)
  rows = table.to_pylist()
  lines = (written(tmp_path / "x.jsonl", features=3)).read_text().splitlines()
  for row, line in zip(rows, map(json.loads, lines), strict=True):
    assert list(row) == list(line)
    told = [tuple(guess.values()) for guess in row["predictions"]]
    expected = [tuple(guess.values()) for guess in line["predictions"]]
    assert [guess[:2] for guess in told] == [guess[:2] for guess in expected]
    assert [np.float32(guess[2]) for guess in expected] == [guess[2] for guess in told]
    assert {key: row[key] for key in ("path", "error", "none_of_these")} == {
      key: line[key] for key in ("path", "error", "none_of_these")
    }
  assert rows[1]["features"] is None
  np.testing.assert_array_equal(np.float32(rows[0]["features"]), FEATURES)
  np.testing.assert_array_equal(np.float32(rows[2]["features"]), 2 * FEATURES)


@pytest.mark.parametrize("count", [0, 4, 8, 9])
def test_a_parquet_file_of_any_length_keeps_the_order(tmp_path, monkeypatch, count):
  monkeypatch.setattr(prediction_files, "ROW_GROUP", 4)
  told = [Prediction(f"{i}", None, None, (), "bad") for i in range(count)]
  path = written(tmp_path / "x.parquet", told, features=3)
  assert parquet.read_table(path).column("path").to_pylist() == [f"{i}" for i in range(count)]
  assert parquet.ParquetFile(path).num_row_groups >= math.ceil(count / 4)


def test_a_name_that_is_not_utf_8_is_written_as_escapes(tmp_path):
  told = [Prediction("\udcff.png", None, None, (), "\udcff.png: is gone")]
  (row,) = parquet.read_table(written(tmp_path / "x.parquet", told)).to_pylist()
  assert row["path"] == r"\udcff.png" and row["error"] == r"\udcff.png: is gone"
  assert r"\udcff.png,,,," in written(tmp_path / "x.csv", told).read_text()


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.parquet"])
def test_what_is_half_written_leaves_nothing_behind(tmp_path, name):
  def cut_short():
    yield from TOLD
    assert os.listdir(tmp_path) == [f"{name}.unfinished"]
    raise ZeroDivisionError

  with (
    pytest.raises(ZeroDivisionError),
    prediction_files.writer(tmp_path / name, threshold=True, features=3) as write,
  ):
    write(cut_short())
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  ("name", "features", "words"),
  [
    ("x.txt", False, "let it end in .csv or .jsonl or .parquet"),
    ("x.csv", True, "--features: a CSV file has no column for them"),
    ("nowhere/x.csv", False, "there is no folder"),
  ],
)
def test_a_file_that_cannot_hold_them_is_refused(tmp_path, name, features, words):
  with pytest.raises(UserError) as refused:
    prediction_files.checked_output(tmp_path / name, features=features)
  assert words in str(refused.value)
  for name in ("x.jsonl", "x.parquet"):
    assert prediction_files.checked_output(tmp_path / name, features=True) == tmp_path / name
