"""Bytes -> what an image file declares of itself: format, size, orientation. Decodes no pixel, knows no codec.

It walks a file's structure before any codec sees it, so that a picture's size is known before a pixel is
decoded, and so that a file whose end is missing is found out whatever a codec would forgive.
"""

from collections.abc import Callable
import dataclasses
import struct
import zlib


class UnknownFormat(ValueError):
  """The bytes begin like none of the formats."""


@dataclasses.dataclass(frozen=True)
class Header:
  """What a file says of its picture.

  Attributes:
    format: JPEG, PNG, WEBP, BMP or GIF.
    width: in pixels, as stored, before the orientation is applied.
    height: in pixels, likewise.
    orientation: EXIF's, 1 (upright) to 8.
  """

  format: str
  width: int
  height: int
  orientation: int = 1


def read(data: bytes) -> Header:
  """Reads a file's header by its first bytes.

  Raises:
    UnknownFormat: it is none of the formats.
    ValueError: the file is truncated or damaged, as far as its structure tells.
  """
  if not data:
    raise UnknownFormat("it is empty")
  reader = next((reader for magic, reader in _READERS if data.startswith(magic)), None)
  if reader is None:
    raise UnknownFormat(f"it begins with {data[:12]!r}, unlike JPEG, PNG, WebP, BMP and GIF")
  try:
    header = reader(data)
  except (struct.error, IndexError) as error:  # a reader ran past the end
    raise ValueError("truncated") from error
  if header.width < 1 or header.height < 1:
    raise ValueError(f"it declares {header.width} x {header.height} pixels")
  return header


def _jpeg(data: bytes) -> Header:
  """ITU-T T.81, annex B: segments up to the first scan."""
  at, width, height, orientation = 2, 0, 0, 1
  while True:
    at = data.find(b"\xff", at)
    if at < 0:
      raise ValueError("truncated")
    while data[at] == 0xFF:
      at += 1
    marker = data[at]
    at += 1
    if marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # these stand alone
      continue
    if marker == 0xDA:
      return Header("JPEG", width, height, orientation)
    (length,) = struct.unpack_from(">H", data, at)
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not width:
      height, width = struct.unpack_from(">HH", data, at + 3)
    elif marker == 0xE1 and data.startswith(b"Exif\0\0", at + 2):
      orientation = _orientation(data[at + 8 : at + length])
    at += length


def _png(data: bytes) -> Header:
  """PNG, third edition, 5: all chunks to the last, the checksums of those that pixels depend on."""
  width, height, _ = struct.unpack_from(">IIB", data, 16)
  view, at, kind, orientation = memoryview(data), 8, b"", 1
  while kind != b"IEND":
    length, kind = struct.unpack_from(">I4s", data, at)
    end = at + 8 + length
    (checksum,) = struct.unpack_from(">I", data, end)
    # Pillow checks neither the pixels' checksums nor that the end is there.
    if kind.isalpha() and kind[:1].isupper() and zlib.crc32(view[at + 4 : end]) != checksum:
      raise ValueError(f"damaged: the checksum of its {kind.decode()} chunk is wrong")
    if kind == b"eXIf":
      orientation = _orientation(data[at + 8 : end])
    at = end + 4
  return Header("PNG", width, height, orientation)


def _webp(data: bytes) -> Header:
  """RFC 9649: all chunks."""
  if data[8:12] != b"WEBP":
    raise UnknownFormat(f"it is RIFF but not WebP: {data[8:12]!r}")
  end = struct.unpack_from("<I", data, 4)[0] + 8
  if len(data) < end:
    raise ValueError("truncated")
  at, width, height, orientation = 12, 0, 0, 1
  while at + 8 <= end:
    kind, length = struct.unpack_from("<4sI", data, at)
    at += 8
    if kind == b"VP8X":  # the canvas, before the frames
      low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, at + 4)
      width, height = 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
    elif kind == b"VP8 " and not width:
      width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, at + 6))
    elif kind == b"VP8L" and not width:
      (packed,) = struct.unpack_from("<I", data, at + 1)
      width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    elif kind == b"EXIF":
      orientation = _orientation(data[at : at + length].removeprefix(b"Exif\0\0"))
    at += length + length % 2
  return Header("WEBP", width, height, orientation)


def _bmp(data: bytes) -> Header:
  (size,) = struct.unpack_from("<I", data, 14)
  width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
  return Header("BMP", width, abs(height))  # a negative height: rows from the top


def _gif(data: bytes) -> Header:
  """GIF89a, 17 to 27: all blocks up to the trailer; the first frame may reach beyond the screen."""
  width, height, flags = struct.unpack_from("<HHB", data, 6)
  at, frames = 13 + _gif_colors(flags), 0
  while data[at] != 0x3B:
    at += 1
    if data[at - 1] == 0x2C:
      left, top, across, down, flags = struct.unpack_from("<HHHHB", data, at)
      if not frames:
        width, height = max(width, left + across), max(height, top + down)
      frames += 1
      at = _gif_blocks(data, at + 10 + _gif_colors(flags))
    elif data[at - 1] == 0x21:
      at = _gif_blocks(data, at + 1)
  return Header("GIF", width, height)


def _gif_colors(flags: int) -> int:
  return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks(data: bytes, at: int) -> int:
  while size := data[at]:
    at += size + 1
  return at + 1


def _orientation(tiff: bytes) -> int:
  """EXIF's tag 0x0112, or 1: damaged metadata is no reason to refuse a picture."""
  order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
  if order is None:
    return 1
  try:
    (at,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, at)
    for entry in range(at + 2, at + 2 + 12 * entries, 12):
      tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
      if tag == 0x0112 and kind == 3 and 1 <= value <= 8:
        return value
  except struct.error:
    pass
  return 1


_READERS: tuple[tuple[bytes, Callable[[bytes], Header]], ...] = (
  (b"\xff\xd8\xff", _jpeg),
  (b"\x89PNG\r\n\x1a\n", _png),
  (b"RIFF", _webp),
  (b"BM", _bmp),
  (b"GIF87a", _gif),
  (b"GIF89a", _gif),
)
