"""Squeeze-and-excitation: channels weighted by what the whole image holds. Knows no network."""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers


class SqueezeExcite(nn.Module):
  """Means over pixels, two dense layers, and a gate from 0 to 1 for each channel.

  Hu et al. 2018, https://arxiv.org/abs/1709.01507. torchvision and timm write the dense layers as
  1x1 convolutions.

  Attributes:
    squeezed: units of the first dense layer.
    dtype: type of the computation.
    activation: after the first dense layer.
    gate: after the second.
  """

  squeezed: int
  dtype: DTypeLike
  activation: Callable[[jax.Array], jax.Array] = nn.relu
  gate: Callable[[jax.Array], jax.Array] = nn.sigmoid

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [batch, height, width, channels] to the same shape."""
    y = jnp.mean(x, axis=(1, 2), dtype=layers.param_dtype(self.dtype))
    y = self.activation(layers.dense(self.squeezed, dtype=self.dtype, name="squeeze")(y))
    y = self.gate(layers.dense(x.shape[-1], dtype=self.dtype, name="excite")(y))
    return x * y[:, None, None, :]
