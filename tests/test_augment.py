import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

from imgclf import augment
from imgclf import config as config_lib


def make_section(**fields):
  config = config_lib.default_config()
  for name, value in fields.items():
    config.augment[name] = value
  config_lib.validate(config)
  return config.augment


def make_images(batch=4, height=16, width=16, seed=0):
  shape = (batch, height, width, 3)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def make_keys(batch=4, seed=0):
  return jax.random.split(jax.random.key(seed), batch)


def transform(section, dtype=jnp.float32):
  return jax.jit(lambda images, keys: augment.train_transform(images, keys, section, dtype))


# Shift.


def mirrored(place, size):
  """Reflection without repeating the edge: -1 -> 1, size -> size - 2."""
  place = abs(place)
  return place if place < size else 2 * (size - 1) - place


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
  for shifted in np.asarray(augment.random_shift(images, make_keys(count), padding)):
    expected[shifted.tobytes()] += 1
  # 200 expected of each, standard deviation 13.9: five of them either way.
  assert max(abs(n - count / 25) for n in expected.values()) < 70, expected.values()


def test_the_padded_crop_shifts_in_training_alone():
  images = make_images()
  section = make_section(
    crop="padded", crop_padding=3, flip=False, mean=(0.0,) * 3, std=(1 / 255,) * 3
  )
  keys = make_keys()
  # Where no pixel changes, none is rounded on its way through the normalisation.
  shifted = np.rint(np.asarray(transform(section)(images, keys))).astype(np.uint8)
  assert (shifted != images).any()
  for image, result in zip(images, shifted):
    padded = np.pad(image, ((3, 3), (3, 3), (0, 0)), mode="reflect")
    windows = [padded[top : top + 16, left : left + 16] for top in range(7) for left in range(7)]
    assert sum(np.array_equal(result, window) for window in windows) == 1
  np.testing.assert_allclose(
    augment.eval_transform(images, section, jnp.float32), images, rtol=1e-6
  )


# Normalisation.


def test_normalisation_is_the_formula_in_float64():
  images = make_images()
  mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
  expected = (images / 255 - np.array(mean)) / np.array(std)
  section = make_section(mean=mean, std=std, flip=False)
  np.testing.assert_allclose(
    augment.eval_transform(images, section, jnp.float32), expected, rtol=1e-5, atol=2e-6
  )
  with jax.enable_x64(True):
    result = augment.eval_transform(images, section, jnp.float64)
    assert result.dtype == jnp.float64
    np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-14)


def test_bfloat16_is_the_float32_result_rounded_once():
  images = make_images()
  section = make_section(rotation=20.0)
  exact = transform(section)(images, make_keys())
  result = transform(section, jnp.bfloat16)(images, make_keys())
  assert result.dtype == jnp.bfloat16
  # bfloat16 keeps 8 bits, so that rounding once is off by at most one part in 256.
  np.testing.assert_allclose(result.astype(jnp.float32), exact, rtol=2**-8, atol=1e-6)


def test_training_without_flip_and_rotation_is_the_evaluation_transform():
  images = make_images()
  section = make_section(flip=False, rotation=0.0)
  expected = jax.jit(lambda x: augment.eval_transform(x, section, jnp.float32))(images)
  np.testing.assert_array_equal(transform(section)(images, make_keys()), expected)


# Flip.


def test_flipped_images_are_exact_mirrors_and_the_others_untouched():
  images = make_images(batch=32).astype(np.float32)
  flipped = np.asarray(augment.random_flip(images, make_keys(32)))
  mirrored = [np.array_equal(f, i[:, ::-1]) for f, i in zip(flipped, images)]
  same = [np.array_equal(f, i) for f, i in zip(flipped, images)]
  assert all(m != s for m, s in zip(mirrored, same))
  assert any(mirrored) and any(same)


def test_about_half_of_the_images_are_flipped():
  images = np.tile(np.array([0, 1], np.float32)[None, None, :, None], (4000, 1, 1, 3))
  flips = np.asarray(augment.random_flip(images, make_keys(4000)))[:, 0, 0, 0]
  # Five standard deviations of a fair coin: sqrt(4000) / 2 = 31.6 each.
  assert abs(flips.sum() - 2000) < 158


# Rotation.


@pytest.mark.parametrize("angle", [-90.0, -33.0, -5.0, 0.0, 1.5, 12.0, 45.0, 170.0])
@pytest.mark.parametrize("size", [(24, 24), (31, 20)])
def test_rotation_is_pillows_in_the_interior(angle, size):
  height, width = size
  images = make_images(2, height, width)
  result = augment.rotate(images.astype(np.float32), jnp.full(2, angle))
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
  result = augment.rotate(images, jnp.full(2, 90.0 * quarters))
  np.testing.assert_allclose(result, np.rot90(images, quarters, axes=(1, 2)), atol=0.01)


def test_no_angle_is_no_change():
  images = make_images().astype(np.float32)
  np.testing.assert_array_equal(augment.rotate(images, jnp.zeros(4)), images)


def test_corners_are_filled_with_the_nearest_pixel_of_the_edge():
  images = np.full((1, 9, 9, 3), 200, np.float32)
  np.testing.assert_allclose(augment.rotate(images, jnp.full(1, 45.0)), images, atol=1e-3)
  # Dark on the left and bright on the right, turned by 45 degrees counter-clockwise: the lower left
  # corner was outside on the dark side, the upper right one on the bright side.
  images[:, :, :4] = 10
  rotated = np.asarray(augment.rotate(images, jnp.full(1, 45.0)))[0, :, :, 0]
  np.testing.assert_allclose([rotated[8, 0], rotated[0, 8]], [10, 200], atol=1e-3)


def test_each_image_is_turned_by_its_own_angle():
  images = make_images(3).astype(np.float32)
  result = np.asarray(augment.rotate(images, jnp.array([0.0, 90.0, 180.0])))
  for i in range(3):
    np.testing.assert_allclose(result[i], np.rot90(images[i], i), atol=0.01)


def drawn_angles(keys, degrees, monkeypatch):
  monkeypatch.setattr(augment, "rotate", lambda images, angles: angles)
  images = jnp.zeros((len(keys), 1, 1, 3))
  return np.asarray(augment.random_rotation(images, keys, degrees))


def test_angles_are_uniform_between_the_limits(monkeypatch):
  angles = drawn_angles(make_keys(4000), 30.0, monkeypatch)
  assert angles.min() >= -30 and angles.max() <= 30
  counts, _ = np.histogram(angles, bins=10, range=(-30, 30))
  # Five standard deviations of 4000 draws into a tenth: sqrt(4000 * 0.1 * 0.9) = 19 each.
  assert np.abs(counts - 400).max() < 95


def test_the_limit_of_the_angle_is_the_configs():
  images = make_images(32, 9, 9)
  keys = make_keys(32)
  small = transform(make_section(flip=False, rotation=1e-3))(images, keys)
  large = transform(make_section(flip=False, rotation=90.0))(images, keys)
  still = transform(make_section(flip=False))(images, keys)
  np.testing.assert_allclose(small, still, atol=0.01)
  assert np.abs(np.asarray(large - still)).max() > 1


# The whole transform.


def test_order_is_flip_then_rotation_then_normalisation():
  images, keys = make_images(16), make_keys(16)
  section = make_section(flip=True, rotation=25.0)
  flipped = transform(make_section(flip=True, mean=(0, 0, 0), std=(1, 1, 1)))(images, keys) * 255
  # With normalisation off, rotation alone, on images that a flip of the same keys has made.
  turned = transform(make_section(flip=False, rotation=25.0, mean=(0, 0, 0), std=(1, 1, 1)))(
    np.rint(flipped).astype(np.uint8), keys
  )
  expected = (np.asarray(turned) - np.array(section.mean)) / np.array(section.std)
  np.testing.assert_allclose(transform(section)(images, keys), expected, atol=1e-4)


def test_flips_and_angles_are_independent(monkeypatch):
  images = np.tile(np.array([0, 255], np.uint8)[None, None, :, None], (4000, 1, 1, 3))
  keys = make_keys(4000)
  flat = {"mean": (0, 0, 0), "std": (1, 1, 1)}
  flips = np.asarray(transform(make_section(**flat))(images, keys))[:, 0, 0, 0] > 0.5
  monkeypatch.setattr(
    augment, "rotate", lambda images, angles: jnp.zeros_like(images) + angles[:, None, None, None]
  )
  section = make_section(flip=False, rotation=30.0, **flat)
  positive = np.asarray(transform(section)(images, keys))[:, 0, 0, 0] > 0
  # Both of two fair coins: a quarter of 4000, five standard deviations of 27.4 each.
  assert abs((flips & positive).sum() - 1000) < 137


def test_an_example_depends_on_its_key_alone_to_the_bit():
  images, keys = make_images(11, 13, 17), make_keys(11)
  section = make_section(flip=True, rotation=40.0)
  whole = np.asarray(transform(section)(images, keys))
  order = np.random.default_rng(1).permutation(11)
  np.testing.assert_array_equal(transform(section)(images[order], keys[order]), whole[order])
  for part in (slice(0, 1), slice(3, 6), slice(4, 11), slice(10, 11)):
    np.testing.assert_array_equal(transform(section)(images[part], keys[part]), whole[part])
  assert not np.array_equal(transform(section)(images, make_keys(11, seed=1)), whole)


def test_float64_sees_the_pictures_of_float32():
  images = make_images(16)
  section = make_section(flip=True, rotation=40.0)
  expected = np.asarray(transform(section)(images, make_keys(16)))
  with jax.enable_x64(True):
    result = transform(section, jnp.float64)(images, make_keys(16))
    assert result.dtype == jnp.float64
    np.testing.assert_allclose(result, expected, atol=2e-4)


def test_steps_of_one_shape_are_compiled_once():
  section = make_section(flip=True, rotation=10.0)
  traces = []

  @jax.jit
  def step(images, keys):
    traces.append(images.shape)
    return augment.train_transform(images, keys, section, jnp.float32)

  for seed in range(3):
    step(make_images(seed=seed), make_keys(seed=seed))
  assert len(traces) == 1
