"""An opened Pillow image has the pixels of its file, whatever its mode; one made in memory those of
its mode."""

import io

import numpy as np
from PIL import Image, ImageFile, ImageOps
import pytest
from test_images import PHOTOS, chunk, encoded, png, scene

from imgclf.data import images
from imgclf.data.images import ImageError

SCENE = Image.fromarray(scene())
CUT_OUT = SCENE.convert("RGBA")
CUT_OUT.putalpha(Image.linear_gradient("L").resize(SCENE.size))


def turned(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return exif


FILES = {
  "JPEG": encoded(SCENE, "JPEG"),
  "grey JPEG": encoded(SCENE.convert("L"), "JPEG"),
  "CMYK JPEG": encoded(SCENE.convert("CMYK"), "JPEG"),
  "JPEG on its side": encoded(SCENE, "JPEG", exif=turned(6)),
  "PNG on its side": encoded(SCENE, "PNG", exif=turned(5)),
  "WebP on its side": encoded(SCENE, "WEBP", lossless=True, exif=turned(8)),
  "PNG with alpha": encoded(CUT_OUT, "PNG"),
  "grey PNG with alpha": encoded(CUT_OUT.convert("LA"), "PNG"),
  "WebP with alpha": encoded(CUT_OUT, "WEBP", lossless=True),
  "palette": encoded(SCENE.quantize(16), "PNG"),
  "palette with a transparent colour": encoded(SCENE.quantize(16), "PNG", transparency=3),
  "palette with alpha": encoded(SCENE.quantize(4), "PNG", transparency=bytes([0, 90, 180, 255])),
  "GIF with a transparent colour": encoded(SCENE.quantize(16), "GIF", transparency=3),
  "colour with a transparent one": encoded(SCENE, "PNG", transparency=(200, 40, 90)),
  "black and white": encoded(SCENE.convert("1"), "PNG"),
  "black and white, white transparent": encoded(SCENE.convert("1"), "PNG", transparency=1),
  "16 bits": png(2, 2, 16, 0, [bytes([1, 200, 90, 3]), bytes([255, 255, 128, 0])]),
  "16 bits with a transparent level": png(
    2, 1, 16, 0, [bytes([1, 200, 90, 3])], before=chunk(b"tRNS", bytes([1, 200]))
  ),
  "4 bits with a transparent level": png(
    4, 1, 4, 0, [bytes([0x3A, 0xA3])], before=chunk(b"tRNS", bytes([0, 3]))
  ),
  "BMP": encoded(SCENE, "BMP"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("background", [(255, 255, 255), (9, 80, 200)])
def test_an_opened_image_has_the_pixels_of_its_file(kind, background):
  data = FILES[kind]
  pixels = images.from_pillow(Image.open(io.BytesIO(data)), "x", background=background)
  expected = images.decode(data, "x", background=background)
  # The two round differently when they turn ink into light.
  np.testing.assert_allclose(pixels.astype(int), expected, atol="CMYK" in kind)
  assert pixels.flags.c_contiguous and pixels.flags.writeable


@pytest.mark.parametrize("kind", sorted(set(FILES) - {"4 bits with a transparent level"}))
def test_that_it_was_loaded_before_changes_nothing(kind):
  image = Image.open(io.BytesIO(FILES[kind]))
  image.load()
  first = images.from_pillow(image, "x")
  np.testing.assert_array_equal(images.from_pillow(image, "x"), first)
  np.testing.assert_allclose(
    first.astype(int), images.decode(FILES[kind], "x"), atol="CMYK" in kind
  )


def test_opened_photographs_have_the_pixels_of_their_files():
  if not PHOTOS:
    pytest.skip("no photographs in ../shared/data/imagenet_photos")
  for path in PHOTOS[::10]:
    with Image.open(path) as image:
      pixels = images.from_pillow(image, str(path))
    np.testing.assert_array_equal(pixels, images.decode(path.read_bytes(), str(path)), str(path))


def test_an_image_that_was_turned_upright_is_not_turned_again():
  upright = ImageOps.exif_transpose(Image.open(io.BytesIO(FILES["JPEG on its side"])))
  np.testing.assert_array_equal(images.from_pillow(upright, "x"), np.asarray(upright))


def test_what_is_transparent_lies_on_the_background():
  image = Image.new("RGBA", (1, 1), (100, 0, 255, 51))
  pixels = images.from_pillow(image, "x", background=(200, 100, 5))
  # A fifth of the one, four fifths of the other.
  assert pixels.tolist() == [[[180, 80, 55]]]
  multiplied = Image.new("RGBa", (1, 1), (20, 0, 51, 51))  # the same
  assert images.from_pillow(multiplied, "x", background=(200, 100, 5)).tolist() == pixels.tolist()


@pytest.mark.parametrize(
  "mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"]
)
def test_an_image_in_memory_of_any_mode_is_taken(mode):
  image = SCENE.convert("P" if mode == "PA" else mode).convert(mode)
  expected = image.convert("RGBA").convert("RGB") if "A" in mode else image.convert("RGB")
  np.testing.assert_array_equal(images.from_pillow(image, "x"), np.asarray(expected))


def test_grey_of_16_bits_is_scaled_and_not_cut():
  # 257 levels of 16 bits to each of 8: 514 / 257 = 2, 700 / 257 = 2.7.
  levels = np.array([[0, 514, 700, 65535]])
  for image in (
    Image.fromarray(levels.astype(np.uint16)),
    Image.fromarray(levels.astype(np.int32)),
  ):
    assert images.from_pillow(image, "x")[0, :, 0].tolist() == [0, 2, 3, 255]


def truncated(format):
  data = encoded(SCENE, format)
  return Image.open(io.BytesIO(data[: len(data) * 4 // 5]))


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: Image.new("F", (2, 2)), "its mode F has levels beyond 16 bits"),
    (lambda: Image.new("I", (2, 2), 65536), "its mode I has levels beyond 16 bits"),
    (lambda: Image.new("I", (2, 2), -1), "its mode I has levels beyond 16 bits"),
    (lambda: Image.new("RGB", (0, 5)), "it has 0 x 5 pixels"),
    (lambda: Image.new("RGB", (11, 10)), "it has 11 x 10 pixels, where 1 to 100 are allowed"),
    (lambda: truncated("JPEG"), "it has 56 x 40 pixels"),
  ],
)
def test_what_has_no_pixels_for_a_model_is_refused(make, words):
  with pytest.raises(ImageError) as refused:
    images.from_pillow(make(), "photo", max_pixels=100)
  message = str(refused.value)
  assert message.startswith("photo: cannot be decoded as an image (") and words in message


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF"])
def test_what_is_missing_of_an_opened_file_is_not_filled_in(format, monkeypatch):
  monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
  with pytest.raises(ImageError, match="truncated"):
    images.from_pillow(truncated(format), "x")
  assert ImageFile.LOAD_TRUNCATED_IMAGES
