"""Records by index: what every kind of data set hands to the loader.

Knows no format and no split syntax. A `Source` is one split as it is stored; `Records` is what a
split expression selects of one or several sources.
"""

import bisect
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any, Protocol

import numpy as np

from imgclf.data import label_sets

# Records that are read at once where all are: three times faster than one by one.
_CHUNK = 256


@dataclasses.dataclass(frozen=True)
class Record:
  """One encoded example.

  Attributes:
    data: the image file's bytes, as stored.
    label: index into the data set's class names; of several classes an image [classes] uint8, 1
      where one is there.
    name: what an error message calls it: a path, or `cifar10/train[123]`.
  """

  data: bytes
  label: int | np.ndarray
  name: str


@dataclasses.dataclass(frozen=True)
class Decoded(Record):
  """One example whose pixels need no decoding; its `data` is empty.

  Attributes:
    pixels: [height, width, 3] uint8 RGB.
  """

  pixels: np.ndarray


class Source(Protocol):
  """One split as it is stored."""

  @property
  def shard_lengths(self) -> Sequence[int]:
    """Number of examples in each shard, which `train[0shard]` refers to; their sum is the split's
    size.
    """
    ...

  def name(self, index: int) -> str:
    """Returns the name of the record at a place in the split, without reading it."""
    ...

  def read(self, indices: Sequence[int]) -> list[Record]:
    """Reads examples by their place in the split, in the order asked for.

    A source that knows the label of each without reading it has `labels` too, [n] integers; one
    with several classes an image has them as [n, classes] uint8.
    """
    ...


def label_shape(source: Source) -> tuple[int, ...]:
  """Returns the shape of one label: () where an image has one class, (classes,) where it may have
  several.
  """
  labels: Any = getattr(source, "labels", None)
  return () if labels is None else np.shape(labels)[1:]


class Records:
  """What a split expression selects, by index from 0 on. Safe to read from several threads.

  Args:
    parts: (source, start, stop) of each stretch, in order.
  """

  def __init__(self, parts: Sequence[tuple[Source, int, int]]):
    self._parts = tuple(parts)
    self._ends = list(itertools.accumulate(stop - start for _, start, stop in self._parts))
    self._labels: np.ndarray | None = None
    self._label_shape = label_shape(parts[0][0]) if parts else ()

  @property
  def label_shape(self) -> tuple[int, ...]:
    """Shape of one record's label, see the function of this name."""
    return self._label_shape

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def labels(self) -> np.ndarray:
    """Returns the label of each record, [n] int32 or, of several classes an image, [n, classes]
    uint8.

    They are looked up once, which reads all of a set that has no list of them.

    Raises:
      UserError: naming a record that can't be read.
    """
    if self._labels is None:
      found = [label_sets.blank(0, self.label_shape)]
      for source, start, stop in self._parts:
        listed = getattr(source, "labels", None)
        if listed is not None:
          found.append(np.asarray(listed[start:stop], found[0].dtype))
          continue
        for begin in range(start, stop, _CHUNK):
          records = source.read(range(begin, min(begin + _CHUNK, stop)))
          found.append(np.array([record.label for record in records], np.int32))
      self._labels = np.concatenate(found)
    return self._labels

  def __getitem__(self, index: int) -> Record:
    return self.__getitems__([index])[0]

  def __getitems__(self, indices: Sequence[int]) -> list[Record]:
    """Reads several records at once, which is three times faster than one by one from record files.

    Raises:
      IndexError: for an index below 0 or beyond the end.
      UserError: naming a record that can't be read.
    """
    wanted: dict[
      int, list[tuple[int, int]]
    ] = {}  # part -> (place in the answer, place in the source)
    for place, index in enumerate(indices):
      index = int(index)
      if not 0 <= index < len(self):
        raise IndexError(f"record {index} of {len(self)}")
      number = bisect.bisect_right(self._ends, index)
      stop = self._parts[number][2]
      wanted.setdefault(number, []).append((place, stop - (self._ends[number] - index)))
    found: dict[int, Record] = {}
    for number, pairs in wanted.items():
      places, inside = zip(*pairs)
      found.update(zip(places, self._parts[number][0].read(inside)))
    return [found[place] for place in range(len(indices))]
