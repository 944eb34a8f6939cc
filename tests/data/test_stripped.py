"""What is cut away and what stays, on files written piece by piece after the formats'
specifications."""

import io
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from imgclf.data import images, stripped


def chunk(kind, body):
  return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def segment(marker, body):
  return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def test_a_png_keeps_what_is_critical_and_its_transparency():
  signature, header = (
    b"\x89PNG\r\n\x1a\n",
    chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)),
  )
  kept = chunk(b"tRNS", b"\0\7") + chunk(b"IDAT", b"pixels")
  end = chunk(b"IEND", b"")
  noise = chunk(b"iCCP", b"p\0\0...") + chunk(b"eXIf", b"II*\0")
  data = signature + header + noise + kept + chunk(b"zTXt", b"t\0\0...") + end + b"more"
  assert stripped.pixels_only(data, "PNG") == signature + header + kept + end


def test_a_jpeg_keeps_its_tables_and_what_says_which_colours_it_has():
  jfif, adobe = segment(0xE0, b"JFIF\0"), segment(0xEE, b"Adobe\0")
  tables = segment(0xDB, bytes(65)) + segment(0xC0, bytes(15)) + segment(0xC4, bytes(20))
  scans = segment(0xDA, bytes(10)) + b"bits\xff\xd9more"
  noise = segment(0xE1, b"Exif\0\0") + segment(0xE2, b"ICC_PROFILE\0") + segment(0xFE, b"comment")
  data = b"\xff\xd8" + jfif + noise + b"\xff\xff\xff" + adobe + noise + tables + scans
  assert stripped.pixels_only(data, "JPEG") == b"\xff\xd8" + jfif + adobe + tables + scans


def test_a_gif_keeps_its_first_frame_and_what_is_transparent_in_it():
  screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
  control, frame = b"!\xf9\4\1\0\0\0\0", b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\3abc\0"
  comment, loop = b"!\xfe\3a,;\0", b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0"
  data = screen + loop + comment + control + comment + frame + control + frame * 3 + b";more"
  assert stripped.pixels_only(data, "GIF") == screen + control + frame + b";"
  # No frame at all is for the decoder to refuse.
  assert stripped.pixels_only(screen + comment + b";", "GIF") == screen + b";"


@pytest.mark.parametrize("format", ["WEBP", "BMP"])
def test_other_formats_are_left_as_they_are(format):
  assert stripped.pixels_only(b"any bytes", format) == b"any bytes"


def test_pixels_are_pillows_own_of_the_whole_file():
  rgba = np.random.default_rng(0).integers(0, 256, (9, 13, 4), dtype=np.uint8)
  picture = Image.fromarray(rgba)
  out = io.BytesIO()
  frames = [picture, picture.transpose(Image.Transpose.ROTATE_180)]
  exif = Image.Exif()
  exif[0x010E] = "a description"
  frames[0].save(out, "PNG", save_all=True, append_images=frames[1:], exif=exif, dpi=(72, 72))
  white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
  expected = np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
  assert np.abs(images.decode(out.getvalue(), "x") - expected.astype(int)).max() <= 1
