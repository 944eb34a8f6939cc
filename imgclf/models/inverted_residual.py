"""The block that the MobileNets and EfficientNets are made of. Knows no network."""

from collections.abc import Callable
import functools

from flax import linen as nn
import jax
from jax.typing import DTypeLike

from imgclf.models import layers
from imgclf.models.squeeze_excite import SqueezeExcite


def divisible(channels: float, divisor: int = 8) -> int:
  """The nearest multiple of `divisor`, at least one of it, and the next where 10% or more would be
  lost.
  """
  nearest = max(divisor, int(channels + divisor / 2) // divisor * divisor)
  return nearest + divisor if nearest < 0.9 * channels else nearest


class InvertedResidual(nn.Module):
  """Widened by a 1x1 convolution, convolved channel by channel, narrowed without an activation;
  plus x where it fits.

  Sandler et al. 2018, https://arxiv.org/abs/1801.04381, table 1. `fused` has one ordinary
  convolution in place of the first two (Tan & Le 2021, https://arxiv.org/abs/2104.00298, figure 2).
  What would widen by nothing is left out.

  Attributes:
    expanded: channels within.
    features: channels of the result.
    size: of the convolution, in pixels.
    stride: of the convolution.
    squeezed: units of squeeze-and-excitation, 0 for none.
    activation: after each convolution but the last.
    dtype: type of the computation.
    axis_name: see `layers.batch_norm`.
    squeeze_activation, gate: see `SqueezeExcite`.
    momentum, epsilon: see `layers.batch_norm`.
    fused: see above.
    drop_path_rate: share of the examples whose branch is dropped in training.
    stream: number of the block; see `layers.drop_path`.
  """

  expanded: int
  features: int
  size: int
  stride: int
  squeezed: int
  activation: Callable[[jax.Array], jax.Array]
  dtype: DTypeLike
  axis_name: str | None
  squeeze_activation: Callable[[jax.Array], jax.Array] = nn.relu
  gate: Callable[[jax.Array], jax.Array] = nn.sigmoid
  momentum: float = layers.MOMENTUM
  epsilon: float = layers.EPSILON
  fused: bool = False
  drop_path_rate: float = 0.0
  stream: int = 0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None) -> jax.Array:
    """Maps [batch, height, width, channels] to `features` channels, smaller by the stride."""
    conv = functools.partial(layers.conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm,
      train=train,
      dtype=self.dtype,
      axis_name=self.axis_name,
      momentum=self.momentum,
      epsilon=self.epsilon,
    )
    spatial = functools.partial(
      conv, size=self.size, stride=self.stride, padding=(self.size - 1) // 2
    )
    widens = self.expanded != x.shape[-1]
    y = x
    if self.fused:
      width = self.expanded if widens else self.features
      y = spatial(width, name="fused_conv")(y)
      y = self.activation(norm(name="fused_norm")(y))
    else:
      if widens:
        y = conv(self.expanded, 1, name="expand_conv")(y)
        y = self.activation(norm(name="expand_norm")(y))
      y = spatial(self.expanded, groups=self.expanded, name="depthwise_conv")(y)
      y = self.activation(norm(name="depthwise_norm")(y))
    if self.squeezed:
      excite = SqueezeExcite(
        self.squeezed, self.dtype, self.squeeze_activation, self.gate, name="squeeze_excite"
      )
      y = excite(y)
    if widens or not self.fused:
      y = norm(name="project_norm")(conv(self.features, 1, name="project_conv")(y))
    if self.stride > 1 or x.shape[-1] != self.features:
      return y
    if train:
      y = layers.drop_path(y, self.drop_path_rate, keys, stream=self.stream)
    return x + y
