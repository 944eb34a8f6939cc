"""Bytes -> what an image file declares of itself: format, size, colours, orientation.

A file's structure is walked before any codec sees it, so that a picture's size and the work of
decoding it are known before a pixel is decoded, and so that a file whose end is missing is found
out whatever a codec would forgive. Decodes no pixel, knows no codec.
"""

from collections.abc import Callable
import dataclasses
import struct
import zlib

from imgclf.data import structure

# Pixels of ordinary work (5 ns) that a byte takes where it is slow: Pillow reads run-length BMPs
# with a loop in Python (0.15 us a pixel, 0.25 us a pair of bytes), and arithmetic coding has one
# bit after the other (0.11 us a byte).
_RLE_PASSES, _RLE_BYTE, _ARITHMETIC_BYTE = 128, 64, 22


def max_bytes(max_pixels: int) -> int:
  """Returns the size of the largest file for so many pixels: 8 bytes each, and 64 MiB of others."""
  return 8 * max_pixels + (1 << 26)


class UnknownFormat(ValueError):
  """The bytes begin like none of the formats."""


@dataclasses.dataclass(frozen=True)
class Header:
  """What a file says of its picture.

  Attributes:
    format: JPEG, PNG, WEBP, BMP or GIF.
    width: in pixels, as stored, before the orientation is applied.
    height: in pixels, likewise.
    mode: what a pixel is as stored: `grey`, `RGB`, `CMYK` or `palette`, after `16-bit` or `12-bit`
      and before `with alpha` where it is so.
    orientation: EXIF's, 1 (upright) to 8.
    passes: how often a decoder goes over all pixels: a JPEG's scans; 1 for most else.
    byte_work: what its bytes take beside that, in pixels; 0 for what is read at the usual speed.
    rows_at: where a JPEG's number of rows stands, if a decoder may be told of fewer: of 8 bits,
      grey or colour, all in one scan without restart markers; else 0.
    row_step: rows that are decoded at a time there.
  """

  format: str
  width: int
  height: int
  mode: str
  orientation: int = 1
  passes: int = 1
  byte_work: int = 0
  rows_at: int = 0
  row_step: int = 0

  @property
  def work(self) -> int:
    """Pixels that a decoder goes over in all passes; a row is at least 64 of them, a pass 4096."""
    return self.passes * max(self.height * max(self.width, 64), 4096) + self.byte_work

  @property
  def upright_size(self) -> tuple[int, int]:
    """Width and height once the orientation is applied."""
    return (self.height, self.width) if self.orientation > 4 else (self.width, self.height)


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


_JPEG_MODES = {1: "grey", 3: "RGB", 4: "CMYK"}


def _jpeg(data: bytes) -> Header:
  """ITU-T T.81, annex B: segments up to the first scan, then the scans alone."""
  width, height, orientation, mode, byte_work, components, progressive = 0, 0, 1, "", 0, 0, False
  rows_at, row_step, restarts = 0, 0, False
  for marker, start, end in structure.jpeg_segments(data):
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not width:
      bits, height, width, components = struct.unpack_from(">BHHB", data, start + 4)
      depth = "" if bits == 8 else f"{bits}-bit "
      mode = depth + _JPEG_MODES.get(components, f"{components} components")
      progressive = marker & 3 == 2
      byte_work = _ARITHMETIC_BYTE * len(data) if marker >= 0xC9 else 0
      if marker <= 0xC1 and mode in ("grey", "RGB"):
        rows_at = start + 5
        # A component's samples down stand in the low half of a byte. Grey has 8 rows a block.
        row_step = 8 * max(
          data[at] & 15 for at in range(start + 11, start + 10 + 3 * components, 3)
        )
    elif marker == 0xE1 and data.startswith(b"Exif\0\0", start + 4):
      orientation = orientation_of(data[start + 10 : end])
    elif marker == 0xDD and data[start + 4 : end] != b"\0\0":
      restarts = True
  # Of a picture whose first scan has it all, no decoder reads another.
  whole = data[start + 4 : start + 5] == bytes([components]) and not progressive
  scans = 1 if whole else structure.jpeg_scans(data, start)
  if not whole or restarts or not row_step:
    rows_at = row_step = 0
  return Header(
    "JPEG", width, height, mode, orientation, scans, byte_work, rows_at=rows_at, row_step=row_step
  )


_PNG_MODES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


def _png(data: bytes) -> Header:
  """PNG, third edition, 5: all chunks to the last, the checksums of those that pixels depend on."""
  width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
  view, orientation = memoryview(data), 1
  mode = ("16-bit " if bits == 16 else "") + _PNG_MODES.get(color, f"colour type {color}")
  for kind, start, end in structure.png_chunks(data):
    (checksum,) = struct.unpack_from(">I", data, end)
    # Pillow checks neither the pixels' checksums nor that the end is there.
    if kind.isalpha() and kind[:1].isupper() and zlib.crc32(view[start - 4 : end]) != checksum:
      raise ValueError(f"damaged: the checksum of its {kind.decode()} chunk is wrong")
    if kind == b"eXIf":
      orientation = orientation_of(data[start:end])
    elif kind == b"tRNS" and not mode.endswith("alpha"):
      mode += " with alpha"
  return Header("PNG", width, height, mode, orientation)


def _webp(data: bytes) -> Header:
  """RFC 9649: all chunks."""
  if data[8:12] != b"WEBP":
    raise UnknownFormat(f"it is RIFF but not WebP: {data[8:12]!r}")
  end = struct.unpack_from("<I", data, 4)[0] + 8
  if len(data) < end:
    raise ValueError("truncated")
  at, width, height, alpha, orientation, pieces = 12, 0, 0, 0, 1, structure.Pieces(data)
  while at + 8 <= end:
    pieces.take()
    kind, length = struct.unpack_from("<4sI", data, at)
    at += 8
    if kind == b"VP8X":  # the canvas, before the frames
      low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, at + 4)
      width, height = 1 + low_width + (high_width << 16), 1 + low_height + (high_height << 16)
      alpha = data[at] & 0x10
    elif kind == b"VP8 " and not width:
      width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, at + 6))
    elif kind == b"VP8L" and not width:
      (packed,) = struct.unpack_from("<I", data, at + 1)
      width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
      alpha = packed >> 28 & 1
    elif kind == b"EXIF":
      orientation = orientation_of(data[at : at + length].removeprefix(b"Exif\0\0"))
    at += length + length % 2
  return Header("WEBP", width, height, "RGB with alpha" if alpha else "RGB", orientation)


def _bmp(data: bytes) -> Header:
  (size,) = struct.unpack_from("<I", data, 14)
  if size == 12:
    width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    compression = 0
  else:
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
  height = abs(height)  # negative: rows from the top
  mode = "palette" if bits <= 8 else "RGB"
  masks = compression == 6 or (compression == 3 and size >= 56)
  if bits == 32 and masks and struct.unpack_from("<I", data, 66)[0]:
    mode = "RGB with alpha"
  if compression in (1, 2):
    return Header("BMP", width, height, mode, passes=_RLE_PASSES, byte_work=_RLE_BYTE * len(data))
  return Header("BMP", width, height, mode)


def _gif(data: bytes) -> Header:
  """GIF89a, 17 to 27: all blocks up to the trailer; the first frame may reach beyond the screen."""
  width, height = struct.unpack_from("<HH", data, 6)
  frames, alpha = 0, 0
  for kind, start, _ in structure.gif_blocks(data):
    if kind == 0x2C:
      left, top, across, down = struct.unpack_from("<HHHH", data, start + 1)
      if not frames:
        width, height = max(width, left + across), max(height, top + down)
      frames += 1
    elif data[start + 1] == 0xF9 and not frames:
      alpha |= data[start + 3] & 1
  return Header("GIF", width, height, "palette with alpha" if alpha else "palette")


def orientation_of(tiff: bytes) -> int:
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
