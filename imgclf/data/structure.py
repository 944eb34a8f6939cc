"""The pieces that image files are made of: JPEG's segments and scans, PNG's chunks, GIF's blocks.

Knows nothing of what is in a piece. Each walk ends at the last piece that a picture needs, and is
refused where a file is made of more pieces than any encoder would write.
"""

from collections.abc import Iterator
import itertools
import re
import struct

# Segments, chunks or blocks that a file may have, besides one for so many bytes. The walks are
# Python's, about half a microsecond a piece. libpng writes a chunk for 8 KiB and GIF has a block
# for 256 bytes.
MAX_PIECES = 1 << 16
_PIECE_BYTES, _GIF_PIECE_BYTES = 1024, 128


class Pieces:
  """Counts the pieces of a file, and refuses it at one too many."""

  def __init__(self, data: bytes, piece_bytes: int = _PIECE_BYTES):
    self._limit = self._left = MAX_PIECES + len(data) // piece_bytes

  def take(self, count: int = 1) -> None:
    """Counts so many more.

    Raises:
      ValueError: at one too many.
    """
    self._left -= count
    if self._left < 0:
      raise ValueError(f"it has more than {self._limit} segments, chunks or blocks")

  @property
  def left(self) -> int:
    """How many more there may be."""
    return self._left


_FILL = re.compile(rb"\xff*")
# Within a scan 0xFF stands before 0x00, a restart marker or a real one.
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_SCAN = re.compile(rb"\xff\xda")  # three times as fast as bytes.count
# More of them than this are counted with care: it takes twice as long as a quick look.
_FEW_SCANS = 12


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
  """Yields (marker, start, end) of each segment up to the header of the first scan (0xDA).

  Raises:
    ValueError, IndexError, struct.error: where the file ends too early.
  """
  at, pieces = 2, Pieces(data)
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


def jpeg_scans(data: bytes, at: int) -> int:
  """Returns the number of scans of a JPEG from the first on, which stands at `at`."""
  few = sum(1 for _ in itertools.islice(_SCAN.finditer(data, at), _FEW_SCANS + 1))
  if few <= _FEW_SCANS:
    return few
  # Those bytes also come up by chance in what follows the picture, such as a film.
  scans, pieces = 0, Pieces(data)
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
  at, kind, pieces = 8, b"", Pieces(data)
  while kind != b"IEND":
    pieces.take()
    length, kind = struct.unpack_from(">I4s", data, at)
    yield kind, at + 8, at + 8 + length
    at += 12 + length


def gif_blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
  """Yields (kind, start, end) of every block up to the trailer: 0x2C a frame, 0x21 an extension.

  Raises:
    IndexError: where the file ends too early.
  """
  at, pieces = gif_start(data), Pieces(data, _GIF_PIECE_BYTES)
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


def gif_start(data: bytes) -> int:
  """Returns where the blocks begin, after the screen and its colours."""
  return 13 + _gif_colors(data[10])


def _gif_colors(flags: int) -> int:
  return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_end(data: bytes, at: int, pieces: Pieces) -> int:
  """Returns where a chain of sub-blocks ends."""
  count, left = 1, pieces.left
  while size := data[at]:
    at += size + 1
    count += 1
    if count > left:
      break
  pieces.take(count)
  return at + 1
