"""Real images, cropped as evaluation does, to verify an export on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from imgclf.data import datasets, image_paths, inputs, loader
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
  """Returns the first `MOST` of the image files that are meant, as `imgclf.data.image_paths.find`
  says.

  Returns:
    [n, size, size, 3] uint8.

  Raises:
    UserError: if there is none, or one can't be read.
  """
  given = inputs.of_files(image_paths.find(paths)[:MOST], config["dataset"])
  records = given.__getitems__(range(len(given)))
  if given.errors:
    first = next(iter(given.errors.values()))
    raise UserError(f"--images: {first}; leave it out, or give others")
  try:
    return _crops(records, config)
  except ImageError as error:
    raise UserError(f"--images: {error}") from None


def _crops(records: Sequence[Record], config: Mapping[str, Any]) -> np.ndarray:
  crop = loader.eval_crop(config)
  return np.stack([crop(record) for record in records])
