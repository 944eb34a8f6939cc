"""`folder:PATH`: image files in class folders, with or without split folders above them.

Knows nothing of what is in the files: a file counts by its ending, and its class is its folder.
"""

import os

from imgclf.data import files
from imgclf.data.files import IMAGE_SUFFIXES, SPLIT_NAMES, FileSource
from imgclf.errors import UserError

LAYOUT = "expected is PATH/train/CLASS/IMAGE (also validation, test) or PATH/CLASS/IMAGE"

# Names that stand for splits, ours or not. A folder of nothing else holds no classes.
_SPLIT_LIKE = frozenset((*SPLIT_NAMES, "training", "dev", "testing", "eval", "evaluation"))


class _Ignored:
  """Counts what is passed over, by reason, with one example of each."""

  def __init__(self) -> None:
    self._seen: dict[str, tuple[int, str]] = {}

  def add(self, reason: str, path: str) -> None:
    count, example = self._seen.get(reason, (0, path))
    self._seen[reason] = (count + 1, min(example, path))

  def lines(self) -> list[str]:
    return [
      f"{reason} that were ignored: {count}, e.g. {example}"
      for reason, (count, example) in sorted(self._seen.items())
    ]


def _entries(root: str, relative: str, ignored: _Ignored) -> tuple[list[str], list[str]]:
  """Lists the folders and the image files of one folder by name."""
  folders, images = [], []
  try:
    with os.scandir(os.path.join(root, relative)) as listing:
      for entry in listing:
        path = f"{relative}/{entry.name}" if relative else entry.name
        if entry.name.startswith("."):
          ignored.add("hidden files or folders", path)
        elif entry.is_symlink() and not files.stays(root, os.path.join(root, path)):
          # A link to a folder could close a circle or count an image twice; one that leaves PATH
          # reads what its owner may not have meant to show.
          ignored.add("links that leave the folder, lead to a folder or lead nowhere", path)
        elif entry.is_dir():
          folders.append(entry.name)
        elif entry.is_file() and os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
          images.append(entry.name)
        else:
          ignored.add("files without an image ending", path)
  except OSError as error:
    where = os.path.join(root, relative)
    raise UserError(
      f"{where}: can't be listed ({error.strerror}); make it readable or move it out"
    ) from None
  return folders, images


def _images_below(root: str, top: str, ignored: _Ignored) -> list[str]:
  """Lists all image files below a folder as paths relative to root."""
  found, waiting = [], [top]
  while waiting:
    relative = waiting.pop()
    folders, images = _entries(root, relative, ignored)
    waiting += [f"{relative}/{name}" for name in folders]
    found += [f"{relative}/{name}" for name in images]
  return found


def _split_folders(root: str, folders: list[str]) -> dict[str, str]:
  """Maps a split to its folder; empty where the folders are classes."""
  named = {name: SPLIT_NAMES[name.lower()] for name in folders if name.lower() in SPLIT_NAMES}
  if "train" not in named.values() and len(named) < len(folders):
    return {}
  found: dict[str, str] = {}
  for name, split in sorted(named.items()):
    if split in found:
      raise UserError(
        f"folder:{root}: {found[split]} and {name} both are the {split} split; keep one of them"
      )
    found[split] = name
  return found


def read(
  path: str, max_bytes: int | None = None
) -> tuple[tuple[str, ...], dict[str, FileSource], list[str]]:
  """Lists the image files below a folder.

  With a `train` folder (or split folders alone) the splits are the folders `train`, `validation`
  (or `val`, `valid`) and `test`; otherwise every folder is a class, and its files are split 80 / 10
  / 10 by a hash of their relative path. Files count at any depth below a class folder. Of a file
  larger than `max_bytes`, so many bytes and one more are read.

  Returns:
    The class names, sorted, over all splits; the splits; notes on what was passed over.

  Raises:
    UserError: for a folder that is missing or laid out otherwise.
  """
  where = f"folder:{path}"
  root = os.path.realpath(os.path.expanduser(path))
  if not os.path.isdir(root):
    what = "is not a folder" if os.path.exists(root) else "no such folder"
    raise UserError(f"{where}: {what}; {LAYOUT}")
  ignored, notes = _Ignored(), []
  folders, loose = _entries(root, "", ignored)
  if not folders:
    what = f"has images ({loose[0]} …) but no class folders" if loose else "has no class folders"
    raise UserError(f"{where}: {what}{_passed_over(ignored)}; {LAYOUT}")
  splits = _split_folders(root, folders)
  if not splits and {name.lower() for name in folders} <= _SPLIT_LIKE:
    raise UserError(
      f"{where}: {files.some(sorted(folders))} look like splits, not classes; rename them to train, "
      f"validation and test; {LAYOUT}"
    )
  if splits:
    for name in sorted(set(folders) - set(splits.values())):
      ignored.add("folders beside the split folders", name)
  paths: list[str] = []
  classes_of: list[str] = []
  splits_of: list[str] = []
  for image in loose:
    ignored.add("images outside of class folders", image)
  for split, top in sorted(splits.items()) or [("", "")]:
    class_folders = folders
    if top:
      class_folders, loose = _entries(root, top, ignored)
      for image in loose:
        ignored.add("images outside of class folders", f"{top}/{image}")
    for folder in class_folders:
      relative = f"{top}/{folder}" if top else folder
      images = _images_below(root, relative, ignored)
      if not images:
        notes.append(f"{relative} holds no images and is left out")
      paths += images
      classes_of += [files.normal(folder)] * len(images)
      splits_of += [split] * len(images)
  if not paths:
    raise UserError(f"{where}: holds no images{_passed_over(ignored)}; {LAYOUT}")
  classes, found, more = files.sources(
    root, paths, classes_of, splits_of if splits else None, max_bytes=max_bytes
  )
  return classes, found, [*ignored.lines(), *sorted(notes), *more]


def _passed_over(ignored: _Ignored) -> str:
  lines = ignored.lines()
  return f" ({'; '.join(lines)})" if lines else ""
