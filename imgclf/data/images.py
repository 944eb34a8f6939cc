"""Bytes -> uint8 RGB pixels, and back to PNG and WebP.

JPEG goes to libjpeg-turbo (`jpeg`) or, where a window is all that is asked for, to nvImageCodec
(`regions`); all else and the JPEGs that it can't take go to Pillow. What a file is follows from its
first bytes, never from its name. Knows no data set, crop or label.
"""

from collections.abc import Callable, Sequence
import io
import re
from typing import NamedTuple

import numpy as np
from PIL import (
  BmpImagePlugin,
  GifImagePlugin,
  Image,
  ImageFile,
  JpegImagePlugin,
  PngImagePlugin,
  WebPImagePlugin,
)

from imgclf.data import headers, jpeg, pillow, regions, stripped
from imgclf.data.headers import Header
from imgclf.errors import UserError

_REPLACE = "replace the file or take it out of the data set"

# Scans that a picture of max_pixels may have, a smaller one more. libjpeg's own script for four
# colours has 18, the ones that mozjpeg and jpegtran choose have up to 16. The slowest files that
# pass at 100 million pixels took, on one core, 13 s (PNG of 16 bits with alpha), 11 s (JPEG with
# arithmetic coding), 9 s (progressive CMYK), 7 s (WebP), 5 s (JPEG of dense scans), 3 s (GIF,
# run-length BMP); of these, 16 million pixels were measured for the second, third and last.
MAX_PASSES = 24
# Below so many pixels of work, a tenth of a second, nothing is refused however small max_pixels is.
_FREE_WORK = 24_000_000
# Twice the size that windows are resized to. Of smaller pictures simplejpeg may choose another
# scale than half, whose size rounds to the same.
_HALVE_FROM = 16


class ImageError(UserError):
  """A file that is no image, is damaged or is too large: `NAME: cannot be decoded as an image
  (REASON); MEND`.

  Attributes:
    reason: what is wrong with it, without name and mend.
  """

  def __init__(self, text: str, reason: str = ""):
    super().__init__(text)
    self.reason = reason or text


def header(data: bytes, name: str) -> Header:
  """Reads what a file declares, and that it is all there as far as its structure tells.

  Args:
    data: the encoded file.
    name: what errors call it.

  Raises:
    ImageError: it is none of the formats, is cut short, or (PNG) a checksum is wrong. A JPEG's or
      BMP's missing end is found by `decode` only.
  """
  try:
    return headers.read(data)
  except headers.UnknownFormat as error:
    raise _error(name, error, "give a JPEG, PNG, WebP, BMP or GIF file") from error
  except ValueError as error:
    raise _error(name, error, _REPLACE) from error


def decode(
  data: bytes,
  name: str,
  *,
  background: Sequence[int] = (255, 255, 255),
  max_pixels: int = 100_000_000,
) -> np.ndarray:
  """Decodes a picture as a person sees it: upright, in colour, opaque.

  Grey and palettes become RGB; CMYK is converted without a profile; 16-bit grey is scaled to 8 bits
  and rounded; of 16-bit colour the high bytes are taken, off by at most 1; of an animation, the
  first frame. Thread-safe, and the codecs release the interpreter's lock while they work.

  Args:
    data: the encoded file: JPEG, PNG, WebP, BMP or GIF.
    name: what errors call it.
    background: red, green, blue (0 to 255) behind transparent pixels.
    max_pixels: a file that declares more is refused before anything is allocated.

  Returns:
    [height, width, 3] uint8 RGB, C-contiguous and writable.

  Raises:
    ImageError: it is no image, damaged, truncated or too large.
  """
  head = _allowed_header(data, name, max_pixels)
  return _decode(data, name, head, background)


class Window(NamedTuple):
  """A window of a picture, decoded.

  Attributes:
    pixels: [height, width, 3] uint8 RGB, around the window.
    box: its top, left, height and width in them, which lie between pixels where they were halved.
    sound: whether the file is a JPEG that was read whole, now or before, of which libjpeg had
      nothing to say. Next time nobody need listen.
  """

  pixels: np.ndarray
  box: tuple[float, float, float, float]
  sound: bool


def decode_window(
  data: bytes,
  name: str,
  choose: Callable[[int, int], tuple[int, int, int, int]],
  *,
  least: int,
  sound: bool = False,
  background: Sequence[int] = (255, 255, 255),
  max_pixels: int = 100_000_000,
) -> Window:
  """Decodes a window of a picture, and as little of the rest as the codec allows.

  A file that is not known to be sound is read whole, so that damage anywhere in it is found. Of a
  sound JPEG the rows below the window are left out or, with nvImageCodec, all that lies beside it;
  neither changes a pixel. A window of `2 * least` pixels or more each way is decoded at half the
  size, which libjpeg-turbo does in the cosine transform's domain. Of 200 photographs, reading whole
  ones took 1.09 ms, without those rows 0.96, at half the size 0.80, all rows of them. Resized to
  `least`, such windows differ from those of a whole decode by 1.2 to 1.6 in 255 on average, as
  bicubic and bilinear do; a quarter of the size would differ by as much from four times `least` on
  and save nothing.

  Args:
    data: the encoded file, as for `decode`.
    name: what errors call it.
    choose: given height and width of the upright picture, returns the window: top, left, height,
      width.
    least: height and width that the window will be resized to, in pixels.
    sound: what `Window.sound` was of the same file, whatever its window.
    background: as for `decode`.
    max_pixels: as for `decode`.

  Raises:
    ImageError: as for `decode`.
  """
  head = _allowed_header(data, name, max_pixels)
  top, left, height, width = map(int, choose(*reversed(head.upright_size)))
  half = _HALVE_FROM <= 2 * least <= min(height, width)
  pixels, clean = None, False
  if head.format == "JPEG" and head.mode in ("grey", "RGB") and head.orientation == 1:
    if sound and not half:
      part = regions.decode(data, top, left, height, width)
      if part is not None:
        return Window(part, (0, 0, height, width), sound)
    pixels, clean = jpeg.decode_rows(data, head, top + height if sound else head.height, half)
  if pixels is None:
    half, pixels = False, _decode(data, name, head, background)
    if pixels.shape[:2] != head.upright_size[::-1]:
      raise _error(name, "its parts disagree about its size", _REPLACE)
  if not half:
    part = pixels[top : top + height, left : left + width]
    return Window(part, (0, 0, height, width), sound or clean)
  y, x = top // 2, left // 2
  part = pixels[y : -(-(top + height) // 2), x : -(-(left + width) // 2)]
  return Window(part, (top / 2 - y, left / 2 - x, height / 2, width / 2), sound or clean)


def _allowed_header(data: bytes, name: str, max_pixels: int) -> Header:
  if len(data) > headers.max_bytes(max_pixels):
    raise _error(
      name,
      f"the file is larger than the {headers.max_bytes(max_pixels)} bytes allowed",
      "shrink it or raise dataset.max_pixels",
    )
  head = header(data, name)
  if head.width * head.height > max_pixels:
    raise _error(
      name,
      f"it declares {head.width} x {head.height} pixels, more than the {max_pixels} allowed",
      "shrink it or raise dataset.max_pixels",
    )
  if head.work > max(MAX_PASSES * max_pixels, _FREE_WORK):
    raise _error(
      name,
      f"decoding it is the work of {head.work} pixels, more than {MAX_PASSES} times the {max_pixels} allowed",
      "save it anew as an ordinary image",
    )
  return head


def _decode(data: bytes, name: str, head: Header, background: Sequence[int]) -> np.ndarray:
  try:
    pixels = jpeg.decode(data) if head.format == "JPEG" else None
    if pixels is None:
      pixels = _pillow_pixels(data, head, tuple(background))
  except Exception as error:  # codecs raise anything from OSError to SyntaxError at damaged bytes
    raise _error(name, error, _REPLACE) from error
  return pillow.upright(pixels, head.orientation)


def encode_png(pixels: np.ndarray) -> bytes:
  """Encodes [height, width] (grey) or [height, width, 3] (RGB) uint8 pixels as PNG.

  Raises:
    ValueError: another shape or dtype.
  """
  if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
    raise ValueError(f"no grey or RGB uint8 pixels: {pixels.dtype} {pixels.shape}")
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, "PNG")
  return out.getvalue()


def encode_webp(pixels: np.ndarray, quality: int | None) -> bytes:
  """Encodes pixels as WebP, a fifth smaller than as JPEG.

  Args:
    pixels: [height, width, 3] uint8, RGB.
    quality: 0 to 100; None: without loss.
  """
  out = io.BytesIO()
  picture = Image.fromarray(pixels)
  picture.save(out, "WEBP", lossless=quality is None, quality=80 if quality is None else quality)
  return out.getvalue()


def _error(name: str, reason: object, mend: str) -> ImageError:
  words = str(reason) or type(reason).__name__  # MemoryError says nothing
  text = f"{name}: cannot be decoded as an image ({words}); {mend}"
  return ImageError(" ".join(text.splitlines()), " ".join(words.splitlines()))


_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
  "JPEG": JpegImagePlugin.JpegImageFile,
  "PNG": PngImagePlugin.PngImageFile,
  "WEBP": WebPImagePlugin.WebPImageFile,
  "BMP": BmpImagePlugin.BmpImageFile,
  "GIF": GifImagePlugin.GifImageFile,
}


def _pillow_pixels(data: bytes, head: Header, background: tuple[int, ...]) -> np.ndarray:
  file = io.BytesIO(stripped.pixels_only(data, head.format))
  with pillow.exact(), _PLUGINS[head.format](file) as image:
    # A forged file may give two sizes; only the one in the header was held against max_pixels.
    if image.size != (head.width, head.height):
      raise ValueError("its parts disagree about its size")
    image.load()
    return pillow.rgb(image, background, bits=data[24] if head.format == "PNG" else 8)


def from_pillow(
  image: Image.Image,
  name: str,
  *,
  background: Sequence[int] = (255, 255, 255),
  max_pixels: int = 100_000_000,
) -> np.ndarray:
  """Returns what `decode` would of the file that an image was opened from; loads the image where it
  is not yet.

  One that was made in memory is taken likewise: its mode, transparency and EXIF orientation count.
  What a loaded image no longer tells is which level of a PNG of 2 or 4 bits is transparent, and
  CMYK may come out one level off. Not thread-safe.

  Args:
    image: of any mode that Pillow converts to RGB; of the modes `I` with levels of 16 bits.
    name: what errors call it.
    background: as for `decode`.
    max_pixels: as for `decode`.

  Returns:
    [height, width, 3] uint8 RGB, C-contiguous and writable.

  Raises:
    ImageError: it can't be loaded or converted, has no pixels or too many.
  """
  if not 0 < image.width * image.height <= max_pixels:
    reason = f"it has {image.width} x {image.height} pixels, where 1 to {max_pixels} are allowed"
    raise _error(name, reason, "resize it or raise dataset.max_pixels")
  # A PNG's levels, while it is not loaded: its tile is, say, ("zip", box, offset, "L;4").
  tiles = getattr(image, "tile", None) if image.format == "PNG" else None
  stored = str(tiles[0][3]) if tiles else ""
  depth = re.fullmatch(r"\w+;(\d+)B?", stored)
  bits = 1 if image.mode == "1" else int(depth[1]) if depth else 8
  try:
    with pillow.exact():
      image.load()
    if image.mode == "F" or (image.mode == "I" and _beyond_16_bits(np.asarray(image))):
      raise ValueError(f"its mode {image.mode} has levels beyond 16 bits")
    pixels = pillow.rgb(image, background, bits)
  except Exception as error:  # as in `_decode`
    raise _error(name, error, "convert it to mode RGB") from error
  exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
  return pillow.upright(pixels, headers.orientation_of(exif))


def _beyond_16_bits(levels: np.ndarray) -> bool:
  return bool(levels.min() < 0 or levels.max() >= 2**16)
