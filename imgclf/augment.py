"""Random image operations on the device, on whole batches, inside the compiled step.

An operation takes images `[batch, height, width, 3]` of floats from 0 to 255 and one key for each
example, and returns images of the same shape, type and range. What becomes of an example depends on
its pixels and its key alone, not on its neighbours nor on its place in the batch, so that a batch
may be cut over any number of devices. `train_transform` gives the order. This file knows no files,
labels or devices.

Keys are typed (`jax.random.key`) and must be of an implementation whose draws under `jax.vmap`
depend on each key by itself, as with the default, threefry; `rbg` does not promise it.
"""

from collections.abc import Mapping, Sequence
import math

import jax
import jax.numpy as jnp
from jax.scipy import ndimage

# Each operation draws from its own stream, so that switching one on leaves the others' draws as they
# were. The numbers are part of what makes a run repeatable: add new ones, never renumber.
_FLIP, _ROTATION, _SHIFT = range(3)


def train_transform(
  images: jax.Array, keys: jax.Array, augment_config: Mapping, dtype: jax.typing.DTypeLike
) -> jax.Array:
  """Shifts, flips, rotates and normalises a training batch: those operations, of these, that are on.

  Args:
    images: [batch, height, width, 3] uint8.
    keys: [batch] typed PRNG keys, one for each example and step.
    augment_config: the section `augment` of a validated config.
    dtype: type of the result. The computation is in float32, or in float64 where this is.

  Returns:
    [batch, height, width, 3] of `dtype`, normalised.
  """
  if augment_config["crop"] == "padded":
    images = random_shift(images, _stream(keys, _SHIFT), augment_config["crop_padding"])
  images = _to_float(images, dtype)
  if augment_config["flip"]:
    images = random_flip(images, _stream(keys, _FLIP))
  if augment_config["rotation"]:
    images = random_rotation(images, _stream(keys, _ROTATION), augment_config["rotation"])
  return normalize(images, augment_config["mean"], augment_config["std"], dtype)


def eval_transform(
  images: jax.Array, augment_config: Mapping, dtype: jax.typing.DTypeLike
) -> jax.Array:
  """Normalises a batch and does nothing random.

  Args:
    images: [batch, height, width, 3] uint8.
    augment_config: the section `augment` of a validated config.
    dtype: type of the result. The computation is in float32, or in float64 where this is.

  Returns:
    [batch, height, width, 3] of `dtype`, normalised.
  """
  images = _to_float(images, dtype)
  return normalize(images, augment_config["mean"], augment_config["std"], dtype)


def normalize(
  images: jax.Array, mean: Sequence[float], std: Sequence[float], dtype: jax.typing.DTypeLike
) -> jax.Array:
  """Returns (images / 255 - mean) / std in `dtype`.

  Args:
    images: [batch, height, width, 3] floats from 0 to 255; computed in their type.
    mean: of red, green and blue, for values from 0 to 1.
    std: of red, green and blue, for values from 0 to 1.
    dtype: type of the result.
  """
  centred = images / 255 - jnp.asarray(mean, images.dtype)
  return (centred / jnp.asarray(std, images.dtype)).astype(dtype)


def random_shift(images: jax.Array, keys: jax.Array, padding: int) -> jax.Array:
  """Shifts each image by up to `padding` pixels each way; what comes into view is its mirror image.

  All (2 * padding + 1)^2 shifts are equally likely (He et al. 2015, https://arxiv.org/abs/1512.03385, section
  4.2, with reflection for zeros). Equals padding by reflection and a random crop.

  Args:
    images: [batch, height, width, 3] of any type, which the result keeps.
    keys: [batch] typed PRNG keys.
    padding: pixels, less than the height and the width.
  """
  _, height, width, channels = images.shape
  padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")

  def window(image: jax.Array, key: jax.Array) -> jax.Array:
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1, jnp.int32)
    return jax.lax.dynamic_slice(image, (top, left, 0), (height, width, channels))

  return jax.vmap(window)(padded, keys)


def random_flip(images: jax.Array, keys: jax.Array) -> jax.Array:
  """Mirrors each image left and right with probability 1/2.

  Args:
    images: [batch, height, width, 3] floats.
    keys: [batch] typed PRNG keys.
  """
  # A float32 probability, or the draws would be others where 64 bits are the default.
  mirrored = jax.vmap(lambda key: jax.random.bernoulli(key, jnp.float32(0.5)))(keys)
  return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def random_rotation(images: jax.Array, keys: jax.Array, degrees: float) -> jax.Array:
  """Rotates each image as `rotate` does, by an angle drawn uniformly from [-degrees, degrees].

  Args:
    images: [batch, height, width, 3] floats.
    keys: [batch] typed PRNG keys.
    degrees: the greatest angle.
  """
  # Drawn in float32 whatever the images' type, so that a check in float64 sees the same angles.
  angles = jax.vmap(
    lambda key: jax.random.uniform(key, (), jnp.float32, minval=-degrees, maxval=degrees)
  )(keys)
  return rotate(images, angles)


def rotate(images: jax.Array, angles: jax.Array) -> jax.Array:
  """Rotates each image about its centre, by bilinear interpolation; the size stays.

  Corners that were outside the image take the nearest pixel of its edge. A fixed colour would fit
  either photographs (the mean) or drawings (their background); the edge is close to both.

  Args:
    images: [batch, height, width, 3] floats.
    angles: [batch] floats, degrees counter-clockwise as in Pillow's `Image.rotate`.
  """
  height, width = images.shape[1:3]
  radians = angles.astype(images.dtype) * (math.pi / 180)
  y = (jnp.arange(height, dtype=images.dtype) - (height - 1) / 2)[:, None]
  x = (jnp.arange(width, dtype=images.dtype) - (width - 1) / 2)[None, :]

  def rotate_one(image, angle):
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    # Where each pixel of the result comes from: the rotation backwards, with y pointing down.
    source = [sin * x + cos * y + (height - 1) / 2, cos * x - sin * y + (width - 1) / 2]
    return jax.vmap(
      lambda channel: ndimage.map_coordinates(channel, source, order=1, mode="nearest"), -1, -1
    )(image)

  return jax.vmap(rotate_one)(images, radians)


def _to_float(images: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
  # bfloat16 has too few bits for 256 levels: operations compute in float32 and round once, at the end.
  return images.astype(jnp.promote_types(dtype, jnp.float32))


def _stream(keys: jax.Array, operation: int) -> jax.Array:
  return jax.vmap(lambda key: jax.random.fold_in(key, operation))(keys)
