"""Bytes -> uint8 RGB pixels, and back to PNG; the only file that touches an image codec.

JPEG goes to simplejpeg (libjpeg-turbo), all else and the JPEGs it can't take to Pillow. What a file is
follows from its first bytes, never from its name. Knows no data set, crop or label.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import io
import threading

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
import simplejpeg

from imgclf.data import headers, stripped
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


class ImageError(UserError):
  """A file that is no image, is damaged or is too large: `NAME: cannot be decoded as an image (REASON); MEND`.

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
    ImageError: it is none of the formats, is cut short, or (PNG) a checksum is wrong. A JPEG's or BMP's
      missing end is found by `decode` only.
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

  Grey and palettes become RGB; CMYK is converted without a profile; 16-bit grey is scaled to 8 bits and
  rounded; of 16-bit colour the high bytes are taken, off by at most 1; of an animation, the first frame.
  Thread-safe, and the codecs release the interpreter's lock while they work.

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
  try:
    pixels = _jpeg_pixels(data) if head.format == "JPEG" else None
    if pixels is None:
      pixels = _pillow_pixels(data, head, tuple(background))
  except Exception as error:  # codecs raise anything from OSError to SyntaxError at damaged bytes
    raise _error(name, error, _REPLACE) from error
  return np.ascontiguousarray(_UPRIGHT[head.orientation](pixels))


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


def _error(name: str, reason: object, mend: str) -> ImageError:
  words = str(reason) or type(reason).__name__  # MemoryError says nothing
  text = f"{name}: cannot be decoded as an image ({words}); {mend}"
  return ImageError(" ".join(text.splitlines()), " ".join(words.splitlines()))


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

# libjpeg's warnings that mean pixels are missing or made up. Its others leave the picture whole: two files
# of ImageNet have a stray byte before the end marker, some cameras write odd scan parameters.
_JPEG_DAMAGE = (
  "premature end",
  "bad huffman",
  "bad arithmetic",
  "instead of rst",
  "inconsistent progression",
)


def _jpeg_pixels(data: bytes) -> np.ndarray | None:
  """Returns RGB pixels, or None where Pillow may do better."""
  try:
    # Not strict, it would fill what is missing with grey and say nothing.
    return simplejpeg.decode_jpeg(data, "RGB", strict=True)
  except ValueError as error:
    if any(words in str(error).lower() for words in _JPEG_DAMAGE):
      raise
    return None


_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
  "JPEG": JpegImagePlugin.JpegImageFile,
  "PNG": PngImagePlugin.PngImageFile,
  "WEBP": WebPImagePlugin.WebPImageFile,
  "BMP": BmpImagePlugin.BmpImageFile,
  "GIF": GifImagePlugin.GifImageFile,
}


def _pillow_pixels(data: bytes, head: Header, background: tuple[int, ...]) -> np.ndarray:
  file = io.BytesIO(stripped.pixels_only(data, head.format))
  with _exact_pillow(), _PLUGINS[head.format](file) as image:
    # A forged file may give two sizes; only the one in the header was held against max_pixels.
    if image.size != (head.width, head.height):
      raise ValueError("its parts disagree about its size")
    image.load()
    opaque = image if head.format != "PNG" else _png_depths(image, bits=data[24])
    if "A" in opaque.getbands() or "transparency" in opaque.info:
      layer = opaque.convert("RGBA")
      opaque = Image.new("RGB", layer.size, background)
      opaque.paste(layer, mask=layer)
    return np.array(opaque.convert("RGB"))


def _png_depths(image: Image.Image, bits: int) -> Image.Image:
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
def _exact_pillow() -> Iterator[None]:
  """Holds two switches of Pillow that exist per process only, while any thread is inside.

  Truncated files raise: TFDS turns LOAD_TRUNCATED_IMAGES on for good when it first decodes an image, and
  what is missing would come out black. And Pillow's own limit of pixels is off: max_pixels was checked.
  The last one out puts both back.
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
