"""The plain convolutional network of textbooks. Knows no config."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers, pooling

WIDTHS = (32, 64, 128)
HIDDEN = 512


class CNN(nn.Module):
  """Three 3x3 convolutions without padding, each with ReLU and 2x2 max-pooling, and two dense
  layers.

  The first dense layer sees every pixel of what is left, so the number of parameters depends on the
  image size. Takes images from 22 pixels on: 22 -> 20 -> 10 -> 8 -> 4 -> 2 -> 1.

  Features: `stage1` to `stage3` (after ReLU, before pooling), `pre_logits` (before dropout).

  Attributes:
    num_classes: length of the logits.
    dtype: type of the computation.
    dropout_rate: share of the hidden units dropped before the head.
  """

  num_classes: int
  dtype: DTypeLike = jnp.float32
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`."""
    conv = functools.partial(layers.conv, dtype=self.dtype)
    x = images.astype(self.dtype)
    for i, width in enumerate(WIDTHS, 1):
      x = nn.relu(conv(width, 3, name=f"conv{i}")(x))
      x = layers.feature(self, f"stage{i}", x)
      x = pooling.max_pool(x, 2)
    x = x.reshape(x.shape[0], -1)
    x = nn.relu(layers.dense(HIDDEN, dtype=self.dtype, name="dense")(x))
    x = layers.feature(self, "pre_logits", x)
    if train:
      x = layers.dropout(x, self.dropout_rate, keys, stream=1)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
