import os
import unicodedata

import pytest

from imgclf.data import files, folders
from imgclf.errors import UserError


@pytest.fixture
def make(tmp_path):
  """Writes files, each with its own relative path as content, and returns their folder."""

  def write(*paths):
    for path in paths:
      file = tmp_path / "set" / path
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_text(path)
    return str(tmp_path / "set")

  return write


def contents(classes, source):
  """The files of a split by class, read back."""
  records = source.read(range(source.shard_lengths[0]))
  return sorted((classes[record.label], record.data.decode()) for record in records)


def test_split_folders_are_the_splits(make):
  root = make("train/cat/1.jpg", "train/dog/2.PNG", "val/dog/3.webp", "test/cat/deep/er/4.JPEG")
  classes, found, notes = folders.read(root)
  assert classes == ("cat", "dog")
  assert contents(classes, found["train"]) == [
    ("cat", "train/cat/1.jpg"),
    ("dog", "train/dog/2.PNG"),
  ]
  assert contents(classes, found["validation"]) == [("dog", "val/dog/3.webp")]
  assert contents(classes, found["test"]) == [("cat", "test/cat/deep/er/4.JPEG")]
  assert notes == []


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Valid"])
def test_the_validation_folder_has_three_names(make, name):
  root = make("Train/a/1.png", "Train/b/1.png", f"{name}/a/2.png")
  assert set(folders.read(root)[1]) == {"train", "validation"}


def test_a_test_folder_alone_is_a_test_split(make):
  assert set(folders.read(make("test/a/1.png", "test/b/1.png"))[1]) == {"test"}


def test_class_folders_alone_are_split_by_hash(make):
  paths = [f"{'ab'[i % 2]}/{i}.gif" for i in range(60)]
  classes, found, _ = folders.read(make(*paths))
  read = {split: {path for _, path in contents(classes, source)} for split, source in found.items()}
  assert set.union(*read.values()) == set(paths)
  for path in paths:
    (number,) = files.split_numbers(files.digests([path]))
    assert path in read[files.SPLITS[number]]


def test_every_image_ending_counts_and_others_are_noted(make):
  endings = "jpg jpeg png webp bmp gif tif tiff JPG Png".split()
  root = make(
    *(f"train/a/{i}.{e}" for i, e in enumerate(endings)),
    "train/b/1.png",
    "train/a/notes.txt",
    "train/a/png",
    "train/a/.DS_Store",
    "train/b/._1.png",
    "train/.git/x.png",
    "train/loose.png",
    "README.md",
    "extra/a/1.png",
  )
  _, found, notes = folders.read(root)
  assert found["train"].shard_lengths == [len(endings) + 1]
  assert notes == [
    "files without an image ending that were ignored: 3, e.g. README.md",
    "folders beside the split folders that were ignored: 1, e.g. extra",
    "hidden files or folders that were ignored: 3, e.g. train/.git",
    "images outside of class folders that were ignored: 1, e.g. train/loose.png",
  ]


def test_an_empty_class_folder_is_noted_and_is_no_class(make, tmp_path):
  root = make("train/a/1.png", "train/b/1.png")
  (tmp_path / "set" / "train" / "c").mkdir()
  classes, _, notes = folders.read(root)
  assert classes == ("a", "b")
  assert notes == ["train/c holds no images and is left out"]


def test_a_class_that_only_test_has_is_a_class_and_is_noted(make):
  classes, _, notes = folders.read(make("train/a/1.png", "train/b/1.png", "test/c/1.png"))
  assert classes == ("a", "b", "c")
  assert notes == ["classes without an image in train: 1 (c)"]


def test_class_names_are_sorted_and_composed(make):
  name = unicodedata.normalize("NFD", "\u00e9clair")
  classes, found, _ = folders.read(
    make(f"train/{name}/1.png", "train/zebra/1.png", "train/10/1.png")
  )
  assert classes == ("10", "zebra", "\u00e9clair")
  assert found["train"].shard_lengths == [3]


def test_links_are_followed_only_to_files_inside(make, tmp_path):
  root = make("a/1.png", "b/1.png")
  outside = tmp_path / "secret.png"
  outside.write_text("outside")
  inside = tmp_path / "set"
  (inside / "a" / "in.png").symlink_to(inside / "b" / "1.png")
  (inside / "a" / "out.png").symlink_to(outside)
  (inside / "a" / "gone.png").symlink_to(tmp_path / "nothing.png")
  (inside / "b" / "circle").symlink_to(inside)
  classes, found, notes = folders.read(root)
  everything = [pair for source in found.values() for pair in contents(classes, source)]
  assert sorted(everything) == [("a", "a/1.png"), ("a", "b/1.png"), ("b", "b/1.png")]
  assert notes[0] == (
    "links that leave the folder, lead to a folder or lead nowhere that were ignored: 3, "
    "e.g. a/gone.png"
  )


def test_the_set_may_itself_be_a_link(make, tmp_path):
  make("train/a/1.png", "train/b/1.png")
  (tmp_path / "link").symlink_to(tmp_path / "set")
  assert folders.read(str(tmp_path / "link"))[1]["train"].shard_lengths == [2]


@pytest.mark.parametrize(
  ("paths", "message"),
  [
    (["1.png", "2.png"], r"has images \(.\.png …\) but no class folders"),
    (["readme.txt"], r"has no class folders \(files without an image ending that were ignored: 1"),
    (
      ["a/x.txt", "b/y.txt"],
      r"holds no images \(files without an image ending that were ignored: 2",
    ),
    (
      ["train/a/1.png", "val/a/1.png", "valid/a/1.png"],
      "val and valid both are the validation split",
    ),
    (["Training/a/1.png", "Testing/a/1.png"], "Testing, Training look like splits, not classes"),
    (
      ["train/1.png", "test/2.png"],
      r"holds no images \(images outside of class folders that were ignored: 2",
    ),
  ],
)
def test_wrong_layouts_are_refused_with_the_right_one(make, paths, message):
  root = make(*paths)
  with pytest.raises(UserError, match=message) as caught:
    folders.read(root)
  assert str(caught.value).startswith(f"folder:{root}: ")
  assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
  with pytest.raises(
    UserError, match=r"nowhere: no such folder; expected is PATH/train/CLASS/IMAGE"
  ):
    folders.read(str(tmp_path / "nowhere"))
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="file: is not a folder"):
    folders.read(str(tmp_path / "file"))


def test_a_folder_that_may_not_be_listed_is_named(make, monkeypatch):
  root = make("a/1.png", "b/1.png")
  scandir = os.scandir

  def refuse(path):
    if os.fspath(path).endswith("/b"):
      raise PermissionError(13, "Permission denied")
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  with pytest.raises(UserError, match=r"/b: can't be listed \(Permission denied\)"):
    folders.read(root)
