"""Convolutions as the device at hand is fast at: the same products, added in another order.

XLA has one way for each kind, and some are slow. Knows no network.
"""

from collections.abc import Iterator, Sequence
import contextlib
import functools
import threading
from typing import Any

import jax
import jax.numpy as jnp

# Of images, not of features: from some eight channels on a matrix unit is well filled.
FEW_CHANNELS = 4
# Images whose products are added before a running sum is touched: more of them make the program
# longer, not faster.
IMAGES_AT_ONCE = 16
# Channels of a convolution on a CPU that takes the place of several groups, and how many such there
# are at most.
CHANNELS_AT_ONCE, AT_MOST = 32, 8

_state = threading.local()


@contextlib.contextmanager
def as_written() -> Iterator[None]:
  """Within it convolutions are traced as the networks have them, for who counts their products or
  gives them on.
  """
  before = getattr(_state, "as_written", False)
  _state.as_written = True
  try:
    yield
  finally:
    _state.as_written = before


def conv_general_dilated(
  x: jax.Array,
  kernel: jax.Array,
  strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  *,
  feature_group_count: int = 1,
  **options: Any,
) -> jax.Array:
  """`jax.lax.conv_general_dilated` as `flax.linen.Conv` calls it, in the form that is fastest.

  Args:
    x: [batch, height, width, channels].
    kernel: [rows, columns, channels of a group, features].
    strides: two, which are the same.
    padding: zeros before and after, along each of the two axes.
    feature_group_count: groups.
    **options: others of that function.
  """
  backend, groups, channels = jax.default_backend(), feature_group_count, x.shape[-1]
  if not getattr(_state, "as_written", False):
    if backend == "gpu" and groups == 1 and channels <= FEW_CHANNELS and strides[0] > 1:
      return on_pixel_blocks(x, kernel, strides[0], padding, options.get("precision"))
    if backend == "cpu" and 1 < groups == channels == kernel.shape[-1]:
      return depthwise(x, kernel, strides[0], tuple(padding))
    if backend == "cpu" and groups > 1:
      return on_channel_blocks(x, kernel, groups, strides, padding, **options)
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, feature_group_count=groups, **options
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(
  x: jax.Array, kernel: jax.Array, stride: int, padding: tuple[tuple[int, int], ...]
) -> jax.Array:
  """Convolves each channel by itself: a sum of shifted images times numbers.

  On two CPU cores forward and backward of 16 images take 14 to 100 times less than XLA's own (3x3,
  16 channels of 64 px: 76 and 5.6 ms; 7x7, 40 of 32 px: 167 and 8.4; 5x5, 960 of 4 px: 231 and
  2.2).

  Args:
    x: [batch, height, width, channels].
    kernel: [rows, columns, 1, channels].
    stride: along both axes.
    padding: zeros before and after, along each of the two axes.
  """
  return _sum_of_shifted(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel, stride)


def _sum_of_shifted(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  reach = kernel.shape[:2]
  ends = [(length - n) // stride * stride + 1 for length, n in zip(x.shape[1:3], reach)]

  def product(i: int, j: int) -> jax.Array:
    return kernel[i, j, 0] * x[:, i : i + ends[0] : stride, j : j + ends[1] : stride]

  first, *others = [product(i, j) for i in range(reach[0]) for j in range(reach[1])]
  return sum(others, first)


def _depthwise_forward(x, kernel, stride, padding):
  return depthwise(x, kernel, stride, padding), (x, kernel)


def _depthwise_backward(stride, padding, kept, gradient):
  x, kernel = kept
  apart = jnp.pad(x, ((0, 0), *padding, (0, 0)))
  if max(kernel.shape[:2]) <= 3:
    transposed = jax.linear_transpose(lambda x: _sum_of_shifted(x, kernel, stride), apart)
    (of_x,) = transposed(gradient)
  else:
    of_x = _gradient_of_x(gradient, kernel, stride, apart.shape[1:3])
  (top, _), (left, _) = padding
  of_x = of_x[:, top : top + x.shape[1], left : left + x.shape[2]]
  return of_x, _gradient_of_kernel(apart, gradient, kernel, stride)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _gradient_of_x(
  gradient: jax.Array, kernel: jax.Array, stride: int, lengths: Sequence[int]
) -> jax.Array:
  """The gradient of a padded image as sums of shifted images again, for each pixel of stride x
  stride by itself.

  As the transpose of large kernels' sums XLA adds up padded images, which takes three to seventeen
  times as long.
  """
  batch, height, width, channels = gradient.shape
  rows, columns = (-(-length // stride) for length in lengths)
  taps = [-(-reach // stride) for reach in kernel.shape[:2]]
  sides = [(n - 1, m - length) for n, m, length in zip(taps, (rows, columns), (height, width))]
  gradient = jnp.pad(gradient, ((0, 0), *sides, (0, 0)))
  # Zeros where a pixel has fewer taps than others; the farthest tap meets the nearest result.
  ends = [(0, n * stride - reach) for n, reach in zip(taps, kernel.shape[:2])]
  kernel = jnp.pad(kernel, (*ends, (0, 0), (0, 0)))
  pixels = [
    [_sum_of_shifted(gradient, kernel[i::stride, j::stride][::-1, ::-1], 1) for j in range(stride)]
    for i in range(stride)
  ]
  whole = jnp.stack([jnp.stack(line, axis=3) for line in pixels], axis=2)
  whole = whole.reshape(batch, rows * stride, columns * stride, channels)
  return whole[:, : lengths[0], : lengths[1]]


def _gradient_of_kernel(
  x: jax.Array, gradient: jax.Array, kernel: jax.Array, stride: int
) -> jax.Array:
  """Sums of products of a padded image and the gradient: row by row, elementwise to the last.

  A reduction of each product goes through memory in strides, a number at a time: ten times as long.
  """
  rows, columns, _, channels = kernel.shape
  batch, height, width, _ = gradient.shape
  end = (width - 1) * stride + 1
  images = max(n for n in range(1, IMAGES_AT_ONCE + 1) if batch % n == 0)
  exact = jnp.promote_types(kernel.dtype, jnp.float32)

  def add_row(step: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
    first, row = step // height * images, step % height
    by = jax.lax.dynamic_slice(gradient, (first, row, 0, 0), (images, 1, width, channels))
    seen = (images, rows, *x.shape[2:])
    of = jax.lax.dynamic_slice(x, (first, row * stride, 0, 0), seen)
    by, of = by.astype(exact), of.astype(exact)
    return [
      sum((by[n] * of[n, :, j : j + end : stride] for n in range(images)), total)
      for j, total in enumerate(sums)
    ]

  # For each column of the kernel: [rows, width of result, channels].
  zeros = [jnp.zeros((rows, width, channels), exact)] * columns
  sums = jax.lax.fori_loop(0, batch // images * height, add_row, zeros)
  whole = jnp.stack([jnp.sum(total, axis=1) for total in sums], axis=1)
  return whole.reshape(kernel.shape).astype(kernel.dtype)


def on_channel_blocks(
  x: jax.Array,
  kernel: jax.Array,
  groups: int,
  strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  **options: Any,
) -> jax.Array:
  """Convolves groups of channels several at a time, with zeros where an output does not see an
  input.

  On two CPU cores forward and backward of 16 images, 3x3, take 50 to 130 times less than XLA's own
  (32 groups of 4 channels, 32 px: 7.4 s and 58 ms; 26 of 8, 8 px: 650 and 12 ms).

  Args:
    x: [batch, height, width, channels].
    kernel: [rows, columns, channels / groups, features].
    groups: how many there are.
    strides: along both axes.
    padding: zeros before and after, along each of the two axes.
    **options: of `jax.lax.conv_general_dilated`.
  """
  inputs = kernel.shape[2]
  wanted = max(CHANNELS_AT_ONCE // inputs, -(-groups // AT_MOST), 1)
  several = next(n for n in range(min(wanted, groups), groups + 1) if groups % n == 0)
  parts = groups // several
  kernels = jnp.split(_with_zeros(kernel, groups, several), parts, axis=-1)
  results = [
    jax.lax.conv_general_dilated(a, b, strides, padding, **options)
    for a, b in zip(jnp.split(x, parts, axis=-1), kernels)
  ]
  return jnp.concatenate(results, axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _with_zeros(kernel: jax.Array, groups: int, several: int) -> jax.Array:
  """[rows, columns, inputs, features] of groups -> [rows, columns, several * inputs, features] of
  parts of several.

  The gradient picks what is the kernel's. As the transpose of a product with zeros and ones XLA
  makes it a reduction, at which JAX 0.10.2 ends in a segmentation fault on a CPU, here or in what
  runs next.
  """
  rows, columns, inputs, features = kernel.shape
  apart = kernel.reshape(rows, columns, inputs, groups // several, several, features // groups)
  own = jnp.eye(several, dtype=kernel.dtype)
  # [rows, columns, group of the input, its channels, part, group of the output, its features].
  whole = apart[:, :, None] * own[:, None, None, :, None]
  return whole.reshape(rows, columns, several * inputs, features)


def _with_zeros_forward(kernel, groups, several):
  return _with_zeros(kernel, groups, several), None


def _with_zeros_backward(groups, several, _, gradient):
  rows, columns, both, features = gradient.shape
  inputs, parts, outputs = both // several, groups // several, features // groups
  whole = gradient.reshape(rows, columns, several, inputs, parts, several, outputs)
  own = jnp.stack([whole[:, :, n, :, :, n] for n in range(several)], axis=4)
  return (own.reshape(rows, columns, inputs, features),)


_with_zeros.defvjp(_with_zeros_forward, _with_zeros_backward)


def on_pixel_blocks(
  x: jax.Array,
  kernel: jax.Array,
  stride: int,
  padding: Sequence[tuple[int, int]],
  precision: Any = None,
) -> jax.Array:
  """The convolution with a stride, as one with a stride of 1 on blocks of stride x stride pixels.

  The same products are added, and zeros, so the same weights give the same result but for rounding.
  Three channels, which fill a matrix unit badly, become 3 * stride ** 2 (MLPerf's ResNet-50 has had
  its stem so since v0.6).

  Args:
    x: [batch, height, width, channels].
    kernel: [rows, columns, channels, features].
    stride: in pixels, along both axes.
    padding: zeros before and after, along each of the two axes.
    precision: as for `jax.lax.conv_general_dilated`.

  Returns:
    [batch, height of result, width of result, features].
  """
  batch, *_, channels = x.shape
  features = kernel.shape[-1]
  of_x, of_kernel, of_blocks = [], [], []
  for length, reach, (before, after) in zip(x.shape[1:3], kernel.shape[:2], padding):
    # With zeros before it, the kernel's windows begin where blocks do.
    front = -before % stride
    blocks, taps = -(-length // stride), -(-(front + reach) // stride)
    windows = (length + before + after - reach) // stride + 1
    first = (before + front) // stride
    of_x.append((0, blocks * stride - length))
    of_kernel.append((front, taps * stride - front - reach))
    # Negative where the last windows end before the last block.
    of_blocks.append((first, windows - 1 + taps - blocks - first))
  x = jnp.pad(x, ((0, 0), *of_x, (0, 0)))
  height, width = (length // stride for length in x.shape[1:3])
  x = x.reshape(batch, height, stride, width, stride, channels).transpose(0, 1, 3, 2, 4, 5)
  kernel = jnp.pad(kernel, (*of_kernel, (0, 0), (0, 0)))
  rows, columns = (length // stride for length in kernel.shape[:2])
  kernel = kernel.reshape(rows, stride, columns, stride, channels, features)
  depth = stride * stride * channels
  return jax.lax.conv_general_dilated(
    x.reshape(batch, height, width, depth),
    kernel.transpose(0, 2, 1, 3, 4, 5).reshape(rows, columns, depth, features),
    window_strides=(1, 1),
    padding=of_blocks,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    precision=precision,
  )
