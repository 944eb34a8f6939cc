"""Convolutions with a stride on an image's three channels, as ones without a stride on blocks of its pixels.

Knows no network.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

# Of images, not of features: from some eight channels on a matrix unit is well filled.
MOST_CHANNELS = 4


def is_faster(channels: int, strides: Sequence[int], groups: int) -> bool:
  """Returns whether a convolution is to be done on blocks: those that GPUs are slow at."""
  return (
    jax.default_backend() == "gpu"
    and channels <= MOST_CHANNELS
    and strides[0] == strides[1] > 1
    and groups == 1
  )


def conv_general_dilated(
  x: jax.Array,
  kernel: jax.Array,
  strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  *,
  feature_group_count: int = 1,
  **options: Any,
) -> jax.Array:
  """`jax.lax.conv_general_dilated` as `flax.linen.Conv` calls it, on blocks where that is faster."""
  if is_faster(x.shape[-1], strides, feature_group_count):
    return on_blocks(x, kernel, strides[0], padding, options.get("precision"))
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, feature_group_count=feature_group_count, **options
  )


def on_blocks(
  x: jax.Array,
  kernel: jax.Array,
  stride: int,
  padding: Sequence[tuple[int, int]],
  precision: Any = None,
) -> jax.Array:
  """The convolution with a stride, as one with a stride of 1 on blocks of stride x stride pixels.

  The same products are added, and zeros, so the same weights give the same result but for rounding. Three channels, which fill a
  matrix unit badly, become 3 * stride ** 2 (MLPerf's ResNet-50 has had its stem so since v0.6).

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
