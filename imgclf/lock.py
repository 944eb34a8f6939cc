"""One run folder, one owner: an exclusive lock that ends with the process that holds it, however
that ends.

The lock is the operating system's, on a file `lock` in the run folder, so a killed process leaves
none behind; in the file stands who holds it. On NFS it holds between machines. Knows nothing of
what is in the folder besides.
"""

import contextlib
import json
import os
import pathlib
import socket
import time
from typing import Any
import uuid

from imgclf.errors import UserError, unwritable

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None  # type: ignore[assignment]

# How long a lock that nobody stands in is waited for.
_PATIENCE_SECONDS = 1.0


class Lock:
  """Held from entering the `with` block to leaving it.

  Attributes:
    notes: lines that a person should see, such as on a lock that a dead process left.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Touches nothing yet; `path` is the lock file, in a folder that need not be there."""
    self.path = pathlib.Path(path)
    self.notes: list[str] = []
    self._handle: int | None = None
    self._nonce = uuid.uuid4().hex

  def __enter__(self) -> "Lock":
    """Takes the lock.

    Raises:
      UserError: if another process holds it, naming that; or if the folder can't be written.
    """
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
      raise unwritable(self.path, error) from error
    locked = True
    try:
      # Who only looks holds it for a moment, and stands nowhere.
      patience = time.monotonic() + _PATIENCE_SECONDS
      while not _lock(self._handle):
        if _owner(self.path) or time.monotonic() > patience:
          raise _refusal(self.path)
        time.sleep(0.02)
    except OSError as error:
      locked = False
      self.notes.append(
        f"this file system has no locks ({error.strerror}); see to it yourself that no second run "
        "is started in the folder"
      )
    except BaseException:
      os.close(self._handle)
      raise
    before = _owner(self.path)
    if before and locked:
      self.notes.append(f"the lock of {_describe(before)}, which is gone, was taken over")
    elif before:
      self.notes.append(f"{_describe(before)} stands in the lock file and may still train here")
    self._write(
      {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "nonce": self._nonce,
        "since": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
      }
    )
    return self

  def __exit__(self, *exception: object) -> None:
    """Gives the lock back; the file stays, empty, since its removal could meet a process that opens
    it.
    """
    if self._handle is None:
      return
    with contextlib.suppress(OSError):
      if (_owner(self.path) or {}).get("nonce") == self._nonce:
        os.ftruncate(self._handle, 0)
    os.close(self._handle)
    self._handle = None

  def check(self) -> None:
    """Refuses to go on where another process took the folder over all the same.

    Some mounts keep locks to one machine without a word; the owner's nonce shows it.

    Raises:
      UserError: naming the other process.
    """
    owner = _owner(self.path)
    if owner and owner.get("nonce") != self._nonce:
      raise UserError(
        f"{self.path}: {_describe(owner)} has taken this run folder over; let one of the two go on, the "
        "other with another --workdir"
      )

  def _write(self, owner: dict[str, Any]) -> None:
    assert self._handle is not None
    try:
      os.ftruncate(self._handle, 0)
      os.pwrite(self._handle, (json.dumps(owner) + "\n").encode(), 0)
    except OSError as error:
      os.close(self._handle)
      self._handle = None
      raise unwritable(self.path, error) from error


def refuse_if_held(path: str | os.PathLike[str]) -> None:
  """Tells at once, before anything slow is imported, that another process holds a lock.

  Raises:
    UserError: naming that process.
  """
  try:
    handle = os.open(path, os.O_RDWR)
  except OSError:  # not there, or not ours: for `Lock` to say
    return
  try:
    # Shared, so that the processes of a job, which all look, do not take each other for owners.
    if not _lock(handle, shared=True):
      raise _refusal(pathlib.Path(path))
  except OSError:
    pass
  finally:
    os.close(handle)


def _lock(handle: int, shared: bool = False) -> bool:
  """Takes the lock if it is free; raises OSError where there are no locks."""
  if fcntl is None:
    raise OSError(0, "not known to Python here")
  try:
    fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def _owner(path: pathlib.Path) -> dict[str, Any] | None:
  """Who stands in the file; None where nobody does, or what does can't be read."""
  try:
    owner = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError):
    return None
  return owner if isinstance(owner, dict) else None


def _describe(owner: dict[str, Any] | None) -> str:
  if not owner:
    return "another process"
  return f"process {owner.get('pid')} on {owner.get('host')} (since {owner.get('since')})"


def _refusal(path: pathlib.Path) -> UserError:
  return UserError(
    f"--workdir={path.parent}: {_describe(_owner(path))} is training in it; wait for it, stop it, or take "
    "another --workdir"
  )
