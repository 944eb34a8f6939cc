"""Images of a split as a page shows them: evaluation's crop, small, as `data:` URIs.

Read and decoded again by number: what was judged was not kept. Knows no model.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from imgclf.data import images, loader

# On the page a picture is about this wide; a file of 300 with their heat maps stays below 10 MB.
LARGEST = 160
# To this size every pixel counts, and a file without loss is as small.
_EXACT = 64
_QUALITY = 80
_BATCH = 64


class Picture(NamedTuple):
  """An image of the split.

  Attributes:
    name: of its record.
    pixels: [size, size, 3] uint8, as evaluation shows it to the model; None where it can't be
      decoded.
  """

  name: str
  pixels: np.ndarray | None


def read(
  records: loader.Records, config: Mapping[str, Any], numbers: Sequence[int]
) -> dict[int, Picture]:
  """Reads images by their position in the split.

  Args:
    records: the split.
    config: the run's config.
    numbers: positions, each once.
  """
  crop, found = loader.eval_crop(config), {}
  for start in range(0, len(numbers), _BATCH):
    chosen = numbers[start : start + _BATCH]
    for number, record in zip(chosen, records.__getitems__(chosen), strict=True):
      try:
        pixels = crop(record)
      except images.ImageError:
        pixels = None
      found[number] = Picture(record.name, pixels)
  return found


def data_uri(pixels: np.ndarray) -> str:
  """Returns a picture as the text of an `img` element's source, reduced to `LARGEST` pixels.

  Args:
    pixels: [size, size, 3] uint8.
  """
  size = pixels.shape[0]
  if size > LARGEST:
    picture = Image.fromarray(pixels).resize((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
  data = images.encode_webp(pixels, None if size <= _EXACT else _QUALITY)
  return "data:image/webp;base64," + base64.b64encode(data).decode("ascii")
