"""EfficientNet B0 to B4 and V2. Knows no config."""

import functools
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers
from imgclf.models.inverted_residual import InvertedResidual, divisible

# A stage: fused, factor that widens, size of the convolution, stride of the first block, channels,
# blocks.
Stage = tuple[bool, int, int, int, int, int]

# Tan & Le 2019, table 1.
B0: tuple[Stage, ...] = (
  (False, 1, 3, 1, 16, 1),
  (False, 6, 3, 2, 24, 2),
  (False, 6, 5, 2, 40, 2),
  (False, 6, 3, 2, 80, 3),
  (False, 6, 5, 1, 112, 3),
  (False, 6, 5, 2, 192, 4),
  (False, 6, 3, 1, 320, 1),
)
# Tan & Le 2021, table 4, and the authors' code for M.
V2_S: tuple[Stage, ...] = (
  (True, 1, 3, 1, 24, 2),
  (True, 4, 3, 2, 48, 4),
  (True, 4, 3, 2, 64, 4),
  (False, 4, 3, 2, 128, 6),
  (False, 6, 3, 1, 160, 9),
  (False, 6, 3, 2, 256, 15),
)
V2_M: tuple[Stage, ...] = (
  (True, 1, 3, 1, 24, 3),
  (True, 4, 3, 2, 48, 5),
  (True, 4, 3, 2, 80, 5),
  (False, 4, 3, 2, 160, 7),
  (False, 6, 3, 1, 176, 14),
  (False, 6, 3, 2, 304, 18),
  (False, 6, 3, 1, 512, 5),
)
VARIANTS = {"b": B0, "v2_s": V2_S, "v2_m": V2_M}


class EfficientNet(nn.Module):
  """A convolution, stages of inverted residuals, a convolution, the mean over pixels and the head.

  Tan & Le 2019, https://arxiv.org/abs/1905.11946, and 2021, https://arxiv.org/abs/2104.00298, in
  torchvision's form: symmetric padding. Takes images of any size.

  Features: `stem`, `stage1` to `stage6` or `stage7`, `last` (the last convolution), `pre_logits`
  (before dropout).

  Attributes:
    variant: `b`, which the factors below make B0 to B4, `v2_s` or `v2_m`.
    num_classes: length of the logits.
    width_factor: of the channels, rounded to multiples of 8.
    depth_factor: of the number of blocks, rounded up.
    batch_norm_epsilon: added to the variance; V2 was published with 0.001.
    dtype: type of the computation.
    dropout_rate: share of units dropped before the head.
    drop_path_rate: of the last block; see `layers.drop_path_rates`.
    axis_name: see `layers.batch_norm`.
    remat: whether a block is computed anew for the gradient.
  """

  variant: str
  num_classes: int
  width_factor: float = 1.0
  depth_factor: float = 1.0
  batch_norm_epsilon: float = layers.EPSILON
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
    stages = VARIANTS[self.variant]
    v2 = self.variant.startswith("v2")
    statistics: dict[str, Any] = {
      "axis_name": self.axis_name,
      "epsilon": self.batch_norm_epsilon,
    }
    conv = functools.partial(layers.conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(layers.batch_norm, train=train, dtype=self.dtype, **statistics)
    make = nn.remat(InvertedResidual, static_argnums=(2,)) if self.remat else InvertedResidual
    sizes = [math.ceil(self.depth_factor * stage[-1]) for stage in stages]
    rates = layers.drop_path_rates(self.drop_path_rate, sum(sizes))
    number = 0
    x = images.astype(self.dtype)
    width = divisible(self.width_factor * (24 if v2 else 32))
    x = conv(width, 3, stride=2, padding=1, name="stem_conv")(x)
    x = layers.feature(self, "stem", nn.silu(norm(name="stem_norm")(x)))
    for i, ((fused, factor, size, stride, channels, _), count) in enumerate(
      zip(stages, sizes, strict=True), 1
    ):
      for j in range(1, count + 1):
        number += 1
        block = make(
          factor * x.shape[-1],
          divisible(self.width_factor * channels),
          size,
          stride if j == 1 else 1,
          # A quarter of what comes in, not of what that is widened to.
          0 if fused else max(1, x.shape[-1] // 4),
          nn.silu,
          self.dtype,
          squeeze_activation=nn.silu,
          **statistics,
          fused=fused,
          drop_path_rate=rates[number - 1],
          stream=number,
          name=f"stage{i}_block{j}",
        )
        x = block(x, train, keys)
      x = layers.feature(self, f"stage{i}", x)
    x = conv(1280 if v2 else 4 * x.shape[-1], 1, name="last_conv")(x)
    x = layers.feature(self, "last", nn.silu(norm(name="last_norm")(x)))
    x = jnp.mean(x, axis=(1, 2), dtype=layers.param_dtype(self.dtype))
    x = layers.feature(self, "pre_logits", x)
    if train:
      x = layers.dropout(x, self.dropout_rate, keys, stream=0)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
