"""Writes checkpoints in the background, one after the other, each whole or not at all.

Knows which folder a step lies in while it is written, in its place, and on its way out; not which
steps should be.
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from imgclf import array_files, manifest, named
from imgclf.errors import FORBIDDEN, FULL, UserError, unwritable

# A step is written in the first and deleted from the second; a rename takes it to or from its
# place. So what a kill cuts short is never listed.
_SAVING, _DELETED = ".saving", ".deleted"

# What the files of a checkpoint take beside the arrays themselves, at most; of a small state, most
# of it.
_OVERHEAD = 1_000_000


class Saver:
  """The thread that saves, and the one save that may be under way."""

  def __init__(self, folder: pathlib.Path):
    """Makes the folder, and clears it of what a killed save or deletion left.

    Raises:
      UserError: if it can't be made or written.
    """
    self._folder = folder
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise mendable(folder, error) from error
    self._clear(_SAVING, _DELETED)
    self._worker = concurrent.futures.ThreadPoolExecutor(1, "imgclf-save")
    self._under_way: concurrent.futures.Future[None] | None = None

  def submit(
    self,
    step: int,
    arrays: Mapping[named.Path, np.ndarray],
    empty: list,
    figures: Mapping[str, float | None] | None,
    run: Mapping[str, Any],
    dropped: Sequence[int],
  ) -> None:
    """Begins to write a step; the arrays must not be changed any more.

    Args:
      step: whose folder is not there yet.
      arrays: see `imgclf.named.split_arrays`.
      empty: likewise.
      figures: for the manifest.
      run: for the manifest.
      dropped: steps that are deleted once this one is complete.

    Raises:
      UserError: if there is no room for it.
    """
    needed = sum(array.nbytes for array in arrays.values()) + _OVERHEAD
    free = shutil.disk_usage(self._folder).free
    if free < needed:
      raise UserError(
        f"{self._folder}: a checkpoint needs {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free; "
        "make room, then run the same command again"
      )

    def write() -> None:
      temporary = self._folder / _SAVING / str(step)
      temporary.mkdir(parents=True)
      array_files.write(temporary / "state", arrays, empty)
      manifest.write(temporary, figures, run)
      temporary.rename(self._folder / str(step))
      temporary.parent.rmdir()
      manifest.sync_folder(self._folder)
      for old in dropped:
        self._delete(old)

    self._under_way = self._worker.submit(write)

  def done(self) -> bool:
    """Whether a save has come to its end, good or bad, that was not waited for."""
    return self._under_way is not None and self._under_way.done()

  def wait(self) -> None:
    """Returns when no save is under way.

    Raises:
      UserError: if the last one failed for a reason that the user can mend; other errors as they
        are.
    """
    under_way, self._under_way = self._under_way, None
    if under_way is None:
      return
    try:
      under_way.result()
    except Exception as error:
      self._clear(_SAVING)
      raise mendable(self._folder, error) from error

  def close(self) -> None:
    """Ends the thread."""
    self._worker.shutdown()

  def _delete(self, step: int) -> None:
    target = self._folder / _DELETED / str(step)
    try:
      target.parent.mkdir(exist_ok=True)
      (self._folder / str(step)).rename(target)
    except FileNotFoundError:  # by hand, in between
      pass
    self._clear(_DELETED)

  def _clear(self, *names: str) -> None:
    # What can't be removed now is tried again at the next call; it takes room and does no harm.
    for name in names:
      shutil.rmtree(self._folder / name, ignore_errors=True)


def mendable(folder: pathlib.Path, error: Exception) -> Exception:
  """Returns a UserError where the user can mend what kept a checkpoint from being written, else the
  error.
  """
  for code in (*FULL, *FORBIDDEN):
    # Tensorstore raises ValueErrors that carry the system's words.
    if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
      return unwritable(folder, OSError(code, os.strerror(code)), "a checkpoint ")
  return error
