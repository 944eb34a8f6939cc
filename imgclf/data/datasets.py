"""A data set's name -> class names, splits, encoded records by index; and which split plays which
role.

Knows no image codec and no batch: images.py turns a record's bytes into pixels, loader.py records
into batches.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import os
import pathlib
from typing import Any

import numpy as np

from imgclf.data import csv_files, digits, files, folders, headers, splits, tfds_sets
from imgclf.data.files import IMAGE_SUFFIXES
from imgclf.data.sources import Record, Records, Source
from imgclf.data.splits import Span
from imgclf.errors import UserError

__all__ = ["IMAGE_SUFFIXES", "Dataset", "Record", "Records", "match_classes", "open", "roles"]

KINDS = ("folder", "csv")


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A data set that is ready to be read.

  Attributes:
    name: as the config gives it.
    classes: class names; a record's label is an index into them.
    sources: the splits that are not empty, by name.
    notes: lines that a person should see, such as on files that were passed over.
  """

  name: str
  classes: tuple[str, ...]
  sources: Mapping[str, Source] = dataclasses.field(repr=False)
  notes: tuple[str, ...] = ()

  @property
  def splits(self) -> dict[str, int]:
    """Number of examples in each split."""
    return {split: sum(source.shard_lengths) for split, source in self.sources.items()}

  def spans(self, expression: str) -> tuple[Span, ...]:
    """Returns the stretches of splits that an expression selects; raises as `records` does."""
    return splits.parse(expression, {s: source.shard_lengths for s, source in self.sources.items()})

  def records(self, expression: str) -> Records:
    """Returns the records that a split expression selects, in its order.

    Args:
      expression: TFDS split syntax: `train`, `train[:90%]`, `train[10:20]`, `train[-5:]`,
        `train+test`.

    Raises:
      UserError: for an expression that is none, reaches too far, selects nothing or something
        twice.
    """
    if not expression:
      raise UserError(
        f"{self.name}: has no split for this, only {splits.describe(self.splits)}; set "
        "config.dataset.train_split and config.dataset.validation_split"
      )
    return Records([(self.sources[s], start, stop) for s, start, stop in self.spans(expression)])


def open(dataset_config: Mapping[str, Any]) -> Dataset:
  """Opens the data set that a config's `dataset` section names.

  Raises:
    UserError: for a set that is not there or not what it should be.
  """
  name = dataset_config["name"]
  kind, _, path = name.partition(":")
  if kind in KINDS:
    if not path:
      raise UserError(f"config.dataset.name={name}: gives no path; write {kind}:PATH")
    limit = headers.max_bytes(dataset_config["max_pixels"])
    if kind == "folder":
      classes, sources, notes = folders.read(path, limit)
    else:
      classes, sources, notes = csv_files.read(path, limit, dataset_config["label_separator"])
    return Dataset(name, classes, sources, tuple(notes))
  if not tfds_sets.REFERENCE.fullmatch(name):
    near = difflib.get_close_matches(kind.lower(), KINDS, 1, 0.6)
    if os.path.isfile(name) and name.lower().endswith(".csv"):
      hint = f"did you mean csv:{name}?"
    elif os.path.isdir(name):
      hint = f"did you mean folder:{name}?"
    elif near:
      hint = f"did you mean {near[0]}:{path or 'PATH'}?"
    else:
      hint = "write digits, a TFDS name (cifar10, cifar10:3.0.2), folder:PATH or csv:PATH"
    raise UserError(f"config.dataset.name={name}: is not a data set's name; {hint}")
  data_dir = _data_dir(dataset_config)
  if name in (digits.NAME, f"{digits.NAME}:{digits.VERSION}"):
    digits.prepare(data_dir)
  keys = dataset_config["image_key"], dataset_config["label_key"]
  return Dataset(name, *tfds_sets.read(name, data_dir, *keys))


def _data_dir(dataset_config: Mapping[str, Any]) -> pathlib.Path:
  given = dataset_config["data_dir"] or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  return pathlib.Path(given).expanduser().resolve()


def roles(dataset_config: Mapping[str, Any], dataset: Dataset) -> dict[str, str | None]:
  """Returns the split expressions for `train`, `validation` and `test`.

  What the config sets, counts. Else validation is the set's own `validation` split, or the last 10%
  of `train`; train is `train` less what validation takes of it; test is the set's `test`. A role is
  None where the set has nothing for it, such as all but test for a set that consists of a test
  split.

  Raises:
    UserError: for a wrong expression, a role without examples, an example in two roles, and a train
      split without a validation split that is known to be held out of it.
  """
  sizes = dataset.splits
  given = {role: dataset_config[f"{role}_split"] or None for role in files.SPLITS}
  spans = {role: _spans(dataset, role, text) for role, text in given.items() if text}
  found = dict(given)
  if not given["validation"]:
    if "validation" in sizes:
      found["validation"] = "validation"
    elif given["train"]:
      raise UserError(
        f"config.dataset.train_split={given['train']}: {dataset.name} has no validation split, and what "
        f"is held out is not known; set config.dataset.validation_split too, the set has "
        f"{splits.describe(sizes)}"
      )
    elif "train" in sizes:
      found["train"], found["validation"] = "train[:90%]", "train[90%:]"
  if not found["train"] and "train" in sizes:
    whole = dataset.spans("train")
    found["train"] = splits.expression(splits.remainder(whole, spans.get("validation", ())), sizes)
    if not found["train"]:
      raise UserError(
        f"config.dataset.validation_split={given['validation']}: takes all of train; take a part, or set "
        "config.dataset.train_split"
      )
  if not given["test"] and "test" in sizes:
    found["test"] = "test"
  for role, text in found.items():
    if text and role not in spans:
      spans[role] = _spans(dataset, role, text)
  for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
    one, other = spans.get(first, ()), spans.get(second, ())
    common = splits.shared(one, other)
    if common:
      raise UserError(
        f"config.dataset: {first}={found[first]} and {second}={found[second]} share {common} examples of "
        f"{dataset.name}; "
        + (_without(sizes, first, one, other) or _without(sizes, second, other, one))
        + f"set config.dataset.{first}_split and config.dataset.{second}_split so that they are disjoint"
      )
  return found


def _without(
  sizes: Mapping[str, int], role: str, spans: Sequence[Span], taken: Sequence[Span]
) -> str:
  """Returns a mend for two roles that share examples; empty where one lies in the other."""
  left = splits.expression(splits.remainder(spans, taken), sizes)
  return f"set config.dataset.{role}_split={left}, or " if left else ""


def _spans(dataset: Dataset, role: str, expression: str) -> tuple[Span, ...]:
  try:
    return dataset.spans(expression)
  except UserError as error:
    raise UserError(f"config.dataset.{role}_split={error}") from None


def match_classes(trained: Sequence[str], found: Sequence[str], where: str) -> np.ndarray:
  """Maps labels of another set to those of a run, by class name and never by position.

  Args:
    trained: the run's class names.
    found: the other set's class names.
    where: what an error message calls the other set.

  Returns:
    [len(found)] int32: the run's label for each label of the other set.

  Raises:
    UserError: naming a class that the run does not know. Classes that only the run has are fine.
  """
  number = {files.normal(name): label for label, name in enumerate(trained)}
  unknown = [name for name in found if files.normal(name) not in number]
  if unknown:
    near = difflib.get_close_matches(unknown[0], trained, 3, 0.6)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {files.some(trained)}"
    more = f" (nor {len(unknown) - 1} others)" if len(unknown) > 1 else ""
    raise UserError(
      f"{where}: the run does not know the class {unknown[0]!r}{more}; {hint}: rename or remove it, or "
      "evaluate a run that was trained on it"
    )
  return np.array([number[files.normal(name)] for name in found], np.int32)
