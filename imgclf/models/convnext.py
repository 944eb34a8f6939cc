"""The ConvNeXt family. Knows no config."""

import functools

from flax import linen as nn
import jax
from jax.nn import initializers
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers

# As in the transformers that the network is modelled on.
_TRUNCATED = initializers.truncated_normal(0.02)


class Block(nn.Module):
  """x + branch(x): a depthwise 7x7 convolution, layer norm, and two dense layers at each pixel.

  Attributes:
    dtype: type of the computation.
    drop_path_rate: share of the examples whose branch is dropped in training.
    stream: number of the block; see `layers.drop_path`.
  """

  dtype: DTypeLike
  drop_path_rate: float
  stream: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None) -> jax.Array:
    """Maps [batch, height, width, channels] to the same shape."""
    channels = x.shape[-1]
    conv = functools.partial(layers.conv, dtype=self.dtype, kernel_init=_TRUNCATED)
    dense = functools.partial(layers.dense, dtype=self.dtype, kernel_init=_TRUNCATED)
    y = conv(channels, 7, padding=3, groups=channels, name="conv")(x)
    y = layers.layer_norm(dtype=self.dtype, name="norm")(y)
    y = layers.gelu(dense(4 * channels, name="dense1")(y))
    y = dense(channels, name="dense2")(y)
    # Layer scale (Touvron et al. 2021, https://arxiv.org/abs/2103.17239): branches fade in.
    gamma_type = layers.param_dtype(self.dtype)
    gamma = self.param("gamma", initializers.constant(1e-6), (channels,), gamma_type)
    y = y * gamma.astype(self.dtype)
    if train:
      y = layers.drop_path(y, self.drop_path_rate, keys, stream=self.stream)
    return x + y


class ConvNeXt(nn.Module):
  """Patches of 4x4 pixels, four stages of blocks with a halving between them, the mean over pixels
  and the head.

  Liu et al. 2022, https://arxiv.org/abs/2201.03545; atto and nano are timm's. Takes images from 32
  pixels on.

  Features: `stem`, `stage1` to `stage4`, `pre_logits` (normalised, before dropout).

  Attributes:
    stage_sizes: blocks of each stage.
    widths: channels of each stage.
    num_classes: length of the logits.
    dtype: type of the computation.
    dropout_rate: share of units dropped before the head.
    drop_path_rate: of the last block; see `layers.drop_path_rates`.
    remat: whether a block is computed anew for the gradient.
  """

  stage_sizes: tuple[int, ...]
  widths: tuple[int, ...]
  num_classes: int
  dtype: DTypeLike = jnp.float32
  dropout_rate: float = 0.0
  drop_path_rate: float = 0.0
  remat: bool = False

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`."""
    conv = functools.partial(layers.conv, dtype=self.dtype, kernel_init=_TRUNCATED)
    norm = functools.partial(layers.layer_norm, dtype=self.dtype)
    make = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
    rates = layers.drop_path_rates(self.drop_path_rate, sum(self.stage_sizes))
    number = 0
    x = images.astype(self.dtype)
    x = norm(name="stem_norm")(conv(self.widths[0], 4, stride=4, name="stem_conv")(x))
    x = layers.feature(self, "stem", x)
    for i, (width, size) in enumerate(zip(self.widths, self.stage_sizes, strict=True), 1):
      if i > 1:
        x = norm(name=f"stage{i}_norm")(x)
        x = conv(width, 2, stride=2, name=f"stage{i}_conv")(x)
      for j in range(1, size + 1):
        number += 1
        block = make(self.dtype, rates[number - 1], number, name=f"stage{i}_block{j}")
        x = block(x, train, keys)
      x = layers.feature(self, f"stage{i}", x)
    exact = layers.param_dtype(self.dtype)
    x = jnp.mean(x, axis=(1, 2), dtype=exact)
    x = layers.layer_norm(dtype=exact, name="norm")(x)
    x = layers.feature(self, "pre_logits", x)
    if train:
      x = layers.dropout(x, self.dropout_rate, keys, stream=0)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
