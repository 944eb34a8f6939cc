import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

from fresh import assert_same_bits, saved_state
import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf import config as configs
from imgclf import models, progress, state
from imgclf.data import datasets, loader
from imgclf.errors import Diverged, Stopped, UserError
from imgclf.models import resnet

ROOT = pathlib.Path(__file__).parents[2]


def lines(workdir, split):
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [row for row in rows if row["split"] == split]


def test_a_run_leaves_what_the_design_promises(small_config, tmp_path):
  result = imgclf.train(small_config, tmp_path, quiet=True)
  assert result["step"] == 6
  assert result["validation"]["n"] == 144  # the last tenth of 1,437
  assert json.loads((tmp_path / "classes.json").read_text()) == list("0123456789")
  assert configs.from_json((tmp_path / "config.json").read_text()).train.batch_size == 16
  assert [row["step"] for row in lines(tmp_path, "train")] == [2, 3, 4, 6]
  assert [row["step"] for row in lines(tmp_path, "validation")] == [3, 6]
  told = json.loads((tmp_path / "eval" / "validation-6.json").read_text())
  assert np.sum(told["confusion_matrix"]) == 144
  assert not (tmp_path / "eval" / "test-6.json").exists()


def test_the_first_logged_losses_fall_from_ln_classes(small_config, tmp_path):
  small_config.train.total_steps = 30
  small_config.optimizer.learning_rate = 5e-3
  imgclf.train(small_config, tmp_path, quiet=True)
  losses = [row["loss"] for row in lines(tmp_path, "train")]
  assert losses[0] == pytest.approx(np.log(10), abs=0.1)
  assert losses[-1] < 0.8 * losses[0]


def test_resume_at_any_step_gives_the_same_bits(small_config, tmp_path, monkeypatch):
  """Adam, EMA, batch norm, rotation, random crops: all of it follows from the step."""
  monkeypatch.setattr(resnet, "WIDTHS", (8, 12))
  monkeypatch.setitem(models._MODELS, "resnet18", models._resnet(False, 1, 1))
  small_config.optimizer.ema_decay = 0.9
  small_config.model.name, small_config.model.stem = "resnet18", "cifar"
  small_config.dataset.image_size = 8
  small_config.augment.crop_padding = 2
  whole = tmp_path / "whole"
  imgclf.train(small_config, whole, quiet=True)
  for cut in (1, 4):
    # A shorter run has another schedule, so the cut is a stop by signal after `cut` steps.
    stop_after(small_config, tmp_path / str(cut), cut)
    assert saved_state(tmp_path / str(cut))[0] == cut
    imgclf.train(small_config, tmp_path / str(cut), quiet=True)
    assert_same_bits(saved_state(whole), saved_state(tmp_path / str(cut)))


def stop_after(config, workdir, cut):
  """Trains until a SIGTERM that comes once step `cut` is logged."""
  config = imgclf.ConfigDict(config)
  config.log.every_steps = 1
  log = progress.Progress.log

  def signalling(self, step, split, figures):
    log(self, step, split, figures)
    if step == cut:
      signal.raise_signal(signal.SIGTERM)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(progress.Progress, "log", signalling)
    with pytest.raises(Stopped, match=f"step {cut} of 6 is saved; the same command goes on"):
      imgclf.train(config, workdir, quiet=True)


def test_a_finished_run_trains_no_further_and_says_what_it_has(small_config, tmp_path, capsys):
  first = imgclf.train(small_config, tmp_path, quiet=True)
  before = saved_state(tmp_path)
  again = imgclf.train(small_config, tmp_path)
  assert again == first
  assert_same_bits(before, saved_state(tmp_path))
  assert "--mode=eval" in capsys.readouterr().out


def test_a_run_may_go_on_for_longer_and_is_told(small_config, tmp_path, capsys):
  imgclf.train(small_config, tmp_path, quiet=True)
  small_config.train.total_steps = 8
  assert imgclf.train(small_config, tmp_path)["step"] == 8
  assert "config.train.total_steps: 6 -> 8" in capsys.readouterr().out


def test_another_config_in_the_same_folder_is_refused_with_the_differences(small_config, tmp_path):
  imgclf.train(small_config, tmp_path, quiet=True)
  small_config.seed, small_config.train.batch_size = 5, 8
  with pytest.raises(UserError) as refused:
    imgclf.train(small_config, tmp_path, quiet=True)
  assert "config.seed: 0 -> 5" in str(refused.value)
  assert "config.train.batch_size: 16 -> 8" in str(refused.value)


def test_a_data_set_whose_classes_moved_is_refused_by_name(small_config, tmp_path):
  imgclf.train(small_config, tmp_path, quiet=True)
  (tmp_path / "classes.json").write_text(json.dumps([*"012345678", "ten"]))
  with pytest.raises(UserError, match=r"gone: \['ten'\], new: \['9'\]"):
    imgclf.train(small_config, tmp_path, quiet=True)


def test_a_data_set_that_grew_is_refused(small_config, tmp_path):
  """The batches of a set of another size are other batches."""
  imgclf.train(small_config, tmp_path, quiet=True)
  told = json.loads((tmp_path / "dataset.json").read_text())
  assert told == {"splits": {"test": 360, "train": 1437}}
  (tmp_path / "dataset.json").write_text('{"splits": {"test": 360, "train": 1436}}')
  with pytest.raises(UserError, match=r"'train': 1436.*'train': 1437"):
    imgclf.train(small_config, tmp_path, quiet=True)


def test_a_warm_up_longer_than_the_run_is_cut_and_told(small_config, tmp_path, capsys):
  small_config.schedule.warmup_steps = 100
  imgclf.train(small_config, tmp_path)
  assert "warm-up is cut from 100 steps to 3: the run has 6" in capsys.readouterr().out
  assert lines(tmp_path, "train")[1]["learning_rate"] == pytest.approx(1e-3 * 2 / 3)


def test_a_folder_of_images_may_move_but_not_become_another_set(small_config, tmp_path):
  rng = np.random.default_rng(0)
  for split in ("train", "validation"):
    for name in "ab":
      (tmp_path / "here" / split / name).mkdir(parents=True)
      for i in range(8):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "here" / split / name / f"{i}.png")
  small_config.dataset.name = f"folder:{tmp_path / 'here'}"
  imgclf.train(small_config, tmp_path / "run", quiet=True)
  (tmp_path / "here").rename(tmp_path / "there")
  small_config.dataset.name = f"folder:{tmp_path / 'there'}"
  small_config.train.total_steps = 7
  assert imgclf.train(small_config, tmp_path / "run", quiet=True)["step"] == 7
  small_config.dataset.name = "digits"
  with pytest.raises(UserError, match=r"config\.dataset\.name"):
    imgclf.train(small_config, tmp_path / "run", quiet=True)


def test_a_set_of_one_class_is_refused(small_config, tmp_path):
  (tmp_path / "set" / "train" / "a").mkdir(parents=True)
  for i in range(20):
    Image.new("RGB", (8, 8)).save(tmp_path / "set" / "train" / "a" / f"{i}.png")
  small_config.dataset.name = f"folder:{tmp_path / 'set'}"
  with pytest.raises(UserError, match="has only one class, 'a'"):
    imgclf.train(small_config, tmp_path / "run", quiet=True)


def test_checkpoints_without_their_config_are_not_taken_over(small_config, tmp_path):
  imgclf.train(small_config, tmp_path, quiet=True)
  (tmp_path / "config.json").unlink()
  with pytest.raises(UserError, match=r"checkpoints but no config\.json"):
    imgclf.train(small_config, tmp_path, quiet=True)


def test_a_run_that_died_before_its_first_checkpoint_may_begin_anew(small_config, tmp_path, capsys):
  """Divergence tells to lower the learning rate, so that must be possible in the same folder."""
  small_config.optimizer.update(name="sgd", learning_rate=1e30)
  with pytest.raises(Diverged, match="there is no checkpoint"):
    imgclf.train(small_config, tmp_path, quiet=True)
  small_config.optimizer.learning_rate = 1e-3
  assert imgclf.train(small_config, tmp_path)["step"] == 6
  assert "without a checkpoint, which is begun anew" in capsys.readouterr().out


def test_a_signal_before_the_first_step_has_nothing_to_save(small_config, tmp_path, monkeypatch):
  create = state.create

  def signalled(*arguments, **options):
    signal.raise_signal(signal.SIGINT)
    return create(*arguments, **options)

  monkeypatch.setattr(state, "create", signalled)
  with pytest.raises(Stopped, match="nothing was to be saved; the same command starts again"):
    imgclf.train(small_config, tmp_path, quiet=True)
  monkeypatch.undo()
  assert imgclf.train(small_config, tmp_path, quiet=True)["step"] == 6


def test_a_run_whose_output_is_cut_off_goes_on(digits_dir, tmp_path):
  first, second = command(tmp_path, digits_dir), ["head", "-1"]
  writer = subprocess.Popen(first, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  subprocess.run(second, stdin=writer.stdout, stdout=subprocess.DEVNULL, check=True)
  writer.stdout.close()
  err = writer.stderr.read()
  assert writer.wait() == 0, err
  assert newest(tmp_path) == 40


def test_a_diverged_run_is_stopped_and_keeps_its_last_good_checkpoint(small_config, tmp_path):
  small_config.train.total_steps = 30
  small_config.optimizer.update(name="sgd", learning_rate=1e30)
  small_config.schedule.warmup_steps = 12
  small_config.checkpoint.every_steps = 1
  with pytest.raises(
    Diverged, match=r"(NaN or infinite|is nan|is inf); its batch was .*; the last checkpoint is of"
  ):
    imgclf.train(small_config, tmp_path, quiet=True)
  assert all(np.isfinite(leaf).all() for leaf in saved_state(tmp_path)[1])


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"model.name": "resnet81"}, "config.model.name"),
    ({"model.dtype": "float64"}, "JAX_ENABLE_X64=1"),
    ({"dataset.validation_split": "train[:20%]", "dataset.train_split": "train"}, "train[:20%]"),
    ({"dataset.name": "folder:/nowhere"}, "/nowhere"),
    ({"dataset.name": "no_such_set"}, "no_such_set"),
  ],
)
def test_what_is_wrong_is_refused_before_the_run_folder_is_touched(
  small_config, tmp_path, changes, words
):
  for path, value in changes.items():
    section, name = path.split(".")
    small_config[section][name] = value
  with pytest.raises(UserError) as refused:
    imgclf.train(small_config, tmp_path / "run", quiet=True)
  assert words in str(refused.value)
  assert "\n" not in str(refused.value)
  assert not (tmp_path / "run").exists()


def test_other_threads_can_train_too(small_config, tmp_path):
  """Python takes signals in its main thread alone; elsewhere a run goes without."""
  small_config.train.total_steps = 2
  done = []
  thread = threading.Thread(
    target=lambda: done.append(imgclf.train(small_config, tmp_path, quiet=True)["step"])
  )
  thread.start()
  thread.join()
  assert done == [2]


def command(workdir, digits_dir, *more):
  return [
    sys.executable,
    str(ROOT / "launch.py"),
    f"--config={ROOT / 'configs' / 'digits.py'}",
    f"--workdir={workdir}",
    f"--config.dataset.data_dir={digits_dir}",
    "--config.model.name=lenet5",
    "--config.train.total_steps=40",
    "--config.checkpoint.every_steps=5",
    "--config.eval.every_steps=20",
    "--config.log.every_steps=5",
    *more,
  ]


def newest(workdir):
  """The step of the newest checkpoint that is complete, or 0."""
  folder = workdir / "checkpoints"
  return max((int(p.name) for p in folder.glob("*") if p.name.isdecimal()), default=0)


def wait_for(condition, process, seconds=120):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    assert process.poll() is None, process.communicate()
    time.sleep(0.01)


def test_a_run_killed_in_the_middle_ends_in_the_bits_of_one_that_was_not(digits_dir, tmp_path):
  subprocess.run(command(tmp_path / "whole", digits_dir), check=True, capture_output=True)
  cut = tmp_path / "cut"
  killed = subprocess.Popen(
    command(cut, digits_dir), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
  )
  wait_for(lambda: newest(cut) >= 10, killed)
  killed.kill()
  killed.communicate()
  done = subprocess.run(command(cut, digits_dir), capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "resumed" in done.stdout
  assert_same_bits(saved_state(tmp_path / "whole"), saved_state(cut))
  steps = [row["step"] for row in lines(cut, "train")]
  assert steps == sorted(set(steps))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_says_how_to_go_on_and_exits_with_75(digits_dir, tmp_path, number):
  process = subprocess.Popen(
    command(tmp_path, digits_dir, "--config.train.total_steps=100000"),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  wait_for(lambda: newest(tmp_path) >= 5, process)
  os.kill(process.pid, number)
  _, err = process.communicate(timeout=60)
  assert process.returncode == 75
  assert "is saved; the same command goes on" in err
  assert "Traceback" not in err
  told = int(err.split("stopped: step ")[1].split()[0])
  assert saved_state(tmp_path)[0] == told
  assert told < 100000


def test_no_mode_imports_tensorflow(run_python, digits_dir, tmp_path):
  code = """
import sys
from PIL import Image
from imgclf import app
digits, run = sys.argv[1:]
assert app.main(["--config=configs/digits.py", f"--workdir={run}", "--config.model.name=lenet5",
                 f"--config.dataset.data_dir={digits}", "--config.train.total_steps=30"]) == 0
assert app.main(["--mode=eval", f"--workdir={run}"]) == 0
image = "picture.png"
Image.new("RGB", (9, 9)).save(f"{run}/{image}")
assert app.main(["--mode=predict", f"--workdir={run}", f"--images={run}/{image}",
                 f"--output={run}/out.csv"]) == 0
print("tensorflow" in sys.modules)
"""
  assert run_python(code, digits_dir, tmp_path).splitlines()[-1] == "False"


def test_a_bad_image_ends_the_run_and_no_step_before_it_is_lost(small_config, tmp_path):
  rng = np.random.default_rng(0)
  for split, count in (("train", 64), ("validation", 16)):
    for i in range(count):
      path = tmp_path / "set" / split / "ab"[i % 2] / f"{i}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
  small_config.dataset.name = f"folder:{tmp_path / 'set'}"
  small_config.train.total_steps = 12
  small_config.checkpoint.every_steps = 12
  small_config.eval.every_steps = 4
  small_config.dataset.threads, small_config.dataset.prefetch = 0, 1
  whole = imgclf.train(small_config, tmp_path / "whole", quiet=True)
  # One image of the third batch, then one of validation.
  records = datasets.open(small_config.dataset).records("train")
  late = loader.train_examples(records, small_config, 2)[3].name
  for path, saved in ((late, 2), (str(tmp_path / "set" / "validation" / "a" / "2.png"), 4)):
    before = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(before[:-20])
    for _ in range(2):  # once more, as who has not mended it does
      with pytest.raises(UserError, match=pathlib.Path(path).name):
        imgclf.train(small_config, tmp_path / "run", quiet=True)
    assert saved_state(tmp_path / "run")[0] == saved
    pathlib.Path(path).write_bytes(before)
  assert imgclf.train(small_config, tmp_path / "run", quiet=True) == whole
  assert_same_bits(saved_state(tmp_path / "whole"), saved_state(tmp_path / "run"))
