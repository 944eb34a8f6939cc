"""The folder that an export is: written beside its place and renamed, so that it is there whole or
not at all.

Knows no format and no model.
"""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import json
import os
import pathlib
import secrets
import shutil
from typing import Any

from imgclf.errors import UserError
from imgclf.manifest import sync_folder

RECORD, CARD = "export.json", "README.md"
# Of the record; its place in the record tells an export from other folders with an export.json.
VERSION_KEY, VERSION = "imgclf_export", 1


def checked(output: str | os.PathLike) -> pathlib.Path:
  """Returns the folder to be made, absolute.

  Raises:
    UserError: if its parent is not there, or something stands in its place that is neither an empty
      folder nor an earlier export with nothing added to it.
  """
  path = pathlib.Path(output).expanduser().absolute()
  if not path.name:
    raise UserError(f"--output={output}: is no folder that can be made; give a name in it")
  try:
    if not path.parent.is_dir():
      raise UserError(f"--output={output}: there is no folder {path.parent}; make it first")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
      raise UserError(f"--output={output}: is there and is no folder; give another")
    if path.is_dir():
      _refuse_foreign(path, output)
  except OSError as error:
    raise UserError(f"--output={output}: can't be used ({error.strerror}); give another") from None
  return path


def _refuse_foreign(path: pathlib.Path, output: str | os.PathLike) -> None:
  found = {
    p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_symlink() or not p.is_dir()
  }
  if not found:
    return
  try:
    record = json.loads((path / RECORD).read_bytes())
    known = {RECORD, CARD, *record["files"]} if VERSION_KEY in record else None
  except (OSError, ValueError, RecursionError, TypeError, KeyError):
    known = None
  if known is None:
    raise UserError(f"--output={output}: is there and is no export; give another, or delete it")
  if added := sorted(found - known):
    raise UserError(
      f"--output={output}: is an export to which {added[0]} was added, and is not replaced; take that "
      "out, or give another"
    )


@contextlib.contextmanager
def whole_folder(output: pathlib.Path) -> Iterator[pathlib.Path]:
  """Makes a folder that takes its name, and the place of an earlier export, only when its body ends
  well.

  What goes wrong before, a signal among it, leaves nothing; only a kill that no process survives
  leaves a hidden folder beside it, `.NAME.*.unfinished`.

  Args:
    output: as `checked` returns it.

  Raises:
    UserError: if it can't be written.
  """
  unfinished = output.with_name(f".{output.name}.{secrets.token_hex(4)}.unfinished")
  try:
    try:
      unfinished.mkdir()
      yield unfinished
      _take_place(unfinished, output)
    except OSError as error:
      reason = error.strerror or str(error)
      raise UserError(f"--output={output}: can't be written ({reason}); give another") from error
  finally:
    shutil.rmtree(unfinished, ignore_errors=True)


def _take_place(unfinished: pathlib.Path, output: pathlib.Path) -> None:
  # Nothing but a rename makes it visible, and it must not reach the disk before what it makes
  # visible.
  for top, _, names in os.walk(unfinished):
    for name in names:
      with open(os.path.join(top, name), "rb") as file:
        os.fsync(file.fileno())
    sync_folder(pathlib.Path(top))
  replaced = unfinished.with_name(f"{unfinished.name}.replaced")
  if output.is_dir():
    output.rename(replaced)
  try:
    unfinished.rename(output)
  except BaseException:
    if replaced.is_dir():
      replaced.rename(output)
    raise
  sync_folder(output.parent)
  shutil.rmtree(replaced, ignore_errors=True)


def listed(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Returns size in bytes and SHA-256 of every file below a folder, by its path with `/` between
  the parts.
  """
  files = {}
  for path in sorted(p for p in folder.rglob("*") if p.is_file()):
    with open(path, "rb") as file:
      digest = hashlib.file_digest(file, "sha256").hexdigest()
    files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
  return files


def write_record(folder: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes `export.json`, by which an export is known; figures in it are finite."""
  text = json.dumps({VERSION_KEY: VERSION, **record}, indent=2, allow_nan=False)
  (folder / RECORD).write_text(f"{text}\n", encoding="utf-8", newline="\n")
