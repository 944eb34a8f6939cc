"""Several classes an image: cells of names to rows of 0 and 1, and back to words.

Knows no file and no config.

A row has a byte for each class, which a batch, a worker and a device take as it is.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from imgclf.errors import UserError


def names(cell: str, separator: str, at: str) -> tuple[str, ...]:
  """Returns the class names of a cell, in its order; none where it is empty.

  Args:
    cell: class names joined by the separator; spaces around a name do not count.
    separator: not empty.
    at: the table and line, for an error.

  Raises:
    UserError: for a name that is empty, or is there twice.
  """
  if not cell:
    return ()
  found = tuple(name.strip() for name in cell.split(separator))
  if "" in found:
    raise UserError(
      f"{at}: the label {cell!r} has a name that is empty; write names with one {separator!r} between two"
    )
  twice = next((name for place, name in enumerate(found) if name in found[:place]), None)
  if twice is not None:
    raise UserError(f"{at}: the label {cell!r} names {twice!r} twice; name it once")
  return found


def multi_hot(sets: Sequence[Iterable[str]], number: Mapping[str, int]) -> np.ndarray:
  """Returns which classes each image has, [n, classes] uint8, 1 where it has one.

  Args:
    sets: the class names of each image.
    number: label by class name.
  """
  rows = np.zeros((len(sets), len(number)), np.uint8)
  for row, given in zip(rows, sets):
    row[[number[name] for name in given]] = 1
  return rows


def counts(labels: np.ndarray, classes: int) -> np.ndarray:
  """Returns how many images each class has, [classes] integers.

  Args:
    labels: [n] integers, or [n, classes] uint8.
    classes: how many there are.
  """
  if labels.ndim == 1:
    return np.bincount(labels, minlength=classes)
  return labels.sum(axis=0, dtype=np.int64)


def words(label: int | np.ndarray, classes: Sequence[str], none: str = "no class") -> str:
  """Returns what an image is of in words: its class, or all of them with commas.

  Args:
    label: a class's number; or [classes] uint8, 1 where a class is there.
    classes: names by label.
    none: said where none is.
  """
  if np.ndim(label) == 0:
    return classes[int(label)]
  return ", ".join(classes[place] for place in np.flatnonzero(label).tolist()) or none


def blank(count: int, shape: tuple[int, ...]) -> np.ndarray:
  """Returns room for the labels of a batch: [count] int32, all 0; or [count, classes] uint8,
  without a class.

  Args:
    count: examples.
    shape: of one label: () or (classes,).
  """
  return np.zeros((count, *shape), np.uint8 if shape else np.int32)


def relabelled(labels: np.ndarray, label_map: np.ndarray, classes: int) -> np.ndarray:
  """Returns the labels of another set as those of a run.

  Args:
    labels: [batch] int32, or [batch, classes of the set] uint8.
    label_map: [classes of the set] int32, the run's label of each.
    classes: how many the run has.

  Returns:
    [batch] int32, or [batch, classes] uint8.
  """
  if labels.ndim == 1:
    return label_map[labels].astype(np.int32)
  mapped = blank(len(labels), (classes,))
  mapped[:, label_map] = labels
  return mapped
