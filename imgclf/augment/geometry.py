"""Flips and affine maps of whole batches: one warp, by one matrix an image.

All that moves pixels is a matrix for `warp`, so that any of rotation, shear, scale and shift, and
any mixture of them in a batch, costs one interpolation.
"""

from collections.abc import Sequence
import math

import jax
import jax.numpy as jnp


def random_shift(images: jax.Array, keys: jax.Array, padding: int) -> jax.Array:
  """Shifts each image by up to `padding` pixels each way; what comes into view is its mirror image.

  All (2 * padding + 1)^2 shifts are equally likely (He et al. 2015,
  https://arxiv.org/abs/1512.03385, section 4.2, with reflection for zeros). Equals padding by
  reflection and a random crop.

  Args:
    images: [batch, height, width, 3] of any type, which the result keeps.
    keys: [batch] typed PRNG keys.
    padding: pixels, less than the height and the width.
  """
  _, height, width, channels = images.shape
  padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode="reflect")

  def window(image: jax.Array, key: jax.Array) -> jax.Array:
    top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1, jnp.int32)
    # Where 64 bits are the default, a plain 0 would have another type than the other two.
    start = (top, left, jnp.int32(0))
    return jax.lax.dynamic_slice(image, start, (height, width, channels))

  return jax.vmap(window)(padded, keys)


def random_flip(images: jax.Array, keys: jax.Array) -> jax.Array:
  """Mirrors each image left and right with probability 1/2.

  Args:
    images: [batch, height, width, 3] of any type.
    keys: [batch] typed PRNG keys.
  """
  # A float32 probability, or the draws would be others where 64 bits are the default.
  return flip(images, jax.vmap(lambda key: jax.random.bernoulli(key, jnp.float32(0.5)))(keys))


def flip(images: jax.Array, mirrored: jax.Array) -> jax.Array:
  """Mirrors some images left and right.

  Args:
    images: [batch, height, width, 3] of any type.
    mirrored: [batch] bool, which of them.
  """
  return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def random_angles(keys: jax.Array, degrees: float) -> jax.Array:
  """Draws an angle for each key, uniformly from [-degrees, degrees]; [batch] float32."""
  # Drawn in float32 whatever the images' type, so that a check in float64 sees the same angles.
  return jax.vmap(
    lambda key: jax.random.uniform(key, (), jnp.float32, minval=-degrees, maxval=degrees)
  )(keys)


def random_affine(
  keys: jax.Array, *, translate: float, scale: Sequence[float], shear: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Draws what an affine map has besides its angle, each uniformly (as torchvision's RandomAffine).

  Args:
    keys: [batch] typed PRNG keys.
    translate: greatest shift either way along each axis, as a share of the side.
    scale: least and greatest factor of size.
    shear: greatest shear along x either way, in degrees.

  Returns:
    Shares along x and y, [batch, 2]; factors, [batch]; degrees, [batch]; all float32.
  """

  def draw(key):
    shift, size, slope = jax.random.split(key, 3)
    return (
      jax.random.uniform(shift, (2,), jnp.float32, -translate, translate),
      jax.random.uniform(size, (), jnp.float32, scale[0], scale[1]),
      jax.random.uniform(slope, (), jnp.float32, -shear, shear),
    )

  return jax.vmap(draw)(keys)


def affine(
  angles: jax.Array,
  size: Sequence[int],
  *,
  translate: jax.Array | float = 0.0,
  scale: jax.Array | float = 1.0,
  shear: jax.Array | float = 0.0,
) -> jax.Array:
  """Returns the matrices that shear, scale and turn images about their centre, then shift them.

  Args:
    angles: [batch] floats, degrees counter-clockwise as in Pillow's `Image.rotate`.
    size: height and width, in pixels.
    translate: [batch, 2] floats, shares of width and height, to the right and down.
    scale: [batch] floats, factors of size.
    shear: [batch] floats, degrees; rows below the centre move to the right.

  Returns:
    [batch, 2, 3] as `warp` takes them, of the type of `angles`.
  """
  height, width = size
  centre = jnp.array([width / 2, height / 2], angles.dtype)
  radians = angles * (math.pi / 180)
  cos, sin = jnp.cos(radians), jnp.sin(radians)
  slope = jnp.tan(jnp.asarray(shear, angles.dtype) * (math.pi / 180))
  # From the result back to the image: the rotation backwards, with y pointing down, then the shear
  # backwards.
  back = jnp.stack(
    [jnp.stack([cos - slope * sin, -sin - slope * cos], -1), jnp.stack([sin, cos], -1)], -2
  )
  back = back / jnp.broadcast_to(jnp.asarray(scale, angles.dtype), angles.shape)[:, None, None]
  start = centre + jnp.asarray(translate, angles.dtype) * jnp.array([width, height], angles.dtype)
  start = jnp.broadcast_to(start, (*angles.shape, 2))
  # Written out: a matrix product may be computed in bfloat16 on accelerators.
  offset = centre - jnp.sum(back * start[:, None, :], axis=-1)
  return jnp.concatenate([back, offset[:, :, None]], axis=-1)


def rotate(images: jax.Array, angles: jax.Array) -> jax.Array:
  """Rotates each image about its centre; the size stays, and corners take the nearest pixel of the
  edge.

  A fixed colour would fit either photographs (the mean) or drawings (their background); the edge is
  close to both.

  Args:
    images: [batch, height, width, 3] floats.
    angles: [batch] floats, degrees counter-clockwise as in Pillow's `Image.rotate`.
  """
  return warp(images, affine(angles.astype(images.dtype), images.shape[1:3]))


def warp(images: jax.Array, matrices: jax.Array, fill: Sequence[float] | None = None) -> jax.Array:
  """Maps each image by a matrix, with bilinear interpolation; the size stays.

  The same as Pillow's `Image.transform(size, AFFINE, matrix, BILINEAR)`, but that results are not
  cut to whole levels. Pixel (x, y) of the result, whose centre is at (x + 1/2, y + 1/2), shows the
  place `matrix @ (x + 1/2, y + 1/2, 1)` of the image.

  Args:
    images: [batch, height, width, 3] of any type.
    matrices: [batch, 2, 3] floats; the computation is in their type.
    fill: colour of what lies outside the image; none: the nearest pixel of its edge.

  Returns:
    [batch, height, width, 3] of the type of `matrices`.
  """
  height, width = images.shape[1:3]
  dtype = matrices.dtype
  x = jnp.arange(width, dtype=dtype)[None, :] + 0.5
  y = jnp.arange(height, dtype=dtype)[:, None] + 0.5

  def warp_one(image, matrix):
    (a, b, c), (d, e, f) = matrix
    # Clipped before they become integers: a far place would be beyond int32, and the edge is the
    # answer there.
    source_x = jnp.clip(a * x + b * y + c, -1, width + 1) - 0.5
    source_y = jnp.clip(d * x + e * y + f, -1, height + 1) - 0.5
    left, top = jnp.floor(source_x), jnp.floor(source_y)
    right_share, bottom_share = (source_x - left)[..., None], (source_y - top)[..., None]
    columns = [jnp.clip(left.astype(jnp.int32) + i, 0, width - 1) for i in (0, 1)]
    rows = [jnp.clip(top.astype(jnp.int32) + i, 0, height - 1) for i in (0, 1)]
    pixels = image.reshape(height * width, 3)

    def at(row, column):
      return pixels.at[row * width + column].get(mode="promise_in_bounds").astype(dtype)

    def between(row):
      first = at(row, columns[0])
      return first + right_share * (at(row, columns[1]) - first)

    upper = between(rows[0])
    result = upper + bottom_share * (between(rows[1]) - upper)
    if fill is None:
      return result
    inside_x = (source_x >= -0.5) & (source_x < width - 0.5)
    inside_y = (source_y >= -0.5) & (source_y < height - 0.5)
    return jnp.where((inside_x & inside_y)[..., None], result, jnp.asarray(fill, dtype))

  return jax.vmap(warp_one)(images, matrices)
