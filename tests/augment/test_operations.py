"""Operations of a batch in which each image has its own, against Pillow, image by image."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
import pytest

from imgclf.augment import operations

FILL = (124, 116, 104)


def moved(image, *matrix):
  return image.transform(
    image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILL
  )


def added(image, amount):
  return image.point(
    [min(255, level + amount) if level < 128 else level for level in range(256)] * 3
  )


PILLOW = {
  "identity": lambda image, value: image,
  "autocontrast": lambda image, value: ImageOps.autocontrast(image),
  "equalize": lambda image, value: ImageOps.equalize(image),
  "invert": lambda image, value: ImageOps.invert(image),
  "posterize": lambda image, value: ImageOps.posterize(image, int(value)),
  "solarize": ImageOps.solarize,
  "solarize_add": lambda image, value: added(image, int(value)),
  "brightness": lambda image, value: ImageEnhance.Brightness(image).enhance(value),
  "contrast": lambda image, value: ImageEnhance.Contrast(image).enhance(value),
  "saturation": lambda image, value: ImageEnhance.Color(image).enhance(value),
  "sharpness": lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
  "rotate": lambda image, value: image.rotate(value, Image.Resampling.BILINEAR, fillcolor=FILL),
  "shear_x": lambda image, value: moved(image, 1, value, 0, 0, 1, 0),
  "shear_y": lambda image, value: moved(image, 1, 0, 0, value, 1, 0),
  "translate_x": lambda image, value: moved(image, 1, 0, value, 0, 1, 0),
  "translate_y": lambda image, value: moved(image, 1, 0, 0, 0, 1, value),
}
# From mild to beyond what any policy draws; those of one operation are out of range for others.
VALUES = {
  **dict.fromkeys(("identity", "autocontrast", "equalize", "invert"), (0, -200)),
  "posterize": (1, 4, 8),
  "solarize": (0, 77, 256),
  "solarize_add": (0, 110),
  **dict.fromkeys(("brightness", "contrast", "saturation", "sharpness"), (0.01, 0.6, 1, 1.99)),
  "rotate": (-135, 21),
  "shear_x": (-0.99, 0.2),
  "shear_y": (-0.99, 0.2),
  "translate_x": (-100.8, 6),
  "translate_y": (-100.8, 6),
}


def every_operation():
  pairs = [(name, value) for name in operations.NAMES for value in VALUES[name]]
  images = np.random.default_rng(0).integers(30, 220, (len(pairs), 24, 31, 3)).astype(np.uint8)
  numbers = jnp.array([operations.NUMBER[name] for name, _ in pairs], jnp.int32)
  values = jnp.array([value for _, value in pairs], jnp.float32)
  return pairs, images, numbers, values


def test_each_image_gets_its_operation_as_pillow_does_it():
  pairs, images, numbers, values = every_operation()
  apply = jax.jit(operations.apply)
  result = np.asarray(apply(images, numbers, values, jnp.array(FILL, jnp.float32)))
  assert result.dtype == np.uint8
  for (name, value), image, changed in zip(pairs, images, result):
    expected = np.asarray(PILLOW[name](Image.fromarray(image), value)).astype(int)
    different = np.abs(changed - expected)
    # Pillow cuts to whole levels where this rounds; its rotation rounds the matrix, which moves the
    # outline.
    assert (different <= 1).mean() > (0.99 if name == "rotate" else 0.9999), (name, value)


@pytest.mark.parametrize("batch", [1, 5, 16, 37])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_only_who_wants_it_is_computed_a_sixteenth_at_a_time(batch, share):
  wanted = np.random.default_rng(batch).random(batch) < share
  asked = []

  def compute(rows):
    jax.debug.callback(lambda rows: asked.extend(rows.tolist()), rows)
    return jnp.stack([jnp.where(jnp.array(wanted)[rows], 10 * rows, -rows), rows], axis=1)

  otherwise = jnp.stack([-jnp.arange(batch), jnp.arange(batch)], axis=1)
  result = jax.jit(lambda: operations.where_wanted(jnp.array(wanted), compute, otherwise))()
  jax.effects_barrier()
  places = np.arange(batch)
  expected = np.stack([np.where(wanted, 10 * places, -places), places], axis=1)
  np.testing.assert_array_equal(result, expected)
  assert set(asked) >= set(np.flatnonzero(wanted))
  some = -(-batch // 16)
  assert len(asked) == -(-wanted.sum() // some) * some


def test_an_operation_that_changes_nothing_leaves_every_level():
  neutral = {"posterize": 8, "solarize": 256, "solarize_add": 0, "rotate": 0, "shear_x": 0}
  neutral |= dict.fromkeys(("brightness", "contrast", "saturation", "sharpness"), 1)
  images = np.random.default_rng(1).integers(0, 256, (len(neutral), 24, 31, 3)).astype(np.uint8)
  numbers = jnp.array([operations.NUMBER[name] for name in neutral], jnp.int32)
  values = jnp.array(list(neutral.values()), jnp.float32)
  fill = jnp.array(FILL, jnp.float32)
  np.testing.assert_array_equal(jax.jit(operations.apply)(images, numbers, values, fill), images)
