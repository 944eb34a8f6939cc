"""Headers written byte by byte after the formats' specifications."""

import struct
import zlib

import pytest

from imgclf.data import headers
from imgclf.data.headers import Header


def exif(orientation, order="<", kind=3):
  start = b"II*\0" if order == "<" else b"MM\0*"
  make = struct.pack(order + "HHI4s", 0x010F, 2, 4, b"abc\0")  # a tag before the one that counts
  entry = struct.pack(order + "HHIHH", 0x0112, kind, 1, orientation, 0)
  return start + struct.pack(order + "IH", 8, 2) + make + entry + bytes(4)


def segment(marker, body):
  return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame(marker, width, height):
  return segment(marker, struct.pack(">BHHB", 8, height, width, 3) + bytes(9))


SCAN = segment(0xDA, bytes(10))


def jpeg(*segments):
  return b"\xff\xd8" + b"".join(segments) + SCAN


def chunk(kind, body):
  return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks):
  ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", 70000, 9, 8, 2, 0, 0, 0))
  return b"\x89PNG\r\n\x1a\n" + ihdr + b"".join(chunks) + chunk(b"IEND", b"")


def webp(*chunks):
  body = b"WEBP"
  for kind, data in chunks:
    body += kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
  return b"RIFF" + struct.pack("<I", len(body)) + body


# VP8: three bytes of frame tag, a start code, two sides of 14 bits below 2 bits of scale.
LOSSY = (b"VP8 ", b"\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 300 | 1 << 14, 200 | 2 << 14))
# VP8L: a signature, then width - 1 and height - 1 in 14 bits each.
LOSSLESS = (b"VP8L", b"\x2f" + struct.pack("<I", 299 | 199 << 14 | 1 << 28))
# VP8X: flags, then width - 1 and height - 1 in 3 bytes each.
CANVAS = (b"VP8X", bytes(4) + (69999).to_bytes(3, "little") + (8).to_bytes(3, "little"))


def gif(*blocks):
  return b"GIF89a" + struct.pack("<HHBBB", 300, 200, 0, 0, 0) + b"".join(blocks) + b";"


def gif_frame(left, top, width, height):
  return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x03abc\x01;\0"


def bmp(*numbers, form):
  return b"BM" + bytes(12) + struct.pack("<I" + form, *numbers) + bytes(30)


GIF_COMMENT = b"!\xfe\x03a,;\0"  # whose text looks like blocks


@pytest.mark.parametrize(
  ("data", "header"),
  [
    (jpeg(frame(0xC0, 300, 200)), Header("JPEG", 300, 200)),
    (jpeg(segment(0xE0, b"JFIF"), frame(0xC2, 300, 200)), Header("JPEG", 300, 200)),
    (jpeg(b"\xff\xff\xff", frame(0xC1, 300, 200)[1:]), Header("JPEG", 300, 200)),  # fill bytes
    (jpeg(segment(0xC4, bytes(20)), frame(0xC0, 300, 200)), Header("JPEG", 300, 200)),  # a table
    (jpeg(frame(0xC0, 300, 200), frame(0xC0, 1, 1)), Header("JPEG", 300, 200)),
    (png(chunk(b"IDAT", b"any")), Header("PNG", 70000, 9)),
    (webp(LOSSY), Header("WEBP", 300, 200)),
    (webp(LOSSLESS), Header("WEBP", 300, 200)),
    (webp(CANVAS, LOSSY), Header("WEBP", 70000, 9)),
    (webp(CANVAS, LOSSLESS), Header("WEBP", 70000, 9)),
    (bmp(40, 300, 200, form="ii"), Header("BMP", 300, 200)),
    (bmp(124, 300, -200, form="ii"), Header("BMP", 300, 200)),  # rows from the top
    (bmp(12, 300, 200, form="HH"), Header("BMP", 300, 200)),
    (gif(gif_frame(0, 0, 300, 200)), Header("GIF", 300, 200)),
    (gif(GIF_COMMENT, gif_frame(5, 6, 7, 8)), Header("GIF", 300, 200)),
    # A first frame that reaches beyond the screen widens it; a later one is not shown.
    (gif(gif_frame(50, 40, 300, 200), gif_frame(0, 0, 999, 999)), Header("GIF", 350, 240)),
  ],
)
def test_format_and_size_are_read(data, header):
  assert headers.read(data) == header


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_the_orientation_is_read_in_both_byte_orders(orientation, order):
  tiff = exif(orientation, order)
  for data in (
    jpeg(segment(0xE1, b"Exif\0\0" + tiff), frame(0xC0, 3, 2)),
    png(chunk(b"eXIf", tiff), chunk(b"IDAT", b"any")),
    png(chunk(b"IDAT", b"any"), chunk(b"eXIf", tiff)),
    webp(CANVAS, LOSSY, (b"EXIF", tiff)),
    webp(CANVAS, LOSSY, (b"EXIF", b"Exif\0\0" + tiff)),
  ):
    assert headers.read(data).orientation == orientation


@pytest.mark.parametrize(
  "tiff",
  [
    b"",
    b"II*\0",
    b"nonsense",
    exif(0),
    exif(9),
    exif(6, kind=2),  # text, no number
    exif(6)[:24],
    b"II*\0\xff\xff\xff\xff" + bytes(20),
  ],
)
def test_damaged_orientation_is_taken_as_upright(tiff):
  assert headers.read(png(chunk(b"eXIf", tiff))).orientation == 1
  assert headers.read(jpeg(segment(0xE1, b"Exif\0\0" + tiff), frame(0xC0, 3, 2))).orientation == 1


@pytest.mark.parametrize(
  ("data", "shortest"),
  [
    (jpeg(frame(0xC0, 300, 200)), len(jpeg(frame(0xC0, 300, 200))) - len(SCAN) + 2),
    (png(chunk(b"IDAT", b"any")), None),
    (webp(CANVAS, LOSSY), None),
    (gif(GIF_COMMENT, gif_frame(5, 6, 7, 8)), None),
    (bmp(40, 300, 200, form="ii"), 26),
  ],
  ids=["jpeg", "png", "webp", "gif", "bmp"],
)
def test_a_cut_header_is_truncated_wherever_it_is_cut(data, shortest):
  for length in range(12, len(data) if shortest is None else shortest):
    with pytest.raises(ValueError, match="truncated"):
      headers.read(data[:length])
  headers.read(data[:shortest])


@pytest.mark.parametrize(
  ("data", "reason"),
  [
    (jpeg(frame(0xC0, 0, 200)), "0 x 200"),
    (jpeg(), "0 x 0"),
    (webp((b"ABCD", b"efgh")), "0 x 0"),
    (bmp(40, -3, 2, form="ii"), "-3 x 2"),
    (png(chunk(b"IDAT", b"any")[:-1] + b"?"), "checksum of its IDAT chunk"),
  ],
)
def test_a_header_without_a_picture_or_with_a_wrong_checksum_is_refused(data, reason):
  with pytest.raises(ValueError, match=reason):
    headers.read(data)


@pytest.mark.parametrize(
  "data", [b"", b"hello", b"\xff\xd8", b"RIFF\x04\0\0\0WAVEfmt ", b"GIF88a;"]
)
def test_other_bytes_are_of_no_known_format(data):
  with pytest.raises(headers.UnknownFormat):
    headers.read(data)
