"""Erased rectangles: their number, size, shape, place and filling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf.augment import erasing

SIZE = 40


def make_keys(count, seed=0):
  return jax.random.split(jax.random.key(seed), count)


def boxes(erased):
  """Top, left, height and width of the rectangle of each image that has one; fails where it is
  none."""
  found = []
  for image in erased:
    rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
    if len(rows):
      assert image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
      assert image.sum() == len(rows) * len(columns)
      found.append((rows[0], columns[0], len(rows), len(columns)))
  return np.array(found)


def erase(count, **options):
  options = {
    "probability": 1.0,
    "mode": "constant",
    "area": (0.1, 0.2),
    "ratio": (0.5, 2.0),
  } | options
  images = jnp.full((count, SIZE, SIZE, 3), 9.0)
  run = jax.jit(lambda images, keys: erasing.random_erasing(images, keys, **options))
  return np.asarray(run(images, make_keys(count)))


def test_rectangles_have_the_area_the_shape_and_every_place():
  result = erase(2000)
  assert set(np.unique(result)) == {0, 9}
  found = boxes(result[..., 0] == 0)
  assert len(found) == 2000
  top, left, height, width = found.T
  # Sides are rounded to whole pixels: up to half a pixel of some 12 each.
  assert (
    0.1 * 0.9 < (height * width / SIZE**2).min() and (height * width / SIZE**2).max() < 0.2 * 1.1
  )
  shape = np.log(height / width)
  assert np.abs(shape).max() < np.log(2) + 0.1
  # Uniform area and log-uniform shape: means, within five standard deviations of the mean of 2000.
  assert (height * width).mean() / SIZE**2 == pytest.approx(0.15, abs=0.0035)
  assert shape.mean() == pytest.approx(0, abs=0.045)
  for start, side in ((top, height), (left, width)):
    assert start.min() == 0 and (start + side).max() == SIZE
    assert (start / (SIZE - side)).mean() == pytest.approx(0.5, abs=0.035)


def test_so_many_images_are_erased_as_the_probability_says():
  result = erase(2000, probability=0.25)
  # Five standard deviations of 2000 draws of a quarter: 19.4 each.
  assert abs(len(boxes(result[..., 0] == 0)) - 500) < 97


def test_pixels_are_normal_noise_of_their_own():
  result = erase(200, mode="pixel")
  noise = result[result != 9]
  assert noise.size > 200 * 3 * 0.1 * SIZE**2 * 0.9
  assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(1, abs=0.02)
  assert len(np.unique(noise)) > 0.95 * noise.size


def test_a_rectangle_that_fits_in_no_attempt_is_none():
  assert (erase(50, area=(1.0, 1.0), ratio=(1.0, 1.0)) == 9).all()


def test_cutout_is_a_square_about_any_pixel_cut_at_the_edge():
  images = jnp.full((3000, 12, 12, 3), 9.0)
  result = np.asarray(jax.jit(lambda i, k: erasing.cutout(i, k, 4))(images, make_keys(3000)))
  top, left, height, width = boxes(result[..., 0] == 0).T
  # From 2 before the centre to 1 after it: 10 of 12 centres have all four rows or one less at an
  # end.
  assert height.max() == width.max() == 4 and height.min() == width.min() == 2
  # Centres 0 to 11 along each axis are alike, and give bottom edges 2 to 12 (12 for centres 10 and
  # 11).
  counts = np.bincount(top + height, minlength=13)[2:]
  expected = np.array([250] * 10 + [500])
  assert np.abs(counts - expected).max() < 110  # five standard deviations of at most 20.4
  assert np.corrcoef(top, left)[0, 1] == pytest.approx(0, abs=0.1)
