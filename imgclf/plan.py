"""A run before it starts: the config held against the model, the data set, the devices and the run
folder.

Everything that can be refused is refused here, before any device works for the run.
"""

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import json
import os
from typing import Any

import numpy as np
import optax

from imgclf import augment, durations, losses, models, optim, parallel, rates, steps
from imgclf import config as configs
from imgclf import teacher as teachers
from imgclf.data import datasets
from imgclf.errors import UserError
from imgclf.identity import identity
from imgclf.lock import Lock
from imgclf.pretrained import start as starts
from imgclf.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Intervals:
  """The config's durations in steps."""

  total: int
  warmup: int
  log: int
  evaluate: int
  save: int
  keep: int | None
  patience: int | None

  @classmethod
  def of(cls, config: Mapping[str, Any], num_examples: int) -> "Intervals":
    """Works the durations out for a train split of `num_examples`."""
    return cls(
      total=durations.steps(config, "train.total", num_examples),
      warmup=durations.steps(config, "schedule.warmup", num_examples),
      log=durations.steps(config, "log.every", num_examples),
      evaluate=durations.steps(config, "eval.every", num_examples),
      save=durations.steps(config, "checkpoint.every", num_examples),
      keep=durations.optional_steps(config, "checkpoint.keep_every", num_examples),
      patience=durations.optional_steps(config, "train.patience", num_examples),
    )


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run that was found to be possible, before any device works for it.

  Attributes:
    config: resolved.
    folder: the run folder, begun.
    source: the data set.
    roles: split expressions for train, validation and test.
    train_records: what is trained on.
    validation_records: what chooses the best checkpoint.
    class_weights: [classes] float32, what an example of each counts in the loss; none: all the
      same.
    every: the durations in steps.
    lock: of the run folder; held by process 0.
    start: the weights to begin with.
    teacher: the run that teaches this one; none: labels alone.
    notes: lines that a person should see.
  """

  config: configs.ConfigDict
  folder: RunFolder
  source: datasets.Dataset
  roles: Mapping[str, str | None]
  train_records: Any
  validation_records: Any
  class_weights: np.ndarray | None
  every: Intervals
  lock: Lock
  start: starts.Start
  teacher: teachers.Teacher | None
  notes: list[str]

  @property
  def identity(self) -> dict[str, Any]:
    """What tells the run from others."""
    return identity(self.config, self.source.classes)

  def optimizer(
    self, model: Any, learning_rate: optax.Schedule | None = None
  ) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Returns the optimizer of the run, and its learning rate by step.

    Args:
      model: as from `imgclf.models.create`.
      learning_rate: another than the run's.
    """
    config, every = self.config, self.every
    if learning_rate is None:
      learning_rate = optim.schedule(config, total_steps=every.total, warmup_steps=every.warmup)
    depths = None
    if config["optimizer"]["layer_decay"] is not None:
      depths = models.depths(model, config["dataset"]["image_size"])
    made = optim.create(config, learning_rate, total_steps=every.total, depths=depths)
    return made, learning_rate

  def train_step(
    self, model: Any, optimizer: optax.GradientTransformation, learning_rate: optax.Schedule
  ) -> Callable:
    """Returns the function of one update, see `imgclf.steps.make_train_step`.

    Args:
      model: as from `imgclf.models.create`.
      optimizer: as from `optimizer`.
      learning_rate: likewise.
    """
    taught_by = self.teacher.logits if self.teacher else None
    return steps.make_train_step(
      model, self.config, optimizer, learning_rate, self.class_weights, taught_by
    )


def check_config(config: configs.ConfigDict) -> list[str]:
  """Holds a resolved config against the model and the devices.

  Returns:
    Lines that a person should see.

  Raises:
    UserError: for what the user has to mend first.
  """
  models.check(config["model"], config["dataset"]["image_size"])
  parallel.check_dtype(config["model"]["dtype"])
  notes = []
  size, decay = config["dataset"]["image_size"], config["optimizer"]["layer_decay"]
  model = models.create(config["model"], 2, axis_name=None)
  if decay is not None:
    depths = models.depths(model, size)
    deepest = max(depths, key=lambda name: depths[name])
    notes.append(
      f"by layer_decay the learning rate of {deepest}, {depths[deepest]} layers below the head, is "
      f"{decay ** depths[deepest]:.2g} of the head's"
    )
  if config["optimizer"]["rules"]:
    shapes = models.shapes(model, size)
    rates.check_rules(shapes["params"], config)
    moving = rates.ruled_norms(shapes["params"], shapes["batch_stats"], config)
    if moving and config["model"]["frozen_batch_norm"] == "none":
      notes.append(
        f"{len(moving)} batch norms have frozen parameters and moving statistics; "
        "config.model.frozen_batch_norm=rules keeps these as well"
      )
  parts = config["optimizer"]["accumulate_steps"]
  parallel.check_batch_size("config.train.batch_size", config["train"]["batch_size"], parts)
  parallel.check_batch_size("config.eval.batch_size", configs.eval_batch_size(config))
  if augment.mixes(config["augment"]):
    _check_pairs(config)
  return notes


def _check_pairs(config: configs.ConfigDict) -> None:
  """Holds a config that mixes examples against what makes pairs of them.

  Raises:
    UserError: where the two of a pair would be on two devices, or one example.
  """
  size, repeats = config["train"]["batch_size"], config["augment"]["repeats"]
  unit = parallel.device_count()
  if size // unit % 2:
    raise UserError(
      f"config.train.batch_size: {size} is an odd number for each of {unit} devices, and mixup and cutmix "
      f"mix pairs; choose a multiple of {2 * unit}"
    )
  if size // repeats % 2:
    raise UserError(
      f"config.augment.repeats: {size} / {repeats} examples in a batch are an odd number, and mixup and cutmix "
      f"mix pairs; choose a config.train.batch_size that is a multiple of {2 * repeats}"
    )


def check_set(
  config: configs.ConfigDict, source: datasets.Dataset
) -> tuple[dict[str, str | None], datasets.Records, datasets.Records]:
  """Holds a resolved config against the data set.

  Returns:
    Split expressions for train, validation and test; what is trained on; what chooses the best
    checkpoint.

  Raises:
    UserError: for what the user has to mend first.
  """
  if len(source.classes) < 2:
    raise UserError(
      f"config.dataset.name={config['dataset']['name']}: has only one class, {source.classes[0]!r}; "
      "a classifier needs two or more, each in a folder of its own or under a label of its own"
    )
  roles = datasets.roles(config["dataset"], source)
  return roles, source.records(roles["train"] or ""), source.records(roles["validation"] or "")


def prepare(
  config: configs.ConfigDict, workdir: str | os.PathLike, held: contextlib.ExitStack
) -> Plan:
  """Checks the config against the model, the data set, the devices and the run folder.

  Args:
    config: as from a config file.
    workdir: the run folder.
    held: where the folder's lock is entered, to be held until the run ends.

  Raises:
    UserError: for what the user has to mend first.
  """
  config = configs.resolve(config)
  told = check_config(config)
  source = datasets.open(config["dataset"])
  roles, train_records, validation_records = check_set(config, source)
  start = starts.prepare(config, source.classes, RunFolder(workdir))
  taught = teachers.prepare(config, source.classes, RunFolder(workdir))
  every = Intervals.of(config, len(train_records))
  class_weights = None
  if config["train"]["class_weights"] != "none":
    labels = train_records.labels()
    class_weights = losses.class_weights(labels, len(source.classes), config["train"])
  elif config["dataset"]["sampling"] == "balanced":
    train_records.labels()  # read here once, and not in every process that makes batches
  notes = [*source.notes, *told, *start.notes, *(taught.notes if taught else [])]
  if every.warmup > every.total:
    # A recipe that is tried for a few steps need not be told to shorten its warm-up as well.
    warmup = every.total // 2
    notes.append(f"warm-up is cut from {every.warmup} steps to {warmup}: the run has {every.total}")
    every = dataclasses.replace(every, warmup=warmup)
  lock = Lock(RunFolder(workdir).lock)
  if parallel.process_index() == 0:
    held.enter_context(lock)
  folder, changes = open_folder(workdir, config, source)
  by = taught and taught.record["sha256"]
  alike = json.dumps([identity(config, source.classes), source.splits, sorted(roles.items()), by])
  differing = parallel.unlike_first(alike)
  if differing:
    raise UserError(
      f"process {differing[0]} has another config, classes, splits or teacher than process 0; start "
      "every process with the same command, on data and code that are the same everywhere"
    )
  return Plan(
    config=config,
    folder=folder,
    source=source,
    roles=roles,
    train_records=train_records,
    validation_records=validation_records,
    class_weights=class_weights,
    every=every,
    lock=lock,
    start=start,
    teacher=taught,
    notes=notes + lock.notes + changes,
  )


def open_folder(
  workdir: str | os.PathLike, config: configs.ConfigDict, source: datasets.Dataset
) -> tuple[RunFolder, list[str]]:
  """Begins a run folder, or checks that the run in it is the one that the config describes.

  Returns:
    The folder, and lines on what the config changes of the run that was begun.

  Raises:
    UserError: if the config, the classes or the number of examples make it another run; lists the
      differences.
  """
  classes = list(source.classes)
  folder = RunFolder(workdir)
  changes: list[str] = []
  if folder.exists() and not folder.holds_checkpoints():
    # Nothing of that run is lost, and what stopped it may have been its config.
    changes.append(f"{folder.path} holds a run without a checkpoint, which is begun anew")
  elif folder.holds_checkpoints() and not folder.exists():
    raise UserError(
      f"--workdir={workdir}: holds checkpoints but no config.json to say what they are of; restore it "
      "or take another --workdir"
    )
  elif folder.exists():
    matter, changes = configs.differences(folder.read_config(), config)
    may_move = ["config.model.weights:"] * starts.only_moved(folder.read_config(), config)
    if None not in (each["distill"]["teacher"] for each in (folder.read_config(), config)):
      may_move.append("config.distill.teacher:")  # it was held against what the run began with
    moved = [line for line in matter if line.startswith(tuple(may_move))]
    matter, changes = [line for line in matter if line not in moved], [*moved, *changes]
    if matter and _only_moved(folder.read_config(), config, matter):
      matter, changes = [], [*matter, *changes]  # its classes and sizes are compared below
    if matter:
      raise UserError(
        f"--workdir={workdir}: holds a run with another config ({'; '.join(matter)}); "
        "take the old values or another --workdir"
      )
    changes = [f"changed since the run was begun: {change}" for change in changes]
    known = folder.read_classes()
    if known != classes:
      lost, new = sorted(set(known) - set(classes)), sorted(set(classes) - set(known))
      raise UserError(
        f"--workdir={workdir}: the run's classes are not the data set's "
        f"(gone: {lost or 'none'}, new: {new or 'none'}); restore the set or take another --workdir"
      )
    if folder.read_splits() != source.splits:
      raise UserError(
        f"--workdir={workdir}: the run was begun with {folder.read_splits()} examples and the data set now has "
        f"{source.splits}, so its batches would not be the run's; restore the set or take another --workdir"
      )
  if parallel.process_index() == 0:
    folder.write_splits(source.splits)
    folder.write_classes(classes)
    folder.write_config(config)
    if not folder.holds_checkpoints():
      with contextlib.suppress(OSError):  # not there; or for `BadImages` to tell
        folder.bad_images.unlink()  # of images that were mended since, or of another set
      for path in (folder.weights, folder.teacher):
        with contextlib.suppress(OSError):
          path.unlink()  # that it does not begin with now
  return folder, changes


def _only_moved(old: Mapping[str, Any], new: Mapping[str, Any], differences: list[str]) -> bool:
  """Whether all that differs is where the class folders, or the table of images, now lie."""
  kinds = [config["dataset"]["name"].partition(":")[0] for config in (old, new)]
  return (
    len(differences) == 1
    and differences[0].startswith("config.dataset.name:")
    and kinds[0] == kinds[1]
    and kinds[0] in datasets.KINDS
  )
