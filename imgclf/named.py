"""The arrays of a tree by name, and what differs between two trees in a person's words.

Knows no checkpoint format; `imgclf/checkpoint.py` reads and writes what is named here.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import jax
import numpy as np

from imgclf.errors import UserError

Path = tuple[str, ...]
Leaf = tuple[tuple[int, ...], np.dtype]  # shape and dtype


def names(path: tuple) -> Path:
  """Turns the keys of a pytree path into the words that a person would write between slashes."""
  return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def top_level(target: Any) -> list[Path]:
  """Names of the parts of a tree, those without leaves among them."""
  parts = jax.tree_util.tree_flatten_with_path(target, is_leaf=lambda part: part is not target)[0]
  return [names(path) for path, _ in parts]


def leaf(value: Any) -> Leaf:
  """Returns the shape and dtype of an array, an abstract one or a number."""
  if not hasattr(value, "shape") or not hasattr(value, "dtype"):
    value = np.asarray(value)
  return tuple(value.shape), np.dtype(value.dtype)


def split_arrays(state: Any) -> tuple[dict[Path, np.ndarray], list]:
  """Splits a state into arrays with elements, and (names, shape, dtype) of those without.

  Orbax refuses to write the latter.
  """
  full: dict[Path, np.ndarray] = {}
  empty = []
  stored = set()
  for path, value in jax.tree_util.tree_flatten_with_path(state)[0]:
    name, array = names(path), np.asarray(value)
    if array.dtype.kind in "OSUMm":  # orbax would fail in the background, without the name
      raise TypeError(f"{'/'.join(name)}: {type(value).__name__} can't be saved, only numbers can")
    # Orbax joins names by dots: two leaves of one joined name would overwrite each other.
    if ".".join(name) in stored:
      raise ValueError(f"{'/'.join(name)}: two leaves of this name")
    stored.add(".".join(name))
    if array.size:
      full[name] = array
    else:
      empty.append((name, array.shape, str(array.dtype)))
  return full, empty


def nested(flat: Mapping[Path, Any]) -> dict[str, Any]:
  """Returns the arrays as dicts within dicts."""
  tree: dict[str, Any] = {}
  for path, value in flat.items():
    node = tree
    for name in path[:-1]:
      node = node.setdefault(name, {})
    node[path[-1]] = value
  return tree


def refuse_mismatches(
  where: pathlib.Path, found: Mapping[Path, Leaf], wanted: Mapping[Path, Leaf]
) -> None:
  """Raises a UserError that names the arrays which differ and the config field that is likely
  behind it.
  """
  lines = []
  paths = [
    p for p in (*wanted, *(p for p in found if p not in wanted)) if found.get(p) != wanted.get(p)
  ]
  if not paths:
    return
  # The model's arrays first: the optimizer's and the averages only mirror them.
  paths.sort(key=lambda p: p[0] in ("opt_state", "ema"))
  for path in paths[:3]:
    have, need = found.get(path), wanted.get(path)
    typed = have is not None and need is not None and have[1] != need[1]
    owner = "optimizer" if path[0] == "opt_state" else "model"
    has = f"checkpoint has {_describe(have, typed)}" if have else "not in the checkpoint"
    needs = f"needs {_describe(need, typed)}" if need else "has no such array"
    lines.append(f"{'/'.join(path)}: {has}, this config's {owner} {needs}")
  if len(paths) > len(lines):
    lines.append(f"and {len(paths) - len(lines)} more")
  raise UserError(
    f"{where}: {'; '.join(lines)}; mend {_likely_field(paths, found, wanted)}, "
    "or use another --workdir"
  )


def _describe(leaf: Leaf, typed: bool) -> str:
  shape = str(list(leaf[0]))
  return f"{leaf[1]} {shape}" if typed else shape


def _likely_field(
  paths: list[Path], found: Mapping[Path, Leaf], wanted: Mapping[Path, Leaf]
) -> str:
  both = all(p in found and p in wanted for p in paths)
  if both and all(found[p][0] == wanted[p][0] for p in paths):
    return "config.model.dtype"
  if both and all("head" in p for p in paths):
    return "config.dataset.name (another number of classes)"
  tops = {path[0] for path in paths}
  if tops == {"ema"}:
    return "config.optimizer.ema_decay"
  if tops <= {"opt_state", "ema"}:
    return "config.optimizer.name"
  return "config.model.name"
