"""The file that a mode writes for `--output`: refused before the work begins, then written whole."""

from collections.abc import Iterator, Sequence
import contextlib
import os
import pathlib
from typing import IO

from imgclf.errors import UserError


def checked(path: str | os.PathLike, endings: Sequence[str]) -> pathlib.Path:
  """Returns the path of a file that can be written.

  Raises:
    UserError: for another ending, a folder that is not there, or a folder in the file's place.
  """
  output = pathlib.Path(path)
  if output.suffix not in endings:
    raise UserError(
      f"--output={output}: ends in {output.suffix!r}; let it end in {' or '.join(endings)}"
    )
  if not output.absolute().parent.is_dir():
    raise UserError(f"--output={output}: there is no folder {output.parent}; make it first")
  if output.is_dir():
    raise UserError(f"--output={output}: is a folder; give a file in it")
  return output


@contextlib.contextmanager
def whole_file(output: pathlib.Path) -> Iterator[IO[str]]:
  """Opens a text file that takes its name only once it is whole: it is written beside it and renamed.

  Raises:
    UserError: if it can't be written.
  """
  unfinished = output.with_name(output.name + ".unfinished")
  try:
    # A file name need not be UTF-8; what is not is written as escapes.
    with open(unfinished, "w", encoding="utf-8", newline="", errors="backslashreplace") as file:
      yield file
    os.replace(unfinished, output)
  except OSError as error:
    raise UserError(
      f"--output={output}: can't be written ({error.strerror}); give another"
    ) from error
  finally:
    unfinished.unlink(missing_ok=True)
