import os

import pytest

from imgclf import output
from imgclf.errors import UserError


def test_a_file_takes_its_name_only_once_it_is_whole(tmp_path):
  path = tmp_path / "a.json"
  path.write_text("old")
  with output.whole_file(path) as file:
    file.write("new \udcff")
    file.flush()
    assert path.read_text() == "old"
  assert path.read_text() == r"new \udcff"
  assert os.listdir(tmp_path) == ["a.json"]


def test_what_is_half_written_leaves_nothing_behind(tmp_path):
  path = tmp_path / "a.json"
  with pytest.raises(ZeroDivisionError), output.whole_file(path) as file:
    file.write(str(1 / 0))
  assert os.listdir(tmp_path) == []


def test_a_folder_that_has_gone_is_a_users_error(tmp_path):
  path = output.checked(tmp_path / "a.json", [".json"])
  tmp_path.rmdir()
  with (
    pytest.raises(UserError, match=r"a\.json: can't be written \(No such file"),
    output.whole_file(path),
  ):
    pass


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("a.txt", "let it end in .csv or .json"),
    ("none/a.csv", "there is no folder"),
    ("folder.csv", "is a folder"),
  ],
)
def test_a_file_that_cannot_be_written_is_refused_at_once(tmp_path, name, words):
  (tmp_path / "folder.csv").mkdir()
  with pytest.raises(UserError, match=words):
    output.checked(tmp_path / name, [".csv", ".json"])


def test_bytes_are_written_whole_and_told_of_under_their_flag(tmp_path):
  path = output.checked(tmp_path / "a.png", [".png"], "--preview")
  output.write_whole(path, b"1", "--preview")
  output.write_whole(path, b"22", "--preview")
  assert path.read_bytes() == b"22" and os.listdir(tmp_path) == ["a.png"]
  path.unlink()
  tmp_path.rmdir()
  with pytest.raises(UserError, match=r"--preview=.*a\.png: can't be written \(No such file"):
    output.write_whole(path, b"1", "--preview")
  with pytest.raises(UserError, match=r"--preview=a\.jpg: ends in"):
    output.checked("a.jpg", [".png"], "--preview")
