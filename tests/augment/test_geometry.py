"""Flips and warps against numpy and Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from imgclf.augment import geometry


def make_images(batch=4, height=16, width=16, seed=0):
  shape = (batch, height, width, 3)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def make_keys(batch=4, seed=0):
  return jax.random.split(jax.random.key(seed), batch)


# Flip.


def test_flipped_images_are_exact_mirrors_and_the_others_untouched():
  images = make_images(batch=32).astype(np.float32)
  flipped = np.asarray(geometry.random_flip(images, make_keys(32)))
  mirrored = [np.array_equal(f, i[:, ::-1]) for f, i in zip(flipped, images)]
  same = [np.array_equal(f, i) for f, i in zip(flipped, images)]
  assert all(m != s for m, s in zip(mirrored, same))
  assert any(mirrored) and any(same)


def test_about_half_of_the_images_are_flipped():
  images = np.tile(np.array([0, 1], np.float32)[None, None, :, None], (4000, 1, 1, 3))
  flips = np.asarray(geometry.random_flip(images, make_keys(4000)))[:, 0, 0, 0]
  # Five standard deviations of a fair coin: sqrt(4000) / 2 = 31.6 each.
  assert abs(flips.sum() - 2000) < 158


# Rotation.


@pytest.mark.parametrize("angle", [-90.0, -33.0, -5.0, 0.0, 1.5, 12.0, 45.0, 170.0])
@pytest.mark.parametrize("size", [(24, 24), (31, 20)])
def test_rotation_is_pillows_in_the_interior(angle, size):
  height, width = size
  images = make_images(2, height, width)
  result = geometry.rotate(images.astype(np.float32), jnp.full(2, angle))
  y, x = np.mgrid[:height, :width]
  radius = np.hypot(y - (height - 1) / 2, x - (width - 1) / 2)
  interior = radius < min(height, width) / 2 - 1.5  # Pillow fills from the edge outwards
  assert interior.sum() > 150
  for image, rotated in zip(images, np.asarray(result)):
    expected = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
    difference = np.abs(rotated - expected.astype(np.float32))[interior]
    assert difference.max() <= 1.01  # Pillow cuts to whole numbers


@pytest.mark.parametrize("size", [15, 16])
@pytest.mark.parametrize("quarters", [-1, 1, 2])
def test_quarter_turns_are_numpys_to_the_last_pixel(size, quarters):
  images = make_images(2, size, size).astype(np.float32)
  result = geometry.rotate(images, jnp.full(2, 90.0 * quarters))
  np.testing.assert_allclose(result, np.rot90(images, quarters, axes=(1, 2)), atol=0.01)


def test_no_angle_is_no_change():
  images = make_images().astype(np.float32)
  np.testing.assert_array_equal(geometry.rotate(images, jnp.zeros(4)), images)


def test_corners_are_filled_with_the_nearest_pixel_of_the_edge():
  images = np.full((1, 9, 9, 3), 200, np.float32)
  np.testing.assert_allclose(geometry.rotate(images, jnp.full(1, 45.0)), images, atol=1e-3)
  # Dark on the left and bright on the right, turned by 45 degrees counter-clockwise: the lower left
  # corner was outside on the dark side, the upper right one on the bright side.
  images[:, :, :4] = 10
  rotated = np.asarray(geometry.rotate(images, jnp.full(1, 45.0)))[0, :, :, 0]
  np.testing.assert_allclose([rotated[8, 0], rotated[0, 8]], [10, 200], atol=1e-3)


def test_each_image_is_turned_by_its_own_angle():
  images = make_images(3).astype(np.float32)
  result = np.asarray(geometry.rotate(images, jnp.array([0.0, 90.0, 180.0])))
  for i in range(3):
    np.testing.assert_allclose(result[i], np.rot90(images[i], i), atol=0.01)


def test_angles_are_uniform_between_the_limits():
  angles = np.asarray(geometry.random_angles(make_keys(4000), 30.0))
  assert angles.min() >= -30 and angles.max() <= 30
  counts, _ = np.histogram(angles, bins=10, range=(-30, 30))
  # Five standard deviations of 4000 draws into a tenth: sqrt(4000 * 0.1 * 0.9) = 19 each.
  assert np.abs(counts - 400).max() < 95


# Affine maps.


def random_matrices(count, seed=0):
  rng = np.random.default_rng(seed)
  matrices = np.concatenate([np.eye(2), np.zeros((2, 1))], 1) + np.zeros((count, 1, 1))
  matrices[:, :, :2] += rng.uniform(-0.5, 0.5, (count, 2, 2))
  matrices[:, :, 2] = rng.uniform(-6, 6, (count, 2))
  return matrices.astype(np.float32)


def test_a_warp_with_a_fill_is_pillows_to_the_last_pixel():
  images, matrices = make_images(8, 23, 31), random_matrices(8)
  result = np.asarray(geometry.warp(images, jnp.asarray(matrices), (10, 200, 30)))
  for image, matrix, warped in zip(images, matrices, result):
    expected = Image.fromarray(image).transform(
      (31, 23),
      Image.Transform.AFFINE,
      matrix.ravel().tolist(),
      Image.Resampling.BILINEAR,
      fillcolor=(10, 200, 30),
    )
    assert np.abs(warped - np.asarray(expected)).max() <= 1.01  # Pillow cuts to whole numbers


def test_a_warp_without_a_fill_differs_only_where_the_place_is_outside():
  images, matrices = make_images(8, 23, 31), jnp.asarray(random_matrices(8))
  filled = np.asarray(geometry.warp(images, matrices, (-1, -1, -1)))
  edge = np.asarray(geometry.warp(images, matrices))
  outside = filled[..., 0] == -1
  assert 0.05 < outside.mean() < 0.6
  np.testing.assert_array_equal(edge[~outside], filled[~outside])
  assert edge.min() >= 0


def test_places_beyond_all_integers_take_the_edge():
  matrix = jnp.array([[[0, 0, 1e30], [0, 0, -1e30]]], jnp.float32)
  images = make_images(1, 5, 6)
  result = np.asarray(geometry.warp(images, matrix))
  np.testing.assert_array_equal(result, np.broadcast_to(images[:, :1, -1:], images.shape))


def test_the_matrix_of_an_affine_map_leads_back_from_a_point_that_was_moved_by_hand():
  # 10 x 20 pixels, centre (10, 5). The point (12, 6) is (2, 1) from it; sheared by 45 degrees (3,
  # 1); twice as large (6, 2); a quarter turn counter-clockwise with y pointing down (2, -6);
  # shifted by (0.1 x 20, 0.2 x 10).
  matrix = geometry.affine(
    jnp.array([90.0]),
    (10, 20),
    translate=jnp.array([[0.1, 0.2]]),
    scale=jnp.array([2.0]),
    shear=jnp.array([45.0]),
  )
  moved = np.array([10 + 2 + 2, 5 - 6 + 2, 1.0])
  np.testing.assert_allclose(np.asarray(matrix[0]) @ moved, [12, 6], atol=1e-5)


def test_draws_of_an_affine_map_fill_their_ranges_evenly():
  shifts, scales, shears = geometry.random_affine(
    make_keys(4000), translate=0.2, scale=(0.5, 1.5), shear=10.0
  )
  columns = (shifts[:, 0], shifts[:, 1], scales, shears)
  for draws, limits in zip(columns, [(-0.2, 0.2), (-0.2, 0.2), (0.5, 1.5), (-10, 10)]):
    assert limits[0] <= np.min(draws) and np.max(draws) <= limits[1]
    counts, _ = np.histogram(draws, bins=10, range=limits)
    assert np.abs(counts - 400).max() < 95  # five standard deviations of 19
  correlations = np.corrcoef(np.stack(columns))
  assert np.abs(correlations - np.eye(4)).max() < 0.08  # five of 1 / sqrt(4000)


def mirrored(place, size):
  """Reflection without repeating the edge: -1 -> 1, size -> size - 2."""
  place = abs(place)
  return place if place < size else 2 * (size - 1) - place


def test_shifts_are_the_same_where_64_bits_are_the_default():
  images = make_images(8, 6, 7)
  expected = np.asarray(geometry.random_shift(images, make_keys(8), 2))
  assert len({image.tobytes() for image in expected}) > 4
  with jax.enable_x64(True):
    shifted = np.asarray(geometry.random_shift(jnp.asarray(images), make_keys(8), 2))
  np.testing.assert_array_equal(shifted, expected)


def test_every_shift_of_the_mirrored_image_is_equally_likely():
  size, padding, count = 5, 2, 5000
  image = make_images(1, size, size)[0]
  expected = {}
  for down in range(-padding, padding + 1):
    for right in range(-padding, padding + 1):
      rows = [mirrored(i + down, size) for i in range(size)]
      columns = [mirrored(i + right, size) for i in range(size)]
      expected[image[rows][:, columns].tobytes()] = 0
  assert len(expected) == 25 and image.tobytes() in expected
  images = np.broadcast_to(image, (count, *image.shape))
  for shifted in np.asarray(geometry.random_shift(images, make_keys(count), padding)):
    expected[shifted.tobytes()] += 1
  # 200 expected of each, standard deviation 13.9: five of them either way.
  assert max(abs(n - count / 25) for n in expected.values()) < 70, expected.values()
