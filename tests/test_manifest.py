"""A checkpoint's manifest: whatever changed since it was written is found and named."""

import errno
import hashlib
import json
import math
import os

import pytest

from imgclf import manifest
from imgclf.manifest import Damaged

RUN = {"config": {"epsilon": 1e-08, "name": "cnn", "std": [0.5, 1]}, "classes": ["cat", "дog"]}
FIGURES = {"accuracy": 0.75, "loss": None}
FILES = {"state/a": b"first", "state/deep/b": b"", "c": bytes(range(256))}


@pytest.fixture
def checkpoint(tmp_path):
  """Three files below two folders, and their manifest."""
  folder = tmp_path / "7"
  for path, data in FILES.items():
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
  manifest.write(folder, FIGURES, RUN)
  return folder


def test_what_was_written_is_read_again(checkpoint):
  told = manifest.read(checkpoint)
  assert (told.figures, told.run) == (FIGURES, RUN)
  assert sorted(told.files) == sorted(FILES)
  manifest.verify(checkpoint)


def test_the_digests_are_hashlibs_of_the_files_and_of_the_rest_of_the_manifest(checkpoint):
  tree = json.loads((checkpoint / "manifest.json").read_text())
  assert tree["files"] == {path: hashlib.sha256(data).hexdigest() for path, data in FILES.items()}
  own = tree.pop("sha256")
  assert own == hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def test_a_file_of_several_pieces_has_the_digest_of_the_whole(tmp_path):
  data = bytes(range(251)) * 10_000  # 2.5 million bytes: read as three pieces, the last one short
  (tmp_path / "big").write_bytes(data)
  manifest.write(tmp_path, None, {})
  assert manifest.read(tmp_path).files == {"big": hashlib.sha256(data).hexdigest()}


def test_every_change_of_one_byte_anywhere_in_the_manifest_is_found(checkpoint):
  path = checkpoint / "manifest.json"
  data = path.read_bytes()
  # All that JSON or Unicode could take for the same, or for another number, and one bit in each
  # byte.
  others = {*b' \t\r\n"\\/{}[],:0123456789.-+eEaA\x00\x7f\x80\xc3\xff'}
  unfound = []
  with open(path, "r+b", buffering=0) as file:
    for place, byte in enumerate(data):
      for other in {*others, *(byte ^ (1 << bit) for bit in range(8))} - {byte}:
        os.pwrite(file.fileno(), bytes([other]), place)
        try:
          manifest.read(checkpoint)
        except Damaged:
          continue
        unfound.append((place, bytes([byte]), bytes([other])))
      os.pwrite(file.fileno(), bytes([byte]), place)
  manifest.read(checkpoint)
  assert unfound == []


def test_a_manifest_that_is_cut_short_or_goes_on_is_found(checkpoint):
  path = checkpoint / "manifest.json"
  data = path.read_bytes()
  for text in [*(data[:length] for length in range(len(data))), data + b"\n", data + b"\x00"]:
    path.write_bytes(text)
    with pytest.raises(Damaged, match=r"^manifest\.json (is no manifest|was changed)"):
      manifest.read(checkpoint)


@pytest.mark.parametrize(
  "text",
  ["null", "[]", "7", "{}", '{"sha256": 1}', "[" * 100_000, '{"sha256": "", "files": 7}', "NaN"]
  + [f'{{"figures": {f}, "files": {d}, "run": {{}}, "sha256": ""}}'
     for f, d in (("null", "7"), ("null", "[1]"), ('"a"', "{}"), ('{"a": NaN}', "{}"), ("1e999", "{}"))],
)  # fmt: skip
def test_json_that_is_no_manifest_is_damage_and_not_a_crash(tmp_path, text):
  (tmp_path / "manifest.json").write_text(text)
  with pytest.raises(Damaged):
    manifest.read(tmp_path)


def test_a_missing_manifest_is_told_as_such(checkpoint):
  (checkpoint / "manifest.json").unlink()
  for look in (manifest.read, manifest.verify):
    with pytest.raises(Damaged, match=r"^manifest\.json is missing$"):
      look(checkpoint)


def test_a_folder_in_the_manifests_place_is_told(checkpoint):
  (checkpoint / "manifest.json").unlink()
  (checkpoint / "manifest.json").mkdir()
  with pytest.raises(Damaged, match=r"^manifest\.json is no regular file$"):
    manifest.read(checkpoint)


@pytest.mark.parametrize("path", FILES)
def test_a_change_of_one_bit_in_a_file_is_found_by_its_name(checkpoint, path):
  if not FILES[path]:
    (checkpoint / path).write_bytes(b"\x00")
  else:
    (checkpoint / path).write_bytes(FILES[path][:-1] + bytes([FILES[path][-1] ^ 1]))
  with pytest.raises(Damaged, match=f"^{path} was changed after it was saved"):
    manifest.verify(checkpoint)


def test_a_missing_and_an_additional_file_are_found_by_name(checkpoint):
  (checkpoint / "state" / "new").write_bytes(b"")
  with pytest.raises(Damaged, match=r"^state/new is not in manifest\.json$"):
    manifest.verify(checkpoint)
  (checkpoint / "state" / "new").unlink()
  (checkpoint / "state" / "deep" / "b").unlink()
  with pytest.raises(Damaged, match=r"^state/deep/b is missing$"):
    manifest.verify(checkpoint)


def test_a_file_whose_name_begins_like_the_manifests_belongs_below_a_folder_only(checkpoint):
  (checkpoint / "state" / ".manifest.json.9.tmp").write_bytes(b"")
  with pytest.raises(Damaged, match=r"^state/\.manifest\.json\.9\.tmp is not in"):
    manifest.verify(checkpoint)


def test_a_link_counts_as_a_file_wherever_it_leads(checkpoint, tmp_path):
  other = tmp_path / "other"
  other.mkdir()
  (other / "a").write_bytes(b"second")
  (checkpoint / "link").symlink_to(checkpoint / "c")
  with pytest.raises(Damaged, match=r"^link is not in"):
    manifest.verify(checkpoint)
  (checkpoint / "link").unlink()
  (checkpoint / "link").symlink_to(other)  # to a folder
  with pytest.raises(Damaged, match=r"^link is not in"):
    manifest.verify(checkpoint)
  (checkpoint / "link").unlink()
  manifest.verify(checkpoint)
  (checkpoint / "state" / "a").unlink()
  (checkpoint / "state" / "a").symlink_to(other / "a")
  with pytest.raises(Damaged, match=r"^state/a was changed"):
    manifest.verify(checkpoint)
  (other / "a").unlink()  # now it leads nowhere
  with pytest.raises(Damaged, match=r"^state/a is missing$"):
    manifest.verify(checkpoint)


def test_figures_are_added_later_and_nothing_else_changes(checkpoint):
  before = manifest.read(checkpoint)
  manifest.add_figures(checkpoint, {"accuracy": 0.5})
  after = manifest.read(checkpoint)
  assert after.figures == {"accuracy": 0.5}
  assert (after.files, after.run) == (before.files, before.run)
  manifest.verify(checkpoint)


def test_figures_are_not_added_to_a_manifest_that_is_damaged(checkpoint):
  path = checkpoint / "manifest.json"
  path.write_bytes(path.read_bytes().replace(b"0.75", b"0.95"))
  damaged = path.read_bytes()
  with pytest.raises(Damaged, match="was changed after it was written"):
    manifest.add_figures(checkpoint, {"accuracy": 0.5})
  assert path.read_bytes() == damaged


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_strict_json_has_no_word_for_is_refused_and_the_old_manifest_stays(checkpoint, value):
  before = (checkpoint / "manifest.json").read_bytes()
  with pytest.raises(ValueError, match="JSON compliant"):
    manifest.add_figures(checkpoint, {"loss": value})
  assert (checkpoint / "manifest.json").read_bytes() == before
  assert sorted(os.listdir(checkpoint)) == ["c", "manifest.json", "state"]


def test_a_full_disk_leaves_the_old_manifest_and_no_temporary_file(checkpoint, monkeypatch):
  def full(handle):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="No space left"):
    manifest.add_figures(checkpoint, {"accuracy": 0.5})
  monkeypatch.undo()
  assert manifest.read(checkpoint).figures == FIGURES
  assert sorted(os.listdir(checkpoint)) == ["c", "manifest.json", "state"]


def test_what_a_kill_left_of_a_manifest_is_passed_over(checkpoint):
  (checkpoint / ".manifest.json.4711.tmp").write_text('{"figu')
  manifest.verify(checkpoint)
  manifest.write(checkpoint, None, RUN)
  assert sorted(manifest.read(checkpoint).files) == sorted(FILES)


def test_the_manifest_appears_after_all_that_it_tells_of_is_on_the_disk(checkpoint, monkeypatch):
  synced, renamed = [], []
  fsync, replace = os.fsync, os.replace

  def noted(handle):
    synced.append(os.fstat(handle).st_ino)
    fsync(handle)

  def rename(source, target):
    renamed.append({*synced})
    replace(source, target)

  monkeypatch.setattr(os, "fsync", noted)
  monkeypatch.setattr(os, "replace", rename)
  manifest.write(checkpoint, None, RUN)
  wanted = {(checkpoint / path).stat().st_ino for path in (*FILES, "manifest.json")}
  assert wanted <= renamed[0]
  assert checkpoint.stat().st_ino in synced  # and so is its own name


@pytest.mark.parametrize("path", ["state/a", "manifest.json"])
def test_a_pipe_in_a_files_place_is_told_and_not_waited_for(checkpoint, path):
  (checkpoint / path).unlink()
  os.mkfifo(checkpoint / path)
  with pytest.raises(Damaged, match=f"^{path} is no regular file"):
    manifest.verify(checkpoint)
