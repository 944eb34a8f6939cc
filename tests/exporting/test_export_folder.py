import json
import os
import pathlib

import pytest

from imgclf.errors import UserError
from imgclf.exporting import export_folder as folder


def make(path, text):
  """An export of one file at a path."""
  with folder.whole_folder(folder.checked(path)) as unfinished:
    (unfinished / "inside").mkdir()
    (unfinished / "inside/model").write_text(text)
    folder.write_record(unfinished, {"files": folder.listed(unfinished)})


def test_a_folder_is_there_when_all_of_it_is(tmp_path):
  with folder.whole_folder(folder.checked(tmp_path / "a")) as unfinished:
    (unfinished / "model").write_text("x")
    assert not (tmp_path / "a").exists()
    assert unfinished.parent == tmp_path  # a rename is atomic within one file system only
  assert os.listdir(tmp_path) == ["a"]
  assert (tmp_path / "a/model").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_goes_wrong_inside_leaves_nothing(tmp_path, error):
  def fail():
    with folder.whole_folder(folder.checked(tmp_path / "a")) as unfinished:
      (unfinished / "model").write_text("x")
      raise error

  with pytest.raises(error):
    fail()
  assert os.listdir(tmp_path) == []


def test_an_earlier_export_and_an_empty_folder_are_replaced(tmp_path):
  (tmp_path / "a").mkdir()
  make(tmp_path / "a", "one")
  make(tmp_path / "a", "two")
  assert (tmp_path / "a/inside/model").read_text() == "two"
  assert os.listdir(tmp_path) == ["a"]


def test_an_earlier_export_is_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
  make(tmp_path / "a", "one")
  rename = pathlib.Path.rename

  def refused(self, target):
    if self.name.endswith(".unfinished"):
      raise PermissionError(13, "Permission denied")
    return rename(self, target)

  monkeypatch.setattr(pathlib.Path, "rename", refused)
  with pytest.raises(UserError, match=r"can't be written \(Permission denied\); give another"):
    make(tmp_path / "a", "two")
  assert (tmp_path / "a/inside/model").read_text() == "one"
  assert os.listdir(tmp_path) == ["a"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
  def refused(self):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(pathlib.Path, "mkdir", refused)
  with pytest.raises(UserError, match=r"a: can't be written \(Permission denied\); give another"):
    make(tmp_path / "a", "one")


def test_what_stands_in_its_place_is_not_touched(tmp_path):
  make(tmp_path / "added", "one")
  (tmp_path / "added/notes.txt").write_text("mine")
  (tmp_path / "linked").symlink_to(tmp_path / "added")
  (tmp_path / "file").write_text("mine")
  (tmp_path / "other").mkdir()
  (tmp_path / "other/export.json").write_text(json.dumps({"files": []}))
  expected = {
    "added": r"an export to which notes\.txt was added",
    "linked": "is no folder",
    "file": "is no folder",
    "other": "is no export",
    "nowhere/a": "make it first",
    "file/a": "make it first",
    "a" * 300: "can't be used",
  }
  for name, words in expected.items():
    with pytest.raises(UserError, match=words):
      folder.checked(tmp_path / name)
  with pytest.raises(UserError, match="give a name in it"):
    folder.checked("/")


def test_files_are_listed_with_size_and_digest(tmp_path):
  (tmp_path / "inside").mkdir()
  (tmp_path / "inside/empty").write_bytes(b"")
  (tmp_path / "abc").write_bytes(b"abc")
  # Both digests are in FIPS 180-4's examples.
  assert folder.listed(tmp_path) == {
    "abc": {
      "bytes": 3,
      "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    },
    "inside/empty": {
      "bytes": 0,
      "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    },
  }
