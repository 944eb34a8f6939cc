"""metrics.jsonl: strict JSON whatever the figures, and cut back exactly on resume."""

import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import records
from imgclf.errors import UserError


def strict(line):
  def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")

  return json.loads(line, parse_constant=refuse)


def test_a_line_is_strict_json_and_ends_in_a_newline():
  line = records.json_line({"step": 1, "loss": math.nan, "a": math.inf, "b": -math.inf, "c": None})
  assert line.endswith("\n") and line.count("\n") == 1
  assert strict(line) == {"step": 1, "loss": None, "a": None, "b": None, "c": None}


@pytest.mark.parametrize(
  ("value", "expected"),
  [
    (np.float32(0.5), 0.5),
    (np.array(3), 3),
    (jnp.float32(0.25), 0.25),
    (jnp.bfloat16(1.5), 1.5),
    (7, 7),
    (np.zeros(2), None),
    ([[1, 2]], None),
    ("text", None),
  ],
)
def test_scalars_become_python_numbers_and_nothing_else_does(value, expected):
  found = records.number(value)
  assert found == expected and type(found) is type(expected)


def lines(*steps):
  return "".join(
    records.json_line({"step": step, "split": "train", "loss": 1 / 3}) for step in steps
  )


def test_truncating_drops_exactly_the_later_lines(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text(lines(10, 20, 20, 30, 40))
  records.truncate_metrics(path, 20)
  assert path.read_text() == lines(10, 20, 20)
  assert os.listdir(tmp_path) == ["metrics.jsonl"]


@pytest.mark.parametrize("kept_bytes", range(1, len(lines(20))))
def test_a_half_written_last_line_is_dropped_at_every_byte(tmp_path, kept_bytes):
  path = tmp_path / "metrics.jsonl"
  path.write_text(lines(10) + lines(20)[:kept_bytes])
  records.truncate_metrics(path, 20)
  # Only the newline is lacking when all but the last byte was written: then the record is whole.
  whole = kept_bytes == len(lines(20)) - 1
  assert path.read_text() == (lines(10, 20) if whole else lines(10))


@pytest.mark.parametrize("tail", [b"\0" * 50, b"\xff\xfe", b"12", b'{"loss": 1}\n', b"null\n"])
def test_other_rubbish_at_the_end_is_dropped(tmp_path, tail):
  path = tmp_path / "metrics.jsonl"
  path.write_bytes(lines(10).encode() + tail)
  records.truncate_metrics(path, 99)
  assert path.read_text() == lines(10)


def test_a_file_with_nothing_to_drop_is_not_rewritten(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text(lines(10, 20))
  before = path.stat()
  records.truncate_metrics(path, 20)
  after = path.stat()
  assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_file_that_is_empty_or_not_there_is_left_so(tmp_path):
  records.truncate_metrics(tmp_path / "none.jsonl", 5)
  (tmp_path / "empty.jsonl").touch()
  records.truncate_metrics(tmp_path / "empty.jsonl", 5)
  assert os.listdir(tmp_path) == ["empty.jsonl"]


def test_rubbish_in_the_middle_is_named_and_nothing_is_lost(tmp_path):
  path = tmp_path / "metrics.jsonl"
  text = lines(10) + "oops\n" + lines(20)
  path.write_text(text)
  with pytest.raises(UserError, match="line 2: not a JSON object with a step"):
    records.truncate_metrics(path, 10)
  assert path.read_text() == text


def test_records_are_read_back_and_lines_that_are_none_are_counted(tmp_path):
  path = tmp_path / "metrics.jsonl"
  assert records.read_metrics(path) == ([], 0)
  path.write_text('{"step": 1, "a": null}\n[1]\n{"a": 1}\n\xff\n{"step": 2, "a": 2}\n{"step": 3, "')
  found, wrong = records.read_metrics(path)
  assert found == [{"step": 1, "a": None}, {"step": 2, "a": 2}]
  assert wrong == 3  # the last line is one that is being written


def test_a_file_that_can_not_be_read_is_one_line(tmp_path):
  with pytest.raises(UserError, match=r"can't be read .*; restore the file"):
    records.read_metrics(tmp_path)
