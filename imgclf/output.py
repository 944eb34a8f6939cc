"""A file that a mode writes for a flag: refused before the work begins, then written whole."""

from collections.abc import Iterator, Sequence
import contextlib
import os
import pathlib
from typing import IO

from imgclf.errors import UserError


def checked(
  path: str | os.PathLike, endings: Sequence[str], flag: str = "--output"
) -> pathlib.Path:
  """Returns the path of a file that can be written.

  Raises:
    UserError: for another ending, a folder that is not there, or a folder in the file's place.
  """
  output = pathlib.Path(path)
  if output.suffix not in endings:
    raise UserError(
      f"{flag}={output}: ends in {output.suffix!r}; let it end in {' or '.join(endings)}"
    )
  if not output.absolute().parent.is_dir():
    raise UserError(f"{flag}={output}: there is no folder {output.parent}; make it first")
  if output.is_dir():
    raise UserError(f"{flag}={output}: is a folder; give a file in it")
  return output


@contextlib.contextmanager
def whole_file(output: pathlib.Path) -> Iterator[IO[str]]:
  """Opens a text file that takes its name only once it is whole: it is written beside it and
  renamed.

  Raises:
    UserError: if it can't be written.
  """
  # A file name need not be UTF-8; what is not is written as escapes.
  with (
    _renamed(output, "--output") as unfinished,
    open(unfinished, "w", encoding="utf-8", newline="", errors="backslashreplace") as file,
  ):
    yield file


@contextlib.contextmanager
def whole_binary_file(output: pathlib.Path) -> Iterator[IO[bytes]]:
  """Opens a file of bytes that takes its name only once it is whole, as `whole_file` does one of
  text.

  Raises:
    UserError: if it can't be written.
  """
  with _renamed(output, "--output") as unfinished, open(unfinished, "wb") as file:
    yield file


def write_whole(output: pathlib.Path, data: bytes, flag: str) -> None:
  """Writes a file of bytes that takes its name only once it is whole.

  Raises:
    UserError: if it can't be written.
  """
  with _renamed(output, flag) as unfinished:
    unfinished.write_bytes(data)


@contextlib.contextmanager
def _renamed(output: pathlib.Path, flag: str) -> Iterator[pathlib.Path]:
  unfinished = output.with_name(output.name + ".unfinished")
  try:
    yield unfinished
    os.replace(unfinished, output)
  except OSError as error:
    raise UserError(
      f"{flag}={output}: can't be written ({error.strerror}); give another"
    ) from error
  finally:
    unfinished.unlink(missing_ok=True)
