"""One look at every record of a data set, in parallel: small facts of each, exact sums over train.

Holds neither the bytes of a file nor pixels longer than it takes to look at them; what is kept is
some 40 bytes a record. What the facts mean for a run is for imgclf/findings.py.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
import dataclasses
import hashlib
import os
import threading
from typing import Any, NamedTuple

import numpy as np

from imgclf.data import images, label_sets, loader
from imgclf.data.datasets import KINDS, Dataset
from imgclf.data.files import IMAGE_SUFFIXES
from imgclf.data.sources import Record, Source, label_shape
from imgclf.errors import UserError

# Records that a thread takes at once: record files are read three times as fast in batches.
_CHUNK = 16

_ENDINGS = {
  "JPEG": (".jpg", ".jpeg"),
  "PNG": (".png",),
  "WEBP": (".webp",),
  "BMP": (".bmp",),
  "GIF": (".gif",),
}


@dataclasses.dataclass
class Split:
  """Facts of one split, by place.

  Attributes:
    label: [n] int32, -1 where the record can't be read; of several classes an image [n, classes]
      uint8.
    width: [n] int32, upright; 0 where there is no picture.
    height: [n] int32, likewise.
    kind: [n] int32, an index into `Survey.kinds`; -1 where there is no picture.
    digest: [n, 2] uint64, 128 bits of BLAKE2b of the encoded bytes.
    unread: place -> why the record can't be read at all.
    undecoded: place -> why its bytes are no picture.
    misnamed: places of files whose ending is that of another format.
  """

  label: np.ndarray
  width: np.ndarray
  height: np.ndarray
  kind: np.ndarray
  digest: np.ndarray
  unread: dict[int, str] = dataclasses.field(default_factory=dict)
  undecoded: dict[int, str] = dataclasses.field(default_factory=dict)
  misnamed: list[int] = dataclasses.field(default_factory=list)

  @classmethod
  def of(cls, size: int, shape: tuple[int, ...] = ()) -> "Split":
    """Makes room for the facts of so many records, whose labels have this shape."""

    def ints(fill: int) -> np.ndarray:
      return np.full(size, fill, np.int32)

    label = label_sets.blank(size, shape) if shape else ints(-1)
    return cls(label, ints(0), ints(0), ints(-1), np.zeros((size, 2), np.uint64))


@dataclasses.dataclass
class Survey:
  """What a look at a data set has found.

  Attributes:
    splits: the facts of each split.
    kinds: (format, mode) of pictures, as in `imgclf.data.headers.Header`.
    images: train images that could be decoded.
    pixels: their pixels, all of them after the crop of evaluation.
    sums: red, green, blue, each summed over those pixels.
    squares: likewise, squared.
  """

  splits: dict[str, Split]
  kinds: list[tuple[str, str]] = dataclasses.field(default_factory=list)
  images: int = 0
  pixels: int = 0
  sums: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])
  squares: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])


class _Fact(NamedTuple):
  label: int | np.ndarray | None = None
  size: tuple[int, int] = (0, 0)
  kind: tuple[str, str] | None = None
  digest: bytes = bytes(16)
  unread: str = ""
  undecoded: str = ""
  misnamed: bool = False
  # Of a train image: pixels, and per channel the sum and the sum of squares.
  moments: tuple[int, list[int], list[int]] | None = None


def survey(
  dataset: Dataset,
  config: Mapping[str, Any],
  in_train: Mapping[str, np.ndarray],
  advance: Callable[[int], None],
) -> Survey:
  """Looks at every record of every split once.

  The result depends neither on the number of threads nor on their order.

  Args:
    dataset: what to look at.
    config: the run's config; says how images are decoded and cropped, and by how many threads.
    in_train: for each split, [n] bool: what belongs to the train role.
    advance: called with a number of records when so many more are done.
  """
  shapes = {name: label_shape(source) for name, source in dataset.sources.items()}
  found = Survey({name: Split.of(size, shapes[name]) for name, size in dataset.splits.items()})
  numbers: dict[tuple[str, str], int] = {}
  look = _Look(dataset, config)

  def jobs() -> Iterator[tuple[str, int, int]]:
    for name, size in dataset.splits.items():
      for start in range(0, size, _CHUNK):
        yield name, start, min(start + _CHUNK, size)

  threads = max(1, loader.threads(config))
  pool = ThreadPoolExecutor(threads, thread_name_prefix="survey")
  waiting: collections.deque[tuple[str, int, Future[list[_Fact]]]] = collections.deque()
  try:
    for name, start, stop in jobs():
      wanted = in_train[name][start:stop]
      waiting.append((name, start, pool.submit(look.at, name, start, stop, wanted)))
      if len(waiting) > 4 * threads:
        advance(_note(found, numbers, *waiting.popleft()))
    while waiting:
      advance(_note(found, numbers, *waiting.popleft()))
  finally:
    # On Ctrl-C no thread begins another image; the interpreter waits for the ones in hand.
    look.stopped.set()
    pool.shutdown(wait=False, cancel_futures=True)
  return found


def _note(
  found: Survey,
  numbers: dict[tuple[str, str], int],
  name: str,
  start: int,
  future: Future[list[_Fact]],
) -> int:
  """Writes the facts of a chunk down; returns how many there are."""
  facts, split = future.result(), found.splits[name]
  for place, fact in enumerate(facts, start):
    if fact.label is not None:
      split.label[place] = fact.label
    split.width[place], split.height[place] = fact.size
    split.digest[place] = np.frombuffer(fact.digest, ">u8")
    if fact.kind is not None:
      if fact.kind not in numbers:
        numbers[fact.kind] = len(found.kinds)
        found.kinds.append(fact.kind)
      split.kind[place] = numbers[fact.kind]
    if fact.unread:
      split.unread[place] = fact.unread
    if fact.undecoded:
      split.undecoded[place] = fact.undecoded
    if fact.misnamed:
      split.misnamed.append(place)
    if fact.moments is not None:
      pixels, sums, squares = fact.moments
      found.images += 1
      found.pixels += pixels
      for channel in range(3):
        found.sums[channel] += sums[channel]
        found.squares[channel] += squares[channel]
  return len(facts)


class _Look:
  """What the threads share."""

  def __init__(self, dataset: Dataset, config: Mapping[str, Any]):
    self.stopped = threading.Event()
    self._sources = dataset.sources
    self._are_files = dataset.name.partition(":")[0] in KINDS
    self._crop = loader.eval_crop(config)

  def at(self, name: str, start: int, stop: int, in_train: np.ndarray) -> list[_Fact]:
    facts = []
    # Image files gain nothing from being read together, and may be large.
    step = 1 if self._are_files else stop - start
    for place, record in enumerate(_read(self._sources[name], range(start, stop), step)):
      if self.stopped.is_set():
        break
      facts.append(
        record if isinstance(record, _Fact) else self._fact(record, bool(in_train[place]))
      )
    return facts

  def _fact(self, record: Record, in_train: bool) -> _Fact:
    digest = hashlib.blake2b(record.data, digest_size=16).digest()
    try:
      head = images.header(record.data, record.name)
      crop = self._crop(record)
    except images.ImageError as error:
      return _Fact(record.label, digest=digest, undecoded=error.reason)
    ending = os.path.splitext(record.name)[1].lower()
    return _Fact(
      record.label,
      head.upright_size,
      (head.format, head.mode),
      digest,
      misnamed=self._are_files and ending in IMAGE_SUFFIXES and ending not in _ENDINGS[head.format],
      moments=_moments(crop) if in_train else None,
    )


def _read(source: Source, places: Sequence[int], step: int) -> Iterator[Record | _Fact]:
  """Yields records, so many read at once; for one that can't be read, the fact that says why."""
  for start in range(0, len(places), step):
    part = places[start : start + step]
    try:
      records: list[Record | _Fact] = [*source.read(part)]
    except (UserError, OSError) as error:
      if len(part) == 1:
        records = [_Fact(unread=_reason(error, source.name(part[0])))]
      else:  # which of them, and what of the others?
        records = [*_read(source, part, 1)]
    yield from records


def _reason(error: Exception, name: str) -> str:
  """Returns what an error says of a record without its name, in one line."""
  return " ".join(str(error).split()).removeprefix(" ".join(f"{name}: ".split())).strip()


def _moments(crop: np.ndarray) -> tuple[int, list[int], list[int]]:
  """Pixels of [size, size, 3] uint8, and the exact sums of each channel and of its squares."""
  # Summed over rows first: numpy is ten times as slow along an axis of three.
  values = crop.reshape(len(crop), -1).astype(np.uint32)
  sums = values.sum(0, dtype=np.uint64)
  values *= values
  squares = values.sum(0, dtype=np.uint64)
  return crop.size // 3, *(s.reshape(-1, 3).sum(0).tolist() for s in (sums, squares))
