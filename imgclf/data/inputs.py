"""Images of unknown label as records: files, arrays of pixels, Pillow images. Knows no model.

What can't be read or decoded keeps its place and a reason, and stops nothing.
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
import threading
from typing import Any

import numpy as np
from PIL import Image

from imgclf.data import files, headers, images
from imgclf.data.image_paths import Listed
from imgclf.data.sources import Decoded, Record
from imgclf.errors import UserError

Item = Listed | np.ndarray | Image.Image


class Inputs:
  """Images to predict, as records. Safe to read from several threads.

  Attributes:
    names: what each is called: a file's path, else `images[3]`.
    errors: index -> why there is no answer for it; filled while records are read.
  """

  def __init__(self, items: Sequence[Item], names: Sequence[str], dataset: Mapping[str, Any]):
    """Opens nothing yet.

    Args:
      items: files; [height, width, 3] or [height, width] uint8; Pillow images.
      names: of the items.
      dataset: the section `dataset` of the run's config.
    """
    self.names = list(names)
    self.errors: dict[int, str] = {}
    self._items = list(items)
    self._background, self._max_pixels = dataset["background"], dataset["max_pixels"]
    # Loading changes a Pillow image, and the same one may be there twice.
    self._loading = threading.Lock()

  def __len__(self) -> int:
    return len(self._items)

  def __getitems__(self, indices: Sequence[int]) -> list[Record]:
    """Reads images; one that can't be read becomes a record that can't be decoded."""
    return [self._read(index) for index in indices]

  def refuse(self, index: int, error: images.ImageError) -> None:
    """Notes that an image can't be decoded, unless it could not even be read."""
    self.errors.setdefault(index, str(error))

  def _read(self, index: int) -> Record:
    item, name = self._items[index], self.names[index]
    try:
      if isinstance(item, Listed):
        return Record(_file_bytes(item, headers.max_bytes(self._max_pixels)), 0, name)
      return Decoded(b"", 0, name, self._pixels(item, name))
    except OSError as error:
      self.errors[index] = f"{name}: cannot be read ({error.strerror})"
    except images.ImageError as error:
      self.errors[index] = str(error)
    return Record(b"", 0, name)  # decodes to an ImageError, which keeps the reason given here

  def _pixels(self, item: np.ndarray | Image.Image, name: str) -> np.ndarray:
    if isinstance(item, np.ndarray):
      return item if item.ndim == 3 else np.repeat(item[..., None], 3, axis=2)
    with self._loading:
      return images.from_pillow(
        item, name, background=self._background, max_pixels=self._max_pixels
      )


def of_files(listed: Sequence[Listed], dataset: Mapping[str, Any]) -> Inputs:
  """Returns files as inputs, each named by its path."""
  return Inputs(listed, [str(item.path) for item in listed], dataset)


def of_python(given: Any, dataset: Mapping[str, Any]) -> tuple[Inputs, bool]:
  """Returns the images that a caller has as inputs.

  Args:
    given: a path, [height, width, 3] or [height, width] uint8, or a Pillow image; a list of any of
      these; or [batch, height, width, 3] uint8. What numpy makes an array of counts as one.
    dataset: the section `dataset` of the run's config.

  Returns:
    The inputs, and whether it was a single one.

  Raises:
    UserError: for anything else, and for an array of another type or shape.
  """
  single = isinstance(given, str | os.PathLike | Image.Image)
  if single:
    each = [given]
  elif hasattr(given, "__array__"):
    pixels = np.asarray(given)
    single = pixels.ndim != 4
    each = [pixels] if single else list(pixels)
  else:
    try:
      each = list(given)
    except TypeError:
      raise UserError(f"images: {_what(given)}") from None
  items: list[Item] = []
  names = []
  for number, item in enumerate(each):
    name = "image" if single else f"images[{number}]"
    if isinstance(item, str | os.PathLike):
      item = Listed(pathlib.Path(item), None)
      name = str(item.path)
    elif isinstance(item, Image.Image):
      name = os.fsdecode(getattr(item, "filename", "")) or name
    elif hasattr(item, "__array__"):
      item = np.asarray(item)
      _check_pixels(item, name)
    else:
      raise UserError(f"{name}: {_what(item)}")
    items.append(item)
    names.append(name)
  return Inputs(items, names, dataset), single


def _what(thing: object) -> str:
  return f"got {type(thing).__name__}; give paths, uint8 arrays or Pillow images"


def _check_pixels(pixels: np.ndarray, name: str) -> None:
  shape = "x".join(map(str, pixels.shape))
  if pixels.dtype != np.uint8:
    raise UserError(f"{name}: got {pixels.dtype} {shape}; give uint8 levels from 0 to 255")
  if not pixels.size or (pixels.ndim != 2 and (pixels.ndim != 3 or pixels.shape[2] != 3)):
    raise UserError(
      f"{name}: got an array of {shape}; give [height, width, 3], [height, width] or a batch "
      "[n, height, width, 3]"
    )


def _file_bytes(item: Listed, max_bytes: int) -> bytes:
  path, folder = item
  if folder is not None and not files.stays(folder, path):
    parent = os.path.realpath(path.parent)
    if path.is_symlink() or os.path.commonpath((folder, parent)) != folder:
      raise OSError(None, "a link that leads nowhere or out of the folder")
  try:
    return files.read_file(path, max_bytes)
  except ValueError as error:  # a NUL in the path
    raise OSError(None, str(error)) from error
