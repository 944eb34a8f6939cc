import hashlib
import math
import os
import socket
import unicodedata

import numpy as np
import pytest

from imgclf.data import files
from imgclf.errors import UserError

NAMES = [f"class{i % 7}/image{i:05d}.jpg" for i in range(2000)]


def share(path):
  """The path's place in [0, 1), from the hash's first 64 bits by hand."""
  return int(hashlib.blake2b(path.encode(), digest_size=16).hexdigest()[:16], 16) / 2**64


def splits_of(paths):
  _, found, _ = files.sources("/", paths, [p.split("/")[0] for p in paths], None)
  return {path: split for split, source in found.items() for path in source._paths}


def test_the_split_is_the_place_in_the_hashs_range():
  expected = {
    path: "train" if share(path) < 0.8 else "validation" if share(path) < 0.9 else "test"
    for path in NAMES
  }
  assert splits_of(NAMES) == expected


def test_the_shares_are_80_10_10_within_five_standard_deviations():
  found = list(splits_of(NAMES).values())
  for split, p in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
    assert abs(found.count(split) - 2000 * p) < 5 * math.sqrt(2000 * p * (1 - p))


def test_adding_and_removing_files_moves_no_other():
  before, after = splits_of(NAMES[:1500]), splits_of(NAMES[500:])
  assert all(before[path] == after[path] for path in NAMES[500:1500])


def test_the_order_is_the_hashs_whatever_the_listing_was():
  _, found, _ = files.sources("/", NAMES, ["a", "b"] * 1000, ["train"] * 2000)
  _, back, _ = files.sources("/", NAMES[::-1], ["b", "a"] * 1000, ["train"] * 2000)
  assert found["train"]._paths == sorted(NAMES, key=share) == back["train"]._paths
  np.testing.assert_array_equal(found["train"].labels, back["train"].labels)


def test_a_slice_is_a_fair_sample_of_the_classes():
  _, found, _ = files.sources("/", NAMES, [n.split("/")[0] for n in NAMES], ["train"] * 2000)
  counts = np.bincount(found["train"].labels[1800:], minlength=7)
  # 200 draws of 7 equal classes: 28.6 each, with a standard deviation of 4.9.
  assert np.all(np.abs(counts - 200 / 7) < 5 * math.sqrt(200 * (1 / 7) * (6 / 7)))


def test_both_unicode_forms_of_a_name_have_the_same_hash():
  composed = "caf\u00e9/ni\u00f1o.png"
  decomposed = unicodedata.normalize("NFD", composed)
  assert composed != decomposed
  np.testing.assert_array_equal(files.digests([composed]), files.digests([decomposed]))


def test_a_name_that_is_not_utf8_has_a_hash():
  assert files.digests([b"a/\xff.png".decode("utf-8", "surrogateescape")]).shape == (1, 2)


def test_a_class_without_training_images_is_noted():
  classes, _, notes = files.sources(
    "/", ["1", "2", "3"], ["a", "b", "c"], ["train", "test", "test"]
  )
  assert classes == ("a", "b", "c")
  assert notes == ["classes without an image in train: 2 (b, c)"]


def test_a_file_that_is_gone_is_named(tmp_path):
  (tmp_path / "1.png").write_bytes(b"one")
  _, found, _ = files.sources(str(tmp_path), ["1.png", "2.png"], ["a", "b"], ["train", "test"])
  (record,) = found["train"].read([0])
  assert (record.data, record.label, record.name) == (b"one", 0, str(tmp_path / "1.png"))
  with pytest.raises(UserError, match=r"2\.png: can't be read \(No such file"):
    found["test"].read([0])


def test_a_file_is_read_whole_or_up_to_one_byte_too_many(tmp_path):
  path = tmp_path / "a.png"
  path.write_bytes(b"12345678")
  assert files.read_file(path) == files.read_file(str(path), 8) == b"12345678"
  assert files.read_file(path, 5) == b"123456"
  (tmp_path / "link.png").symlink_to(path)
  assert files.read_file(tmp_path / "link.png") == b"12345678"


def test_what_is_no_file_is_neither_waited_for_nor_read(tmp_path):
  os.mkfifo(tmp_path / "pipe.png")
  with socket.socket(socket.AF_UNIX) as server:
    server.bind(str(tmp_path / "socket.png"))
  for name in ("pipe.png", "socket.png", "/dev/zero"):
    with pytest.raises(PermissionError, match="a pipe, socket or device, not a file"):
      files.read_file(tmp_path / name)
  with pytest.raises(IsADirectoryError):
    files.read_file(tmp_path)
  with pytest.raises(FileNotFoundError):
    files.read_file(tmp_path / "gone.png")


def test_a_file_that_has_become_a_pipe_is_named(tmp_path):
  (tmp_path / "a.png").write_bytes(b"a")
  source = files.FileSource(str(tmp_path), ["a.png"], np.zeros(1, np.int32))
  assert source.name(0) == source.read([0])[0].name == str(tmp_path / "a.png")
  (tmp_path / "a.png").unlink()
  os.mkfifo(tmp_path / "a.png")
  with pytest.raises(UserError, match=r"a\.png: can't be read \(a pipe, socket or device"):
    source.read([0])
