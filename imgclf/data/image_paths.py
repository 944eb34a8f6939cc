"""What a user names for prediction -> paths of files: files, folders, patterns, lists, standard
input.

Opens no image.
"""

from collections.abc import Iterator, Sequence
import os
import pathlib
import re
import sys
from typing import NamedTuple

from imgclf.data.files import IMAGE_SUFFIXES
from imgclf.errors import UserError

_MAGIC = re.compile(r"[*?\[]")


class Listed(NamedTuple):
  """A file to predict, and the folder that was named where it is one of those below it."""

  path: pathlib.Path
  folder: str | None


def find(named: Sequence[str], flag: str = "--images") -> list[Listed]:
  """Returns the files that are meant, in the order they were named in, each as often as it was
  named.

  `-` means the paths on standard input. Any other path that exists is that path. Else `@FILE` means
  the paths in a file, one a line and relative to the current folder, and one with `*`, `?` or `[`
  the files that it matches, `**` any depth of folders. Of a folder the files with an image ending
  below it are taken; they, like those of a pattern, come in the order of their names and without
  hidden ones. A file that is named is taken whatever its ending; one that is not there stays in the
  list, for its reader to say so.

  Args:
    named: what the user gave.
    flag: what errors call it.

  Raises:
    UserError: for nothing at all, a folder or list without an image, a pattern without a match, or
      a list that can't be read.
  """
  found: list[Listed] = []
  for text in filter(None, named):
    if text == "-":
      found.extend(_listed(sys.stdin.buffer.read(), f"{flag}=-: standard input"))
    elif os.path.lexists(os.path.expanduser(text)):
      found.extend(_named(text, flag))
    elif text.startswith("@"):
      found.extend(_listed(_list_file(text, flag), f"{flag}={text}: the list"))
    elif _MAGIC.search(text):
      found.extend(_matches(text, flag))
    else:
      found.extend(_named(text, flag))
  if not found:
    raise UserError(f"{flag}: give image files or folders, separated by commas")
  return found


def _named(text: str, flag: str) -> Iterator[Listed]:
  path = pathlib.Path(text).expanduser()
  if not os.path.isdir(path):  # unlike Path.is_dir, it takes a name that is too long
    yield Listed(path, None)
    return
  inside = sorted(
    p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
  )
  if not inside:
    endings = " ".join(sorted(IMAGE_SUFFIXES))
    raise UserError(f"{flag}={text}: no image in this folder; looked for {endings}")
  folder = os.path.realpath(path)
  yield from (Listed(image, folder) for image in inside)


def _list_file(text: str, flag: str) -> bytes:
  try:
    return pathlib.Path(text[1:]).expanduser().read_bytes()
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(
      f"{flag}={text}: the list {text[1:]} can't be read ({reason}); give a file of paths, one a line"
    ) from error


def _listed(data: bytes, what: str) -> Iterator[Listed]:
  """The files and folders that a text names line by line, literally: `*` and `@` are part of a
  name.
  """
  lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
  paths = [os.fsdecode(line.removesuffix(b"\r")) for line in lines]
  paths = list(filter(None, paths))
  if not paths:
    raise UserError(f"{what} names no image; give one path a line")
  for number, path in enumerate(paths):
    yield from _named(path, f"{what}, path {number + 1}")


def _matches(text: str, flag: str) -> list[Listed]:
  parts = pathlib.Path(text).expanduser().parts
  first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
  root, pattern = pathlib.Path(*parts[:first]), list(parts[first:])
  if pattern[-1] == "**":  # only folders match it, before Python 3.13
    pattern.append("*")
  hidden = any(part.startswith(".") for part in pattern)
  try:
    # Links to folders are entered where they are matched by name, not below `**`.
    matched = sorted(p for p in root.glob("/".join(pattern)) if not os.path.isdir(p))
  except ValueError as error:
    raise UserError(f"{flag}={text}: {error}; write ** between slashes") from error
  if not hidden:
    matched = [p for p in matched if not _is_hidden(p.relative_to(root))]
  if not matched:
    raise UserError(
      f"{flag}={text}: no file matches; * stands for a name or a part of it, ** for folders"
    )
  folder = os.path.realpath(root)
  return [Listed(path, folder) for path in matched]


def _is_hidden(path: pathlib.Path) -> bool:
  return any(part.startswith(".") for part in path.parts)
