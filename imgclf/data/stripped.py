"""An image file without what its pixels do not depend on: metadata, and the frames after the first.

Pillow unpacks profiles and texts, and joins EXIF parts one by one, before it comes to the first
pixel: files can be made that keep it busy for hours. It is handed what is left here. Knows no
codec.
"""

from collections.abc import Callable, Iterator

from imgclf.data import structure


def pixels_only(data: bytes, format: str) -> bytes:
  """Returns a file of the same pixels.

  Args:
    data: a file that `imgclf.data.headers.read` has walked through.
    format: what that found.
  """
  parts = _PARTS.get(format)
  return b"".join(parts(data)) if parts else data


def _jpeg(data: bytes) -> Iterator[bytes]:
  """Of the application segments, JFIF (APP0) and Adobe (APP14) say which colours the components
  are.
  """
  yield data[:2]
  for marker, start, end in structure.jpeg_segments(data):
    if marker == 0xDA:
      yield data[start:]
    elif marker < 0xE0 or marker in (0xE0, 0xEE):
      yield data[start:end]


def _png(data: bytes) -> Iterator[bytes]:
  """The critical chunks, what is no chunk by its name, and tRNS."""
  yield data[:8]
  for kind, start, end in structure.png_chunks(data):
    if kind[:1].isupper() or kind == b"tRNS" or not kind.isalpha():
      yield data[start - 8 : end + 4]


def _gif(data: bytes) -> Iterator[bytes]:
  """The first frame, and the extensions before it that say what is transparent."""
  yield data[: structure.gif_start(data)]
  for kind, start, end in structure.gif_blocks(data):
    if kind == 0x2C:
      yield data[start:end]
      break
    if data[start + 1] == 0xF9:
      yield data[start:end]
  yield b";"


_PARTS: dict[str, Callable[[bytes], Iterator[bytes]]] = {"JPEG": _jpeg, "PNG": _png, "GIF": _gif}
