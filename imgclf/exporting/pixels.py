"""Real images, cropped as evaluation does, to verify an export on."""

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

import numpy as np

from imgclf.data import datasets, files, headers, loader
from imgclf.data.images import ImageError
from imgclf.data.sources import Record
from imgclf.errors import UserError

# Enough that a wrong channel, class or constant shows; few enough for a large network on a CPU.
MOST = 64


def of_run(config: Mapping[str, Any]) -> tuple[np.ndarray, str]:
  """Returns images of the run's own data, spread over its test split, else validation, else train.

  Returns:
    [n, size, size, 3] uint8 with n up to `MOST`, and the role whose split they are of.

  Raises:
    UserError: if the data is not there; its mend names `--images` too.
  """
  try:
    dataset = datasets.open(config["dataset"])
    roles = datasets.roles(config["dataset"], dataset)
    role = next(role for role in ("test", "validation", "train") if roles[role])
    records = dataset.records(str(roles[role]))
    places = np.linspace(0, len(records) - 1, min(MOST, len(records))).round().astype(int)
    return _crops(records.__getitems__(places.tolist()), config), role
  except (UserError, ImageError) as error:
    raise UserError(
      f"{error}; an export is verified on images, so mend this, or give others: --images=PATH"
    ) from None


def of_files(paths: Sequence[str], config: Mapping[str, Any]) -> np.ndarray:
  """Returns image files, of a folder those below it with an image's ending; the first `MOST` of all.

  Returns:
    [n, size, size, 3] uint8.

  Raises:
    UserError: if there is none, or one can't be read.
  """
  found: list[pathlib.Path] = []
  for path in (pathlib.Path(text).expanduser() for text in paths if text):
    if not path.is_dir():
      found.append(path)
      continue
    root = os.path.realpath(path)
    inside = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in files.IMAGE_SUFFIXES)
    found.extend(p for p in inside if files.stays(root, p))
  if not found:
    raise UserError(f"--images={','.join(paths)}: no image there; give image files or folders")
  limit = headers.max_bytes(config["dataset"]["max_pixels"])
  try:
    records = [Record(files.read_file(path, limit), 0, str(path)) for path in found[:MOST]]
    return _crops(records, config)
  except OSError as error:
    raise UserError(f"--images: {error.filename}: can't be read ({error.strerror})") from None
  except ImageError as error:
    raise UserError(f"--images: {error}") from None


def _crops(records: Sequence[Record], config: Mapping[str, Any]) -> np.ndarray:
  crop = loader.eval_crop(config)
  return np.stack([crop(record) for record in records])
