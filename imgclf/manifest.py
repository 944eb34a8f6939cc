"""The manifest of a checkpoint: the SHA-256 of every file in it, its figures, and the run that it
is of.

A checkpoint folder counts only with its `manifest.json`, which is written last. Storage rots,
copies are cut short and folders are mixed up; whatever changed since the save, down to a bit, is
found here and named. Knows no array and no orbax.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import os
import pathlib
import stat
from typing import Any

from imgclf import whole_files
from imgclf.errors import UserError

NAME = "manifest.json"
_PIECE = 1 << 20


class Damaged(ValueError):
  """A checkpoint is not what was saved; says which file and how."""


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What was saved.

  Attributes:
    files: SHA-256 in hexadecimal by path, `/` between its parts, relative to the checkpoint's
      folder.
    figures: of the evaluation at this step; None where there was none.
    run: what the run was that saved it: `config`, `classes` and whatever else tells it from others.
  """

  files: Mapping[str, str]
  figures: Mapping[str, float | None] | None
  run: Mapping[str, Any]


def write(
  folder: pathlib.Path, figures: Mapping[str, float | None] | None, run: Mapping[str, Any]
) -> None:
  """Hashes every file below a folder, brings them to the disk, and writes the manifest beside them.

  Raises:
    OSError: if the disk is full or does not let itself be read or written.
  """
  files = {path: _sha256(folder / path, sync=True) for path in _files(folder)}
  for top, _, _ in os.walk(folder):
    sync_folder(pathlib.Path(top))  # the names too, before older checkpoints are deleted
  _write(folder, Manifest(files, figures, run))


def read(folder: pathlib.Path) -> Manifest:
  """Returns the manifest of a checkpoint, checked against its own digest; looks at no other file.

  Raises:
    Damaged: if it is missing or is not what was written.
    UserError: if the system does not let it be read now.
  """
  _refuse_irregular(folder, NAME)
  try:
    # Not as text: that would take a carriage return for a line's end.
    text = (folder / NAME).read_bytes().decode("utf-8")
  except FileNotFoundError:
    raise Damaged(f"{NAME} is missing") from None
  except UnicodeDecodeError as error:
    raise Damaged(f"{NAME} can't be read ({error})") from None
  except OSError as error:
    raise _unreadable(folder / NAME, error) from error
  try:
    tree = json.loads(text)
    digest = tree.pop("sha256")
    manifest = Manifest(tree["files"], tree["figures"], tree["run"])
    # Held against the text that it would have, so that a changed space is found too. There is none
    # where a changed digit made a number infinite.
    sound = text == _text(manifest) and digest == _digest(tree)
  except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
    raise Damaged(f"{NAME} is no manifest") from None
  if not sound:
    raise Damaged(f"{NAME} was changed after it was written")
  return manifest


def verify(folder: pathlib.Path) -> None:
  """Reads a whole checkpoint and holds it against its manifest, at some 750 MB/s.

  Raises:
    Damaged: naming a file that is missing, was changed or does not belong.
    UserError: if the system does not let one be read now.
  """
  wanted = read(folder).files
  found = _files(folder)
  for path in sorted({*wanted, *found}):
    if path not in found:
      raise Damaged(f"{path} is missing")
    if path not in wanted:
      raise Damaged(f"{path} is not in {NAME}")
    _refuse_irregular(folder, path)
    try:
      digest = _sha256(folder / path)
    except FileNotFoundError:  # a link that leads nowhere
      raise Damaged(f"{path} is missing") from None
    except OSError as error:
      raise _unreadable(folder / path, error) from error
    if digest != wanted[path]:
      raise Damaged(f"{path} was changed after it was saved: its SHA-256 is another")


def _unreadable(path: pathlib.Path, error: OSError) -> UserError:
  """What may pass, such as a file server that is away, is no reason to give a checkpoint up."""
  return UserError(
    f"{path}: can't be read ({error.strerror}); make it readable, or move its checkpoint away if it is lost"
  )


def add_figures(folder: pathlib.Path, figures: Mapping[str, float | None]) -> None:
  """Puts the figures of an evaluation that was made after the save into the manifest, whole or not
  at all.
  """
  manifest = read(folder)
  _write(folder, Manifest(manifest.files, figures, manifest.run))


def _files(folder: pathlib.Path) -> list[str]:
  """Every file below the folder but the manifest; a link counts as the file that it may not be."""
  found = []

  def told(error: OSError) -> None:
    raise _unreadable(folder, error) from error

  for top, folders, names in os.walk(folder, onerror=told):
    inside = pathlib.Path(top).relative_to(folder)
    names += [name for name in folders if os.path.islink(os.path.join(top, name))]
    found += [str((inside / name).as_posix()) for name in names]
  return sorted(path for path in found if path != NAME and not path.startswith(f".{NAME}."))


def _refuse_irregular(folder: pathlib.Path, path: str) -> None:
  """Refuses a pipe or device, from which a read might never come back."""
  try:
    mode = os.stat(folder / path).st_mode
  except OSError:  # for who reads it to say
    return
  if not stat.S_ISREG(mode):
    raise Damaged(f"{path} is no regular file")


def _sha256(path: pathlib.Path, sync: bool = False) -> str:
  digest = hashlib.sha256()
  with open(path, "rb", buffering=0) as file:
    if sync:  # a rename must not reach the disk before what it makes visible
      os.fsync(file.fileno())
    while piece := file.read(_PIECE):
      digest.update(piece)  # releases the interpreter's lock
  return digest.hexdigest()


def _digest(tree: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _text(manifest: Manifest) -> str:
  tree = {"figures": manifest.figures, "files": dict(manifest.files), "run": manifest.run}
  return json.dumps({**tree, "sha256": _digest(tree)}, indent=1, allow_nan=False) + "\n"


def _write(folder: pathlib.Path, manifest: Manifest) -> None:
  whole_files.write(folder / NAME, _text(manifest).encode())
  sync_folder(folder)


def sync_folder(folder: pathlib.Path) -> None:
  """Brings a folder's list of names to the disk."""
  handle = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
