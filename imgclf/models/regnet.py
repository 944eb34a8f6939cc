"""The RegNetY family. Knows no config."""

import functools

from flax import linen as nn
import jax
from jax.nn import initializers
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers
from imgclf.models.squeeze_excite import SqueezeExcite


class Block(nn.Module):
  """A residual block without a bottleneck: 1x1, grouped 3x3, squeeze-and-excitation, 1x1, plus x,
  then ReLU.

  Attributes:
    width: channels.
    stride: of the 3x3 convolution.
    group_width: channels of a group of it.
    dtype: type of the computation.
    axis_name: see `layers.batch_norm`.
    drop_path_rate: share of the examples whose branch is dropped in training.
    stream: number of the block; see `layers.drop_path`.
  """

  width: int
  stride: int
  group_width: int
  dtype: DTypeLike
  axis_name: str | None
  drop_path_rate: float
  stream: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None) -> jax.Array:
    """Maps [batch, height, width, channels] to `width` channels, smaller by the stride."""
    conv = functools.partial(layers.conv, self.width, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train=train, dtype=self.dtype, axis_name=self.axis_name
    )
    y = norm(name="norm1")(conv(1, name="conv1")(x), relu=True)
    groups = self.width // self.group_width
    y = conv(3, stride=self.stride, padding=1, groups=groups, name="conv2")(y)
    y = norm(name="norm2")(y, relu=True)
    # A quarter of the channels that come into the block.
    y = SqueezeExcite(round(x.shape[-1] / 4), self.dtype, name="squeeze_excite")(y)
    y = conv(1, name="conv3")(y)
    if self.stride > 1 or x.shape[-1] != self.width:
      x = norm(name="shortcut_norm")(conv(1, stride=self.stride, name="shortcut_conv")(x))
    # A block starts as the identity, as in ResNet.
    last = norm(scale_init=initializers.zeros, name="norm3")
    if not (train and self.drop_path_rate):
      return last(y, added=x, relu=True)
    return nn.relu(x + layers.drop_path(last(y), self.drop_path_rate, keys, stream=self.stream))


class RegNetY(nn.Module):
  """A convolution, four stages of residual blocks, the mean over pixels and the head.

  Radosavovic et al. 2020, https://arxiv.org/abs/2003.13678, figure 21 has the numbers. Takes images
  of any size.

  Features: `stem`, `stage1` to `stage4`, `pre_logits` (before dropout).

  Attributes:
    stage_sizes: blocks of each stage.
    widths: channels of each stage.
    group_width: channels of a group.
    num_classes: length of the logits.
    dtype: type of the computation.
    dropout_rate: share of units dropped before the head.
    drop_path_rate: of the last block; see `layers.drop_path_rates`.
    axis_name: see `layers.batch_norm`.
    remat: whether a block is computed anew for the gradient.
  """

  stage_sizes: tuple[int, ...]
  widths: tuple[int, ...]
  group_width: int
  num_classes: int
  dtype: DTypeLike = jnp.float32
  dropout_rate: float = 0.0
  drop_path_rate: float = 0.0
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`."""
    make = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
    rates = layers.drop_path_rates(self.drop_path_rate, sum(self.stage_sizes))
    number = 0
    x = images.astype(self.dtype)
    x = layers.conv(32, 3, stride=2, padding=1, use_bias=False, dtype=self.dtype, name="stem_conv")(
      x
    )
    norm = layers.batch_norm(
      train=train, dtype=self.dtype, axis_name=self.axis_name, name="stem_norm"
    )
    x = layers.feature(self, "stem", norm(x, relu=True))
    for i, (width, size) in enumerate(zip(self.widths, self.stage_sizes, strict=True), 1):
      for j in range(1, size + 1):
        number += 1
        block = make(
          width,
          2 if j == 1 else 1,
          self.group_width,
          self.dtype,
          self.axis_name,
          rates[number - 1],
          number,
          name=f"stage{i}_block{j}",
        )
        x = block(x, train, keys)
      x = layers.feature(self, f"stage{i}", x)
    x = jnp.mean(x, axis=(1, 2), dtype=layers.param_dtype(self.dtype))
    x = layers.feature(self, "pre_logits", x)
    if train:
      x = layers.dropout(x, self.dropout_rate, keys, stream=0)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
