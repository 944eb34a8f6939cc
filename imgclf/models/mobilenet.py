"""MobileNetV2 and V3. Knows no config."""

import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers
from imgclf.models.inverted_residual import InvertedResidual, divisible

# Sandler et al. 2018, table 2: factor that widens, channels, blocks, stride of the first.
V2_STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)
V2_WIDTHS = 32, 1280  # of the first and the last convolution

# Howard et al. 2019, tables 1 and 2, cut where the image is halved. A block: size of its
# convolution, channels within, channels of its result, squeeze-and-excitation, hard swish (else
# ReLU), stride.
V3_STAGES = {
  "large": (
    ((3, 16, 16, False, False, 1),),
    ((3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1)),
    ((5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1)),
    (
      (3, 240, 80, False, True, 2),
      (3, 200, 80, False, True, 1),
      (3, 184, 80, False, True, 1),
      (3, 184, 80, False, True, 1),
      (3, 480, 112, True, True, 1),
      (3, 672, 112, True, True, 1),
    ),
    ((5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1)),
  ),
  "small": (
    ((3, 16, 16, True, False, 2),),
    ((3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1)),
    (
      (5, 96, 40, True, True, 2),
      (5, 240, 40, True, True, 1),
      (5, 240, 40, True, True, 1),
      (5, 120, 48, True, True, 1),
      (5, 144, 48, True, True, 1),
    ),
    ((5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1)),
  ),
}
V3_HIDDEN = {"large": 1280, "small": 1024}


class MobileNetV2(nn.Module):
  """A convolution, seven stages of inverted residuals, a convolution, the mean over pixels and the
  head.

  Sandler et al. 2018, https://arxiv.org/abs/1801.04381. Takes images of any size.

  Features: `stem`, `stage1` to `stage7`, `last` (the last convolution), `pre_logits` (before
  dropout).

  Attributes:
    num_classes: length of the logits.
    dtype: type of the computation.
    dropout_rate: share of units dropped before the head.
    drop_path_rate: of the last block; see `layers.drop_path_rates`.
    axis_name: see `layers.batch_norm`.
    remat: whether a block is computed anew for the gradient.
  """

  num_classes: int
  dtype: DTypeLike = jnp.float32
  dropout_rate: float = 0.2
  drop_path_rate: float = 0.0
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
    make = nn.remat(InvertedResidual, static_argnums=(2,)) if self.remat else InvertedResidual
    rates = layers.drop_path_rates(self.drop_path_rate, sum(row[2] for row in V2_STAGES))
    number = 0
    x = images.astype(self.dtype)
    x = conv(V2_WIDTHS[0], 3, stride=2, padding=1, name="stem_conv")(x)
    x = layers.feature(self, "stem", nn.relu6(norm(name="stem_norm")(x)))
    for i, (factor, width, size, stride) in enumerate(V2_STAGES, 1):
      for j in range(1, size + 1):
        number += 1
        block = make(
          factor * x.shape[-1],
          width,
          3,
          stride if j == 1 else 1,
          0,
          nn.relu6,
          self.dtype,
          self.axis_name,
          drop_path_rate=rates[number - 1],
          stream=number,
          name=f"stage{i}_block{j}",
        )
        x = block(x, train, keys)
      x = layers.feature(self, f"stage{i}", x)
    x = conv(V2_WIDTHS[1], 1, name="last_conv")(x)
    x = layers.feature(self, "last", nn.relu6(norm(name="last_norm")(x)))
    x = jnp.mean(x, axis=(1, 2), dtype=layers.param_dtype(self.dtype))
    x = layers.feature(self, "pre_logits", x)
    if train:
      x = layers.dropout(x, self.dropout_rate, keys, stream=0)
    return layers.head(self.num_classes, dtype=self.dtype)(x)


class MobileNetV3(nn.Module):
  """A convolution, stages of inverted residuals, a convolution, the mean over pixels, a dense layer
  and the head.

  Howard et al. 2019, https://arxiv.org/abs/1905.02244, in torchvision's form: batch norm keeps 0.99
  of its statistics. Takes images of any size.

  Features: `stem`, `stage1` on (a stage ends before the image is halved), `last` (the last
  convolution), `pre_logits` (after the dense layer, before dropout).

  Attributes:
    variant: `large` or `small`.
    batch_norm_epsilon: added to the variance; timm adds 0.00001.
    num_classes, dtype, dropout_rate, drop_path_rate, axis_name, remat: see `MobileNetV2`.
  """

  variant: str
  num_classes: int
  batch_norm_epsilon: float = 1e-3
  dtype: DTypeLike = jnp.float32
  dropout_rate: float = 0.2
  drop_path_rate: float = 0.0
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`."""
    stages = V3_STAGES[self.variant]
    statistics: dict[str, Any] = {
      "axis_name": self.axis_name,
      "momentum": 0.99,
      "epsilon": self.batch_norm_epsilon,
    }
    conv = functools.partial(layers.conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(layers.batch_norm, train=train, dtype=self.dtype, **statistics)
    make = nn.remat(InvertedResidual, static_argnums=(2,)) if self.remat else InvertedResidual
    rates = layers.drop_path_rates(self.drop_path_rate, sum(map(len, stages)))
    number = 0
    x = images.astype(self.dtype)
    x = conv(16, 3, stride=2, padding=1, name="stem_conv")(x)
    x = layers.feature(self, "stem", nn.hard_swish(norm(name="stem_norm")(x)))
    for i, blocks in enumerate(stages, 1):
      for j, (size, expanded, width, squeezes, swish, stride) in enumerate(blocks, 1):
        number += 1
        block = make(
          expanded,
          width,
          size,
          stride,
          divisible(expanded // 4) if squeezes else 0,
          nn.hard_swish if swish else nn.relu,
          self.dtype,
          gate=nn.hard_sigmoid,
          **statistics,
          drop_path_rate=rates[number - 1],
          stream=number,
          name=f"stage{i}_block{j}",
        )
        x = block(x, train, keys)
      x = layers.feature(self, f"stage{i}", x)
    x = conv(6 * x.shape[-1], 1, name="last_conv")(x)
    x = layers.feature(self, "last", nn.hard_swish(norm(name="last_norm")(x)))
    x = jnp.mean(x, axis=(1, 2), dtype=layers.param_dtype(self.dtype))
    x = layers.dense(V3_HIDDEN[self.variant], dtype=self.dtype, name="dense")(x)
    x = layers.feature(self, "pre_logits", nn.hard_swish(x))
    if train:
      x = layers.dropout(x, self.dropout_rate, keys, stream=0)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
