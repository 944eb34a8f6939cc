"""Point operations on 8-bit images as tables: what becomes of each of the 256 levels, in each
channel.

Each returns [batch, 3, 256] floats, whole numbers from 0 to 255, and is Pillow's ImageOps or
ImageEnhance operation of its name. A table costs 768 numbers an image, so that a batch in which
every image has another operation pays for all tables and for one lookup.
"""

import jax
import jax.numpy as jnp

_SHAPE = (-1, 3, 256)


def look_up(images: jax.Array, tables: jax.Array) -> jax.Array:
  """Replaces each level by its entry.

  Args:
    images: [batch, height, width, 3] uint8.
    tables: [batch, 3, 256].

  Returns:
    [batch, height, width, 3] of the tables' type.
  """
  offsets = jnp.arange(3) * 256

  def one(image, table):
    places = image.astype(jnp.int32) + offsets
    return table.reshape(-1).at[places].get(mode="promise_in_bounds")

  return jax.vmap(one)(images, tables)


def histograms(images: jax.Array) -> jax.Array:
  """Counts the levels of each channel.

  Args:
    images: [batch, height, width, 3] uint8.

  Returns:
    [batch, 3, 256] int32.
  """
  batch, height, width, _ = images.shape
  levels = images.reshape(batch, height * width, 3).swapaxes(1, 2)
  if jax.default_backend() == "cpu":
    places = jnp.arange(batch * 3)[:, None] * 256 + levels.reshape(batch * 3, -1)
    counts = jnp.zeros(batch * 3 * 256, jnp.int32)
    return counts.at[places].add(1, mode="promise_in_bounds").reshape(_SHAPE)
  # Atomic additions to so few addresses queue up on accelerators. A level is a high and a low half
  # of 4 bits, and the counts of all pairs are a matrix product of 0s and 1s, exact in float32 up to
  # 2^24 pixels.
  halves = jnp.arange(16, dtype=jnp.uint8)
  high = (levels[..., None] >> 4 == halves).astype(jnp.bfloat16)
  low = (levels[..., None] & 15 == halves).astype(jnp.bfloat16)
  counts = jnp.einsum("bcph,bcpl->bchl", high, low, preferred_element_type=jnp.float32)
  return counts.reshape(_SHAPE).astype(jnp.int32)


def identity(batch: int) -> jax.Array:
  """Every level stays."""
  return jnp.broadcast_to(jnp.arange(256, dtype=jnp.float32), (batch, 3, 256))


def invert(batch: int) -> jax.Array:
  """255 - level."""
  return 255 - identity(batch)


def posterize(bits: jax.Array) -> jax.Array:
  """Keeps the highest bits of each level.

  Args:
    bits: [batch] floats, whole numbers; those beyond 0 and 8 count as these.
  """
  # Cut, or the value of another operation would make an infinite table here, which not even a
  # factor of 0 undoes.
  step = jnp.exp2(8 - jnp.clip(bits, 0, 8))[:, None, None]
  return jnp.floor(identity(len(bits)) / step) * step


def solarize(thresholds: jax.Array) -> jax.Array:
  """Inverts the levels that are not below a threshold.

  Args:
    thresholds: [batch] floats.
  """
  levels = identity(len(thresholds))
  return jnp.where(levels < thresholds[:, None, None], levels, 255 - levels)


def solarize_add(amounts: jax.Array) -> jax.Array:
  """Adds to the levels below 128 (timm's `solarize_add`).

  Args:
    amounts: [batch] floats, whole numbers from 0 to 128.
  """
  levels = identity(len(amounts))
  return jnp.where(levels < 128, jnp.minimum(levels + amounts[:, None, None], 255), levels)


def brightness(factors: jax.Array) -> jax.Array:
  """Multiplies each level.

  Args:
    factors: [batch] floats.
  """
  return _whole(factors[:, None, None] * identity(len(factors)))


def contrast(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Blends each level with the mean of the image's grey, rounded as Pillow does.

  Args:
    images: [batch, height, width, 3] uint8.
    factors: [batch] floats.
  """
  # Pillow's grey, in its integers.
  red, green, blue = (images[..., i].astype(jnp.int32) for i in range(3))
  grey = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
  mean = jnp.floor(jnp.mean(grey.astype(jnp.float32), axis=(1, 2)) + 0.5)[:, None, None]
  factors = factors[:, None, None]
  return _whole(factors * identity(len(images)) + (1 - factors) * mean)


def autocontrast(images: jax.Array) -> jax.Array:
  """Stretches the levels of each channel to 0..255; a channel of one level stays.

  Args:
    images: [batch, height, width, 3] uint8.
  """
  low, high = (
    reduce(images, axis=(1, 2)).astype(jnp.int32)[:, :, None] for reduce in (jnp.min, jnp.max)
  )
  levels = jnp.arange(256)
  # In integers, or what is whole in exact numbers would now and then be cut to the level below.
  stretched = jnp.clip((levels - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
  return jnp.where(high > low, stretched, levels).astype(jnp.float32)


def equalize(images: jax.Array) -> jax.Array:
  """Makes the levels of each channel equally frequent, as far as that goes.

  Args:
    images: [batch, height, width, 3] uint8.
  """
  counts = histograms(images)
  total = jnp.cumsum(counts, axis=-1)
  # Pixels of all levels but the highest, shared by 255 steps.
  highest = jnp.max(images, axis=(1, 2)).astype(jnp.int32)[:, :, None]
  pixels = images.shape[1] * images.shape[2]
  step = (pixels - jnp.take_along_axis(counts, highest, axis=-1)) // 255
  below = total - counts
  equal = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
  return jnp.where(step > 0, equal, jnp.arange(256)).astype(jnp.float32)


def _whole(levels: jax.Array) -> jax.Array:
  return jnp.clip(jnp.round(levels), 0, 255)
