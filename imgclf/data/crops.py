"""uint8 pixels -> uint8 pixels of the model's size: the host's resizes and crops.

Knows no codec and no config.

Every resize is antialiased, on the host's threads: it releases the interpreter's lock. What
evaluation sees is Pillow's to the bit. Windows for training are resized by cykooz-resizer, the same
filters with vector instructions, where there is a wheel of it, which is not so on Linux on ARM;
there by Pillow.
"""

import functools
import math
from typing import Any

import numpy as np
from PIL import Image

try:
  import cykooz_resizer
except ImportError:
  cykooz_resizer = None

Box = tuple[float, float, float, float]

# The name in the config -> Pillow's filter, and how far it reaches in pixels of the coarser grid.
_FILTERS = {
  "bilinear": (Image.Resampling.BILINEAR, 1),
  "bicubic": (Image.Resampling.BICUBIC, 2),
  "lanczos": (Image.Resampling.LANCZOS, 3),
}

_FAST_FILTERS = {"bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}

# Long side / short side beyond which the whole is not resized, only the part of it that the crop
# sees: 1 x 5000 pixels would become 256 x 1,280,000. It is no rule for all shapes, though 1.4 times
# as fast on photographs: Pillow keeps the part's bounds in float32, which puts a few pixels one or
# two levels off.
_LONG = 16


def resize_center_crop(
  image: np.ndarray, size: int, *, crop_fraction: float, interpolation: str
) -> np.ndarray:
  """Resizes the short side to round(size / crop_fraction), then crops the centre.

  Equals Pillow's resize of the whole image followed by the crop at ((height - size) // 2, (width -
  size) // 2), to the bit; to within about 1/255 where one side is over 16 times the other. An image
  that has that size already is not resampled.

  Args:
    image: [height, width, 3] uint8.
    size: height and width of the result, in pixels.
    crop_fraction: in (0, 1]; the share of the resized short side that is kept.
    interpolation: bilinear, bicubic or lanczos.

  Returns:
    [size, size, 3] uint8, C-contiguous.
  """
  height, width = image.shape[:2]
  short = round(size / crop_fraction)
  if height < width:
    new_height, new_width = short, round(width * short / height)
  else:
    new_height, new_width = round(height * short / width), short
  top, left = (new_height - size) // 2, (new_width - size) // 2
  if (new_height, new_width) == (height, width):
    return np.ascontiguousarray(image[top : top + size, left : left + size])
  method, reach = _FILTERS[interpolation]
  if max(height, width) <= _LONG * min(height, width):
    picture = Image.fromarray(image).resize((new_width, new_height), method)
    return np.array(picture.crop((left, top, left + size, top + size)))
  rows, upper, lower = _source(height, new_height, top, size, reach)
  columns, west, east = _source(width, new_width, left, size, reach)
  picture = Image.fromarray(image[rows, columns])
  # Along the width first, as Pillow does where the shape is kept: in between bicubic and lanczos
  # clip.
  picture = picture.resize((size, picture.height), method, box=(west, 0, east, picture.height))
  return np.array(picture.resize((size, size), method, box=(0, upper, size, lower)))


def _source(
  length: int, new_length: int, start: int, size: int, reach: int
) -> tuple[slice, float, float]:
  """The part of an axis that pixels start to start + size of the resized axis depend on.

  Returns:
    That part, and where those pixels begin and end in it.
  """
  scale = length / new_length
  first, last = start * scale, min((start + size) * scale, length)
  margin = reach * max(scale, 1) + 1
  low = max(0, math.floor(first - margin))
  high = min(length, math.ceil(last + margin))
  return slice(low, high), first - low, last - low


def random_resized_crop(
  image: np.ndarray,
  rng: np.random.Generator,
  size: int,
  *,
  scale: tuple[float, float],
  ratio: tuple[float, float],
  interpolation: str,
) -> np.ndarray:
  """Cuts out a window as `random_window` draws it and resizes it to a square.

  Args:
    image: [height, width, 3] uint8.
    rng: where the window is drawn from.
    size: height and width of the result, in pixels.
    scale: least and greatest share of the image's area.
    ratio: least and greatest width / height of the window.
    interpolation: bilinear, bicubic or lanczos.

  Returns:
    [size, size, 3] uint8, C-contiguous, perhaps read-only.
  """
  top, left, height, width = random_window(
    image.shape[0], image.shape[1], rng, scale=scale, ratio=ratio
  )
  part = image[top : top + height, left : left + width]
  return resize_window(part, (0, 0, height, width), size, interpolation=interpolation)


def resize_window(part: np.ndarray, box: Box, size: int, *, interpolation: str) -> np.ndarray:
  """Resizes a window to a square.

  With cykooz-resizer bilinear differs from Pillow's by at most 1 in 255, in one value of seven. So
  do bicubic and lanczos but at edges of full contrast, where each clips after another of the two
  directions: by up to 36, by 0.2 on average (200 photographs to 224 px).

  Args:
    part: [height, width, 3] uint8.
    box: top, left, height and width of the window in `part`, in pixels; may lie between them.
    size: height and width of the result, in pixels.
    interpolation: bilinear, bicubic or lanczos.

  Returns:
    [size, size, 3] uint8, C-contiguous, perhaps read-only.
  """
  height, width = part.shape[:2]
  if box == (0, 0, size, size) and (height, width) == (size, size):
    return np.ascontiguousarray(part)
  top, left = box[:2]
  if cykooz_resizer is None:
    bounds = left, top, left + box[3], top + box[2]
    picture = Image.fromarray(part)
    return np.array(picture.resize((size, size), _FILTERS[interpolation][0], bounds))
  options = _resize_options(interpolation)
  if box != (0, 0, height, width):
    options = options.copy()
    options.crop_box = cykooz_resizer.CropBox(left, top, box[3], box[2])
  rgb = cykooz_resizer.PixelType.U8x3
  source = cykooz_resizer.ImageData(width, height, rgb, part.tobytes())
  square = cykooz_resizer.ImageData(size, size, rgb)
  # A Resizer has a lock: of their own, threads do not wait for each other. Making one takes 2 us.
  cykooz_resizer.Resizer().resize(source, square, options)
  return np.frombuffer(square.get_buffer(), np.uint8).reshape(size, size, 3)


@functools.cache
def _resize_options(interpolation: str) -> Any:
  method = cykooz_resizer.FilterType[_FAST_FILTERS[interpolation]]
  return cykooz_resizer.ResizeOptions(cykooz_resizer.ResizeAlg.convolution(method), use_alpha=False)


def random_window(
  height: int,
  width: int,
  rng: np.random.Generator,
  *,
  scale: tuple[float, float],
  ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
  """Draws a window of random area, shape and place (Szegedy et al. 2014, arXiv:1409.4842, section
  6).

  The share of the area is uniform in `scale`, width / height log-uniform in `ratio`, the place
  uniform. After ten windows that do not fit it is the largest one in the centre whose shape is in
  `ratio`.

  Returns:
    top, left, height, width, in pixels, inside [0, height) and [0, width).
  """
  for _ in range(10):
    area = height * width * rng.uniform(*scale)
    shape = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
    if 0 < w <= width and 0 < h <= height:
      return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
  h = min(height, max(1, round(width / ratio[0])))
  w = min(width, max(1, round(height * ratio[1])))
  return (height - h) // 2, (width - w) // 2, h, w
