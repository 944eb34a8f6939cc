import io
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
from sklearn.datasets import load_digits

from imgclf.data import digits, tfds_sets
from imgclf.errors import UserError


def read(data_dir):
  """Every example as (split, pixels, label)."""
  classes, found = tfds_sets.read("digits", data_dir, "image", "label")
  assert classes == tuple("0123456789")
  return [
    (split, np.asarray(Image.open(io.BytesIO(record.data))), record.label)
    for split, source in found.items()
    for record in source.read(range(sum(source.shard_lengths)))
  ]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp("data")
  digits.prepare(path)
  return path


def test_every_scan_of_scikit_learn_is_there_exactly_once(data_dir):
  images, labels = load_digits(return_X_y=True)
  # Multiples of 255/16 = 15.9375, rounded.
  scale = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255])
  expected = sorted(
    (scale[image.astype(int)].astype(np.uint8).tobytes(), label)
    for image, label in zip(images, labels)
  )
  found = read(data_dir)
  assert {(pixels.shape, pixels.dtype.name) for _, pixels, _ in found} == {((8, 8), "uint8")}
  assert sorted((pixels.tobytes(), label) for _, pixels, label in found) == expected
  assert len(found) == 1797


def test_the_splits_have_every_class_in_proportion_and_share_no_scan(data_dir):
  found = read(data_dir)
  train = [label for split, _, label in found if split == "train"]
  test = [label for split, _, label in found if split == "test"]
  assert (len(train), len(test)) == (1437, 360)
  totals = np.bincount(load_digits().target)
  np.testing.assert_array_equal(np.bincount(train) + np.bincount(test), totals)
  assert np.all(np.abs(np.bincount(test) - totals * 360 / 1797) < 1)
  scans = {
    part: {pixels.tobytes() for split, pixels, _ in found if split == part}
    for part in ("train", "test")
  }
  assert not scans["train"] & scans["test"]


def test_preparing_again_writes_nothing(data_dir):
  files = sorted(data_dir.rglob("*"))
  before = [path.stat().st_mtime_ns for path in files]
  digits.prepare(data_dir)
  assert sorted(data_dir.rglob("*")) == files
  assert [path.stat().st_mtime_ns for path in files] == before


def test_nothing_but_the_set_is_left(data_dir):
  assert [path.name for path in data_dir.iterdir()] == ["digits"]
  assert [path.name for path in (data_dir / "digits").iterdir()] == ["1.0.0"]


def test_who_comes_second_takes_what_the_first_has_written(data_dir, tmp_path, monkeypatch):
  rename = os.rename

  def rename_too_late(source, target):
    if pathlib.Path(target) == tmp_path / "digits" / "1.0.0":
      shutil.copytree(data_dir / "digits" / "1.0.0", target)
    rename(source, target)

  monkeypatch.setattr(digits.os, "rename", rename_too_late)
  digits.prepare(tmp_path)
  assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]
  assert len(read(tmp_path)) == 1797


def test_two_processes_at_once_both_find_the_whole_set(tmp_path):
  code = (
    "import pathlib, sys; from imgclf.data import digits, tfds_sets; d = pathlib.Path(sys.argv[1]);"
    "digits.prepare(d); _, found = tfds_sets.read('digits', d, 'image', 'label');"
    "print(len(found['train'].read(range(1437))), 'tensorflow' in sys.modules)"
  )
  root = pathlib.Path(__file__).parents[2]
  both = [
    subprocess.Popen(
      [sys.executable, "-c", code, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    for _ in range(2)
  ]
  assert [process.communicate(timeout=120)[0] for process in both] == ["1437 False\n"] * 2
  assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1.0.0"]


def test_a_folder_that_cant_be_written_is_refused_with_the_mend(tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match=r"file: the digits can't be written .*data_dir=DIR"):
    digits.prepare(tmp_path / "file")


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
  def full(*args, **kwargs):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(digits.Digits, "download_and_prepare", full)
  with pytest.raises(UserError, match="No space left on device"):
    digits.prepare(tmp_path)
  assert list((tmp_path / "digits").iterdir()) == []
