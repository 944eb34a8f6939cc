"""Weights held against a network, array by array, and turned into its own: what does not fit is
refused by name.

The head alone may stay out, where its classes are not the run's. Knows no file format and no run
folder.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from imgclf import models, named
from imgclf.errors import UserError
from imgclf.models import torch_names
from imgclf.pretrained import positions
from imgclf.pretrained.sources import Source
from imgclf.safetensors_file import FLOATS

Path = tuple[str, ...]

# Names that an error lists of each kind.
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Match:
  """Weights that fit.

  Attributes:
    tensors: what is taken, by the path of the network's array.
    head: `kept` or `new`.
    epsilon: what batch norm has to add to the variance for them; none: nothing tells.
    notes: lines for a person.
  """

  tensors: Mapping[Path, torch_names.Tensor]
  head: str
  epsilon: float | None
  notes: list[str]


def match(source: Source, config: Mapping[str, Any], classes: Sequence[str]) -> Match:
  """Holds weights against the network of a config, by names and shapes.

  Args:
    source: the weights.
    config: a resolved config.
    classes: of the run, by label.

  Raises:
    UserError: for weights of another network, and for an array that is missing, left over, or of
      another shape or type; by its name.
  """
  section = config["model"]
  _refuse_other_network(source, section)
  model = models.create(section, len(classes), axis_name=None)
  shapes = models.shapes(model, config["dataset"]["image_size"])
  tensors, layout = _tensors(source, model, shapes)
  head = _head(source, tensors, section["head"], classes)
  counters = {
    t.name.removesuffix("running_mean") + torch_names.COUNTER
    for t in tensors.values()
    if t.name.endswith("running_mean")
  }
  wanted = {path: t for path, t in tensors.items() if head == "kept" or not t.head}
  of_head = {t.name for t in tensors.values() if t.head}
  needed = {t.name for t in wanted.values()}
  missing = [name for name in needed if name not in source.arrays]
  left = [name for name in source.arrays if name not in needed | counters | of_head]
  _refuse_unmatched(source, section["name"], len(needed), sorted(missing), sorted(left))
  wanted, resampled = _resampled(source, wanted)
  _refuse_unfit(source, section["name"], wanted.values())
  notes = [
    _of_head(source, head, _count(source, tensors), section["head"], len(classes)),
    *resampled,
  ]
  if any(source.arrays[name][1] == "F64" for name in needed) and section["dtype"] != "float64":
    notes.append("weights of float64 are rounded to float32")
  epsilon = source.epsilon
  if epsilon is None and layout is not None:
    epsilon = layout.epsilon
  return Match(wanted, head, epsilon, notes)


def variables(
  source: Source, matched: Match, begin: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads the weights and puts them into a network's first variables.

  Args:
    source: the weights.
    matched: as `match` found them to fit.
    begin: `params` and `batch_stats` as the network begins with them; what is not taken stays,
      which is the head.

  Returns:
    The variables, host arrays of the same types; and what the source knows of what was read.

  Raises:
    UserError: if they can't be read, are no longer what was matched, or hold a NaN or an infinity.
  """
  values, record = source.read()

  def taken(keys: tuple, leaf: Any) -> np.ndarray:
    tensor = matched.tensors.get(named.names(keys))
    if tensor is None:
      return np.asarray(leaf)
    value = values.get(tensor.name)
    if value is None or value.shape != tensor.shape:
      raise UserError(f"{source.where}: changed while it was read; start again")
    array = tensor.here(value)
    if array.shape != leaf.shape:
      array = positions.resample(array, leaf.shape[0])
    array = np.ascontiguousarray(array, dtype=leaf.dtype)
    if not np.isfinite(array).all():
      raise UserError(
        f"{source.where}: {tensor.name} holds a NaN or an infinity; fetch the file anew, or take another"
      )
    return array

  return jax.tree_util.tree_map_with_path(taken, dict(begin)), record


def _refuse_other_network(source: Source, section: Mapping[str, Any]) -> None:
  name = section["name"]
  ours = () if source.own else torch_names.timm_names(name)
  if source.network is not None and source.network not in (*ours, name):
    raise UserError(
      f"{source.where}: holds weights of {source.network}, and config.model.name is {name}; make the two agree"
    )


def _tensors(
  source: Source, model: Any, shapes: Any
) -> tuple[dict[Path, torch_names.Tensor], torch_names.Layout | None]:
  """Returns what each array is called in the source, and whose names these are.

  Of two libraries', those that more arrays are called by; none of a run of this project.
  """
  if source.own:
    own = {
      named.names(keys): tuple(leaf.shape)
      for keys, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]
    }
    return {path: _own(path, shape) for path, shape in own.items()}, None
  try:
    layouts = torch_names.layouts(model)
  except UserError as error:
    raise UserError(f"{source.where}: {error}; run:DIR takes those of another run") from None
  found = [(torch_names.tensors(shapes, layout), layout) for layout in layouts]
  return max(found, key=lambda pair: sum(t.name in source.arrays for t in pair[0].values()))


def _own(path: Path, shape: tuple[int, ...]) -> torch_names.Tensor:
  place = path[-1] == torch_names.POSITIONS
  return torch_names.Tensor("/".join(path), shape, shape, None, path[1] == "head", place)


def _resampled(
  source: Source, wanted: Mapping[Path, torch_names.Tensor]
) -> tuple[dict[Path, torch_names.Tensor], list[str]]:
  """Returns the tensors, positions of a picture of another size as they lie in the source; and
  lines on those.
  """
  found, notes = dict(wanted), []
  for path, tensor in wanted.items():
    shape = source.arrays[tensor.name][0]
    if not tensor.positions or shape == tensor.shape or len(shape) != len(tensor.shape):
      continue
    own = shape[-2:]
    before, after = positions.side(own[0]), positions.side(tensor.own_shape[0])
    if before and own[1] == tensor.own_shape[1]:
      found[path] = dataclasses.replace(tensor, shape=shape, own_shape=own)
      notes.append(
        f"the positions of {before}x{before} patches are resampled to {after}x{after}, for the run's image size"
      )
  return found, notes


def _count(source: Source, tensors: Mapping[Path, torch_names.Tensor]) -> int | None:
  """Returns the number of classes of the source's head; None where it has no head."""
  shape = source.arrays.get(tensors["params", "head", "kernel"].name, ((), ""))[0]
  if not shape:
    return None
  return shape[-1] if source.own else shape[0]


def _head(
  source: Source,
  tensors: Mapping[Path, torch_names.Tensor],
  wish: str,
  classes: Sequence[str],
) -> str:
  """Returns whether the head is `kept` or `new`."""
  count = _count(source, tensors)
  if wish == "keep" and count != len(classes):
    has = f"has {count} classes" if count is not None else "is not in the file"
    raise UserError(
      f"{source.where}: its head {has} and the data set {len(classes)}, so config.model.head=keep can't be; set it to "
      "auto, or take the data set of the weights"
    )
  if wish == "keep":
    return "kept"
  # As many classes are not the same classes.
  fits = count == len(classes) and source.classes in (None, tuple(classes))
  return "kept" if wish == "auto" and fits else "new"


def _of_head(source: Source, head: str, count: int | None, wish: str, classes: int) -> str:
  """Returns the line on what became of the head."""
  if head == "kept":
    known = "" if source.classes else ", in the order of that file"
    return f"the head of the weights is kept: its {count} classes count as the run's{known}"
  of = f"for {count} classes " if count is not None else ""
  asked = ", as config.model.head=new has it" if wish == "new" else ""
  others = " others" if count == classes and not asked else ""
  return f"the head of the weights {of}is replaced by a new one for {classes}{others}{asked}"


def _refuse_unmatched(
  source: Source, name: str, needed: int, missing: list[str], left: list[str]
) -> None:
  if 2 * len(missing) > needed:
    raise UserError(
      f"{source.where}: holds weights of another network than {name}: {needed - len(missing)} of its {needed} arrays "
      f"are there, not {missing[0]}; set config.model.name to theirs"
    )
  if missing or left:
    parts = [
      f"{what} {', '.join(names[:_SHOWN])}"
      + (f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN))
      for what, names in ((f"{name} needs and the file lacks", missing), ("nothing takes", left))
      if names
    ]
    raise UserError(
      f"{source.where}: {'; '.join(parts)}; take weights of {name}, or set config.model.name to theirs"
    )


def _refuse_unfit(source: Source, name: str, wanted: Any) -> None:
  for tensor in wanted:
    shape, kind = source.arrays[tensor.name]
    if shape != tensor.shape:
      raise UserError(
        f"{source.where}: {tensor.name} is {list(shape)} and this config's {name} takes {list(tensor.shape)}; set "
        "config.model to the network of the weights"
      )
    if kind not in FLOATS:
      raise UserError(
        f"{source.where}: {tensor.name} is of type {kind}, and weights are of {', '.join(FLOATS)}; convert it, or "
        "take weights that are not quantised"
      )
