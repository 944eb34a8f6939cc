"""DenseNet. Knows no config."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers, pooling


class Layer(nn.Module):
  """x with `growth` channels more, by a 1x1 and a 3x3 convolution, each after batch norm and ReLU.

  Attributes:
    growth: channels that are added.
    dtype: type of the computation.
    axis_name: see `layers.batch_norm`.
  """

  growth: int
  dtype: DTypeLike
  axis_name: str | None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [batch, height, width, channels] to `growth` channels more."""
    conv = functools.partial(layers.conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train=train, dtype=self.dtype, axis_name=self.axis_name
    )
    y = conv(4 * self.growth, 1, name="conv1")(norm(name="norm1")(x, relu=True))
    y = conv(self.growth, 3, padding=1, name="conv2")(norm(name="norm2")(y, relu=True))
    return jnp.concatenate([x, y], axis=-1)


class DenseNet(nn.Module):
  """A stem, four stages in which every layer sees all before it, halved in between, the mean over
  pixels and the head.

  Huang et al. 2017, https://arxiv.org/abs/1608.06993, table 1, with compression by a half. Takes
  images from 29 pixels on.

  Features: `stem`, `stage1` to `stage4` (the last one normalised, after ReLU), `pre_logits` (before
  dropout).

  Attributes:
    stage_sizes: layers of each stage.
    growth: channels that each layer adds; the stem has twice as many.
    num_classes: length of the logits.
    dtype: type of the computation.
    dropout_rate: share of units dropped before the head.
    axis_name: see `layers.batch_norm`.
    remat: whether a layer is computed anew for the gradient.
  """

  stage_sizes: tuple[int, ...]
  growth: int
  num_classes: int
  dtype: DTypeLike = jnp.float32
  dropout_rate: float = 0.0
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`."""
    conv = functools.partial(layers.conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train=train, dtype=self.dtype, axis_name=self.axis_name
    )
    make = nn.remat(Layer, static_argnums=(2,)) if self.remat else Layer
    x = images.astype(self.dtype)
    x = conv(2 * self.growth, 7, stride=2, padding=3, name="stem_conv")(x)
    x = pooling.max_pool(norm(name="stem_norm")(x, relu=True), 3, stride=2, padding=1)
    x = layers.feature(self, "stem", x)
    for i, size in enumerate(self.stage_sizes, 1):
      if i > 1:
        x = norm(name=f"stage{i}_norm")(x, relu=True)
        x = pooling.avg_pool(conv(x.shape[-1] // 2, 1, name=f"stage{i}_conv")(x), 2)
      for j in range(1, size + 1):
        x = make(self.growth, self.dtype, self.axis_name, name=f"stage{i}_layer{j}")(x, train)
      if i == len(self.stage_sizes):
        x = norm(name="norm")(x, relu=True)
      x = layers.feature(self, f"stage{i}", x)
    x = jnp.mean(x, axis=(1, 2), dtype=layers.param_dtype(self.dtype))
    x = layers.feature(self, "pre_logits", x)
    if train:
      x = layers.dropout(x, self.dropout_rate, keys, stream=0)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
