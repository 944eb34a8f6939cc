"""Colour of whole batches as Pillow's ImageEnhance defines it, but not cut to whole levels; grey
and blur.

Images are [batch, height, width, 3] floats from 0 to 255, and so are the results.
"""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp

# Red, green and blue in Pillow's `convert("L")`, ITU-R 601-2.
LUMA = (0.299, 0.587, 0.114)


def luma(images: jax.Array) -> jax.Array:
  """Returns the grey of each pixel, [batch, height, width, 1]."""
  red, green, blue = (images[..., i : i + 1] for i in range(3))
  return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def blend(images: jax.Array, others: jax.Array, factors: jax.Array) -> jax.Array:
  """Returns others + factor * (images - others), cut to 0..255 (Pillow's `Image.blend`).

  Args:
    images: the images.
    others: what a factor of 0 gives; of a shape that broadcasts to that of `images`.
    factors: [batch] floats; 1 leaves the image as it is, more goes beyond it.
  """
  factors = factors.astype(images.dtype)[:, None, None, None]
  return jnp.clip(factors * images + (1 - factors) * others, 0, 255)


def brightness(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Blends each image with black: `ImageEnhance.Brightness`."""
  return blend(images, jnp.zeros((), images.dtype), factors)


def contrast(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Blends each image with the mean of its grey: `ImageEnhance.Contrast`."""
  return blend(images, jnp.mean(luma(images), axis=(1, 2), keepdims=True), factors)


def saturation(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Blends each image with its grey: `ImageEnhance.Color`."""
  return blend(images, luma(images), factors)


def hue(images: jax.Array, turns: jax.Array) -> jax.Array:
  """Turns the hue of each image in HSV space, in whole turns of the colour wheel.

  Args:
    images: the images.
    turns: [batch] floats; 1/3 makes red green.
  """
  red, green, blue = (images[..., i] for i in range(3))
  value = jnp.max(images, axis=-1)
  chroma = value - jnp.min(images, axis=-1)
  divisor = jnp.where(chroma > 0, chroma, 1)
  # In sixths of a turn: 0 red, 2 green, 4 blue. Not by equality with the greatest: XLA may work a
  # channel out twice, with a last bit that differs. Where two are all but equal, both of their
  # formulas are right.
  sixths = jnp.where(
    (red >= green) & (red >= blue),
    (green - blue) / divisor,
    jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
  )
  sixths += 6 * turns.astype(images.dtype)[:, None, None]

  def channel(offset: int) -> jax.Array:
    place = jnp.mod(offset + sixths, 6)
    return value - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)

  return jnp.stack([channel(5), channel(3), channel(1)], axis=-1)


def random_jitter(
  images: jax.Array, keys: jax.Array, strengths: tuple[float, float, float, float]
) -> jax.Array:
  """Changes brightness, contrast, saturation and hue, each by a uniform draw (as torchvision's
  ColorJitter).

  In this order for all images, where torchvision draws one: up to what is cut at 0 and 255,
  brightness, contrast and saturation give the same in any order, and an order of its own would cost
  each image all four in each place.

  Args:
    images: the images.
    keys: [batch] typed PRNG keys.
    strengths: of the four; the first three are factors in [max(0, 1 - x), 1 + x], hue is in [-x, x]
      turns.
  """
  for number, (change, strength) in enumerate(
    zip((brightness, contrast, saturation), strengths, strict=False)
  ):
    if strength:
      images = change(images, _uniform(keys, number, max(0.0, 1 - strength), 1 + strength))
  if strengths[3]:
    images = hue(images, _uniform(keys, 3, -strengths[3], strengths[3]))
  return images


def random_greyscale(images: jax.Array, keys: jax.Array, probability: float) -> jax.Array:
  """Takes each image's colour away with this probability: all channels become its grey.

  Args:
    images: the images.
    keys: [batch] typed PRNG keys.
    probability: in [0, 1].
  """
  grey = _uniform(keys, 0, 0.0, 1.0) < probability
  return jnp.where(grey[:, None, None, None], luma(images), images)


def random_blur(
  images: jax.Array, keys: jax.Array, probability: float, sigma: Sequence[float]
) -> jax.Array:
  """Blurs each image with this probability, by a Gaussian whose deviation is uniform (Chen et al.
  2020, A).

  Args:
    images: the images.
    keys: [batch] typed PRNG keys.
    probability: in [0, 1].
    sigma: least and greatest standard deviation, in pixels.
  """
  blurred = _uniform(keys, 0, 0.0, 1.0) < probability
  sigmas = _uniform(keys, 1, sigma[0], sigma[1])
  # Three deviations hold 99.7% of a Gaussian.
  changed = blur(images, sigmas, math.ceil(3 * sigma[1]))
  return jnp.where(blurred[:, None, None, None], changed, images)


def blur(images: jax.Array, sigmas: jax.Array, reach: int) -> jax.Array:
  """Convolves each image with a Gaussian of its own; beyond the edge its nearest pixel goes on.

  Args:
    images: the images.
    sigmas: [batch] floats > 0, standard deviations in pixels.
    reach: pixels on each side of the centre that the kernel has.
  """
  places = jnp.arange(-reach, reach + 1, dtype=images.dtype)
  weights = jnp.exp(-0.5 * jnp.square(places / sigmas.astype(images.dtype)[:, None]))
  weights /= jnp.sum(weights, axis=1, keepdims=True)
  for axis in (1, 2):
    padding = [(reach, reach) if i == axis else (0, 0) for i in range(4)]
    padded = jnp.pad(images, padding, mode="edge")
    # Sums of shifted images, which XLA fuses: a convolution with a kernel for each image is a slow
    # path.
    images = sum(  # type: ignore[assignment]
      weights[:, k, None, None, None]
      * jax.lax.slice_in_dim(padded, k, k + images.shape[axis], axis=axis)
      for k in range(2 * reach + 1)
    )
  return images


def smooth(images: jax.Array) -> jax.Array:
  """Returns Pillow's `ImageFilter.SMOOTH`: weights 1, and 5 in the centre, over 13; edge pixels
  stay.

  What `ImageEnhance.Sharpness` blends an image with.
  """
  height, width = images.shape[1:3]
  padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  around = sum(padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3))
  y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
  inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
  return jnp.where(inner, (around + 4 * images) / 13, images)


def _uniform(keys: jax.Array, number: int, low: float, high: float) -> jax.Array:
  """One draw for each key from its branch of this number, [batch] float32 whatever the images'
  type.
  """
  return jax.vmap(
    lambda key: jax.random.uniform(jax.random.fold_in(key, number), (), jnp.float32, low, high)
  )(keys)
