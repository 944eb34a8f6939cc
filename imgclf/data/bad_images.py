"""Images that can't be decoded and are passed over: each is listed once, and too many of them end
the run.

Knows no pixel and no batch; imgclf/data/loader.py calls it from its threads.
"""

import json
import os
import pathlib
import threading

from imgclf.data.images import ImageError
from imgclf.errors import UserError, unwritable


class BadImages:
  """The bad images of one split, as far as they were met.

  In a job of several processes each appends those that it met to the same file.
  """

  def __init__(self, path: str | os.PathLike[str], *, total: int, max_share: float):
    """Reads what an earlier part of the run listed.

    Args:
      path: where to append a JSON object a line: `name` and `reason`.
      total: examples of the split.
      max_share: of them that may be bad.

    Raises:
      UserError: if the file can't be read.
    """
    self._path = pathlib.Path(path)
    self._total, self._max_share = total, max_share
    self._lock = threading.Lock()
    self.names, self._cut = _listed(self._path)

  def add(self, error: ImageError, name: str) -> None:
    """Lists an image, unless it is listed already.

    Raises:
      UserError: if more than the share that is allowed is bad, or the list can't be written.
    """
    with self._lock:
      if name not in self.names:
        self.names |= _listed(self._path)[0]  # what other processes have met since
      if name not in self.names:
        self.names.add(name)
        line = json.dumps({"name": name, "reason": error.reason}) + "\n"
        try:
          with open(self._path, "ab") as file:
            file.write(("\n" * self._cut + line).encode())
          self._cut = False
        except OSError as failed:
          raise unwritable(self._path, failed) from failed
      # A share as the user writes it: 0.29 * 100 is less than 29.
      if len(self.names) / self._total > self._max_share:
        raise UserError(
          f"{len(self.names)} of {self._total} training images can't be decoded, which is more than "
          f"config.dataset.max_bad_share={self._max_share:g}; {self._path} lists them: mend them and "
          "remove the list, or raise the share"
        )


def _listed(path: pathlib.Path) -> tuple[set[str], bool]:
  """Returns the names in the file, and whether its last line was cut short by a kill."""
  names: set[str] = set()
  data = b""
  try:
    data = path.read_bytes()
    for line in data.splitlines():
      try:
        names.add(json.loads(line)["name"])
      except (ValueError, TypeError, KeyError):
        continue
  except FileNotFoundError:
    pass
  except OSError as error:
    raise UserError(f"{path}: can't be read ({error.strerror}); mend or remove it") from error
  return names, bool(data) and not data.endswith(b"\n")
