"""Odd and broken image files: each is read with the right pixels or refused with its reason, alike
in every mode.

tests/data/test_images.py holds the codecs against pixels worked out by hand; here whole files go
through folders, training, evaluation, prediction and the check of a data set.
"""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin
import pytest

import imgclf
from imgclf import config as configs
from imgclf.data import datasets, image_paths, images, inputs, loader
from imgclf.errors import UserError
from imgclf.modes import check

SIZE = 32


def encoded(image, format, **options):
  if isinstance(image, np.ndarray):
    image = Image.fromarray(image)
  out = io.BytesIO()
  image.save(out, format, **options)
  return out.getvalue()


def pillow(data):
  return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def scene(height=40, width=56):
  """Smooth colours: what JPEG keeps within a few levels."""
  y, x = np.mgrid[:height, :width]
  return np.stack([3 * x, 5 * y, 80 + x + y], -1).astype(np.uint8)


def chunk(kind, body):
  return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, bits, color, rows, before=b"", after=b"", interlaced=0):
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced))
    + before
    + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(row) for row in rows)))
    + after
    + chunk(b"IEND", b"")
  )


def adam7(rgb):
  """The rows of the seven passes of an interlaced PNG (PNG, third edition, 8.2)."""
  starts = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
  )
  for top, left, down, across in starts:
    part = rgb[top::down, left::across]
    yield from (row.tobytes() for row in part if row.size)


def segment(marker, body):
  return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def after_soi(data, *segments):
  return data[:2] + b"".join(segments) + data[2:]


def exif(orientation, more=b""):
  entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
  return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4) + more


def scans(count, width, height):
  """A grey progressive JPEG: one scan of the mean levels, which are 128, and `count` scans of
  nothing more."""
  blocks = -(-width // 8) * -(-height // 8)
  tables = segment(0xDB, b"\0" + b"\1" * 64)
  tables += segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")
  tables += segment(0xC4, b"\0" + bytes([1] + [0] * 15) + b"\0")  # code 0: no difference
  tables += segment(
    0xC4, b"\x10" + bytes([1, 1] + [0] * 14) + b"\xe0\0"
  )  # 0: 2**14 blocks and more, 10: one

  def bits(text):
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")

  means = segment(0xDA, b"\1\1\0\0\0\0") + bits("0" * blocks)
  ends, left = "", blocks
  while left:
    run = min(left, 2**15 - 1) if left >= 2**14 else 1
    ends += f"0{run - 2**14:014b}" if run > 1 else "10"
    left -= run
  return (
    b"\xff\xd8"
    + tables
    + means
    + (segment(0xDA, b"\1\1\0\1\x3f\0") + bits(ends)) * count
    + b"\xff\xd9"
  )


def bmp(width, height, bits, body, compression=0, palette=b"", masks=b""):
  start = 54 + len(masks) + len(palette)
  sizes = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
  return (
    b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + sizes + masks + palette + body
  )


# 16 x 16, the level at column x and row y being 5 x + 3 y: what libjpeg-turbo 3 writes with
# arith_code set.
ARITHMETIC = bytes.fromhex(
  "ffd8ffe000104a46494600010100000100010000ffdb004300080606070605080707070909080a0c140d0c0b0b0c1912"
  "130f141d1a1f1e1d1a1c1c20242e2720222c231c1c2837292c30313434341f27393d38323c2e333432ffc9000b080010"
  "001001011100ffcc000600101005ffda0008010100003f00ff00cf86861ac63c6d85042e3812da5e6bc0ffd9"
)  # fmt: skip
GRADIENT = np.stack([np.add.outer(3 * np.arange(16), 5 * np.arange(16)).astype(np.uint8)] * 3, -1)

RGB = scene()
JPEG = encoded(RGB, "JPEG", quality=95, subsampling=0)
PNG = encoded(RGB, "PNG")
RED, GREEN = np.array([[(255, 0, 0)]], np.uint8), np.array([[(0, 255, 0)]], np.uint8)
SIX = np.array([[[10], [20], [30]], [[40], [50], [60]]], np.uint8).repeat(3, 2)
GREYS = bytes(v for i in range(256) for v in (i, i, i, 0))
CMYK = Image.fromarray(RGB).convert("CMYK")


def ycck():
  data = encoded(CMYK, "JPEG", subsampling=0)
  transform = data.index(b"Adobe") + 11
  return data[:transform] + b"\2" + data[transform + 1 :]


def moving(format, **options):
  """Red, then green, 40 x 40."""
  frames = [Image.fromarray(color.repeat(40, 0).repeat(40, 1)) for color in (RED, GREEN)]
  return encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)


def beyond_the_screen():
  data = bytearray(encoded(Image.fromarray(RGB).quantize(16), "GIF"))
  data[6:10] = struct.pack("<HH", 1, 1)
  return bytes(data)


def stored_for(orientation):
  """SIX in blocks of 16 pixels, as a camera stores what is shown so for the value of the tag."""
  upright = np.kron(SIX, np.ones((16, 16, 1), np.uint8))
  turned = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),  # shown after a quarter turn clockwise
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
  }
  return encoded(np.ascontiguousarray(turned[orientation](upright)), "PNG", exif=exif(orientation))


PALETTE = chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255])) + chunk(b"tRNS", b"\0")
BOMB = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(1 << 20), 9)) * 50
TEXTS = chunk(b"zTXt", b"p\0\0" + zlib.compress(bytes(1 << 20), 9)) * 100
LONG = np.arange(5000, dtype=np.uint16).astype(np.uint8)[None, :, None].repeat(3, 2)

# name -> (file, the pixels by hand or by Pillow, how many levels may be between)
READABLE = {
  "cmyk.jpg": (encoded(CMYK, "JPEG"), pillow(encoded(CMYK, "JPEG")), 2),
  "ycck.jpg": (ycck(), pillow(ycck()), 3),
  "adobe-rgb.jpg": (encoded(RGB, "JPEG", keep_rgb=True, quality=95), RGB, 6),
  "progressive.jpg": (encoded(RGB, "JPEG", progressive=True, quality=95, subsampling=0), RGB, 6),
  "restarts.jpg": (
    encoded(RGB, "JPEG", quality=95, subsampling=0, restart_marker_blocks=1),
    RGB,
    6,
  ),
  "quarter-colour.jpg": (
    encoded(RGB, "JPEG", subsampling="4:2:0"),
    pillow(encoded(RGB, "JPEG", subsampling="4:2:0")),
    2,
  ),
  "grey.jpg": (encoded(np.full((9, 9), 77, np.uint8), "JPEG"), np.full((9, 9, 3), 77), 1),
  "arithmetic.jpg": (ARITHMETIC, GRADIENT, 6),
  "24-scans.jpg": (scans(23, 64, 64), np.full((64, 64, 3), 128), 0),
  "thumbnail.jpg": (after_soi(JPEG, segment(0xE1, b"Exif\0\0" + exif(1, JPEG))), RGB, 6),
  "garbage-after.jpg": (JPEG + b"\xff\xd8\xff\xda more" * 9, RGB, 6),
  "second-picture.jpg": (JPEG + encoded(255 - RGB, "JPEG"), RGB, 6),
  "film-after.jpg": (JPEG + b"ftypmp42" + b"\xff\xda\0\2" * 5000, RGB, 6),
  "comments.jpg": (after_soi(JPEG, segment(0xFE, b"a comment") * 3000), RGB, 6),
  "exif-in-parts.jpg": (
    after_soi(encoded(CMYK, "JPEG"), segment(0xE1, b"Exif\0\0" + bytes(9999)) * 300),
    pillow(encoded(CMYK, "JPEG")),
    2,
  ),
  # A frame of Motion JPEG leaves the standard's tables out.
  "no-tables.jpg": (JPEG.replace(b"\xff\xc4", b"\xff\xfe"), RGB, 6),
  "fill-bytes.jpg": (after_soi(JPEG, b"\xff" * 9999), RGB, 6),
  "16-bit.png": (
    encoded((np.arange(40 * 56).reshape(40, 56) * 29).astype(np.uint16), "PNG"),
    ((np.arange(40 * 56).reshape(40, 56, 1) * 29) / 257).round().repeat(3, 2),
    0,
  ),
  "1-bit.png": (png(8, 1, 1, 0, [b"\x0f"]), np.array([[[0] * 3] * 4 + [[255] * 3] * 4]), 0),
  "palette-with-transparency.png": (
    png(2, 1, 8, 3, [b"\0\1"], PALETTE),
    np.array([[(255, 255, 255), (0, 0, 255)]]),
    0,
  ),
  "interlaced.png": (png(56, 40, 8, 2, adam7(RGB), interlaced=1), RGB, 0),
  "moving.png": (moving("PNG"), RED, 0),
  "profile-bomb.png": (png(3, 2, 8, 2, [row.tobytes() for row in SIX], BOMB), SIX, 0),
  "text-bomb.png": (png(3, 2, 8, 2, [row.tobytes() for row in SIX], after=TEXTS), SIX, 0),
  "wrong-checksum-of-a-text.png": (
    png(3, 2, 8, 2, [row.tobytes() for row in SIX], chunk(b"tEXt", b"a\0b")[:-1] + b"?"),
    SIX,
    0,
  ),
  "stream-too-long.png": (png(3, 2, 8, 2, [row.tobytes() for row in SIX] * 999), SIX, 0),
  "empty-chunks.png": (
    png(3, 2, 8, 2, [row.tobytes() for row in SIX], chunk(b"IDAT", b"") * 999),
    SIX,
    0,
  ),
  "1x1.png": (encoded(RED, "PNG"), RED, 0),
  "5000x1.png": (encoded(LONG, "PNG"), LONG, 0),
  "1x5000.bmp": (encoded(LONG.swapaxes(0, 1).copy(), "BMP"), LONG.swapaxes(0, 1), 0),
  "garbage-after.png": (PNG + b"more", RGB, 0),
  "moving.webp": (moving("WEBP", lossless=True), RED, 0),
  "moving.gif": (moving("GIF"), RED, 0),
  "countless-frames.gif": (
    moving("GIF")[:-1] + b"!\xf9\4\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0" * 3000 + b";",
    RED,
    0,
  ),
  "frame-beyond-the-screen.gif": (
    beyond_the_screen(),
    np.asarray(Image.fromarray(RGB).quantize(16).convert("RGB")),
    0,
  ),
  # Runs: two of 7, one of 9, end of line; then three as they are, padded, end of picture. Rows from
  # the bottom.
  "runs.bmp": (
    bmp(3, 2, 8, b"\2\7\1\x09\0\0\0\3\1\2\3\0\0\1", 1, GREYS),
    np.array([[[1], [2], [3]], [[7], [7], [9]]]).repeat(3, 2),
    0,
  ),
  "top-down.bmp": (
    bmp(3, -2, 24, b"".join(row.tobytes() + bytes(3) for row in SIX)),
    SIX,
    0,
  ),
  "16-bit.bmp": (
    bmp(2, 1, 16, struct.pack("<2H", 0xF800, 0x07E0), 3, masks=struct.pack("<3I", 0xF800, 0x07E0, 0x1F)),
    np.array([[(255, 0, 0), (0, 255, 0)]]),
    0,
  ),
  "really-png.jpg": (PNG, RGB, 0),
  "really-jpeg.GIF": (JPEG, RGB, 6),
  **{
    f"orientation-{value}.png": (stored_for(value), np.kron(SIX, np.ones((16, 16, 1))), 0)
    for value in range(1, 9)
  },
}  # fmt: skip

NAMES = [
  *("line\nbreak.png", "escape\x1b[2J.png", "\U0001f98a.png", "-rf.png", "--help.png", " .png"),
  *(
    "a,b.png",
    'quo"te.png',
    "it's.png",
    "$(touch x).png",
    "%s%n.png",
    "train[0].png",
    "\u202e.png",
  ),
  *(os.fsdecode(b"not-utf-8-\xff.png"), "e\u0301.png", "x" * 251 + ".png", "tab\t.png", "CON.png"),
]
for place, name in enumerate(NAMES):
  color = np.array([[(place, 99, 7)]], np.uint8)
  READABLE[name] = (encoded(color, "PNG"), color, 0)


def patched(data, at, value):
  return data[:at] + value + data[at + len(value) :]


# name -> (file, words of the reason)
UNREADABLE = {
  "empty.jpg": (b"", "it is empty"),
  "text.png": (b"hello, this is no image\n", "unlike JPEG"),
  "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "<!DOCTYPE"),
  "zeros.jpg": (bytes(4096), "unlike JPEG"),
  "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unlike JPEG"),
  "really-tiff.jpg": (encoded(RGB, "TIFF"), "unlike JPEG"),
  "really-zip.jpg": (b"PK\3\4" + bytes(99), "unlike JPEG"),
  "really-avif.jpg": (b"\0\0\0\x1cftypavif" + bytes(99), "unlike JPEG"),
  "really-wave.webp": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(99), "not WebP"),
  **{f"cut-at-{cut}.jpg": (JPEG[:cut], "") for cut in (2, 3, 20, 200, len(JPEG) // 2, len(JPEG) - 2)},
  **{f"cut-at-{cut}.png": (PNG[:cut], "truncated") for cut in (9, 33, len(PNG) // 2, len(PNG) - 1)},
  **{f"cut-at-{cut}.webp": (moving("WEBP")[:cut], "") for cut in (13, 40, len(moving("WEBP")) - 9)},
  **{f"cut-at-{cut}.gif": (moving("GIF")[:cut], "truncated") for cut in (9, 14, len(moving("GIF")) - 1)},
  **{f"cut-at-{cut}.bmp": (encoded(RGB, "BMP")[:cut], "") for cut in (9, 30, 60, 3000)},
  "12-bit.jpg": (patched(JPEG, JPEG.index(b"\xff\xc0") + 4, b"\x0c"), ""),
  "no-scan.jpg": (JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9", "truncated"),
  "3000-scans.jpg": (scans(3000, 2000, 2000), "more than 24 times the 100000000 allowed"),
  "wrong-checksum.png": (patched(PNG, PNG.index(b"IDAT") + 9, b"????"), "checksum of its IDAT"),
  "no-pixels.png": (png(3, 2, 8, 2, []), ""),
  "no-end.png": (PNG[:-12], "truncated"),
  "two-sizes.png": (
    png(3, 2, 8, 2, [row.tobytes() for row in SIX], chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))),
    "disagree about its size",
  ),
  "countless-chunks.png": (png(3, 2, 8, 2, [], chunk(b"tEXt", b"") * 70_000), "segments, chunks or blocks"),
  "no-frame.gif": (b"GIF89a\1\0\1\0\0\0\0;", ""),
  "countless-blocks.gif": (b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1a" * 80_000 + b"\0;", "chunks or blocks"),
  "huge.png": (png(60_000, 60_000, 8, 2, []), "60000 x 60000 pixels, more than the 100000000"),
  "huge.gif": (b"GIF89a\xff\xff\xff\xff\0\0\0;", "65535 x 65535 pixels"),
  "huge-runs.bmp": (bmp(5000, 5000, 8, b"\0\1", 1, GREYS), "more than 24 times"),
  "no-width.bmp": (bmp(0, 9, 24, b""), "0 x 9"),
  "unknown-depth.bmp": (bmp(9, 9, 7, bytes(999)), ""),
  "damaged.webp": (patched(moving("WEBP"), 60, bytes(30)), ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
  """A folder set: the readable files to train on, a few to validate on, the unreadable ones to test
  on."""
  root = tmp_path_factory.mktemp("set")
  kinds = (("train", {name: data for name, (data, *_) in READABLE.items()}),)
  kinds += (("test", {name: data for name, (data, _) in UNREADABLE.items()}),)
  kinds += (("validation", {"0.png": PNG, "1.png": encoded(255 - RGB, "PNG")}),)
  for split, contents in kinds:
    for place, (name, data) in enumerate(contents.items()):
      folder = root / split / ("cat", "dog")[place % 2]
      folder.mkdir(parents=True, exist_ok=True)
      (folder / name).write_bytes(data)
  return root


@pytest.fixture(scope="module")
def config(root):
  config = imgclf.default_config()
  config.dataset.name = f"folder:{root}"
  config.dataset.image_size = SIZE
  config.dataset.threads = 2
  config.augment.crop = "center"
  config.model.name = "lenet5"
  config.train.batch_size = len(READABLE)
  config.eval.bad_images = "wrong"
  return configs.resolve(config)


@pytest.fixture(scope="module")
def source(config):
  return datasets.open(config["dataset"])


def test_there_are_enough_of_them():
  assert len(READABLE) - len(NAMES) > 40 and len(UNREADABLE) > 35


@pytest.mark.parametrize("name", READABLE, ids=ascii)
def test_an_odd_file_has_the_right_pixels(name):
  data, expected, tolerance = READABLE[name]
  if name.startswith("moving") or name.startswith("countless"):
    expected = expected.repeat(40, 0).repeat(40, 1)
  pixels = images.decode(data, name).astype(int)
  assert pixels.shape == expected.shape
  assert np.abs(pixels - expected).max() <= tolerance


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_broken_file_is_refused_with_its_reason(name):
  data, words = UNREADABLE[name]
  with pytest.raises(images.ImageError) as caught:
    images.decode(data, name)
  message = str(caught.value)
  assert message.startswith(f"{name}: cannot be decoded as an image (") and "\n" not in message
  assert words in message


def test_training_evaluation_and_prediction_see_the_same_pixels(root, config, source):
  records, size = source.records("train"), len(READABLE)
  assert len(records) == size
  evaluated = loader.eval_batches(records, config, size)[0]
  assert evaluated["mask"].all()
  names = [source.sources["train"].name(i) for i in range(size)]
  assert {os.path.basename(name) for name in names} == set(READABLE)
  shown = dict(zip(names, evaluated["image"]))

  given = inputs.of_files(image_paths.find([str(root / "train")]), config["dataset"])
  predicted = loader.eval_batches(given, config, size, on_error=given.refuse)[0]
  assert predicted["mask"].all() and given.errors == {}
  assert set(given.names) == set(names)
  for path, image in zip(given.names, predicted["image"]):
    np.testing.assert_array_equal(image, shown[path], ascii(path))

  # An epoch shows every example once, in an order of its own.
  trained = loader.train_batches(records, config)[0]

  def multiset(batch):
    return sorted(
      (int(label), image.tobytes()) for label, image in zip(batch["label"], batch["image"])
    )

  assert multiset(trained) == multiset(evaluated)


def test_prediction_gives_every_broken_file_its_reason(root, config):
  given = inputs.of_files(image_paths.find([str(root / "test")]), config["dataset"])
  batch = loader.eval_batches(given, config, len(UNREADABLE), on_error=given.refuse)[0]
  assert not batch["mask"].any() and not batch["image"].any()
  assert len(given.errors) == len(UNREADABLE)
  for place, path in enumerate(given.names):
    assert UNREADABLE[os.path.basename(path)][1] in given.errors[place]


def test_the_check_reports_exactly_the_unreadable_ones(root, config, capsys):
  report = check.run(config)
  told = {os.path.basename(row["name"]): row["reason"] for row in report["unreadable"]}
  assert set(told) == set(UNREADABLE)
  for name, reason in told.items():
    assert UNREADABLE[name][1] in reason and name not in reason
  assert {row["part"] for row in report["unreadable"]} == {"test"}
  assert report["train"]["images"] == len(READABLE)
  named = {os.path.basename(row["name"]): row["format"] for row in report["misnamed"]}
  assert named == {"really-png.jpg": "PNG", "really-jpeg.GIF": "JPEG"}
  assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


def test_the_check_says_that_they_would_stop_an_evaluation(config):
  strict = configs.ConfigDict(config)
  strict.eval.bad_images = "error"
  with pytest.raises(UserError, match=f"test: images that can't be decoded: {len(UNREADABLE)}"):
    check.run(strict, quiet=True)


def test_no_profile_or_text_is_unpacked_on_the_way_to_the_pixels(monkeypatch):
  def refuse(*args):
    raise AssertionError("it was unpacked")

  for kind in ("iCCP", "zTXt", "tEXt"):
    monkeypatch.setattr(PngImagePlugin.PngStream, f"chunk_{kind}", refuse)
  for name in ("profile-bomb.png", "text-bomb.png", "wrong-checksum-of-a-text.png"):
    np.testing.assert_array_equal(images.decode(READABLE[name][0], name), SIX)


@pytest.mark.parametrize(("count", "side"), [(599, 2000), (23, 10_000)])
def test_the_last_number_of_scans_that_is_allowed(count, side):
  # 24 passes over 100 million pixels, or 600 over 4 million.
  head = images.header(scans(count, side, side), "x")
  assert head.passes == count + 1 and head.work == 24 * 100_000_000
  with pytest.raises(images.ImageError, match="more than 24 times"):
    images.decode(scans(count + 1, side, side), "x")


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_what_ordinary_encoders_write_is_far_from_the_bound(mode, progressive):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
  data = encoded(Image.fromarray(noise).convert(mode), "JPEG", progressive=progressive, quality=100)
  # libjpeg's own scripts: 6 scans for one component, 10 for three, 18 for four.
  expected = {"L": 6, "RGB": 10, "CMYK": 18}[mode] if progressive else 1
  assert images.header(data, "x").passes == expected < images.MAX_PASSES
