"""What it takes to get the right pixels out of Pillow: its switches, its modes, depths,
orientation. Knows no file.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import threading

import numpy as np
from PIL import Image, ImageFile

# EXIF 2.32, 4.6.4, tag 0x0112: where the stored row 0 and column 0 belong.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
  1: lambda a: a,  # top, left
  2: lambda a: a[:, ::-1],  # top, right
  3: lambda a: a[::-1, ::-1],  # bottom, right
  4: lambda a: a[::-1],  # bottom, left
  5: lambda a: a.swapaxes(0, 1),  # left, top
  6: lambda a: a.swapaxes(0, 1)[:, ::-1],  # right, top
  7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
  8: lambda a: a.swapaxes(0, 1)[::-1],  # left, bottom
}


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
  """Turns and mirrors stored pixels as EXIF's orientation says.

  Args:
    pixels: [height, width, 3].
    orientation: 1 (as it is) to 8.

  Returns:
    Pixels of the same type, C-contiguous; not copied where there is nothing to do.
  """
  return np.ascontiguousarray(_UPRIGHT[orientation](pixels))


def rgb(image: Image.Image, background: Sequence[int], bits: int = 8) -> np.ndarray:
  """Converts a loaded image to what a person sees of it, as it is stored.

  Args:
    image: of any mode that Pillow converts to RGB; of the modes `I` levels have 16 bits.
    background: red, green, blue (0 to 255) behind transparent pixels.
    bits: of a level in the PNG file that it comes from, which Pillow does not keep; 8 for all else.

  Returns:
    [height, width, 3] uint8, C-contiguous and writable.

  Raises:
    ValueError: there is no conversion.
  """
  image = _depths(image, bits)
  if image.mode in ("La", "RGBa"):  # multiplied by alpha; Pillow's way to RGB would drop it
    image = image.convert(image.mode[:-1] + "A")
  if "A" in image.getbands() or "transparency" in image.info:
    layer = image.convert("RGBA")
    image = Image.new("RGB", layer.size, tuple(background))
    image.paste(layer, mask=layer)
  return np.array(image.convert("RGB"))


def _depths(image: Image.Image, bits: int) -> Image.Image:
  """Puts right what Pillow makes of grey levels and transparent colours of 1, 2, 4 and 16 bits."""
  key = image.info.get("transparency")
  if image.mode.startswith("I"):  # convert("RGB") would clip 16 bits at 255
    grey = np.asarray(image)
    scaled = Image.fromarray(((grey.astype(np.uint32) + 128) // 257).astype(np.uint8))
    if key is not None:
      scaled.putalpha(Image.fromarray(np.where(grey == key, 0, 255).astype(np.uint8)))
    return scaled
  if image.mode == "RGB" and bits == 16 and key is not None:
    # Pillow has dropped the low bytes that the key is to be compared with.
    raise ValueError("16-bit colour with a transparent colour is not supported")
  if image.mode in ("1", "L") and bits < 8 and key is not None:
    # Pillow scales the levels to 0..255, but of the level that is transparent at best 1-bit ones.
    black_or_white = 255 if key else 0
    image = image.convert("L")
    image.info["transparency"] = black_or_white if bits == 1 else key * 255 // (2**bits - 1)
  return image


_lock = threading.Lock()
_inside = 0
_outside: tuple[bool, int | None] = (False, None)


@contextlib.contextmanager
def exact() -> Iterator[None]:
  """Holds two switches of Pillow that exist per process only, while any thread is inside.

  Truncated files raise: TFDS turns LOAD_TRUNCATED_IMAGES on for good when it first decodes an
  image, and what is missing would come out black. And Pillow's own limit of pixels is off:
  max_pixels was checked. The last one out puts both back.
  """
  global _inside, _outside
  with _lock:
    if _inside == 0:
      _outside = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
      ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
    _inside += 1
  try:
    yield
  finally:
    with _lock:
      _inside -= 1
      if _inside == 0:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = _outside
