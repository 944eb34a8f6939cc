"""What a user names becomes the files that are meant, in order; what names nothing is an error in a
line."""

import io
import os
import types

import pytest

from imgclf.data import image_paths
from imgclf.errors import UserError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
  """Files below the current folder; what they hold does not matter here."""
  monkeypatch.chdir(tmp_path)
  for name in (
    *("b.jpg", "a.png", "notes.txt", ".hidden.png", "a,b.png", "p[1].png", "@x.png", "*.png"),
    *("deep/c.JPG", "deep/er/d.webp", "deep/er/e.txt", ".old/f.png"),
  ):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  (tmp_path / "empty").mkdir()
  return tmp_path


def found(*named):
  return [str(listed.path) for listed in image_paths.find(named)]


def pipe(monkeypatch, data):
  monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(data)))


def test_files_stand_in_their_order_and_as_often_as_they_are_named():
  assert found("b.jpg", "a.png", "gone.png", "b.jpg") == ["b.jpg", "a.png", "gone.png", "b.jpg"]


def test_a_folder_is_searched_for_images_at_any_depth():
  assert found("deep", "notes.txt") == ["deep/c.JPG", "deep/er/d.webp", "notes.txt"]


@pytest.mark.parametrize(
  ("pattern", "files"),
  [
    ("?.png", ["*.png", "a.png"]),
    ("*.jp*", ["b.jpg"]),
    ("[ab].*", ["a.png", "b.jpg"]),
    ("**/*.png", ["*.png", "@x.png", "a,b.png", "a.png", "p[1].png"]),
    ("**/*.webp", ["deep/er/d.webp"]),
    ("deep/**", ["deep/c.JPG", "deep/er/d.webp", "deep/er/e.txt"]),
    ("*/er/*", ["deep/er/d.webp", "deep/er/e.txt"]),
    (".old/*", [".old/f.png"]),
    (".h*", [".hidden.png"]),
    ("./deep/*", ["deep/c.JPG"]),
  ],
)
def test_a_pattern_takes_the_files_that_match(pattern, files):
  assert found(pattern) == files


def test_a_pattern_may_begin_at_the_root_or_at_home(folder, monkeypatch):
  assert found(f"{folder}/d*/*") == [f"{folder}/deep/c.JPG"]
  monkeypatch.setenv("HOME", str(folder))
  assert found("~/d*/*") == [f"{folder}/deep/c.JPG"]


def test_a_path_that_exists_is_that_path_whatever_its_name():
  assert found("p[1].png", "@x.png", "*.png") == ["p[1].png", "@x.png", "*.png"]


def test_a_pattern_enters_no_link_to_a_folder_below_two_stars(folder):
  (folder / "deep" / "round").symlink_to(folder / "deep")
  assert found("deep/**/*.webp") == ["deep/er/d.webp"]
  listed = image_paths.find(["deep/*/c.JPG"])
  # Named by a star, it is entered; the folder goes along, for the reader to see where links lead.
  assert listed == [(folder.relative_to(folder) / "deep/round/c.JPG", os.path.realpath("deep"))]


def test_a_list_names_files_and_folders_line_by_line(folder, monkeypatch):
  lines = b"\xef\xbb\xbfb.jpg\r\n\n  \ndeep\r\n*.png\n@x.png\nb.jpg\ngone \xff.png"
  expected = [
    *("b.jpg", "  ", "deep/c.JPG", "deep/er/d.webp", "*.png", "@x.png", "b.jpg", "gone \udcff.png")
  ]
  (folder / "list").write_bytes(lines)
  assert found("@list") == expected
  pipe(monkeypatch, lines)
  assert found("a.png", "-") == ["a.png", *expected]


def test_a_list_may_come_from_a_pipe(folder):
  read, write = os.pipe()
  os.write(write, b"a.png\n")
  os.close(write)
  assert found(f"@/dev/fd/{read}") == ["a.png"]
  os.close(read)


@pytest.mark.parametrize(
  ("named", "words"),
  [
    ([], "--images: give image files or folders"),
    (["", ""], "--images: give image files or folders"),
    (["empty"], "--images=empty: no image in this folder; looked for .bmp .gif"),
    (["*.gif"], "--images=*.gif: no file matches"),
    (["e*"], "--images=e*: no file matches"),  # a folder only
    (["nowhere/*.png"], "--images=nowhere/*.png: no file matches"),
    (["a**/x.png"], "--images=a**/x.png: "),
    (["@gone"], "--images=@gone: the list gone can't be read (No such file or directory)"),
    (["@deep"], "--images=@deep: the list deep can't be read (Is a directory)"),
    (["@nul\0"], "can't be read (embedded null byte)"),
    (["@blank"], "--images=@blank: the list names no image; give one path a line"),
    (["@inner"], "--images=@inner: the list, path 2=empty: no image in this folder"),
    (["-"], "--images=-: standard input names no image; give one path a line"),
  ],
)
def test_what_names_no_image_is_refused(folder, monkeypatch, named, words):
  (folder / "blank").write_text("\n\r\n\n")
  (folder / "inner").write_text("a.png\nempty\n")
  pipe(monkeypatch, b"")
  with pytest.raises(UserError) as refused:
    image_paths.find(named)
  assert words in str(refused.value) and "\n" not in str(refused.value)
