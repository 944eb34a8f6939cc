"""Colour against Pillow's ImageEnhance, colorsys and scipy's Gaussian."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
import pytest
from scipy import ndimage

from imgclf.augment import colour

FACTORS = (0.0, 0.3, 1.0, 1.4, 2.5)


def make_images(batch=5, height=12, width=17, seed=0):
  rng = np.random.default_rng(seed)
  # Of low contrast, so that what is cut at 0 and 255 is not all.
  return rng.integers(60, 200, (batch, height, width, 3)).astype(np.uint8)


def make_keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


@pytest.mark.parametrize(
  ("change", "enhance"),
  [
    (colour.brightness, ImageEnhance.Brightness),
    (colour.contrast, ImageEnhance.Contrast),
    (colour.saturation, ImageEnhance.Color),
  ],
)
def test_changes_are_pillows_for_each_image_with_its_own_factor(change, enhance):
  images = make_images()
  result = np.asarray(change(images.astype(np.float32), jnp.array(FACTORS)))
  for image, factor, changed in zip(images, FACTORS, result):
    expected = np.asarray(enhance(Image.fromarray(image)).enhance(factor), np.float32)
    # Pillow rounds the grey (half a level, times |1 - factor|) and cuts the result to whole levels
    # (one).
    assert np.abs(changed - expected).max() <= 1.01 + 0.5 * abs(1 - factor)
  np.testing.assert_array_equal(result[2], images[2])


def test_grey_is_pillows():
  images = make_images()
  result = np.asarray(colour.luma(images.astype(np.float32)))[..., 0]
  expected = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in images])
  assert np.abs(result - expected).max() <= 0.51


def test_smoothing_is_pillows_filter():
  images = make_images()
  result = np.asarray(colour.smooth(images.astype(np.float32)))
  for image, smoothed in zip(images, result):
    expected = Image.fromarray(image).filter(ImageFilter.SMOOTH)
    assert np.abs(smoothed - np.asarray(expected)).max() <= 0.51
  tiny = images[:, :2, :2].astype(np.float32)  # without an inner pixel
  np.testing.assert_array_equal(colour.smooth(tiny), tiny)


@pytest.mark.parametrize("turn", [-0.5, -0.21, 0.0, 1 / 3, 0.5])
def test_hue_is_that_of_colorsys(turn):
  images = np.random.default_rng(0).integers(0, 256, (1, 8, 9, 3)).astype(np.float32)
  images[0, 0, :3] = [[0, 0, 0], [77, 77, 77], [255, 255, 255]]  # no hue
  result = np.asarray(colour.hue(jnp.asarray(images), jnp.array([turn])))[0]
  for pixel, turned in zip(images[0].reshape(-1, 3), result.reshape(-1, 3)):
    h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
    np.testing.assert_allclose(
      turned, np.multiply(colorsys.hsv_to_rgb((h + turn) % 1, s, v), 255), atol=1e-3
    )


def test_blur_is_scipys_gaussian():
  images, sigmas = make_images(3).astype(np.float32), (0.3, 1.1, 2.0)
  result = np.asarray(colour.blur(jnp.asarray(images), jnp.array(sigmas), reach=6))
  for image, sigma, blurred in zip(images, sigmas, result):
    expected = ndimage.gaussian_filter(image, (sigma, sigma, 0), radius=(6, 6, 0), mode="nearest")
    np.testing.assert_allclose(blurred, expected, atol=1e-3)


def test_jitter_draws_factors_from_their_ranges():
  grey = np.full((4000, 1, 1, 3), 100, np.float32)
  factors = (
    np.asarray(colour.random_jitter(grey, make_keys(4000), (0.4, 0, 0, 0)))[:, 0, 0, 0] / 100
  )
  assert factors.min() >= 0.6 - 1e-6 and factors.max() <= 1.4 + 1e-6
  counts, _ = np.histogram(factors, bins=10, range=(0.6, 1.4))
  assert np.abs(counts - 400).max() < 95  # five standard deviations of 19
  # More than 1 would make it negative: the lower end is 0, and a factor of up to 3 is cut at 255.
  wide = np.asarray(colour.random_jitter(grey, make_keys(4000), (2.0, 0, 0, 0)))
  assert 0 <= wide.min() < 1 and wide.max() == 255


def test_jitter_is_brightness_then_contrast_then_saturation_then_hue_with_draws_of_their_own():
  images, keys = jnp.asarray(make_images(2), jnp.float32), make_keys(2)
  together = colour.random_jitter(images, keys, (0.5, 0.5, 0.5, 0.5))
  for alone in ((0.5, 0, 0, 0), (0, 0.5, 0, 0), (0, 0, 0.5, 0), (0, 0, 0, 0.5)):
    images = colour.random_jitter(images, keys, alone)
  np.testing.assert_allclose(together, images, atol=1e-3)


@pytest.mark.parametrize("change", ["greyscale", "blur"])
def test_so_many_images_are_changed_as_the_probability_says(change):
  images = np.tile(make_images(1, 3, 3).astype(np.float32), (2000, 1, 1, 1))
  if change == "greyscale":
    result = np.asarray(colour.random_greyscale(images, make_keys(2000), 0.2))
    grey = (result == result[..., :1]).all(axis=(1, 2, 3))
    np.testing.assert_allclose(result[grey], np.tile(colour.luma(images[grey]), 3), atol=1e-3)
    changed = grey
  else:
    result = np.asarray(colour.random_blur(images, make_keys(2000), 0.2, (1.0, 2.0)))
    changed = (result != images).any(axis=(1, 2, 3))
  np.testing.assert_array_equal(result[~changed], images[~changed])
  # Five standard deviations of 2000 draws of 0.2: sqrt(2000 * 0.2 * 0.8) = 17.9 each.
  assert abs(changed.sum() - 400) < 90
