"""A trained run, restored for use: what evaluation and prediction start from.

Reads the run folder alone: no config file is executed, no optimizer state is read.
"""

import dataclasses
import os
from typing import Any

from imgclf import config as configs
from imgclf import models, parallel
from imgclf.checkpoint import Checkpoints
from imgclf.identity import identity, refuse_other_run
from imgclf.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Run:
  """A restored classifier.

  Attributes:
    folder: the run folder.
    config: the run's resolved config.
    classes: names of the classes, by label.
    step: the step whose weights these are.
    model: the `flax.linen` module.
    variables: host arrays to apply the model with; the averages where the run keeps them (EMA).
    checkpoint: SHA-256 in hexadecimal that stands for the checkpoint's files.
    temperature: what logits are divided by before the softmax; 1 where none was fitted.
  """

  folder: RunFolder
  config: configs.ConfigDict
  classes: list[str]
  step: int
  model: Any
  variables: dict[str, Any]
  checkpoint: str
  temperature: float


def load(workdir: str | os.PathLike, step: str | int = "best", *, calibrated: bool = True) -> Run:
  """Restores a run for evaluation or prediction.

  Args:
    workdir: the run folder.
    step: `best` (by the validation figure that the config names), `latest`, or a step's number.
    calibrated: take the temperature that was fitted to the checkpoint, if one was; else it is 1.

  Raises:
    UserError: if the folder is no run, has no such checkpoint that is sound, or holds one of another run
      or shape, or a temperature of another checkpoint.
  """
  folder = RunFolder(workdir)
  config, classes = folder.read_config(), folder.read_classes()
  models.check(config["model"], config["dataset"]["image_size"])
  parallel.check_dtype(config["model"]["dtype"])
  model = models.create(config["model"], len(classes), axis_name=None)
  with Checkpoints(folder.checkpoints, read_only=True, **retention(config)) as checkpoints:
    number = checkpoints.choose(str(step))
    refuse_other_run(checkpoints.run(number), identity(config, classes), folder.path)
    shapes = models.shapes(model, config["dataset"]["image_size"])
    if config["optimizer"]["ema_decay"] is not None:
      variables = checkpoints.restore(number, {"ema": shapes}, partial=True)["ema"]
    else:
      variables = checkpoints.restore(number, shapes, partial=True)
    digest = checkpoints.digest(number)
  temperature = folder.read_temperature(number, digest) if calibrated else 1.0
  return Run(folder, config, classes, number, model, variables, digest, temperature)


def retention(config: configs.ConfigDict) -> dict[str, Any]:
  """Returns the part of the config that says which checkpoints stay, as `Checkpoints` takes it."""
  section = config["checkpoint"]
  return {
    "keep_latest": section["keep_latest"],
    "keep_best": section["keep_best"],
    "best_metric": section["best_metric"],
  }
