"""A checkpoint that is not what was saved is refused by the name of the file, and the one before it
is used."""

import errno
import json
import logging
import random
import shutil
import subprocess

from fresh import saved_state
import numpy as np
import pytest

import imgclf
from imgclf import manifest
from imgclf.checkpoint import Checkpoints
from imgclf.errors import UserError


def flip(path, draw):
  data = bytearray(path.read_bytes())
  place = draw.randrange(len(data))
  data[place] ^= 1 << draw.randrange(8)
  path.write_bytes(data)


def truncate(path, draw):
  data = path.read_bytes()
  path.write_bytes(data[: draw.randrange(len(data))])


def delete(path, draw):
  path.unlink()


def files(step):
  return sorted(p for p in step.rglob("*") if p.is_file() and p.stat().st_size)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, digits_dir):
  """A run with the checkpoints 3 and 6."""
  workdir = tmp_path_factory.mktemp("run")
  config = imgclf.default_config()
  config.dataset.data_dir = str(digits_dir)
  config.dataset.image_size = 32
  config.dataset.crop_fraction = 1.0
  config.augment.flip = False
  config.augment.crop = "padded"
  config.model.name = "lenet5"
  config.optimizer.ema_decay = 0.9
  config.train.batch_size, config.train.total_steps = 16, 6
  config.checkpoint.every_steps = config.eval.every_steps = 3
  config.checkpoint.best_metric = "loss"
  config.log.tensorboard = False
  imgclf.train(config, workdir, quiet=True)
  return config, workdir


@pytest.mark.parametrize("trials", [60, pytest.param(300, marks=pytest.mark.faults)])
def test_no_damaged_checkpoint_is_ever_used(tmp_path, run_folder, trials, caplog, capsys):
  """One flipped bit, a truncation or a lost file, anywhere in the newest checkpoint."""
  _, workdir = run_folder
  draw, silent = random.Random(trials), []
  source = workdir / "checkpoints"
  for trial in range(trials):
    folder = tmp_path / str(trial)
    shutil.copytree(source, folder)
    path = draw.choice(files(folder / "6"))
    hurt = (flip, truncate, delete)[trial % 3]
    hurt(path, draw)
    name = path.relative_to(folder / "6").as_posix()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "imgclf"), Checkpoints(folder, read_only=True) as found:
      chosen = found.choose("latest")
      told = caplog.text
      with pytest.raises(UserError) as refused:
        found.choose("6")
    if chosen != 3 or name not in told or name not in str(refused.value):
      silent.append((hurt.__name__, name, told))
    shutil.rmtree(folder)
  assert silent == []
  with capsys.disabled():
    print(
      f"\n{trials} damaged checkpoints: {trials} refused and fallen back from, each naming the file"
    )


def test_training_goes_on_from_the_newest_sound_checkpoint_and_ends_the_same(
  tmp_path, run_folder, capsys
):
  config, workdir = run_folder
  run = tmp_path / "run"
  shutil.copytree(workdir, run)
  flip(files(run / "checkpoints" / "6")[-1], random.Random(0))
  assert imgclf.train(config, run)["step"] == 6
  out = capsys.readouterr().out
  assert "checkpoint 6 is damaged" in out and "it was moved to" in out
  assert "resumed   from the checkpoint of step 3" in out
  assert (run / "checkpoints" / "damaged" / "6" / "state").is_dir()
  for mine, theirs in zip(saved_state(run)[1], saved_state(workdir)[1], strict=True):
    np.testing.assert_array_equal(mine, theirs)


def test_with_no_sound_checkpoint_left_nothing_is_trained_and_nothing_moved(tmp_path, run_folder):
  config, workdir = run_folder
  run = tmp_path / "run"
  shutil.copytree(workdir, run)
  for step in ("3", "6"):
    delete(run / "checkpoints" / step / "manifest.json", None)
  before = (run / "metrics.jsonl").read_bytes()
  with pytest.raises(
    UserError, match=r"no checkpoint is sound, the newest was that of step 6 \(mani"
  ):
    imgclf.train(config, run, quiet=True)
  assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["3", "6"]
  assert (run / "metrics.jsonl").read_bytes() == before


def test_a_file_that_can_not_be_read_just_now_is_told_and_no_damage(
  tmp_path, run_folder, monkeypatch
):
  """Such as on a file server that is away for a moment: nothing is given up for it."""
  config, workdir = run_folder
  run = tmp_path / "run"
  shutil.copytree(workdir, run)

  def away(path, sync=False):
    raise OSError(errno.ESTALE, "Stale file handle")

  monkeypatch.setattr(manifest, "_sha256", away)
  with pytest.raises(UserError, match=r"can't be read \(Stale file handle\); make it readable"):
    imgclf.train(config, run, quiet=True)
  monkeypatch.undo()
  assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["3", "6"]
  assert imgclf.train(config, run, quiet=True)["step"] == 6


def test_evaluation_tells_that_it_fell_back_and_from_what(tmp_path, run_folder, caplog):
  _, workdir = run_folder
  run = tmp_path / "run"
  shutil.copytree(workdir, run)
  best = imgclf.load(run).step
  other = {3: 6, 6: 3}[best]
  truncate(run / "checkpoints" / str(best) / "state" / "_METADATA", random.Random(0))
  with caplog.at_level(logging.WARNING, "imgclf"):
    assert imgclf.evaluate(run, quiet=True)["step"] == other
  assert f"checkpoints/{best}: is damaged (state/_METADATA was changed" in caplog.text
  with pytest.raises(UserError, match=f"/{best}: this checkpoint is damaged"):
    imgclf.evaluate(run, step=best, quiet=True)
  shutil.rmtree(run / "checkpoints" / str(other) / "state")
  with pytest.raises(UserError, match="no checkpoint is sound"):
    imgclf.evaluate(run, quiet=True)


def test_a_stranger_in_a_checkpoint_is_refused(tmp_path, run_folder):
  _, workdir = run_folder
  shutil.copytree(workdir, tmp_path / "run")
  (tmp_path / "run" / "checkpoints" / "6" / "state" / "more").write_text("x")
  with pytest.raises(UserError, match=r"state/more is not in manifest\.json"):
    imgclf.load(tmp_path / "run", 6)


def test_the_digests_do_not_depend_on_what_reads_them(run_folder):
  """By coreutils' own sha256sum, where it is there."""
  if shutil.which("sha256sum") is None:
    pytest.skip("needs sha256sum")
  step = run_folder[1] / "checkpoints" / "6"
  told = json.loads((step / "manifest.json").read_text())["files"]
  lines = subprocess.run(
    ["sha256sum", *told], cwd=step, capture_output=True, text=True, check=True
  ).stdout.splitlines()
  assert {name: digest for digest, name in (line.split("  ", 1) for line in lines)} == told
  assert len(told) >= 5
