"""Compiled programs on the disk, so that the second start of a command does not compile again.

JAX's persistent compilation cache decides what is kept and under which key (program, options,
versions, device); this is where the bytes lie. Entries are machine code: a folder that others can
write to is not used. Knows no model and no run.
"""

from collections.abc import Iterator
import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import platform
import stat
import tempfile
from typing import Any

import jax
import jax._src.compilation_cache
from jax._src.compilation_cache_interface import CacheInterface
from jax.experimental.compilation_cache import compilation_cache

from imgclf.text import printable

_log = logging.getLogger("imgclf")

# What the folder may take; all programs of a ResNet-50's run take 2 MB on a CPU.
MAX_BYTES = 2_000_000_000
# JAX's own default of 1.0 leaves out small networks, and what a start compiles beside the two
# steps.
MIN_COMPILE_SECONDS = 0.1

_DIGEST_SIZE = hashlib.sha256().digest_size


class ProgramStore(CacheInterface):
  """Bytes by key in a folder: whole or not there, as they were put, the least recently used
  dropped.

  Where JAX's own store (`jax._src.lru_cache`, 0.10 to 0.12) keeps an entry that a kill or a full
  disk cut short for good and warns of it at every start, has no digest with zstandard installed,
  and needs another package for a bound. Several processes may share a folder. What the disk refuses
  is told once, and then done without.
  """

  def __init__(self, folder: str | os.PathLike[str], max_bytes: int = MAX_BYTES):
    """Opens nothing yet.

    Args:
      folder: which is there.
      max_bytes: of all entries together.
    """
    self._path = pathlib.Path(folder)  # under this name JAX tells it when it resets the cache
    self._max_bytes = max_bytes
    self._told = False

  def get(self, key: str) -> bytes | None:
    """Returns what was put; None where it is not there, or damaged, which is told."""
    path = self._file(key)
    try:
      content = path.read_bytes()
    except FileNotFoundError:
      return None
    except OSError as error:
      self._tell(error)
      return None
    value = content[_DIGEST_SIZE:]
    if content[:_DIGEST_SIZE] != hashlib.sha256(value).digest():
      _log.warning("%s", printable(f"{path}: is damaged; the program is compiled again"))
      return None
    with contextlib.suppress(OSError):  # it may lie where this user can only read
      os.utime(path)
    return value

  def put(self, key: str, value: bytes) -> None:
    """Keeps bytes, in the place of what was there, and drops what was not used for longest."""
    if _DIGEST_SIZE + len(value) > self._max_bytes:
      return
    try:
      descriptor, unfinished = tempfile.mkstemp(dir=self._path)
      try:
        with open(descriptor, "wb") as file:
          file.write(hashlib.sha256(value).digest() + value)
        os.replace(unfinished, self._file(key))
      except OSError:
        os.unlink(unfinished)
        raise
      self._drop()
    except OSError as error:
      self._tell(error)

  def _file(self, key: str) -> pathlib.Path:
    # By the CPU too: a home may be shared by machines of which one lacks another's instructions,
    # and JAX 0.10 does not say whether its key covers them.
    return self._path / f"{key}-{_cpu()}"

  def _drop(self) -> None:
    """Keeps the folder within its bound; what a killed process left unfinished goes like any other
    file.
    """
    files = []
    for entry in os.scandir(self._path):
      with contextlib.suppress(FileNotFoundError):  # another process was faster
        if entry.is_file(follow_symlinks=False):
          files.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
      if total <= self._max_bytes:
        return
      with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
      total -= size

  def _tell(self, error: OSError) -> None:
    if not self._told:
      _log.warning("%s", printable(_note(self._path, error.strerror or str(error))))
    self._told = True


def keep_programs() -> None:
  """Turns the cache on for this process, unless JAX was told by the user where to keep it, or not
  to.

  `JAX_COMPILATION_CACHE_DIR`, or `jax.config`, names another folder, which JAX keeps in its own
  way; empty, there is none. Must run before anything is compiled. What keeps the folder from being
  used is told in a line.
  """
  settings: Any = jax.config  # its types leave out what it has by name
  if settings.jax_compilation_cache_dir is not None or not settings.jax_enable_compilation_cache:
    return
  folder = default_folder()
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    others = stat.S_IWGRP | stat.S_IWOTH
    if os.name == "posix" and (found.st_uid != os.getuid() or found.st_mode & others):
      raise OSError(0, "others can write to it")
  except OSError as error:
    _log.warning("%s", printable(_note(folder, error.strerror or str(error))))
    return
  # Not public. JAX calls it with the folder, and takes what it returns for the store.
  jax._src.compilation_cache.get_file_cache = lambda path: (ProgramStore(path), path)
  jax.config.update("jax_compilation_cache_dir", str(folder))
  if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)


@contextlib.contextmanager
def temporary_cache() -> Iterator[None]:
  """Within it programs are kept in an empty folder of its own, however fast they compile; not
  thread-safe.
  """
  names = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_min_compile_time_secs",
  )
  settings: Any = jax.config
  before = {name: getattr(settings, name) for name in names}
  with tempfile.TemporaryDirectory() as folder:
    for name, value in zip(names, (folder, True, 0.0)):
      jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at the folder once
    try:
      yield
    finally:
      for name, value in before.items():
        jax.config.update(name, value)
      compilation_cache.reset_cache()


def default_folder() -> pathlib.Path:
  """Returns `imgclf/jax` in the user's cache folder, as the XDG Base Directory Specification (0.8)
  has it.
  """
  # A path that is not absolute is to be ignored.
  given = os.environ.get("XDG_CACHE_HOME", "")
  base = given if os.path.isabs(given) else os.path.expanduser("~/.cache")
  return pathlib.Path(base, "imgclf", "jax")


def _note(folder: pathlib.Path, reason: str) -> str:
  return (
    f"{folder}: compiled programs can't be kept there ({reason}), so every start compiles anew; set "
    "JAX_COMPILATION_CACHE_DIR to another folder, or to nothing"
  )


@functools.cache
def _cpu() -> str:
  """A few digits that differ between CPUs of other instructions."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  # Of the first core; `flags` on x86, `Features` on Arm.
  words = {"vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features"}
  told = {line.split("\t")[0]: line for line in reversed(lines) if line.split("\t")[0] in words}
  text = "\n".join([platform.machine(), platform.processor(), *sorted(told.values())])
  return hashlib.sha256(text.encode()).hexdigest()[:16]
