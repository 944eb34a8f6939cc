"""Resizes against Pillow's of the whole image; random crops against their distributions."""

import math
from pathlib import Path

import numpy as np
from PIL import Image
import pytest

from imgclf.data import crops

PHOTOS = sorted((Path(__file__).parents[3] / "shared" / "data" / "imagenet_photos").glob("*/*.jpg"))
FILTERS = {
  "bilinear": Image.Resampling.BILINEAR,
  "bicubic": Image.Resampling.BICUBIC,
  "lanczos": Image.Resampling.LANCZOS,
}
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def noise(height, width, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def whole(image, size, crop_fraction, interpolation):
  """Pillow's resize of the whole image, and then the crop."""
  height, width = image.shape[:2]
  short = round(size / crop_fraction)
  new_width = short if width <= height else round(width * short / height)
  new_height = short if height <= width else round(height * short / width)
  resized = Image.fromarray(image).resize((new_width, new_height), FILTERS[interpolation])
  left, top = (new_width - size) // 2, (new_height - size) // 2
  return np.asarray(resized.crop((left, top, left + size, top + size)))


def assert_image(pixels, size):
  assert pixels.shape == (size, size, 3) and pixels.dtype == np.uint8
  assert pixels.flags.c_contiguous


# Resize and centre crop.


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("crop_fraction", [1.0, 0.875, 0.5])
@pytest.mark.parametrize(
  "shape",
  [
    (97, 131),
    (300, 200),
    (64, 64),
    (20, 31),
    (33, 32),
    (1, 1),
    (1, 5000),
    (5000, 1),
    (3, 2000),
    (10, 160),
    (161, 10),
  ],
)
def test_the_eval_transform_is_pillows_resize_of_the_whole_then_the_crop(
  shape, crop_fraction, interpolation
):
  image = noise(*shape)
  size = 8 if max(shape) > 1000 else 32
  pixels = crops.resize_center_crop(
    image, size, crop_fraction=crop_fraction, interpolation=interpolation
  )
  assert_image(pixels, size)
  expected = whole(image, size, crop_fraction, interpolation)
  assert np.abs(pixels - expected.astype(int)).max() <= (max(shape) > 16 * min(shape))


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(("size", "crop_fraction"), [(224, 0.875), (96, 1.0)])
def test_the_eval_transform_is_pillows_on_photographs(size, crop_fraction, interpolation):
  if not PHOTOS:
    pytest.skip("no photographs in ../shared/data/imagenet_photos")
  for photo in PHOTOS[::10]:
    image = np.asarray(Image.open(photo).convert("RGB"))
    pixels = crops.resize_center_crop(
      image, size, crop_fraction=crop_fraction, interpolation=interpolation
    )
    assert_image(pixels, size)
    np.testing.assert_array_equal(pixels, whole(image, size, crop_fraction, interpolation), photo)


def test_a_line_of_pixels_is_cropped_to_the_middle_of_the_line():
  # 224 / 0.875 = 256, so a pixel becomes 256 wide and the middle 224 show the middle one alone, but
  # for the blend with its neighbours: half a pixel's width from its centre, 1/2 at most.
  image = np.zeros((1, 4999, 3), np.uint8)
  image[:, 2499] = 200
  pixels = crops.resize_center_crop(image, 224, crop_fraction=0.875, interpolation="bilinear")
  assert_image(pixels, 224)
  assert (pixels[:, 112] >= 199).all()
  assert pixels.min() >= 100


def test_one_pixel_fills_the_picture():
  image = np.array([[[10, 20, 30]]], np.uint8)
  for interpolation in FILTERS:
    pixels = crops.resize_center_crop(image, 6, crop_fraction=0.875, interpolation=interpolation)
    np.testing.assert_array_equal(pixels, np.broadcast_to(image, (6, 6, 3)))


@pytest.mark.parametrize("interpolation", FILTERS)
def test_an_image_of_the_right_size_is_not_resampled(interpolation):
  image = noise(32, 32)
  np.testing.assert_array_equal(
    crops.resize_center_crop(image, 32, crop_fraction=1.0, interpolation=interpolation), image
  )
  # 28 / 0.875 = 32: the crop alone, two pixels off each side
  np.testing.assert_array_equal(
    crops.resize_center_crop(image, 28, crop_fraction=0.875, interpolation=interpolation),
    image[2:30, 2:30],
  )


def test_a_picture_in_memory_of_any_layout_is_taken():
  image = noise(50, 40)
  turned = np.ascontiguousarray(image.swapaxes(0, 1)).swapaxes(0, 1)
  options = {"crop_fraction": 0.875, "interpolation": "bilinear"}
  np.testing.assert_array_equal(
    crops.resize_center_crop(turned, 16, **options), crops.resize_center_crop(image, 16, **options)
  )


# Random resized crop.


def windows(height, width, count, scale=SCALE, ratio=RATIO, seed=0):
  rng = np.random.default_rng(seed)
  return np.array(
    [crops.random_window(height, width, rng, scale=scale, ratio=ratio) for _ in range(count)]
  )


def test_windows_lie_inside_with_areas_and_shapes_in_range():
  top, left, height, width = windows(375, 500, 3000).T
  assert (top >= 0).all() and (left >= 0).all()
  assert (top + height <= 375).all() and (left + width <= 500).all()
  # Sides are rounded to whole pixels: half a pixel of some 100 or more moves a share by 1%.
  share = height * width / (375 * 500)
  assert share.min() >= 0.08 * 0.99 and share.max() <= 1
  shape = width / height
  assert shape.min() >= 3 / 4 * 0.99 and shape.max() <= 4 / 3 * 1.01
  # ... and the ranges are used: a tenth of each end is reached.
  assert share.min() < 0.09 and share.max() > 0.9
  assert shape.min() < 0.77 and shape.max() > 1.3


def test_areas_are_uniform_shapes_log_uniform_and_places_uniform():
  # With a fifth of the area at most every window fits, so nothing is drawn twice.
  count = 4000
  top, left, height, width = windows(1000, 1000, count, scale=(0.08, 0.2)).T
  uniform = {
    "share": (height * width / 1e6 - 0.08) / 0.12,
    "shape": (np.log(width / height) - math.log(3 / 4)) / (math.log(4 / 3) - math.log(3 / 4)),
    "top": (top + 0.5) / (1000 - height + 1),
    "left": (left + 0.5) / (1000 - width + 1),
  }
  for name, values in uniform.items():
    # Ten bins of 400 expected, standard deviation 19: five of them either way.
    bins = np.histogram(values.clip(0, 1), 10, (0, 1))[0]
    assert bins.sum() == count
    assert np.abs(bins - count / 10).max() < 95, (name, bins)
  correlation = np.corrcoef(list(uniform.values()))  # standard error 1 / sqrt(4000) = 0.016
  assert np.abs(correlation - np.eye(4)).max() < 0.08


@pytest.mark.parametrize(
  ("shape", "window"),
  [
    # No window of half the area fits: the widest of ratio 3/4 (10 / 13), or 4/3 (13 / 10), in the
    # centre.
    ((1000, 10), (493, 0, 13, 10)),
    ((10, 1000), (0, 493, 10, 13)),
    ((1, 5000), (0, 2499, 1, 1)),
  ],
)
def test_where_no_window_fits_it_is_the_largest_in_the_centre(shape, window):
  drawn = windows(*shape, 5, scale=(0.5, 1.0))
  np.testing.assert_array_equal(drawn, [window] * 5)


def test_a_fallback_in_range_is_the_whole_image():
  # A ratio of exactly 2 never fits a square whose whole area is asked for.
  window = windows(100, 100, 3, scale=(1.0, 1.0), ratio=(2.0, 2.0))
  np.testing.assert_array_equal(window, [(25, 0, 50, 100)] * 3)
  window = windows(101, 100, 3, scale=(1.0, 1.0), ratio=(0.5, 0.99))
  assert (window[:, 2:] == (101, 100)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 2000), (2, 2), (40, 60)])
def test_crops_of_any_image_have_the_size_asked_for(shape):
  image, rng = noise(*shape), np.random.default_rng(0)
  for interpolation in FILTERS:
    pixels = crops.random_resized_crop(
      image, rng, 24, scale=SCALE, ratio=RATIO, interpolation=interpolation
    )
    assert_image(pixels, 24)


@pytest.mark.parametrize("interpolation", FILTERS)
def test_a_crop_is_pillows_resize_of_its_window_alone(interpolation, monkeypatch):
  monkeypatch.setattr(crops, "cykooz_resizer", None)  # as where there is no wheel of it
  image = noise(60, 80)
  for seed in range(5):
    top, left, height, width = windows(60, 80, 1, seed=seed)[0]
    part = Image.fromarray(image).crop((left, top, left + width, top + height))
    np.testing.assert_array_equal(
      crops.random_resized_crop(
        image,
        np.random.default_rng(seed),
        24,
        scale=SCALE,
        ratio=RATIO,
        interpolation=interpolation,
      ),
      np.asarray(part.resize((24, 24), FILTERS[interpolation])),
    )


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("shape", [(60, 80), (24, 300), (10, 7), (24, 25), (1, 1)])
def test_a_window_resized_with_vector_instructions_is_nearly_pillows(
  interpolation, shape, monkeypatch
):
  assert crops.cykooz_resizer is not None
  part = noise(*shape)
  box = (0, 0, *shape)
  fast = crops.resize_window(part, box, 24, interpolation=interpolation)
  monkeypatch.setattr(crops, "cykooz_resizer", None)
  exact = crops.resize_window(part, box, 24, interpolation=interpolation)
  assert_image(fast, 24)
  difference = np.abs(fast - exact.astype(int))
  if interpolation == "bilinear":
    assert difference.max() <= 1
  # The others clip between their two directions, where noise has full contrast.
  assert difference.max() <= 40
  assert difference.mean() < 1


@pytest.mark.parametrize("fast", [True, False])
def test_a_window_between_pixels_is_taken_where_it_is(fast, monkeypatch):
  if not fast:
    monkeypatch.setattr(crops, "cykooz_resizer", None)
  # A ramp of 4 a column: half a pixel to the right is 2 more; ends where the ramp's edge is not
  # seen.
  part = np.broadcast_to((np.arange(60) * 4)[None, :, None], (60, 60, 3)).astype(np.uint8)
  pixels = crops.resize_window(part, (0, 4.5, 60, 48), 24, interpolation="bilinear")
  # Column c covers 4.5 + 2 c to 4.5 + 2 (c + 1); its centre, less half a pixel, is 5 + 2 c.
  expected = 4 * (5 + 2 * np.arange(24))
  assert np.abs(pixels[:, :, 0] - expected.astype(int)).max() <= 1


def test_the_same_generator_gives_the_same_crop_and_another_another():
  image = noise(60, 80)

  def crop(seed):
    rng = np.random.default_rng(seed)
    return crops.random_resized_crop(
      image, rng, 24, scale=SCALE, ratio=RATIO, interpolation="bilinear"
    )

  np.testing.assert_array_equal(crop(1), crop(1))
  assert (crop(1) != crop(2)).any()


def test_a_window_of_the_right_size_is_not_resampled():
  image = noise(24, 24)
  pixels = crops.random_resized_crop(
    image, np.random.default_rng(0), 24, scale=(1, 1), ratio=(1, 1), interpolation="lanczos"
  )
  np.testing.assert_array_equal(pixels, image)
