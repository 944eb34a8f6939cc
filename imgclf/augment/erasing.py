"""Random erasing and cutout: rectangles of normalised images that are taken away."""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp

# Rectangles that are drawn for an image until one fits, as timm and torchvision do; the paper draws
# on for ever.
_ATTEMPTS = 10


def random_erasing(
  images: jax.Array,
  keys: jax.Array,
  *,
  probability: float,
  mode: str,
  area: Sequence[float],
  ratio: Sequence[float],
) -> jax.Array:
  """Erases a rectangle of each image with this probability (Zhong et al. 2017, arXiv:1708.04896,
  algorithm 1).

  The rectangle is drawn as in timm: the area is uniform, height / width log-uniform, the place
  uniform; of ten such draws the first whose rectangle is smaller than the image counts, and without
  one nothing is erased.

  Args:
    images: [batch, height, width, 3] floats, normalised: mean 0, deviation 1.
    keys: [batch] typed PRNG keys.
    probability: in [0, 1].
    mode: `pixel`: each value is drawn from a normal distribution; `constant`: 0, the mean colour.
    area: least and greatest share of the image's area.
    ratio: least and greatest height / width.
  """
  height, width = images.shape[1:3]

  def draw(key):
    whether, size, place, noise = jax.random.split(key, 4)
    erased = jax.random.uniform(whether, (), jnp.float32) < probability
    areas, shapes = jax.random.uniform(size, (2, _ATTEMPTS), jnp.float32)
    areas = (area[0] + areas * (area[1] - area[0])) * height * width
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shapes = jnp.exp(low + shapes * (high - low))
    heights = jnp.round(jnp.sqrt(areas * shapes)).astype(jnp.int32)
    widths = jnp.round(jnp.sqrt(areas / shapes)).astype(jnp.int32)
    fits = (heights < height) & (widths < width)
    first = jnp.argmax(fits)
    box = jnp.where(erased & fits[first], jnp.stack([heights[first], widths[first]]), 0)
    room = jnp.array([height, width]) - box + 1
    shares = jax.random.uniform(place, (2,), jnp.float32)
    # A share just below 1 may round up to the whole.
    corner = jnp.minimum((shares * room).astype(jnp.int32), room - 1)
    return corner, box, noise

  corner, box, noise_keys = jax.vmap(draw)(keys)
  inside = within(corner, corner + box, (height, width))
  if mode == "constant":
    return jnp.where(inside, 0, images)
  # Drawn for whole images: shapes are not known when the step is compiled.
  noise = jax.vmap(lambda key: jax.random.normal(key, (height, width, 3), jnp.float32))(noise_keys)
  return jnp.where(inside, noise.astype(images.dtype), images)


def cutout(images: jax.Array, keys: jax.Array, side: int) -> jax.Array:
  """Sets a square of each image to 0, the mean colour (DeVries & Taylor 2017, arXiv:1708.04552,
  section 3.2).

  Its centre is any pixel with the same probability, so that it may lie partly outside.

  Args:
    images: [batch, height, width, 3] floats, normalised.
    keys: [batch] typed PRNG keys.
    side: of the square, in pixels.
  """
  height, width = images.shape[1:3]

  def draw(key):
    y, x = jax.random.split(key)
    return jnp.stack(
      [
        jax.random.randint(y, (), 0, height, jnp.int32),
        jax.random.randint(x, (), 0, width, jnp.int32),
      ]
    )

  start = jax.vmap(draw)(keys) - side // 2
  return jnp.where(within(start, start + side, (height, width)), 0, images)


def within(start: jax.Array, end: jax.Array, size: Sequence[int]) -> jax.Array:
  """Tells which pixels lie in a rectangle of their image.

  Args:
    start: [batch, 2] int32, top and left, in pixels.
    end: [batch, 2] int32, bottom and right, the first row and column that are outside.
    size: height and width of the images.

  Returns:
    [batch, height, width, 1] bool.
  """
  inside = [
    (jnp.arange(size[axis]) >= start[:, axis, None]) & (jnp.arange(size[axis]) < end[:, axis, None])
    for axis in (0, 1)
  ]
  return (inside[0][:, :, None] & inside[1][:, None, :])[..., None]
