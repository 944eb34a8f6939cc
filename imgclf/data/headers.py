"""Bytes -> what an image file declares of itself: format, size, colours, orientation.

It walks a file's structure before any codec sees it, so that a picture's size and the work of
decoding it are known before a pixel is decoded, and so that a file whose end is missing is found
out whatever a codec would forgive. Decodes no pixel, knows no codec.
"""

from collections.abc import Callable, Iterator
import dataclasses
import itertools
import re
import struct
import zlib

# Segments, chunks or blocks that a file may have, besides one for so many bytes. The walks are
# Python's, about half a microsecond a piece. libpng writes a chunk for 8 KiB and GIF has a block
# for 256 bytes.
MAX_PIECES = 1 << 16
_PIECE_BYTES, _GIF_PIECE_BYTES = 1024, 128
# Pixels of ordinary work (5 ns) that a byte takes where it is slow: Pillow reads run-length BMPs
# with a loop in Python (0.15 us a pixel, 0.25 us a pair of bytes), and arithmetic coding has one bit
# after the other (0.11 us a byte).
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
  """

  format: str
  width: int
  height: int
  mode: str
  orientation: int = 1
  passes: int = 1
  byte_work: int = 0

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


class _Pieces:
  """Counts the pieces of a file, and refuses it at one too many."""

  def __init__(self, data: bytes, piece_bytes: int = _PIECE_BYTES):
    self._limit = self._left = MAX_PIECES + len(data) // piece_bytes

  def take(self, count: int = 1) -> None:
    self._left -= count
    if self._left < 0:
      raise ValueError(f"it has more than {self._limit} segments, chunks or blocks")

  @property
  def left(self) -> int:
    return self._left


_FILL = re.compile(rb"\xff*")
# Within a scan 0xFF stands before 0x00, a restart marker or a real one.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SCAN = re.compile(rb"\xff\xda")  # three times as fast as bytes.count
_JPEG_MODES = {1: "grey", 3: "RGB", 4: "CMYK"}
# More of them than this are counted with care: it takes twice as long as a quick look.
_FEW_SCANS = 12


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
  """Yields (marker, start, end) of each segment up to the header of the first scan (0xDA).

  Raises:
    ValueError, IndexError, struct.error: where the file ends too early.
  """
  at, pieces = 2, _Pieces(data)
  while True:
    pieces.take()
    start = data.find(b"\xff", at)
    if start < 0:
      raise ValueError("truncated")
    at = _FILL.match(data, start).end()  # type: ignore[union-attr]
    marker = data[at]
    at += 1
    if marker <= 0x01 or 0xD0 <= marker <= 0xD8:  # these stand alone
      continue
    start = at - 2
    at += struct.unpack_from(">H", data, at)[0]
    yield marker, start, at
    if marker == 0xDA:
      return


def _jpeg(data: bytes) -> Header:
  """ITU-T T.81, annex B: segments up to the first scan, then the scans alone."""
  width, height, orientation, mode, byte_work, components, progressive = 0, 0, 1, "", 0, 0, False
  for marker, start, end in jpeg_segments(data):
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and not width:
      bits, height, width, components = struct.unpack_from(">BHHB", data, start + 4)
      depth = "" if bits == 8 else f"{bits}-bit "
      mode = depth + _JPEG_MODES.get(components, f"{components} components")
      progressive = marker & 3 == 2
      byte_work = _ARITHMETIC_BYTE * len(data) if marker >= 0xC9 else 0
    elif marker == 0xE1 and data.startswith(b"Exif\0\0", start + 4):
      orientation = _orientation(data[start + 10 : end])
  # Of a picture whose first scan has it all, no decoder reads another.
  whole = data[start + 4 : start + 5] == bytes([components]) and not progressive
  scans = 1 if whole else _scans(data, start)
  return Header("JPEG", width, height, mode, orientation, scans, byte_work)


def _scans(data: bytes, at: int) -> int:
  """Counts the scans of a JPEG from the first on, which stands at `at`."""
  few = sum(1 for _ in itertools.islice(_SCAN.finditer(data, at), _FEW_SCANS + 1))
  if few <= _FEW_SCANS:
    return few
  # Those bytes also come up by chance in what follows the picture, such as a film.
  scans, pieces = 0, _Pieces(data)
  while found := _MARKER.search(data, at):
    pieces.take()
    at = found.end()
    marker = data[at - 1]
    if marker == 0xD9:
      break
    scans += marker == 0xDA
    if marker > 0x01 and marker != 0xD8:
      at += struct.unpack_from(">H", data, at)[0]
  return scans


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
  """Yields (kind, start, end) of every chunk's body to the last.

  Raises:
    struct.error: where the file ends too early.
  """
  at, kind, pieces = 8, b"", _Pieces(data)
  while kind != b"IEND":
    pieces.take()
    length, kind = struct.unpack_from(">I4s", data, at)
    yield kind, at + 8, at + 8 + length
    at += 12 + length


_PNG_MODES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


def _png(data: bytes) -> Header:
  """PNG, third edition, 5: all chunks to the last, the checksums of those that pixels depend on."""
  width, height, bits, color = struct.unpack_from(">IIBB", data, 16)
  view, orientation = memoryview(data), 1
  mode = ("16-bit " if bits == 16 else "") + _PNG_MODES.get(color, f"colour type {color}")
  for kind, start, end in png_chunks(data):
    (checksum,) = struct.unpack_from(">I", data, end)
    # Pillow checks neither the pixels' checksums nor that the end is there.
    if kind.isalpha() and kind[:1].isupper() and zlib.crc32(view[start - 4 : end]) != checksum:
      raise ValueError(f"damaged: the checksum of its {kind.decode()} chunk is wrong")
    if kind == b"eXIf":
      orientation = _orientation(data[start:end])
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
  at, width, height, alpha, orientation, pieces = 12, 0, 0, 0, 1, _Pieces(data)
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
      orientation = _orientation(data[at : at + length].removeprefix(b"Exif\0\0"))
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


def gif_blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
  """Yields (kind, start, end) of every block up to the trailer: 0x2C a frame, 0x21 an extension.

  Raises:
    IndexError: where the file ends too early.
  """
  at, pieces = gif_start(data), _Pieces(data, _GIF_PIECE_BYTES)
  while data[at] != 0x3B:
    start, kind = at, data[at]
    if kind == 0x2C:
      at = _gif_end(data, at + 11 + _gif_colors(data[at + 9]), pieces)
    elif kind == 0x21:
      at = _gif_end(data, at + 2, pieces)
    else:  # a stray byte
      pieces.take()
      at += 1
      continue
    yield kind, start, at


def _gif(data: bytes) -> Header:
  """GIF89a, 17 to 27: all blocks up to the trailer; the first frame may reach beyond the screen."""
  width, height = struct.unpack_from("<HH", data, 6)
  frames, alpha = 0, 0
  for kind, start, _ in gif_blocks(data):
    if kind == 0x2C:
      left, top, across, down = struct.unpack_from("<HHHH", data, start + 1)
      if not frames:
        width, height = max(width, left + across), max(height, top + down)
      frames += 1
    elif data[start + 1] == 0xF9 and not frames:
      alpha |= data[start + 3] & 1
  return Header("GIF", width, height, "palette with alpha" if alpha else "palette")


def gif_start(data: bytes) -> int:
  """Returns where the blocks begin, after the screen and its colours."""
  return 13 + _gif_colors(data[10])


def _gif_colors(flags: int) -> int:
  return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_end(data: bytes, at: int, pieces: _Pieces) -> int:
  """Returns where a chain of sub-blocks ends."""
  count, left = 1, pieces.left
  while size := data[at]:
    at += size + 1
    count += 1
    if count > left:
      break
  pieces.take(count)
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
