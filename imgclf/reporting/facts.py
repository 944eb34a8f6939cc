"""What a report says of a run besides its figures: data, model, versions, and the commands that
make it all again.
"""

import contextlib
from importlib import metadata
import math
import pathlib
import platform
import shlex

from imgclf import durations, models, parallel
from imgclf.data import datasets, splits
from imgclf.reporting.judging import Judge
from imgclf.run import Run

_PACKAGES = ("imgclf", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


def title(run: Run) -> str:
  """Returns such as `resnet18 on cifar10`; of a path, its last part."""
  kind, _, path = run.config["dataset"]["name"].partition(":")
  shown = f"{kind}:{pathlib.PurePath(path).name}" if kind in datasets.KINDS else kind
  return f"{run.config['model']['name']} on {shown}"


def versions() -> dict[str, str]:
  """Returns the versions that the report was made with, by name."""
  found = {"Python": platform.python_version()}
  for name in _PACKAGES:
    with contextlib.suppress(
      metadata.PackageNotFoundError
    ):  # such as imgclf in a folder that is not installed
      found[name] = metadata.version(name)
  return found


def facts(
  judge: Judge, split: str, expression: str, n: int, unreadable: int
) -> list[tuple[str, str]]:
  """Returns what there is to know of the data set and the model, (name, text).

  Args:
    judge: the run with its data set.
    split: as it was asked for.
    expression: the split expression that it means.
    n: examples in it.
    unreadable: how many of them could not be read.
  """
  run, config, source = judge.run, judge.config, judge.source
  dataset, model = config["dataset"], config["model"]
  sizes = {
    role: splits.size(source.spans(text)) if text else 0 for role, text in judge.roles.items()
  }
  parameters = models.parameter_count(run.variables["params"])
  total = durations.steps(config, "train.total", sizes["train"])
  batch = config["train"]["batch_size"]
  shown = total * batch / max(1, sizes["train"])
  found = [
    ("data set", dataset["name"]),
    ("classes", f"{len(run.classes):,}"),
    *(
      (role, f"{text}: {sizes[role]:,} images" if text else "none")
      for role, text in judge.roles.items()
    ),
    (
      "judged",
      f"{split}: {n:,} images" if split == expression else f"{split}, {expression}: {n:,} images",
    ),
    ("unreadable", f"{unreadable:,}" + (", counted as wrong" if unreadable else "")),
    (
      "image",
      f"{dataset['image_size']} x {dataset['image_size']} px, the middle "
      f"{100 * dataset['crop_fraction']:g}%, {dataset['interpolation']}",
    ),
    ("views of an image (eval.tta)", config["eval"]["tta"]),
    ("model", model["name"]),
    ("parameters", f"{parameters:,}"),
    ("type of the computation", model["dtype"]),
    (
      "weights",
      "moving averages" if config["optimizer"]["ema_decay"] is not None else "as trained",
    ),
    ("length of the run", f"{total:,} steps of {batch:,} images, {_epochs(shown)}"),
    ("checkpoint", f"step {run.step:,}, SHA-256 {run.checkpoint}"),
    ("judged on", parallel.describe_devices()),
  ]
  return found


def _epochs(value: float) -> str:
  """With one decimal where it is not whole."""
  whole = math.isclose(value, round(value), abs_tol=0.05)
  text = f"{round(value):,}" if whole else f"{value:,.1f}"
  return f"{text} epoch{'s' * (text != '1')}"


def train_command(run: Run) -> str:
  """Returns the shell command that trains the same again, in a folder beside the run's."""
  path = run.folder.path
  again = path.with_name(path.name + "-again") if path.name else pathlib.Path("again")
  return _command(f"--config={run.folder.config}", f"--workdir={again}")


def report_command(run: Run, **flags: object) -> str:
  """Returns the shell command that makes the report again.

  Args:
    run: the run.
    **flags: of the command line; those that are None are left out.
  """
  given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
  return _command("--mode=report", f"--workdir={run.folder.path}", *given)


def _command(*flags: str) -> str:
  # An absolute path of Python or launch.py would be this machine's.
  return shlex.join(["python", "launch.py", *flags])
