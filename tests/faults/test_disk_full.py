"""The disk is full at some write: one clear line, and what was saved before is sound."""

import collections
import errno
import shutil
import subprocess
import sys

from fresh import ROOT, fresh_environment
import pytest

import imgclf
from imgclf import array_files

# In one process, so that a trial costs no start-up. From the write numbered `at` on all of them
# fail.
TRIALS = """
import ctypes, json, os, pathlib, shutil, sys
library, folder, digits, trials = sys.argv[1], pathlib.Path(os.environ["FAULT_FOLDER"]), sys.argv[2], int(sys.argv[3])
disk = ctypes.CDLL(library)
import imgclf
from imgclf.checkpoint import Checkpoints

def train():
  config = imgclf.default_config()
  config.dataset.data_dir = digits
  config.dataset.image_size, config.dataset.crop_fraction = 32, 1.0
  config.augment.flip, config.augment.crop = False, "padded"
  config.model.name = "lenet5"
  config.train.batch_size, config.train.total_steps = 16, 6
  config.eval.every_steps, config.checkpoint.every_steps, config.log.every_steps = 3, 2, 2
  imgclf.train(config, folder, quiet=True)

def told():
  names = ["metrics.jsonl", *(f"eval/{p.name}" for p in sorted((folder / "eval").iterdir()))]
  drop = ("time", "images_per_second", "data_wait_share")
  rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  rows = [{k: v for k, v in row.items() if k not in drop} for row in rows]
  return rows, [(folder / name).read_text() for name in names[1:]]

def sound():
  with Checkpoints(folder / "checkpoints", read_only=True) as found:
    return [step for step in found.steps() if found.damage(step) is None], list(found._damaged)

disk.fault_arm(0, 0)
train()
writes, whole = disk.fault_arm(0, 0), told()
hit = told_of = 0
while hit < trials:
  shutil.rmtree(folder, ignore_errors=True)
  # Evenly over all writes, whose number differs a little from run to run.
  at = 1 + hit * (writes - 1) // trials
  disk.fault_arm(at, 0)
  try:
    train()
  except imgclf.UserError as error:
    assert "No space left on device" in str(error) and str(folder) in str(error), error
    assert "make room" in str(error) and "\\n" not in str(error), error
    told_of += 1
  else:
    if disk.fault_arm(0, 0) < at:
      writes = at - 1  # this time there were not so many
      continue
    # It was a write of TensorBoard's: nothing of the run itself was still to be written.
    assert told() == whole, at
  finally:
    disk.fault_arm(0, 0)
  hit += 1
  if folder.exists():
    steps, damaged = sound()
    assert not damaged, (at, damaged)
    train()  # there is room again: the same command ends like the run that nothing happened to
    assert told() == whole, at
print(f"{trials} full disks over {writes} writes: {told_of} told in one line, {hit - told_of} had all written")
assert told_of >= 0.8 * hit
"""


@pytest.mark.parametrize("trials", [2, pytest.param(50, marks=pytest.mark.faults)])
def test_a_full_disk_is_told_and_what_was_saved_stays_sound(
  tmp_path, digits_dir, failing_disk, trials, capsys
):
  done = subprocess.run(
    [sys.executable, "-c", TRIALS, failing_disk, digits_dir, str(trials)],
    env=fresh_environment(LD_PRELOAD=str(failing_disk), FAULT_FOLDER=str(tmp_path / "run")),
    capture_output=True,
    text=True,
    timeout=1200,
    cwd=ROOT,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  # Nothing but what is told: no traceback of a thread, of orbax or of TensorBoard.
  assert done.stderr == ""
  with capsys.disabled():
    print(f"\n{done.stdout.strip()}")


def test_a_limit_of_file_sizes_is_told_too(tmp_path, digits_dir, run_python):
  code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from imgclf import app
sys.exit(0 if app.main(sys.argv[1:]) == 2 else 1)
"""
  run_python(
    code,
    f"--config={ROOT / 'configs' / 'digits.py'}",
    f"--workdir={tmp_path / 'run'}",
    f"--config.dataset.data_dir={digits_dir}",
    "--config.model.name=lenet5",
    "--config.train.total_steps=4",
  )


def test_a_save_that_would_not_fit_is_refused_before_anything_is_written(
  tmp_path, small_config, monkeypatch
):
  imgclf.train(small_config, tmp_path, quiet=True)
  before = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
  usage = collections.namedtuple("usage", "total used free")
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 4000, 4000))
  small_config.train.total_steps = 9
  # 61,706 parameters and Adam's two moments, 4 bytes each, and 1 MB for the files' own needs.
  with pytest.raises(
    imgclf.UserError, match=r"a checkpoint needs 2 MB and 0 MB are free; make room"
  ):
    imgclf.train(small_config, tmp_path, quiet=True)
  assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == before


def test_a_save_that_fails_in_the_background_ends_the_run_at_the_next_step(
  tmp_path, small_config, monkeypatch
):
  def write(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(array_files, "write", write)
  small_config.train.total_steps = 1000
  small_config.eval.every_steps = 1000
  small_config.log.every_steps = 1
  with pytest.raises(imgclf.UserError, match=r"a checkpoint can't be written \(No space"):
    imgclf.train(small_config, tmp_path, quiet=True)
  # Saved after step 3; the next save, which waits for that one, would have been after step 6.
  assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) < 6
