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
# VP8L: a signature, then width - 1 and height - 1 in 14 bits each, and a bit for alpha.
LOSSLESS = (b"VP8L", b"\x2f" + struct.pack("<I", 299 | 199 << 14 | 1 << 28))
# VP8X: flags, then width - 1 and height - 1 in 3 bytes each.
CANVAS = (b"VP8X", bytes(4) + (69999).to_bytes(3, "little") + (8).to_bytes(3, "little"))


def gif(*blocks):
  return b"GIF89a" + struct.pack("<HHBBB", 300, 200, 0, 0, 0) + b"".join(blocks) + b";"


def gif_frame(left, top, width, height):
  return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x03abc\x01;\0"


def bmp(*numbers, form, bits=24, compression=0, masks=bytes(16)):
  """A header of 12 bytes has no compression; masks are red's, green's, blue's and alpha's."""
  depth = struct.pack("<HH", 1, bits)
  if numbers[0] != 12:
    depth += struct.pack("<I", compression) + bytes(20) + masks
  return b"BM" + bytes(12) + struct.pack("<I" + form, *numbers) + depth


GIF_COMMENT = b"!\xfe\x03a,;\0"  # whose text looks like blocks


@pytest.mark.parametrize(
  ("data", "header"),
  [
    (jpeg(frame(0xC0, 300, 200)), Header("JPEG", 300, 200, "RGB")),
    (jpeg(segment(0xE0, b"JFIF"), frame(0xC2, 300, 200)), Header("JPEG", 300, 200, "RGB")),
    (
      jpeg(b"\xff\xff\xff", frame(0xC1, 300, 200)[1:]),
      Header("JPEG", 300, 200, "RGB"),
    ),  # fill bytes
    (
      jpeg(segment(0xC4, bytes(20)), frame(0xC0, 300, 200)),
      Header("JPEG", 300, 200, "RGB"),
    ),  # a table
    (jpeg(frame(0xC0, 300, 200), frame(0xC0, 1, 1)), Header("JPEG", 300, 200, "RGB")),
    (png(chunk(b"IDAT", b"any")), Header("PNG", 70000, 9, "RGB")),
    (webp(LOSSY), Header("WEBP", 300, 200, "RGB")),
    (webp(LOSSLESS), Header("WEBP", 300, 200, "RGB with alpha")),
    (webp(CANVAS, LOSSY), Header("WEBP", 70000, 9, "RGB")),
    (webp(CANVAS, LOSSLESS), Header("WEBP", 70000, 9, "RGB")),
    (bmp(40, 300, 200, form="ii"), Header("BMP", 300, 200, "RGB")),
    (bmp(124, 300, -200, form="ii"), Header("BMP", 300, 200, "RGB")),  # rows from the top
    (bmp(12, 300, 200, form="HH"), Header("BMP", 300, 200, "RGB")),
    (gif(gif_frame(0, 0, 300, 200)), Header("GIF", 300, 200, "palette")),
    (gif(GIF_COMMENT, gif_frame(5, 6, 7, 8)), Header("GIF", 300, 200, "palette")),
    # A first frame that reaches beyond the screen widens it; a later one is not shown.
    (
      gif(gif_frame(50, 40, 300, 200), gif_frame(0, 0, 999, 999)),
      Header("GIF", 350, 240, "palette"),
    ),
  ],
)
def test_format_and_size_are_read(data, header):
  assert headers.read(data) == header


def deep(bits, components):
  return segment(0xC1, struct.pack(">BHHB", bits, 9, 9, components) + bytes(3 * components))


def png_of(bits, color, *chunks):
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, bits, color, 0, 0, 0))
    + b"".join(chunks)
    + chunk(b"IEND", b"")
  )


CONTROL = (
  b"!\xf9\x04%c\0\0\0\0"  # before a GIF's frame: flags, of which the lowest says transparent
)


@pytest.mark.parametrize(
  ("data", "mode"),
  [
    (jpeg(deep(8, 1)), "grey"),
    (jpeg(deep(8, 4)), "CMYK"),
    (jpeg(deep(12, 3)), "12-bit RGB"),
    (jpeg(deep(8, 2)), "2 components"),
    (png_of(1, 0), "grey"),
    (png_of(16, 0), "16-bit grey"),
    (png_of(16, 0, chunk(b"tRNS", bytes(2))), "16-bit grey with alpha"),
    (png_of(16, 2), "16-bit RGB"),
    (png_of(4, 3, chunk(b"PLTE", bytes(3))), "palette"),
    (png_of(8, 3, chunk(b"PLTE", bytes(3)), chunk(b"tRNS", b"\0")), "palette with alpha"),
    (png_of(8, 4), "grey with alpha"),
    (png_of(8, 6), "RGB with alpha"),
    (png_of(16, 6), "16-bit RGB with alpha"),
    (webp((CANVAS[0], b"\x10" + CANVAS[1][1:]), LOSSY), "RGB with alpha"),
    (bmp(40, 9, 9, form="ii", bits=8), "palette"),
    (bmp(12, 9, 9, form="HH", bits=4), "palette"),
    (bmp(40, 9, 9, form="ii", bits=32), "RGB"),
    (bmp(124, 9, 9, form="ii", bits=32, compression=3, masks=b"\xff" * 16), "RGB with alpha"),
    (bmp(124, 9, 9, form="ii", bits=32, compression=3, masks=b"\xff" * 12 + bytes(4)), "RGB"),
    # Of the short header alpha's mask is no part: pixels stand there.
    (bmp(40, 9, 9, form="ii", bits=32, compression=3, masks=b"\xff" * 16), "RGB"),
    (gif(CONTROL % 1, gif_frame(0, 0, 9, 9)), "palette with alpha"),
    (gif(CONTROL % 8, gif_frame(0, 0, 9, 9), CONTROL % 1, gif_frame(0, 0, 9, 9)), "palette"),
  ],
)
def test_what_a_pixel_is_follows_from_the_structure(data, mode):
  assert headers.read(data).mode == mode


def test_the_passes_of_a_jpeg_are_its_scans_and_nothing_that_looks_like_one():
  one = jpeg(frame(0xC2, 300, 200))
  assert headers.read(one).passes == 1
  assert headers.read(one + SCAN * 4).passes == 5
  # Where the first scan has all three components, libjpeg reads no other.
  all_three = segment(0xDA, b"\3" + bytes(9))
  baseline = b"\xff\xd8" + frame(0xC0, 300, 200) + all_three + SCAN * 4
  assert headers.read(baseline).passes == 1
  assert headers.read(jpeg(frame(0xC0, 300, 200)) + SCAN * 4).passes == 5
  # In metadata before the first scan, a thumbnail has scans of its own.
  assert headers.read(jpeg(segment(0xE1, SCAN * 40), frame(0xC2, 300, 200))).passes == 1
  # A film behind the end may hold the bytes of any number of scans; so may a comment between two.
  film = b"\xff\xd9" + SCAN * 1000
  assert headers.read(one + b"\1\xff\0\2\xff\xd0\3" + SCAN * 4 + film).passes == 5
  assert headers.read(one + segment(0xFE, SCAN * 20 + b"\xff\xd9") + SCAN * 30).passes == 31


def sampled(marker, *down):
  components = b"".join(bytes([1 + i, 0x10 + rows, 0]) for i, rows in enumerate(down))
  return segment(marker, struct.pack(">BHHB", 8, 200, 300, len(down)) + components)


def scan_of(count):
  return segment(0xDA, bytes([count]) + bytes(2 * count + 3))


def test_the_rows_of_a_jpeg_may_be_lowered_where_one_scan_without_restarts_has_it_all():
  def rows(*segments):
    data = b"\xff\xd8" + b"".join(segments)
    header = headers.read(data)
    if header.rows_at:
      assert data[header.rows_at : header.rows_at + 2] == struct.pack(">H", 200)
    return header.row_step

  assert rows(sampled(0xC0, 2, 1, 1), scan_of(3)) == 16
  assert rows(segment(0xE0, bytes(5)), sampled(0xC1, 1, 1, 1), scan_of(3)) == 8
  assert rows(sampled(0xC0, 1), scan_of(1)) == 8
  assert rows(sampled(0xC0, 1, 1, 1), segment(0xDD, bytes(2)), scan_of(3)) == 8
  # Several scans, restarts, progressive, arithmetic, four colours, no rows at all.
  assert rows(sampled(0xC0, 2, 1, 1), scan_of(1), scan_of(2)) == 0
  assert rows(sampled(0xC0, 1, 1, 1), segment(0xDD, b"\0\1"), scan_of(3)) == 0
  assert rows(sampled(0xC2, 1, 1, 1), scan_of(3)) == 0
  assert rows(sampled(0xC9, 1, 1, 1), scan_of(3)) == 0
  assert rows(sampled(0xC0, 1, 1, 1, 1), scan_of(4)) == 0
  assert rows(sampled(0xC0, 0, 0, 0), scan_of(3)) == 0


def test_the_work_counts_every_pass_and_no_row_or_pass_as_nothing():
  assert Header("PNG", 300, 200, "RGB").work == 60_000
  assert Header("JPEG", 300, 200, "RGB", passes=10).work == 600_000
  assert Header("PNG", 1, 50_000, "RGB").work == 64 * 50_000
  assert Header("JPEG", 1, 1, "RGB", passes=10).work == 10 * 4096


def test_what_is_slow_by_the_byte_counts_its_bytes():
  rle = bmp(40, 100, 100, form="ii", bits=8, compression=1) + bytes(1000)
  assert headers.read(rle).work == 128 * 10_000 + 64 * len(rle)
  plain = bmp(40, 100, 100, form="ii", bits=8) + bytes(1000)
  assert headers.read(plain).work == 10_000
  arithmetic = jpeg(frame(0xC9, 100, 100)) + bytes(1000)
  assert headers.read(arithmetic).work == 10_000 + 22 * len(arithmetic)


@pytest.mark.parametrize(
  "piece",
  [
    lambda n: jpeg(segment(0xFE, b"") * n, frame(0xC0, 9, 9)),
    lambda n: jpeg(b"\xff\xd0" * n, frame(0xC0, 9, 9)),
    lambda n: jpeg(frame(0xC0, 9, 9)) + SCAN * 20 + b"\xff\x01" * n,
    lambda n: png_of(8, 2, chunk(b"IDAT", b"") * n),
    lambda n: webp(LOSSY, *[(b"ABCD", b"")] * n),
    lambda n: gif(b"!\xfe" + b"\1." * n + b"\0", gif_frame(0, 0, 9, 9)),
    lambda n: gif(gif_frame(0, 0, 9, 9), b"." * n),
  ],
  ids="jpeg-segments jpeg-markers jpeg-after png webp gif-blocks gif-bytes".split(),
)
def test_a_file_in_countless_pieces_is_refused_and_one_in_many_is_not(piece):
  headers.read(piece(50_000))
  with pytest.raises(ValueError, match="segments, chunks or blocks"):
    headers.read(piece(80_000))


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
    (jpeg(frame(0xC0, 300, 200)), len(jpeg(frame(0xC0, 300, 200))) - len(SCAN) + 4),
    (png(chunk(b"IDAT", b"any")), None),
    (webp(CANVAS, LOSSY), None),
    (gif(GIF_COMMENT, gif_frame(5, 6, 7, 8)), None),
    (bmp(40, 300, 200, form="ii"), 34),
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
