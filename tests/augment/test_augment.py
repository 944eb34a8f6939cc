import jax
import jax.numpy as jnp
import numpy as np

from imgclf import augment
from imgclf import config as config_lib
from imgclf.augment import geometry


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


# Flips.


def test_flips_are_those_that_are_handed_in():
  images, mirrored = make_images(), jnp.array([True, False, True, False])
  section = make_section(flip_alternate=True, mean=(0.0,) * 3, std=(1 / 255,) * 3)
  flipped = augment.train_transform(images, make_keys(), section, jnp.float32, None, mirrored)
  expected = np.stack([images[0, :, ::-1], images[1], images[2, :, ::-1], images[3]])
  np.testing.assert_allclose(flipped, expected, rtol=1e-6)


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
  monkeypatch.setattr(  # the sine of the angle in place of the image
    geometry,
    "warp",
    lambda images, matrices: jnp.zeros_like(images) + matrices[:, 1, 0][:, None, None, None],
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


# All operations together.

EVERYTHING = {
  "flip": True,
  "rotation": 20.0,
  "translate": 0.1,
  "scale": (0.8, 1.2),
  "shear": 5.0,
  "policy": "randaugment",
  **dict.fromkeys(("brightness", "contrast", "saturation"), 0.4),
  "hue": 0.1,
  "greyscale": 0.3,
  "blur": 0.5,
  "blur_sigma": (0.3, 0.6),
  "erasing": 0.5,
  "cutout": 4,
}


def test_with_everything_on_an_example_depends_on_its_key_alone():
  images, keys = make_images(9, 13, 17), make_keys(9)
  run = transform(make_section(**EVERYTHING))
  whole = np.asarray(run(images, keys))
  order = np.random.default_rng(1).permutation(9)
  np.testing.assert_array_equal(run(images[order], keys[order]), whole[order])
  # In a batch of another size XLA may add in another order: by no more than the last bits.
  np.testing.assert_allclose(run(images[2:4], keys[2:4]), whole[2:4], atol=2e-5)


def test_float64_draws_what_float32_draws_with_everything_on():
  images = make_images(16)
  # Without the policy, whose whole levels may round to either side of one half.
  section = make_section(**{**EVERYTHING, "policy": "none"}, mixup=0.5, cutmix=0.5)
  key, keys = jax.random.key(1), make_keys(16)

  def run(dtype):
    mix = augment.draw_mix(key, keys, (16, 16), section)
    return jax.jit(lambda i, k: augment.train_transform(i, k, section, dtype, mix))(images, keys)

  expected = np.asarray(run(jnp.float32))
  with jax.enable_x64(True):
    result = run(jnp.float64)
    assert result.dtype == jnp.float64
    np.testing.assert_allclose(result, expected, atol=1e-3)


def test_a_policy_makes_of_float64_the_levels_of_float32():
  images, section = make_images(32), make_section(policy="randaugment", policy_probability=1.0)
  expected = np.asarray(transform(section)(images, make_keys(32)))
  with jax.enable_x64(True):
    result = np.asarray(transform(section, jnp.float64)(images, make_keys(32)))
  # Levels are whole; the flip and the normalisation are all that is computed in the other type.
  np.testing.assert_allclose(result, expected, atol=1e-5)


def test_an_operation_more_leaves_the_draws_of_the_others_as_they_were():
  images, keys = make_images(8), make_keys(8)
  flat = {"mean": (0, 0, 0), "std": (1, 1, 1)}
  one = transform(make_section(rotation=20.0, **flat))(images, keys)
  both = transform(make_section(rotation=20.0, cutout=2, **flat))(images, keys)
  kept = np.asarray(both) != 0
  assert 0.9 < kept.mean() < 1
  np.testing.assert_array_equal(np.asarray(both)[kept], np.asarray(one)[kept])
