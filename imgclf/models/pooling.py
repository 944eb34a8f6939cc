"""Pooling: maxima and means over windows of an image, with gradients that no device is slow at.

Knows no network.
"""

import functools
import itertools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def max_pool(x: jax.Array, size: int, *, stride: int | None = None, padding: int = 0) -> jax.Array:
  """Maxima over `size` x `size` windows, with `padding` of minus infinity on each side.

  Args:
    x: [batch, height, width, channels].
    size: of a window, in pixels.
    stride: from window to window; none: size. What is left over at the far end is dropped.
    padding: pixels on each side.
  """
  return _max_pool(x, size, stride or size, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_pool(x: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
  """Maxima over windows. Of pixels that are the maximum together the first has its gradient.

  So do XLA and PyTorch have it. XLA's gradient is a select-and-scatter, which adds up in x's type;
  here each pixel looks up which of its windows have chosen it, and of x nothing is kept but that
  choice, a byte a window. On a CPU pooling 3x3 windows of 112 px and its gradient take a quarter of
  the time.

  A gradient that asks which pixels equal the maximum, as that of `jnp.max` does, is not safe: XLA
  may compute x once for the maximum and again for the comparison, with other roundings, and then
  nothing is equal. A choice holds whatever the roundings.
  """
  return nn.max_pool(
    x,
    window_shape=(size, size),
    strides=(stride, stride),
    padding=((padding, padding), (padding, padding)),
  )


def _pixels_of_windows(x: jax.Array, size: int, stride: int, padding: int) -> list[jax.Array]:
  """The first pixel of each window, then the second, ...: size * size arrays, [batch, rows,
  columns, channels].
  """
  sides = (0, 0), (padding, padding), (padding, padding), (0, 0)
  x = jnp.pad(x, sides, constant_values=-jnp.inf)
  rows, columns = ((length - size) // stride * stride + 1 for length in x.shape[1:3])

  def along(x: jax.Array, first: int, reach: int, axis: int) -> jax.Array:
    return jax.lax.slice_in_dim(x, first, first + reach, stride, axis)

  return [along(along(x, i, rows, 1), j, columns, 2) for i in range(size) for j in range(size)]


def _max_pool_forward(x, size, stride, padding):
  first, *others = _pixels_of_windows(x, size, stride, padding)
  number_type = jnp.uint8 if size * size < 256 else jnp.int32
  largest, chosen = first, jnp.zeros(first.shape, number_type)
  for number, pixel in enumerate(others, 1):
    # What is no number is the maximum, as for XLA.
    better = (pixel > largest) | (pixel != pixel)
    largest = jnp.where(better, pixel, largest)
    chosen = jnp.where(better, number_type(number), chosen)
  return largest, (chosen, jnp.zeros((0, *x.shape[1:]), x.dtype))


def _max_pool_backward(size, stride, padding, residuals, gradient):
  chosen, like = residuals
  batch, rows, columns, channels = chosen.shape
  height, width = like.shape[1:3]
  none = size * size  # a number that no pixel of a window has
  wide = gradient.astype(jnp.promote_types(gradient.dtype, jnp.float32))
  # Of a block of stride x stride pixels, padding counted, `reach` windows may hold one, along
  # either axis.
  reach = (size - 1) // stride + 1
  blocks = [-(-(length + 2 * padding) // stride) for length in (height, width)]
  sides = [(reach - 1, count - windows) for count, windows in zip(blocks, (rows, columns))]
  sides = [(0, 0), *sides, (0, 0)]
  chosen, wide = jnp.pad(chosen, sides, constant_values=none), jnp.pad(wide, sides)
  total = jnp.zeros((batch, blocks[0], stride, blocks[1], stride, channels), wide.dtype)
  for back, aside in itertools.product(range(reach), repeat=2):
    # The pixels' rows and columns in the window that begins so many blocks before theirs.
    i, j = (np.arange(stride) + stride * before for before in (back, aside))
    number = np.where((i[:, None] < size) & (j < size), i[:, None] * size + j, none)
    number = number.astype(chosen.dtype)[:, None, :, None]
    top, left = reach - 1 - back, reach - 1 - aside
    here = np.s_[:, top : top + blocks[0], None, left : left + blocks[1], None]
    total += jnp.where(chosen[here] == number, wide[here], 0)
  total = total.reshape(batch, blocks[0] * stride, blocks[1] * stride, channels)
  total = total[:, padding : padding + height, padding : padding + width]
  return (total.astype(like.dtype),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


@jax.custom_vjp
def global_max_pool(x: jax.Array) -> jax.Array:
  """Maxima over all pixels of [batch, height, width, channels].

  As in `max_pool`, the first has the gradient.
  """
  return jnp.max(x, axis=(1, 2))


def _global_max_pool_forward(x):
  batch, height, width, channels = x.shape
  chosen = jnp.argmax(x.reshape(batch, height * width, channels), axis=1)
  return global_max_pool(x), (chosen, jnp.zeros((0, height, width), x.dtype))


def _global_max_pool_backward(residuals, gradient):
  chosen, like = residuals
  number = jnp.arange(like.shape[1] * like.shape[2]).reshape(*like.shape[1:], 1)
  return (jnp.where(chosen[:, None, None] == number, gradient[:, None, None], 0),)


global_max_pool.defvjp(_global_max_pool_forward, _global_max_pool_backward)


def _windows(x: jax.Array, size: int) -> jax.Array:
  """[batch, rows, size, columns, size, channels], without what is left over at the far end."""
  batch, height, width, channels = x.shape
  rows, columns = height // size, width // size
  # Not by an index: with a batch of unknown size, as in an export, that is a gather.
  x = jax.lax.slice_in_dim(x, 0, rows * size, axis=1)
  x = jax.lax.slice_in_dim(x, 0, columns * size, axis=2)
  return x.reshape(batch, rows, size, columns, size, channels)


def avg_pool(x: jax.Array, size: int) -> jax.Array:
  """Means over windows side by side of [batch, height, width, channels].

  What is left over at the far end is dropped.
  """
  return _windows(x, size).mean(axis=(2, 4))


def adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
  """Means over a grid of `size` x `size` bins, whatever the size of the image, as torch has it.

  Of n pixels, bin i takes those from floor(i n / size) to ceil((i + 1) n / size), so bins overlap
  where size does not divide n, and repeat pixels where n is less than size.

  Args:
    x: [batch, height, width, channels], height and width at least 1.
    size: bins along the height and along the width.

  Returns:
    [batch, size, size, channels] of x's type.
  """
  for axis in (1, 2):
    length = x.shape[axis]
    if length != size:
      bins = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
      means = [
        jax.lax.slice_in_dim(x, start, stop, axis=axis).mean(axis=axis) for start, stop in bins
      ]
      x = jnp.stack(means, axis=axis)
  return x
