"""The same seed gives the same bits: resumed at any step, on any number of threads, devices and
processes."""

import json
import signal

from fresh import assert_same_bits, saved_state
import numpy as np
import pytest
from runs import Run

import imgclf
from imgclf import progress
from imgclf.errors import Stopped


def stop_after(config, workdir, cut):
  """Trains until a SIGTERM that comes once step `cut` is logged."""
  log = progress.Progress.log

  def signalling(self, step, split, figures):
    log(self, step, split, figures)
    if step == cut and split == "train":
      signal.raise_signal(signal.SIGTERM)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(progress.Progress, "log", signalling)
    with pytest.raises(Stopped):
      imgclf.train(config, workdir, quiet=True)


@pytest.mark.faults
def test_a_run_that_was_stopped_at_each_of_its_steps_ends_in_the_same_bits(small_config, tmp_path):
  small_config.optimizer.ema_decay = 0.9
  small_config.train.total_steps = 12
  small_config.log.every_steps = 1
  imgclf.train(small_config, tmp_path / "whole", quiet=True)
  for cut in range(1, 12):
    stop_after(small_config, tmp_path / str(cut), cut)
    assert saved_state(tmp_path / str(cut))[0] == cut
    imgclf.train(small_config, tmp_path / str(cut), quiet=True)
    assert_same_bits(saved_state(tmp_path / "whole"), saved_state(tmp_path / str(cut)))
  # And in one run that is stopped after every step.
  for cut in range(1, 12):
    stop_after(small_config, tmp_path / "often", cut)
  imgclf.train(small_config, tmp_path / "often", quiet=True)
  assert_same_bits(saved_state(tmp_path / "whole"), saved_state(tmp_path / "often"))


def figures(workdir):
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  drop = ("time", "images_per_second", "data_wait_share")
  return [{key: value for key, value in row.items() if key not in drop} for row in rows]


@pytest.mark.faults
def test_threads_change_no_bit_in_fresh_processes(tmp_path, digits_dir):
  found = []
  for threads in (0, 1, 4):
    run = Run(
      tmp_path / str(threads), digits_dir, more=[f"--config.dataset.threads={threads}"], steps=20
    )
    run.start()
    assert run.finish() == [0], run.printed(0, "err")
    found.append((saved_state(run.workdir), figures(run.workdir)))
  for state, told in found[1:]:
    assert_same_bits(found[0][0], state)
    assert told == found[0][1]


# Four blocks of ResNet with synchronised batch norm, in float64; the names of all examples of all
# batches are noted down by every process.
ELASTIC = """
import json, os, sys
from imgclf import app, loop, models
from imgclf.data import loader
models._MODELS["resnet18"] = models._resnet(False, 1, 1, 1, 1)
crop = loader.train_crop
def noting(*known):
  real = crop(*known)
  def one(record, *rest):
    with open(os.environ["NOTES"], "a") as file:
      file.write(record.name + "\\n")
    return real(record, *rest)
  return one
loader.train_crop = noting
app.command()
"""


@pytest.mark.faults
def test_a_run_that_goes_from_1_to_2_to_8_to_4_devices_sees_the_same_examples_and_ends_alike(
  tmp_path, digits_dir
):
  more = [
    "--config.model.name=resnet18",
    "--config.model.stem=cifar",
    "--config.model.dtype=float64",
    "--config.dataset.image_size=8",
    "--config.augment.crop_padding=2",
    "--config.train.batch_size=16",
    "--config.checkpoint.every_steps=3",
    "--config.optimizer.name=sgd",
    "--config.optimizer.learning_rate=0.01",
    "--config.dataset.prefetch=1",
  ]

  def run(name, layouts):
    """Trains 3 steps on each layout: (devices, processes)."""
    for part, (devices, processes) in enumerate(layouts, 1):
      one = Run(tmp_path / name, digits_dir, steps=3 * part, processes=processes, more=more)
      one.start(
        ELASTIC,
        JAX_ENABLE_X64="1",
        NOTES=str(tmp_path / f"{name}-{part}.txt"),
        XLA_FLAGS=f"--xla_force_host_platform_device_count={devices // processes}",
      )
      assert set(one.finish()) == {0}, one.printed(0, "err")[-3000:]
    notes = [(tmp_path / f"{name}-{part}.txt").read_text().split() for part in range(1, 5)]
    return [sorted(names) for names in notes]

  # The learning rate follows from the length of the run, so each part is told a length of its own
  # in both.
  alone = run("alone", [(1, 1)] * 4)
  elastic = run("elastic", [(1, 1), (2, 1), (8, 1), (4, 2)])
  assert elastic == alone
  assert all(len(names) == 48 for names in alone)
  one, other = saved_state_x64(tmp_path / "alone"), saved_state_x64(tmp_path / "elastic")
  assert one.keys() == other.keys() and len(one) > 40
  worst = max(float(np.max(np.abs(one[name] - other[name]))) for name in one)
  assert worst < 1e-10
  print(f"largest difference after three changes of the devices: {worst:.1e}")


def saved_state_x64(workdir):
  """The floats of the newest checkpoint by name, read by orbax alone."""
  import jax
  import orbax.checkpoint as ocp

  newest = max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdecimal())
  folder = workdir / "checkpoints" / str(newest) / "state"
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    tree = reader.metadata(folder).item_metadata.tree
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    found = reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=arguments))
  leaves = jax.tree_util.tree_flatten_with_path(found)[0]
  return {
    jax.tree_util.keystr(path): np.asarray(leaf)
    for path, leaf in leaves
    if np.asarray(leaf).dtype == np.float64
  }
