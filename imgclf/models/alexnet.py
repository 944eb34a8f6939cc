"""AlexNet in one column. Knows no config."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers, pooling

WIDTHS = (64, 192, 384, 256, 256)
HIDDEN = 4096


class AlexNet(nn.Module):
  """AlexNet as torchvision has it: the single column of Krizhevsky 2014, without local
  normalisation.

  https://arxiv.org/abs/1404.5997, and Krizhevsky et al. 2012 for dropout. Averages what the
  convolutions leave to 6x6, which is what 224 pixels give, so weights fit any image size. Takes
  images from 63 pixels on: 63 -> 15 -> 7 -> 3 -> 1.

  Features: `stage1` (the first convolution), `stage2` (the second), `stage3` (the last three), each
  after ReLU and before pooling; `pre_logits`.

  Attributes:
    num_classes: length of the logits.
    dtype: type of the computation.
    dropout_rate: share of units dropped before each of the two hidden dense layers.
  """

  num_classes: int
  dtype: DTypeLike = jnp.float32
  dropout_rate: float = 0.5

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`."""
    conv = functools.partial(layers.conv, dtype=self.dtype)
    pool = functools.partial(pooling.max_pool, size=3, stride=2)
    x = images.astype(self.dtype)
    x = nn.relu(conv(WIDTHS[0], 11, stride=4, padding=2, name="conv1")(x))
    x = pool(layers.feature(self, "stage1", x))
    x = nn.relu(conv(WIDTHS[1], 5, padding=2, name="conv2")(x))
    x = pool(layers.feature(self, "stage2", x))
    for i in (3, 4, 5):
      x = nn.relu(conv(WIDTHS[i - 1], 3, padding=1, name=f"conv{i}")(x))
    x = pool(layers.feature(self, "stage3", x))
    x = pooling.adaptive_avg_pool(x, 6)
    x = x.reshape(x.shape[0], -1)
    for i in (1, 2):
      if train:
        x = layers.dropout(x, self.dropout_rate, keys, stream=i)
      x = nn.relu(layers.dense(HIDDEN, dtype=self.dtype, name=f"dense{i}")(x))
    x = layers.feature(self, "pre_logits", x)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
