"""`csv:PATH`: image files listed in a table with the columns path, label and, if wanted, split.

Knows nothing of what is in the image files, but that they are there.
"""

from collections.abc import Iterable, Iterator
import csv
import io
import os
import re

from imgclf.data import files, label_sets
from imgclf.data.files import SPLIT_NAMES, FileSource
from imgclf.errors import UserError

COLUMNS = ("path", "label", "split")


def class_order(names: Iterable[str]) -> list[str]:
  """Sorts class names as text, or by value if all of them are integers (`2` before `10`)."""
  names = list(names)
  if all(re.fullmatch(r"[+-]?[0-9]+", name) for name in names):
    return sorted(names, key=lambda name: (int(name), name))
  return sorted(names)


def _rows(where: str, path: str) -> Iterator[tuple[int, list[str]]]:
  """Yields (line number, cells) of every row that is not blank."""
  try:
    text = files.read_file(path).decode("utf-8-sig")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    for row in reader:
      if row:
        yield reader.line_num, [cell.strip() for cell in row]
  except UnicodeDecodeError:
    raise UserError(f"{where}: is not UTF-8 text; save it as UTF-8") from None
  except csv.Error as error:
    raise UserError(
      f"{where}, line {reader.line_num}: is not CSV ({error}); mend the line"
    ) from None
  except OSError as error:
    raise UserError(
      f"{where}: can't be read ({error.strerror}); give the path of a CSV file with the columns "
      "path,label or path,label,split"
    ) from None


class _Links:
  """Finds files below a folder that a link on their way leads out of it."""

  def __init__(self, root: str):
    self._root = root
    self._inside: dict[
      str, bool
    ] = {}  # folder -> whether it lies below root once links are followed

  def lead_out(self, file: str) -> bool:
    folder = os.path.dirname(file)
    if folder not in self._inside:
      real = os.path.realpath(folder)
      self._inside[folder] = os.path.commonpath((self._root, real)) == self._root
    if not self._inside[folder]:
      return True
    return os.path.islink(file) and not files.stays(self._root, file)


def read(
  path: str, max_bytes: int | None = None, label_separator: str = ""
) -> tuple[tuple[str, ...], dict[str, FileSource], list[str]]:
  """Reads a table of image files.

  The first line names the columns. `path` is relative to the table's folder, or absolute; `label`
  is the class name; `split` is train, validation (or val, valid) or test. Without that column the
  files are split 80 / 10 / 10 by a hash of the path from the table's folder. Text is UTF-8, with or
  without a byte order mark; spaces around a cell do not count. A relative path may say `..`, but no
  link may lead out of the table's folder. Of a file larger than `max_bytes`, so many bytes and one
  more are read. With a `label_separator` a label is any number of class names with that between
  two.

  Returns:
    The class names in the order of `class_order`; the splits; notes on what was passed over.

  Raises:
    UserError: naming the line that is wrong.
  """
  where = f"csv:{path}"
  path = os.path.realpath(os.path.expanduser(path))
  root = os.path.dirname(path)
  separator = files.normal(label_separator)
  rows = _rows(where, path)
  _, header = next(rows, (0, []))
  columns = [cell.lower() for cell in header]
  for column in ("path", "label"):
    if columns.count(column) != 1:
      what = "has no column" if column not in columns else "has twice the column"
      raise UserError(
        f"{where}, line 1: {what} {column!r} (found: {', '.join(header) or 'nothing'}); the first line "
        "must be path,label or path,label,split"
      )
  place = {column: columns.index(column) for column in COLUMNS if column in columns}
  paths: list[str] = []
  classes_of: list[str | tuple[str, ...]] = []
  splits_of: list[str] = []
  lines: dict[str, int] = {}
  links = _Links(root)
  for line, cells in rows:
    at = f"{where}, line {line}"
    if len(cells) != len(columns):
      raise UserError(
        f"{at}: cells: {len(cells)}, but the header has {len(columns)}; put cells with commas in quotes"
      )
    name, label = cells[place["path"]], files.normal(cells[place["label"]])
    if not name or not (label or label_separator):
      raise UserError(f"{at}: the {'path' if not name else 'label'} is empty; fill it in")
    if "split" in place:
      given = cells[place["split"]]
      if given.lower() not in SPLIT_NAMES:
        raise UserError(
          f"{at}: {given!r} is no split; allowed are train, validation (val, valid) and test"
        )
      splits_of.append(SPLIT_NAMES[given.lower()])
    file = os.path.normpath(os.path.join(root, name))
    if file in lines:
      raise UserError(f"{at}: {name} is listed already in line {lines[file]}; delete one of them")
    if not os.path.isfile(file):
      raise UserError(
        f"{at}: no such file: {file}; mend the path, which is relative to the table's folder, or delete "
        "the line"
      )
    if file.startswith(root + os.sep) and not os.path.isabs(name) and links.lead_out(file):
      raise UserError(
        f"{at}: {name} is or passes a link that leaves the table's folder; give the path of the file itself"
      )
    lines[file] = line
    # Relative where it can be, so that moving the whole folder moves no file to another split.
    paths.append(os.path.relpath(file, root) if file.startswith(root + os.sep) else file)
    classes_of.append(label_sets.names(label, separator, at) if separator else label)
  if not paths:
    raise UserError(f"{where}: lists no images; add a line such as cats/1.jpg,cat")
  if not any(classes_of):
    raise UserError(f"{where}: no image has a class; name the classes in the column label")
  classes, found, notes = files.sources(
    root, paths, classes_of, splits_of if "split" in place else None, class_order, max_bytes
  )
  unread = [cell for cell in header if cell.lower() not in COLUMNS]
  if unread:
    notes.insert(0, f"columns that are not read: {files.some(unread)}")
  return classes, found, notes
