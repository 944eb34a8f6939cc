"""Every format and mode against pixels worked out by hand or by Pillow; every damage against an
ImageError."""

from concurrent.futures import ThreadPoolExecutor
import io
from pathlib import Path
import pickle
import random
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
from PIL import Image, ImageFile
import pytest

from imgclf.data import images, regions
from imgclf.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# Two rows of three: neither a flip nor a turn gives it back.
PICTURE = np.array([[RED, GREEN, BLUE], [WHITE, (0, 0, 0), (10, 200, 30)]], np.uint8)
PHOTOS = sorted((Path(__file__).parents[3] / "shared" / "data" / "imagenet_photos").glob("*/*.jpg"))


def encoded(image, format, **options):
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  out = io.BytesIO()
  image.save(out, format, **options)
  return out.getvalue()


def chunk(kind, body):
  return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, bits, color, rows, before=b"", after=b""):
  """A PNG written chunk by chunk; color 0 is grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA."""
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    + before
    + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    + after
    + chunk(b"IEND", b"")
  )


def exif(orientation, order="<"):
  start = b"II*\0" if order == "<" else b"MM\0*"
  entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
  return start + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def scene(height=40, width=56):
  """Smooth colours with an edge: what JPEG keeps within a few levels."""
  y, x = np.mgrid[:height, :width]
  rgb = np.stack([3 * x, 5 * y, 80 + x + y], -1).astype(np.uint8)
  rgb[10:20, 10:30] = (200, 40, 90)
  return rgb


def samples():
  rgb = scene()
  image = Image.fromarray(rgb)
  colors = image.quantize(16)
  return {
    "jpeg": encoded(image, "JPEG"),
    "progressive": encoded(image, "JPEG", progressive=True),
    "grey jpeg": encoded(image.convert("L"), "JPEG"),
    "cmyk jpeg": encoded(image.convert("CMYK"), "JPEG"),
    "png": encoded(image, "PNG"),
    "palette png": encoded(colors, "PNG"),
    "16-bit png": encoded((rgb[:, :, 0].astype(np.uint16) * 257), "PNG"),
    "webp": encoded(image, "WEBP"),
    "lossless webp": encoded(image, "WEBP", lossless=True),
    "oriented webp": encoded(image, "WEBP", exif=exif(6)),
    "gif": encoded(colors, "GIF"),
    "moving gif": encoded(
      colors, "GIF", save_all=True, append_images=[colors.transpose(Image.Transpose.ROTATE_180)]
    ),
    "bmp": encoded(image, "BMP"),
  }


SAMPLES = samples()
by_sample = pytest.mark.parametrize("data", SAMPLES.values(), ids=SAMPLES)


def refused(data, name="folder/bad file.jpg", **options):
  """Returns why `data` is refused, having checked that the message is one line with the name."""
  with pytest.raises(images.ImageError) as caught:
    images.decode(data, name, **options)
  message = str(caught.value)
  assert message.startswith(f"{name}: cannot be decoded as an image (")
  assert "\n" not in message
  return message


def assert_rgb(pixels):
  assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
  assert pixels.flags.c_contiguous and pixels.flags.writeable


# Formats and modes.


@pytest.mark.parametrize(
  "data",
  [
    encoded(PICTURE, "PNG"),
    encoded(PICTURE, "WEBP", lossless=True),
    encoded(PICTURE, "BMP"),
    encoded(Image.fromarray(PICTURE).quantize(8), "PNG"),
    encoded(Image.fromarray(PICTURE).quantize(8), "GIF"),
    encoded(Image.fromarray(PICTURE).quantize(8), "BMP"),
    encoded(Image.fromarray(PICTURE).convert("RGBA"), "PNG"),
    encoded(Image.fromarray(PICTURE).convert("RGBA"), "BMP"),
    png(3, 2, 8, 2, [row.tobytes() for row in PICTURE]),
  ],
  ids="png webp bmp palette-png gif palette-bmp rgba-png rgba-bmp own-png".split(),
)
def test_lossless_formats_give_the_pixels_back(data):
  pixels = images.decode(data, "x")
  assert_rgb(pixels)
  np.testing.assert_array_equal(pixels, PICTURE)


@pytest.mark.parametrize(
  ("bits", "row", "levels"),
  [
    (1, b"\x40", [0, 255, 0]),
    (2, b"\x1b", [0, 85, 170, 255]),
    (4, b"\x08\xf0", [0, 136, 255]),
    (8, b"\x00\x07\xff", [0, 7, 255]),
    # round(v / 257): 128 / 257 = 0.498, 129 / 257 = 0.502, 32768 / 257 = 127.502
    (16, struct.pack(">6H", 0, 128, 129, 25700, 32768, 65535), [0, 0, 1, 100, 128, 255]),
  ],
)
def test_grey_of_any_depth_is_scaled_to_8_bits_and_never_clipped(bits, row, levels):
  pixels = images.decode(png(len(levels), 1, bits, 0, [row]), "x")
  assert_rgb(pixels)
  np.testing.assert_array_equal(pixels, np.array([[[v] * 3 for v in levels]], np.uint8))


def test_grey_and_one_bit_files_of_other_formats_are_read():
  grey = np.array([[0, 7, 255], [90, 91, 92]], np.uint8)
  two = Image.fromarray(grey > 90)
  for format in ("BMP", "GIF", "PNG"):
    np.testing.assert_array_equal(
      images.decode(encoded(grey, format), "x"), np.stack([grey] * 3, -1)
    )
    np.testing.assert_array_equal(
      images.decode(encoded(two, format), "x")[:, :, 1], [[0, 0, 255], [0, 255, 255]]
    )


@pytest.mark.parametrize("color", [2, 4, 6], ids=["rgb", "grey-alpha", "rgba"])
def test_16_bit_colour_is_scaled_within_one_level(color):
  values = np.linspace(0, 65535, 300).round().astype(np.uint16)
  channels = {2: [values, values[::-1], values], 4: [values], 6: [values, values[::-1], values]}
  opaque = np.full_like(values, 65535)
  stored = np.stack(channels[color] + [opaque] * (color != 2), -1)
  pixels = images.decode(png(300, 1, 16, color, [stored.astype(">u2").tobytes()]), "x")
  exact = np.broadcast_to(np.stack(channels[color], -1) / 257, (300, 3))
  assert np.abs(pixels[0] - exact).max() <= 1
  assert np.abs(pixels[0] - exact).mean() < 0.51


def test_alpha_shows_the_background_in_proportion():
  # 128 / 255 of red (255, 0, 0) over (10, 20, 30): 132.98, 9.96, 14.94; at alpha 0 the background,
  # at 255 red.
  expected = np.array([[(133, 10, 15), (10, 20, 30), (255, 0, 0)]], np.uint8)
  rgba = np.array([[(255, 0, 0, 128), (255, 0, 0, 0), (255, 0, 0, 255)]], np.uint8)
  palette = chunk(b"PLTE", bytes([255, 0, 0] * 3)) + chunk(b"tRNS", bytes([128, 0, 255]))
  files = [
    encoded(rgba, "PNG"),
    encoded(rgba, "WEBP", lossless=True, exact=True),
    png(3, 1, 8, 3, [bytes([0, 1, 2])], palette),
    # 16-bit alpha 0x80ff has the high byte 128
    png(3, 1, 16, 6, [struct.pack(">12H", *[65535, 0, 0, 33023, 65535, 0, 0, 0, 65535, 0, 0, 65535])]),
  ]  # fmt: skip
  for data in files:
    np.testing.assert_array_equal(images.decode(data, "x", background=[10, 20, 30]), expected)


def test_grey_with_alpha_shows_the_background_in_proportion():
  # 51 / 255 = 1/5 of 200 over (0, 100, 255): 40, 120, 244
  data = png(1, 1, 8, 4, [bytes([200, 51])])
  np.testing.assert_array_equal(
    images.decode(data, "x", background=(0, 100, 255)), [[[40, 120, 244]]]
  )


@pytest.mark.parametrize(
  ("bits", "color", "row", "key"),
  [
    (1, 0, b"\x40", struct.pack(">H", 1)),
    (2, 0, b"\x20", struct.pack(">H", 2)),
    (4, 0, b"\x06", struct.pack(">H", 6)),
    (8, 0, b"\x00\x06", struct.pack(">H", 6)),
    # The neighbours 1536 and 1537 both become the level 6; only one of them is transparent.
    (16, 0, struct.pack(">2H", 1536, 1537), struct.pack(">H", 1537)),
    (8, 2, bytes([1, 2, 3, 1, 2, 4]), struct.pack(">3H", 1, 2, 4)),
    (8, 3, bytes([0, 1]), bytes([255, 0])),
  ],
)
def test_a_transparent_level_or_colour_shows_the_background_and_its_neighbour_does_not(
  bits, color, row, key
):
  before = chunk(b"PLTE", bytes(6)) if color == 3 else b""
  data = png(2, 1, bits, color, [row], before + chunk(b"tRNS", key))
  opaque = images.decode(png(2, 1, bits, color, [row], before), "x")
  pixels = images.decode(data, "x", background=(9, 99, 199))
  np.testing.assert_array_equal(pixels[0, 1], (9, 99, 199))
  np.testing.assert_array_equal(pixels[0, 0], opaque[0, 0])


def test_a_transparent_colour_of_16_bits_is_refused_rather_than_guessed():
  data = png(1, 1, 16, 2, [bytes(6)], chunk(b"tRNS", bytes(6)))
  assert "16-bit colour" in refused(data)


def test_of_an_animation_the_first_frame_is_taken():
  frames = [Image.new("RGB", (4, 4), color) for color in (RED, GREEN)]
  for format in ("GIF", "WEBP", "PNG"):
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(
      images.decode(data, "x"), np.full((4, 4, 3), RED, np.uint8), format
    )


def test_a_gif_shows_the_background_where_it_is_transparent():
  image = Image.new("P", (2, 1))
  image.putpalette([*RED, *GREEN])
  image.putpixel((1, 0), 1)
  pixels = images.decode(encoded(image, "GIF", transparency=1), "x", background=(1, 2, 3))
  np.testing.assert_array_equal(pixels, [[RED, (1, 2, 3)]])


@pytest.mark.parametrize(
  ("mode", "options"),
  [
    ("RGB", {}),
    ("RGB", {"progressive": True}),
    ("RGB", {"keep_rgb": True}),
    ("RGB", {"subsampling": 0, "quality": 95}),
    ("L", {}),
    ("CMYK", {}),
  ],
)
def test_jpegs_of_every_kind_equal_pillows_conversion(mode, options):
  data = encoded(Image.fromarray(scene()).convert(mode), "JPEG", **options)
  expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
  pixels = images.decode(data, "x")
  assert_rgb(pixels)
  assert np.abs(pixels - expected.astype(int)).max() <= 2


@pytest.mark.parametrize(
  ("ink", "rgb"),
  [
    ((255, 0, 0, 0), (0, 255, 255)),
    ((0, 255, 0, 0), (255, 0, 255)),
    ((0, 0, 0, 255), (0, 0, 0)),
    ((0, 0, 0, 0), (255, 255, 255)),
    ((0, 0, 0, 51), (204, 204, 204)),
    ((0, 0, 255, 51), (204, 204, 0)),
  ],
)
def test_ink_darkens_paper_in_an_adobe_cmyk_jpeg(ink, rgb):
  data = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
  assert b"Adobe" in data
  assert np.abs(images.decode(data, "x").astype(int) - rgb).max() <= 3


def test_a_ycck_jpeg_equals_pillows_conversion():
  data = encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG", subsampling=0)
  transform = data.index(b"Adobe") + 11
  data = data[:transform] + b"\x02" + data[transform + 1 :]
  image = Image.open(io.BytesIO(data))
  assert image.info["adobe_transform"] == 2
  expected = np.asarray(image.convert("RGB")).astype(int)
  assert np.abs(images.decode(data, "x") - expected).max() <= 3


def test_photographs_equal_pillows():
  if not PHOTOS:
    pytest.skip("no photographs in ../shared/data/imagenet_photos")
  for photo in PHOTOS[::8]:
    expected = np.asarray(Image.open(photo).convert("RGB")).astype(int)
    pixels = images.decode(photo.read_bytes(), photo.name)
    assert pixels.shape == expected.shape, photo
    assert np.abs(pixels - expected).max() <= 2, photo


def test_the_name_says_nothing_of_the_format():
  np.testing.assert_array_equal(images.decode(encoded(PICTURE, "PNG"), "n_2933.JPEG"), PICTURE)
  assert images.decode(SAMPLES["jpeg"], "photo.png").shape == scene().shape


def test_a_stray_byte_before_a_jpegs_end_is_forgiven():
  # Two files of ImageNet have one; the strict decoder refuses them though every pixel is there.
  data = SAMPLES["jpeg"]
  assert data.endswith(b"\xff\xd9")
  np.testing.assert_array_equal(
    images.decode(data[:-2] + b"\x7f\xff\xd9", "x"), images.decode(data, "x")
  )


@by_sample
def test_bytes_after_the_end_change_nothing(data):
  np.testing.assert_array_equal(images.decode(data + b"more", "x"), images.decode(data, "x"))


# Orientation: how the letters ABCDEF, upright in three rows of two, are stored for each value of
# the tag.

LETTERS = {letter: 50 * i for i, letter in enumerate("ABCDEF")}
STORED = {
  1: ["AB", "CD", "EF"],
  2: ["BA", "DC", "FE"],
  3: ["FE", "DC", "BA"],
  4: ["EF", "CD", "AB"],
  5: ["ACE", "BDF"],
  6: ["BDF", "ACE"],
  7: ["FDB", "ECA"],
  8: ["ECA", "FDB"],
}


def letters(rows):
  """One 16 x 16 block of grey a letter, so that JPEG keeps them."""
  levels = np.array([[LETTERS[letter] for letter in row] for row in rows], np.uint8)
  return np.kron(levels, np.ones((16, 16), np.uint8))


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("order", "<>")
def test_every_exif_orientation_is_turned_upright(orientation, order):
  stored = np.stack([letters(STORED[orientation])] * 3, -1)
  tiff = exif(orientation, order)
  for data in (
    encoded(stored, "JPEG", quality=95, exif=b"Exif\0\0" + tiff),
    encoded(stored, "JPEG", quality=95, progressive=True, exif=b"Exif\0\0" + tiff),
    encoded(stored, "PNG", exif=tiff),
    png(stored.shape[1], stored.shape[0], 8, 2, [row.tobytes() for row in stored], after=chunk(b"eXIf", tiff)),
    encoded(stored, "WEBP", lossless=True, exif=tiff),
    encoded(stored, "WEBP", lossless=True, exif=b"Exif\0\0" + tiff),
  ):  # fmt: skip
    head = images.header(data, "x")
    assert (head.height, head.width, head.orientation) == (*stored.shape[:2], orientation)
    pixels = images.decode(data, "x")
    assert_rgb(pixels)
    assert pixels.shape == (48, 32, 3)
    assert np.abs(pixels[:, :, 0] - letters(STORED[1]).astype(int)).max() <= 3


# Damage.


@pytest.mark.parametrize("forgiving", [False, True])
@by_sample
def test_a_truncated_file_is_refused_wherever_it_is_cut(data, forgiving, monkeypatch):
  # TFDS turns this switch of Pillow on for the whole process.
  monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", forgiving)
  size = len(data)
  for cut in (
    1,
    3,
    9,
    15,
    25,
    40,
    size // 4,
    size // 2,
    3 * size // 4,
    size - 20,
    size - 3,
    size - 1,
  ):
    refused(data[:cut])  # fmt: skip
  assert ImageFile.LOAD_TRUNCATED_IMAGES is forgiving


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_cut_jpeg_that_was_closed_again_is_refused_and_not_filled_with_grey(mode, progressive):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
  data = encoded(Image.fromarray(noise).convert(mode), "JPEG", progressive=progressive)
  for cut in (2, 3, 4):
    refused(data[: len(data) * cut // 5] + b"\xff\xd9")


def test_a_cut_stream_in_a_well_formed_png_is_refused_and_not_filled_with_black(monkeypatch):
  monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
  rows = b"".join(b"\0" + row.tobytes() for row in scene())
  whole = png(56, 40, 8, 2, [row.tobytes() for row in scene()])
  stream = zlib.compress(rows)
  np.testing.assert_array_equal(images.decode(whole, "x"), scene())
  cut = whole.replace(chunk(b"IDAT", stream), chunk(b"IDAT", stream[: len(stream) // 2]))
  assert len(cut) < len(whole)
  refused(cut)


def test_a_flipped_bit_in_a_png_is_found_by_its_checksum():
  data = bytearray(encoded(PICTURE, "PNG"))
  data[data.index(b"IDAT") + 10] ^= 4
  assert "checksum of its IDAT chunk" in refused(bytes(data))


@pytest.mark.parametrize(
  ("data", "reason"),
  [
    (b"", "empty"),
    (b"hello, this is no image\n", "b'hello, this "),
    (b"<!DOCTYPE html>\n<html><body>404</body></html>", "<!DOCTYPE"),
    (bytes(4096), r"\x00"),
    (encoded(PICTURE, "TIFF"), "unlike JPEG, PNG, WebP, BMP and GIF"),
    (b"RIFF\x04\0\0\0WAVEfmt ", "not WebP"),
    (b"BM", "truncated"),
    (b"BMW is a maker of cars, and this is a text of more than fifty bytes.", ""),
    (b"GIF89a", "truncated"),
    (b"\xff\xd8\xff", "truncated"),
    (b"\xff\xd8\xff\xe0 and then nothing like a JPEG" * 9, ""),
    (png(0, 1, 8, 0, []), "0 x 1"),
  ],
)
def test_what_is_no_image_is_refused_by_name(data, reason):
  assert reason in refused(data)
  with pytest.raises(UserError):
    images.decode(data, "x")


def test_an_error_keeps_its_cause_and_survives_pickling():
  with pytest.raises(images.ImageError) as caught:
    images.decode(SAMPLES["jpeg"][:500], "x")
  assert caught.value.__cause__ is not None
  copy = pickle.loads(pickle.dumps(caught.value))
  assert type(copy) is images.ImageError and str(copy) == str(caught.value)


def test_a_name_with_a_line_break_still_makes_one_line():
  with pytest.raises(images.ImageError, match=r"\Aa b: cannot.*\Z"):
    images.decode(b"", "a\nb")


@pytest.mark.parametrize("kind", SAMPLES)
def test_random_damage_gives_pixels_or_an_image_error_and_nothing_else(kind):
  data, rng = SAMPLES[kind], random.Random(kind)
  outcomes = set()
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    for _ in range(80):
      damaged = bytearray(data)
      for _ in range(rng.choice([1, 1, 2, 8])):
        damaged[rng.randrange(len(data))] = rng.randrange(256)
      if rng.random() < 0.2:
        del damaged[rng.randrange(len(data)) :]
      try:
        assert_rgb(images.decode(bytes(damaged), "x", max_pixels=1_000_000))
        outcomes.add("pixels")
      except images.ImageError:
        outcomes.add("error")
  assert "error" in outcomes


# Size.

SIDE = 60000
SIXTY_THOUSAND = {
  "JPEG": b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", SIDE, SIDE) + bytes(10)
  + b"\xff\xda\0\x02",
  "PNG": png(SIDE, SIDE, 8, 2, [b""]),
  "WEBP": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<II", 10, 0)
  + 2 * (SIDE - 1).to_bytes(3, "little"),
  "BMP": b"BM" + bytes(12) + struct.pack("<Iii", 40, SIDE, -SIDE) + bytes(28),
  "GIF": b"GIF89a" + struct.pack("<HH", SIDE, SIDE) + bytes(3) + b";",
}  # fmt: skip


@pytest.mark.parametrize("format", SIXTY_THOUSAND)
def test_a_bomb_is_refused_before_anything_is_allocated(format):
  data = SIXTY_THOUSAND[format]
  head = images.header(data, "x")
  assert (head.format, head.width, head.height) == (format, SIDE, SIDE)
  tracemalloc.start()
  try:
    message = refused(data)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
  finally:
    tracemalloc.stop()
  assert "it declares 60000 x 60000 pixels, more than the 100000000 allowed" in message


def test_a_second_size_hidden_behind_the_first_is_refused():
  honest = png(3, 2, 8, 2, [row.tobytes() for row in PICTURE])
  second = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
  assert "disagree about its size" in refused(honest[:33] + second + honest[33:])


def test_a_gif_frame_beyond_the_screen_counts():
  data = bytearray(SAMPLES["gif"])
  data[6:10] = struct.pack("<HH", 1, 1)
  assert images.header(bytes(data), "x").width == 56
  assert "56 x 40" in refused(bytes(data), max_pixels=100)


@by_sample
def test_max_pixels_is_the_last_size_that_is_allowed(data):
  assert images.decode(data, "x", max_pixels=40 * 56).size == 3 * 40 * 56
  assert "more than the 2239 allowed" in refused(data, max_pixels=40 * 56 - 1)


@by_sample
def test_pillows_own_limit_neither_warns_nor_refuses_and_is_left_as_it_was(data, monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert images.decode(data, "x").size == 3 * 40 * 56
  assert Image.MAX_IMAGE_PIXELS == 1


def test_threads_decode_the_same_pixels_and_leave_pillows_switches_alone():
  before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
  files = list(SAMPLES.values()) * 20
  alone = {data: images.decode(data, "x").tobytes() for data in SAMPLES.values()}
  with ThreadPoolExecutor(8) as pool:
    together = list(pool.map(lambda data: images.decode(data, "x").tobytes(), files))
  assert together == [alone[data] for data in files]
  assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == before


# Encoding.


@pytest.mark.parametrize("shape", [(8, 8), (5, 7, 3), (1, 1)])
def test_encoded_pixels_come_back(shape):
  pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
  data = images.encode_png(pixels)
  assert images.header(data, "x").format == "PNG"
  expected = pixels if len(shape) == 3 else np.stack([pixels] * 3, -1)
  np.testing.assert_array_equal(images.decode(data, "x"), expected)


@pytest.mark.parametrize(
  "pixels",
  [np.zeros((2, 2)), np.zeros((2, 2, 4), np.uint8), np.zeros(4, np.uint8), np.zeros((2, 2), bool)],
)
def test_what_is_not_grey_or_rgb_uint8_is_not_encoded(pixels):
  with pytest.raises(ValueError, match="no grey or RGB uint8 pixels"):
    images.encode_png(pixels)


# Windows.


# Rows, and columns, beside a window are left out of files that were read whole before.
again = pytest.mark.parametrize("sound", [False, True], ids=["first", "again"])


def window_of(data, window, least=100, **options):
  """The pixels of a window, none of them halved, and the size that it was chosen for."""
  asked = []

  def choose(*size):
    asked.append(size)
    return window

  part, box, _ = images.decode_window(data, "x", choose, least=least, **options)
  assert box == (0, 0, *window[2:])
  return part, asked[0]


def jpeg(picture, **options):
  out = io.BytesIO()
  Image.fromarray(picture).save(out, "JPEG", **options)
  return out.getvalue()


NOISE = np.random.default_rng(3).integers(0, 256, (90, 70, 3), np.uint8)
WINDOWS = [(0, 0, 1, 1), (3, 5, 20, 30), (0, 0, 16, 70), (15, 1, 17, 60), (50, 0, 40, 70)]


@pytest.mark.parametrize(
  "options",
  [
    {"subsampling": 0},
    {"subsampling": 1},
    {"subsampling": 2},
    {"progressive": True},
    {"restart_marker_blocks": 3},
  ],
  ids=str,
)
@pytest.mark.parametrize("window", WINDOWS)
@again
def test_a_window_has_the_pixels_of_the_whole_picture(options, window, sound):
  for picture in (NOISE, NOISE[:, :, 0]):
    data = jpeg(picture, **options)
    top, left, height, width = window
    part, size = window_of(data, window, sound=sound)
    assert size == (90, 70)
    np.testing.assert_array_equal(
      part, images.decode(data, "x")[top : top + height, left : left + width]
    )


@by_sample
@again
def test_a_window_of_any_format_has_the_pixels_of_the_whole_picture(data, sound):
  whole = images.decode(data, "x")
  height, width = whole.shape[:2]
  part, size = window_of(data, (1, 2, height // 2, width // 2), sound=sound)
  assert size == (height, width)
  np.testing.assert_array_equal(part, whole[1 : 1 + height // 2, 2 : 2 + width // 2])


@again
def test_windows_of_photographs_have_the_pixels_of_the_whole_picture(sound):
  if not PHOTOS:
    pytest.skip("no photographs in ../shared/data/imagenet_photos")
  rng = np.random.default_rng(0)
  for photo in PHOTOS[::8]:
    data = photo.read_bytes()
    whole = images.decode(data, "x")
    top, left = rng.integers(0, whole.shape[0] // 2), rng.integers(0, whole.shape[1] // 2)
    height, width = whole.shape[0] // 3, whole.shape[1] // 3
    part, _ = window_of(data, (top, left, height, width), least=1000, sound=sound)
    np.testing.assert_array_equal(part, whole[top : top + height, left : left + width], photo)


def test_what_is_beside_a_window_is_decoded_once(monkeypatch):
  # Neither is it with nvImageCodec, which would not tell of damage within the window.
  monkeypatch.setattr(regions, "decode", lambda *_: None)
  data = bytearray(jpeg(NOISE, quality=90))
  whole = images.decode(bytes(data), "x")
  data[-600:-590] = b"\xff\x00" * 5  # bits that no code begins with, in the last rows
  damaged = bytes(data)
  with pytest.raises(images.ImageError):
    images.decode(damaged, "x")
  part, _ = window_of(damaged, (0, 0, 40, 70), sound=True)
  np.testing.assert_array_equal(part, whole[:40])
  for least in (100, 20):  # of a half the first time, too
    with pytest.raises(images.ImageError):
      window_of(damaged, (0, 0, 40, 70), least=least)
  with pytest.raises(images.ImageError):
    window_of(damaged, (40, 0, 50, 70), sound=True)


@pytest.mark.parametrize("cut", [2, 400, 3000])
@again
def test_a_missing_end_is_found_wherever_the_window_is(cut, sound):
  with pytest.raises(images.ImageError, match=r"(?i)premature end"):
    window_of(jpeg(NOISE, quality=90)[:-cut], (0, 0, 8, 8), sound=sound)


@pytest.mark.parametrize("least", [100, 20], ids=["full", "half"])
def test_only_a_jpeg_that_libjpeg_has_nothing_to_say_of_is_sound(least):
  def sound(data):
    return images.decode_window(data, "x", lambda *_: (0, 0, 40, 40), least=least).sound

  whole = jpeg(NOISE)
  stray = whole[:-2] + bytes(20) + whole[-2:]  # which libjpeg warns of, each time
  assert sound(whole)
  assert not sound(stray)
  assert not sound(images.encode_png(NOISE))


@again
def test_a_window_lies_in_the_picture_as_a_person_sees_it(sound):
  exif = Image.Exif()
  exif[0x0112] = 6
  data = jpeg(NOISE, exif=exif)
  part, size = window_of(data, (5, 30, 20, 40), sound=sound)
  assert size == (70, 90)
  np.testing.assert_array_equal(part, images.decode(data, "x")[5:25, 30:70])


@pytest.mark.parametrize("window", [(0, 0, 64, 64), (11, 7, 70, 61), (31, 33, 149, 131)])
def test_a_window_of_twice_the_size_asked_for_is_decoded_at_half(window):
  # Colours that change slowly: half the size holds the means of 2 x 2 pixels, as far as JPEG keeps
  # them.
  y, x = np.mgrid[:180, :165]
  picture = np.stack([y, x, (x + y) // 2], -1).astype(np.uint8)
  data = jpeg(picture, quality=95, subsampling=0)
  part, (top, left, height, width), _ = images.decode_window(data, "x", lambda *_: window, least=30)
  assert (height, width) == (window[2] / 2, window[3] / 2)
  assert 0 <= top < 1 and 0 <= left < 1
  assert part.shape[0] >= top + height and part.shape[1] >= left + width
  assert part.shape[0] < top + height + 1 and part.shape[1] < left + width + 1
  y, x = np.mgrid[: part.shape[0], : part.shape[1]]
  y, x = window[0] // 2 * 2 + 2 * y + 0.5, window[1] // 2 * 2 + 2 * x + 0.5
  assert np.abs(part - np.stack([y, x, (x + y) / 2], -1)).max() <= 4
  for sound in (False, True):
    same = images.decode_window(data, "x", lambda *_: window, least=30, sound=sound)
    np.testing.assert_array_equal(same.pixels, part)
    assert same.box == (top, left, height, width) and same.sound
  whole, _ = window_of(data, window, least=min(window[2:]) // 2 + 1)
  assert whole.shape[:2] == window[2:]


def test_a_window_of_a_picture_that_is_too_large_is_refused():
  with pytest.raises(images.ImageError, match="more than the 100 allowed"):
    window_of(jpeg(NOISE), (0, 0, 1, 1), max_pixels=100)


def test_webp_without_loss_comes_back_to_the_bit_and_with_loss_is_smaller():
  pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3)).astype(np.uint8)
  exact, small = images.encode_webp(pixels, None), images.encode_webp(pixels, 50)
  assert np.array_equal(images.decode(exact, "exact"), pixels)
  assert images.decode(small, "small").shape == pixels.shape
  assert len(small) < len(exact)
