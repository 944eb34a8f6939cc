"""Several classes an image: whether a config asks for it, and what does not go with it.

Knows no data and no device.
"""

from collections.abc import Mapping
from typing import Any

from imgclf.errors import UserError

# What a checkpoint can be the best by, of what `imgclf.multilabel_metrics.figures` counts.
FIGURES = (
  *("mAP", "f1_micro", "f1_macro", "precision_macro", "recall_macro"),
  *("exact_match", "loss"),
)
# Those that need more than one class an image.
_OWN_FIGURES = ("mAP", "f1_micro", "exact_match")

# A class is said to be there from this probability on, unless another is asked for.
THRESHOLD = 0.5


def is_on(config: Mapping[str, Any]) -> bool:
  """Whether images have several classes, or none, by a resolved or validated config."""
  return config["dataset"]["label_separator"] != ""


def check(config: Mapping[str, Any]) -> None:
  """Refuses what assumes one class an image where there are several, and the other way round.

  Args:
    config: every field of it is right by itself.

  Raises:
    UserError: naming the field and the mend.
  """
  best = config["checkpoint"]["best_metric"]
  if not is_on(config):
    if best in _OWN_FIGURES:
      raise UserError(
        f"config.checkpoint.best_metric: {best} is of images with several classes, and "
        "config.dataset.label_separator is empty; set it, or best_metric to accuracy or f1_macro"
      )
    return
  dataset, train = config["dataset"], config["train"]
  several = (
    f"several classes an image (config.dataset.label_separator={dataset['label_separator']!r})"
  )
  if not dataset["name"].startswith("csv:"):
    raise UserError(
      f"config.dataset.label_separator: only csv:PATH has cells of several classes, and config.dataset.name is "
      f"{dataset['name']}; set the separator to '' or list the images in a table"
    )
  if train["loss"] == "softmax":
    raise UserError(
      f"config.train.loss: softmax is of one class an image, and there are {several}; set it to binary or focal"
    )
  if train["class_weights"] != "none":
    raise UserError(
      f"config.train.class_weights: weighs an image by its one class, and there are {several}; set it to none"
    )
  if dataset["sampling"] != "shuffled":
    raise UserError(
      f"config.dataset.sampling: {dataset['sampling']} draws an image by its one class, and there are {several}; set "
      "it to shuffled"
    )
  if config["distill"]["teacher"] is not None:
    raise UserError(
      f"config.distill.teacher: teaches a softmax over one class an image, and there are {several}; set it to none"
    )
  if best not in FIGURES:
    raise UserError(
      f"config.checkpoint.best_metric: {best} is of one class an image, and there are {several}; set it to "
      f"{', '.join(FIGURES[:-1])} or {FIGURES[-1]}"
    )


def refuse(config: Mapping[str, Any], where: str, mend: str) -> None:
  """Refuses a run of several classes an image in a place that knows only one.

  Args:
    config: the run's.
    where: what can't be done, such as `--mode=report`.
    mend: what to do in its place.

  Raises:
    UserError: in a line.
  """
  if is_on(config):
    raise UserError(f"{where}: is of one class an image, and this run has several; {mend}")
