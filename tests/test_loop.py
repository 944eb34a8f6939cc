"""The steps of a run where something goes wrong in them: divergence, bad steps, a stop in an
evaluation."""

import json
import shutil
import signal

from fresh import assert_same_bits, saved_state
import jax
import numpy as np
import pytest

import imgclf
from imgclf import parallel, progress, validation
from imgclf.checkpoint import Checkpoints
from imgclf.data import datasets, loader
from imgclf.errors import Diverged, Stopped

OPEN_BATCHES = loader.train_batches


@pytest.fixture
def config(small_config):
  """Six steps, each saved and logged."""
  config = imgclf.ConfigDict(small_config)
  config.augment.update(crop="center", rotation=0.0)
  config.schedule.name = "constant"
  config.eval.every_steps = 6
  config.checkpoint.update(every_steps=1, keep_latest=10)
  config.log.every_steps = 1
  return config


@pytest.fixture
def spoil(monkeypatch):
  """Makes the loss of these steps NaN, as one example of each has a class that there is none of.

  Returns the batches as they were trained on, by step.
  """

  def spoil(*steps):
    seen = {}

    def spoiled(k, batch):
      if k + 1 in steps:
        seen[k + 1] = batch
        label = batch["label"].copy()
        label[3] = 99
        batch = {**batch, "label": label}
      return batch

    monkeypatch.setattr(
      loader, "train_batches", lambda *a, **k: OPEN_BATCHES(*a, **k).map_with_index(spoiled)
    )
    return seen

  return spoil


def rows(workdir, split="train"):
  told = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [row for row in told if row["split"] == split]


def figures(workdir):
  """Of each checkpoint by its step."""
  with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
    return {step: checkpoints.metrics(step) for step in checkpoints.steps()}


def stopped_after(config, workdir, step):
  """Trains until a SIGTERM that comes once a step is logged."""
  log = progress.Progress.log

  def signalling(self, logged, split, figures):
    log(self, logged, split, figures)
    if logged == step:
      signal.raise_signal(signal.SIGTERM)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(progress.Progress, "log", signalling)
    with pytest.raises(Stopped, match=f"step {step} of {config.train.total_steps} is saved"):
      imgclf.train(config, workdir, quiet=True)


def test_divergence_names_the_step_and_writes_down_the_examples_of_its_batch(
  config, tmp_path, spoil
):
  seen = spoil(4)
  with pytest.raises(Diverged) as caught:
    imgclf.train(config, tmp_path, quiet=True)
  told = json.loads((tmp_path / "diverged.json").read_text())
  assert told["step"] == 4
  assert told["reason"] == "the loss of step 4 is nan"
  line = str(caught.value)
  assert line.startswith("the loss of step 4 is nan; its batch was ") and "\n" not in line
  assert str(tmp_path / "diverged.json") in line and "the last checkpoint is of step 3" in line
  # The fourth batch is number 3.
  source = datasets.open(config.dataset)
  records = source.records(datasets.roles(config.dataset, source)["train"])
  examples = loader.train_examples(records, config, 3)
  assert len(told["examples"]) == 16
  assert told["examples"] == [{"name": r.name, "label": source.classes[r.label]} for r in examples]
  # And they are what the step saw, pixel for pixel.
  crop = loader.eval_crop(config)
  np.testing.assert_array_equal(seen[4]["image"], [crop(record) for record in examples])
  assert seen[4]["label"].tolist() == [record.label for record in examples]
  # The last good state is kept, and it is none that the bad step had touched.
  step, leaves = saved_state(tmp_path)
  assert step == 3 and all(np.isfinite(leaf).all() for leaf in leaves)


def test_divergence_between_two_log_lines_names_the_step_itself(config, tmp_path, spoil):
  spoil(4, 5)
  config.log.every_steps, config.checkpoint.every_steps = 6, 2
  with pytest.raises(Diverged, match=r"the loss of step 4 is nan;.* checkpoint is of step 2;"):
    imgclf.train(config, tmp_path, quiet=True)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_weights_that_overflow_by_themselves_are_not_saved(config, tmp_path):
  """The loss and gradient of step 1 are as ever, and times the learning rate they are infinite."""
  config.optimizer.update(name="sgd", learning_rate=1e39, weight_decay=0.0)
  with pytest.raises(
    Diverged,
    match=r"^the weights after step 1 are NaN or infinite;.*; there is no checkpoint; look",
  ):
    imgclf.train(config, tmp_path, quiet=True)
  assert figures(tmp_path) == {}
  assert json.loads((tmp_path / "diverged.json").read_text())["step"] == 1


def test_bad_steps_are_left_out_and_counted(config, tmp_path, spoil, capsys):
  spoil(2, 5)
  config.train.max_bad_steps = 2
  assert imgclf.train(config, tmp_path)["step"] == 6
  out = capsys.readouterr().out
  assert "step 2 was left out: its loss is nan (1 of 2)" in out
  assert "step 5 was left out: its loss is nan (2 of 2)" in out
  # A step that was left out has no figures of its own.
  assert [(row["step"], row["bad_steps"]) for row in rows(tmp_path)] == [
    (1, 0),
    (3, 1),
    (4, 1),
    (6, 2),
  ]
  assert all(np.isfinite(row["loss"]) for row in rows(tmp_path))
  # It changed nothing but the two counts: what is before and after it differs in two scalars by
  # one.
  for bad in (2, 5):
    before, after = (saved_state(tmp_path, step)[1] for step in (bad - 1, bad))
    changed = [(a, b) for a, b in zip(before, after) if not np.array_equal(a, b)]
    assert len(changed) == 2 and all(b - a == 1 and a.shape == () for a, b in changed)
  good = [
    np.array_equal(a, b) for a, b in zip(saved_state(tmp_path, 2)[1], saved_state(tmp_path, 3)[1])
  ]
  assert good.count(False) > 2


def test_one_bad_step_more_than_allowed_ends_the_run(config, tmp_path, spoil):
  spoil(2, 4)
  config.train.max_bad_steps = 1
  with pytest.raises(Diverged, match=r"^the loss of step 4 is nan \(2 of 1 bad steps\); its batch"):
    imgclf.train(config, tmp_path, quiet=True)
  assert json.loads((tmp_path / "diverged.json").read_text())["step"] == 4
  assert saved_state(tmp_path)[0] == 3


@pytest.mark.parametrize("begun", [2, 3])
def test_a_run_that_goes_on_from_or_after_a_bad_step_ends_in_the_same_bits(
  config, tmp_path, spoil, begun
):
  spoil(2, 5)
  config.train.max_bad_steps = 2
  imgclf.train(config, tmp_path / "whole", quiet=True)
  stopped_after(config, tmp_path / "cut", 3)
  for step in range(begun + 1, 4):  # so that it goes on from the one before
    (tmp_path / "cut" / "checkpoints" / str(step) / "manifest.json").unlink()
  assert imgclf.train(config, tmp_path / "cut", quiet=True)["step"] == 6
  assert_same_bits(saved_state(tmp_path / "whole"), saved_state(tmp_path / "cut"))
  told = [(row["step"], row["bad_steps"], row["loss"]) for row in rows(tmp_path / "cut")]
  assert told == [(row["step"], row["bad_steps"], row["loss"]) for row in rows(tmp_path / "whole")]


def test_bad_steps_before_a_stop_count_after_it(config, tmp_path, spoil):
  spoil(2, 5)
  config.train.max_bad_steps = 1
  stopped_after(config, tmp_path, 3)
  with pytest.raises(Diverged, match=r"step 5 is nan \(2 of 1 bad steps\)"):
    imgclf.train(config, tmp_path, quiet=True)
  # With one more allowed the same folder goes on.
  config.train.max_bad_steps = 2
  assert imgclf.train(config, tmp_path, quiet=True)["step"] == 6


def test_a_stop_during_an_evaluation_is_made_up_for_and_changes_nothing(
  config, tmp_path, monkeypatch
):
  config.eval.every_steps = 2
  config.checkpoint.update(every_steps=6, keep_latest=1)
  whole = imgclf.train(config, tmp_path / "whole", quiet=True)
  judged, evaluations = validation.judged, []

  def signalled(*arguments):
    evaluations.append(1)
    if len(evaluations) == 2:
      signal.raise_signal(signal.SIGTERM)
    return judged(*arguments)

  monkeypatch.setattr(validation, "judged", signalled)
  cut = tmp_path / "cut"
  with pytest.raises(Stopped, match="step 4 of 6 is saved; the same command goes on from there"):
    imgclf.train(config, cut, quiet=True)
  assert figures(cut)[4] is None
  assert not (cut / "eval" / "validation-4.json").exists()
  assert [row["step"] for row in rows(cut, "validation")] == [2]
  again = imgclf.train(config, cut, quiet=True)
  assert again == whole
  assert_same_bits(saved_state(tmp_path / "whole"), saved_state(cut))
  told = json.loads((tmp_path / "whole" / "eval" / "validation-4.json").read_text())
  assert json.loads((cut / "eval" / "validation-4.json").read_text()) == told
  for split in ("train", "validation"):
    assert [row["step"] for row in rows(cut, split)] == [
      row["step"] for row in rows(tmp_path / "whole", split)
    ]
  assert figures(cut)[again["best_step"]] == figures(tmp_path / "whole")[whole["best_step"]]


class _Watched:
  """A metric on the device that takes note of being read, and of the steps that were under way
  then."""

  def __init__(self, array, name, step, reads, dispatched):
    self._array, self._of, self._reads, self._dispatched = array, (name, step), reads, dispatched

  @property
  def addressable_shards(self):
    self._reads.append((*self._of, self._dispatched[-1]))
    return self._array.addressable_shards

  def __getattr__(self, name):
    raise AssertionError(f"{self._of} is read by {name}")


def test_a_run_ends_when_the_best_evaluation_is_long_ago_and_again_when_it_is_resumed(
  config, tmp_path, monkeypatch, capsys
):
  config.train.update(total_steps=10, patience_steps=4)
  config.eval.every_steps, config.log.every_steps = 2, 10
  config.checkpoint.update(every_steps=3, keep_latest=10)
  # Step 4 is the best, and step 8 the first that is four steps after it; an equal is no better.
  accuracies = {2: 0.3, 4: 0.5, 6: 0.5, 8: 0.4, 10: 0.9}
  evaluate = validation.Validation.evaluate
  monkeypatch.setattr(
    validation.Validation,
    "evaluate",
    lambda self, current, step: {
      **evaluate(self, current, step),
      "accuracy": accuracies[step],
    },
  )
  workdir, told = tmp_path / "run", "stopped early at step 8: validation accuracy was never better"
  result = imgclf.train(config, workdir)
  assert (result["step"], result["best_step"]) == (8, 4)
  assert told + " than at step 4" in " ".join(capsys.readouterr().out.split())
  assert sorted(figures(workdir)) == [
    2,
    3,
    4,
    6,
    8,
  ]  # what is saved when it is due or the best, and the end
  ended = saved_state(workdir)
  imgclf.train(config, workdir, quiet=True)
  assert_same_bits(saved_state(workdir), ended)
  # As after a kill: from a step that nothing was evaluated at.
  for step in (4, 6, 8):
    shutil.rmtree(workdir / "checkpoints" / str(step))
  result = imgclf.train(config, workdir, quiet=True)
  assert (result["step"], result["best_step"]) == (8, 4)
  assert_same_bits(saved_state(workdir), ended)
  # More patience, and it goes on.
  config.train.patience_steps = 6
  assert imgclf.train(config, workdir, quiet=True)["best_step"] == 10


def test_between_log_lines_the_host_reads_nothing_but_the_stop_of_a_step_two_before(
  config, tmp_path, monkeypatch
):
  config.train.total_steps = config.eval.every_steps = config.checkpoint.every_steps = 12
  config.log.every_steps = 6
  reads, dispatched = [], [0]
  compiled = parallel.pmap

  class Call:
    """The compiled training program."""

    def __init__(self, function, **options):
      self._call = compiled(function, **options)
      self.lower = self._call.lower

    def __call__(self, *inputs):
      # What is not laid out for the devices by then would be moved there within the call.
      with jax.transfer_guard_host_to_device("disallow"):
        state, result = self._call(*inputs)
      dispatched.append(dispatched[-1] + 1)
      wrapped = {
        name: _Watched(value, name, dispatched[-1], reads, dispatched)
        for name, value in result.items()
      }
      return state, wrapped

  def watched(function, **options):
    return Call(function, **options) if "donate_argnums" in options else compiled(function)

  monkeypatch.setattr(parallel, "pmap", watched)
  imgclf.train(config, tmp_path, quiet=True)
  between = [read for read in reads if read[2] % 6]
  # Two steps may be under way: the device has one to go on with while the host waits for another.
  assert between == [("stop", now - 2, now) for now in (3, 4, 5, 9, 10, 11)]
  # And at a log line every metric of every step is fetched once more.
  assert {read[:2] for read in reads if read[2] == 12} >= {("loss", step) for step in range(7, 13)}
