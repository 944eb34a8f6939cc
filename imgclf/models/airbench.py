"""The network of Keller Jordan's CIFAR-10 speed records. Knows no config."""

from collections.abc import Callable, Mapping, Sequence
import functools
import math
from typing import Any, ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
import numpy as np

from imgclf.models import layers, pooling, whitening

# Running statistics that keep little of themselves follow a network that changes fast
# (airbench94_muon.py).
MOMENTUM, EPSILON = 0.6, 1e-12
PATCH = 2


def identity_conv_init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
  """Draws a convolution whose first outputs are its inputs, as far as they go (Jordan 2024,
  "identity initialization").

  The others are torch's default, uniform in plus and minus 1 / sqrt(inputs of a filter).

  Args:
    key: a PRNG key.
    shape: height, width (odd), inputs, outputs.
    dtype: of the result.
  """
  height, width, inputs, outputs = shape
  bound = 1 / math.sqrt(height * width * inputs)
  drawn = jax.random.uniform(key, shape, dtype, -bound, bound)
  kept = min(inputs, outputs)
  identity = jnp.zeros((height, width, inputs, kept), dtype)
  identity = identity.at[height // 2, width // 2].set(jnp.eye(inputs, kept, dtype=dtype))
  return drawn.at[..., :kept].set(identity)


def uniform_init(std: float) -> Callable[..., jax.Array]:
  """Returns an initializer that draws uniformly around 0, with this standard deviation."""

  def init(key: jax.Array, shape: Sequence[int], dtype: DTypeLike) -> jax.Array:
    bound = std * math.sqrt(3)
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


class Block(nn.Module):
  """Twice 3x3 convolution, batch norm without a scale, GELU; 2x2 max-pooling after the first
  convolution.

  Attributes:
    width: channels of the result.
    dtype: type of the computation.
    axis_name: see `layers.batch_norm`.
  """

  width: int
  dtype: DTypeLike
  axis_name: str | None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [batch, height, width, channels] to half the height and width, rounded down."""
    for i in (1, 2):
      x = layers.conv(
        self.width,
        3,
        padding=1,
        use_bias=False,
        dtype=self.dtype,
        kernel_init=identity_conv_init,
        name=f"conv{i}",
      )(x)
      if i == 1:
        x = pooling.max_pool(x, 2)
      x = layers.batch_norm(
        train=train,
        dtype=self.dtype,
        axis_name=self.axis_name,
        use_scale=False,
        momentum=MOMENTUM,
        epsilon=EPSILON,
        name=f"norm{i}",
      )(x)
      x = layers.gelu(x)
    return x


class Airbench(nn.Module):
  """A whitening of 2x2 patches, three blocks, the maximum over pixels, and a head whose logits are
  scaled down.

  Jordan 2024, https://arxiv.org/abs/2404.00498, and airbench94_muon.py of
  github.com/KellerJordan/cifar10-airbench. At 32 pixels the blocks see 31 -> 15 -> 7 -> 3 of them.
  The convolutions do not start at random, so that the head does, with logits divided by its inputs:
  the loss of an untrained network is near ln(classes), not at it. Takes images from 9 pixels on: 9
  -> 8 -> 4 -> 2 -> 1.

  Three updates of the recipe in float64 equal those of that script to 2e-7 of each array's move,
  but for pixels that tie in a pooling window, as in a blank sky: here they share its gradient,
  there the first one takes it all.

  It is meant to be trained with `whitening/kernel` as `fitted` sets it, frozen. Features: `stem`,
  `stage1` to `stage3`, `pre_logits`.

  Attributes:
    num_classes: length of the logits.
    dtype: type of the computation.
    widths: channels of the blocks.
    axis_name: see `layers.batch_norm`.
  """

  num_classes: int
  dtype: DTypeLike = jnp.float32
  widths: tuple[int, ...] = (64, 256, 256)
  axis_name: str | None = None

  # How many training images `fitted` is to be given.
  fitted_to: ClassVar[int] = 5000

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`. Has no dropout: keys are not used."""
    inputs = PATCH * PATCH * images.shape[-1]
    x = layers.conv(
      2 * inputs,
      PATCH,
      dtype=self.dtype,
      bias_init=uniform_init(1 / math.sqrt(3 * inputs)),  # torch's default
      name="whitening",
    )(images.astype(self.dtype))
    x = layers.gelu(x)
    x = layers.feature(self, "stem", x)
    for i, width in enumerate(self.widths, 1):
      x = Block(width, self.dtype, self.axis_name, name=f"block{i}")(x, train)
      x = layers.feature(self, f"stage{i}", x)
    x = layers.feature(self, "pre_logits", pooling.global_max_pool(x))
    head = functools.partial(nn.Dense, use_bias=False, kernel_init=uniform_init(1.0), name="head")
    wide = layers.param_dtype(self.dtype)
    return head(self.num_classes, dtype=wide, param_dtype=wide)(x) / x.shape[-1]

  def fitted(self, params: Mapping[str, Any], images: jax.Array) -> dict[str, Any]:
    """Returns the parameters with a stem that whitens the images' patches; see
    `imgclf.models.whitening`.

    Args:
      params: as from `init`.
      images: [n, height, width, 3] floats, normalised: training images, the more the better.
    """
    filters = whitening.whitening_filters(
      np.asarray(whitening.patch_covariance(images, PATCH)), PATCH
    )
    layer = params["whitening"]
    return {**params, "whitening": {**layer, "kernel": filters.astype(layer["kernel"].dtype)}}
