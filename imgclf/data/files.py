"""Image files with a class each: their split by a stable hash, their order, their reading.

Knows neither folders nor CSV files; imgclf/data/folders.py and imgclf/data/csv_files.py list the
files.
"""

from collections.abc import Callable, Iterable, Sequence
import errno
import hashlib
import itertools
import os
import stat
import unicodedata

import numpy as np

from imgclf.data import label_sets
from imgclf.data.sources import Record
from imgclf.errors import UserError

# What tells an image file in a folder; how it is decoded depends on its first bytes, never on its
# name.
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"))

SPLIT_NAMES = {
  "train": "train",
  "validation": "validation",
  "val": "validation",
  "valid": "validation",
  "test": "test",
}
SPLITS = ("train", "validation", "test")

# Shares of the hash's range where the files come without splits: 80 / 10 / 10 percent.
_BOUNDARIES = np.array([0.8, 0.9])


def normal(text: str) -> str:
  """Returns a name in Unicode's composed form; file systems differ in how they store an `é`."""
  return unicodedata.normalize("NFC", text)


def digests(paths: Sequence[str]) -> np.ndarray:
  """Returns 128 bits of each relative path's BLAKE2b hash as [n, 2] uint64, high word first.

  The hash depends on the path alone, with `/` between its parts: not on the machine, the order of
  listing or the other files.
  """
  joined = b"".join(
    hashlib.blake2b(normal(path).encode("utf-8", "surrogateescape"), digest_size=16).digest()
    for path in paths
  )
  return np.frombuffer(joined, ">u8").astype(np.uint64).reshape(-1, 2)


def split_numbers(digest: np.ndarray) -> np.ndarray:
  """Returns [n] places in SPLITS: train for the lowest 80% of the hash's range, then 10% and 10%.

  A file's split depends on its path alone, so that files which come or go move no other.
  """
  share = digest[:, 0].astype(np.float64) / 2.0**64
  return np.searchsorted(_BOUNDARIES, share, side="right")


def read_file(path: str | os.PathLike, max_bytes: int | None = None) -> bytes:
  """Returns what a file holds; never waits for one, and never reads a device.

  Args:
    path: of a file, or of a link to one.
    max_bytes: of a larger file so many bytes and one more are returned, for the decoder to refuse.

  Raises:
    OSError: it can't be read, or is a folder, a pipe, a socket or a device.
  """
  _check_regular(os.stat(path))
  # It may have become a pipe since, whose open would wait for a writer.
  descriptor = os.open(
    path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
  )
  with open(descriptor, "rb") as file:
    _check_regular(os.fstat(descriptor))
    return file.read() if max_bytes is None else file.read(max_bytes + 1)


def _check_regular(status: os.stat_result) -> None:
  if stat.S_ISDIR(status.st_mode):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
  if not stat.S_ISREG(status.st_mode):
    raise PermissionError(errno.EACCES, "a pipe, socket or device, not a file")


def stays(root: str, path: str | os.PathLike) -> bool:
  """Whether a path leads to a file below `root`, a real path, once links are followed."""
  target = os.path.realpath(path)
  return os.path.isfile(target) and os.path.commonpath((root, target)) == root


class FileSource:
  """One split of image files, in the order of their hashes.

  That order is fixed and has nothing to do with class or name, so that a slice such as
  `train[90%:]` is a fair sample.
  """

  def __init__(self, root: str, paths: list[str], labels: np.ndarray, max_bytes: int | None = None):
    self._root, self._paths, self._labels, self._max_bytes = root, paths, labels, max_bytes

  @property
  def shard_lengths(self) -> list[int]:
    """One shard: the whole split."""
    return [len(self._paths)]

  @property
  def labels(self) -> np.ndarray:
    """[n] int32 or, of several classes an image, [n, classes] uint8, in order."""
    return self._labels

  def name(self, index: int) -> str:
    """Returns the path of a file by its place in the split."""
    return os.path.join(self._root, self._paths[index])

  def read(self, indices: Sequence[int]) -> list[Record]:
    """Reads files by their place in the split.

    Raises:
      UserError: naming a file that is gone or may not be read.
    """
    records = []
    for index in indices:
      path = self.name(index)
      try:
        data = read_file(path, self._max_bytes)
      except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise UserError(
          f"{path}: can't be read ({error.strerror}); restore it, or start again without it"
        ) from None
      label = self._labels[index]
      records.append(Record(data, label if label.ndim else int(label), path))
    return records


def sources(
  root: str,
  paths: Sequence[str],
  classes_of: Sequence[str | tuple[str, ...]],
  splits_of: Sequence[str] | None,
  order: Callable[[Iterable[str]], list[str]] = sorted,
  max_bytes: int | None = None,
) -> tuple[tuple[str, ...], dict[str, FileSource], list[str]]:
  """Sorts listed files into splits.

  Args:
    root: the folder that the paths are relative to.
    paths: of the files, with `/` between their parts.
    classes_of: the class name of each file; or the names of each.
    splits_of: the split of each file; None: by hash, 80 / 10 / 10.
    order: puts class names in order.
    max_bytes: no more than this and one is read of a file.

  Returns:
    The class names, the sources of the splits that are not empty, and notes on what is worth
    knowing.
  """
  classes, labels = _numbered(classes_of, order)
  digest = digests(paths)
  if splits_of is None:
    split = split_numbers(digest)
  else:
    split = np.fromiter((SPLITS.index(name) for name in splits_of), np.int64, len(paths))
  by_hash = np.lexsort((digest[:, 1], digest[:, 0]))
  found = {}
  for place, name in enumerate(SPLITS):
    members = by_hash[split[by_hash] == place]
    if len(members):
      found[name] = FileSource(root, [paths[i] for i in members], labels[members], max_bytes)
  notes = []
  if "train" in found:
    unseen = [
      name
      for name, count in zip(classes, label_sets.counts(found["train"].labels, len(classes)))
      if not count
    ]
    if unseen:
      notes.append(f"classes without an image in train: {len(unseen)} ({some(unseen)})")
  return classes, found, notes


def _numbered(
  classes_of: Sequence[str | tuple[str, ...]],
  order: Callable[[Iterable[str]], list[str]],
) -> tuple[tuple[str, ...], np.ndarray]:
  """Returns the class names, and labels as `FileSource` has them."""
  several = len(classes_of) > 0 and isinstance(classes_of[0], tuple)
  sets = [names if isinstance(names, tuple) else (names,) for names in classes_of]
  classes = tuple(order(set(itertools.chain.from_iterable(sets))))
  number = {name: label for label, name in enumerate(classes)}
  if several:
    return classes, label_sets.multi_hot(sets, number)
  return classes, np.fromiter((number[name] for (name,) in sets), np.int32, len(sets))


def some(names: Sequence[str], limit: int = 5) -> str:
  """Returns the first names, and how many more there are."""
  more = f" and {len(names) - limit} more" if len(names) > limit else ""
  return ", ".join(names[:limit]) + more
