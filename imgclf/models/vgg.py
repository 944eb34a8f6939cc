"""The VGG networks, with and without batch norm. Knows no config."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers, pooling

WIDTHS = (64, 128, 256, 512, 512)
HIDDEN = 4096


class VGG(nn.Module):
  """Stages of 3x3 convolutions, each stage halved by 2x2 max-pooling, and three dense layers.

  Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556, table 1: columns A, B, D and E are
  VGG-11, 13, 16 and 19. Averages what the convolutions leave to 7x7, which is what 224 pixels give,
  as torchvision does, so weights fit any image size. With batch norm the convolutions keep their
  biases, as there. Takes images from 32 pixels on.

  Features: `stage1` to `stage5` (after the last ReLU of the stage, before pooling), `pre_logits`
  (before dropout).

  Attributes:
    stage_sizes: convolutions of each of the five stages.
    batch_norm: whether each convolution is followed by batch norm.
    num_classes: length of the logits.
    dtype: type of the computation.
    dropout_rate: share of units dropped after each of the two hidden dense layers.
    axis_name: see `layers.batch_norm`.
  """

  stage_sizes: tuple[int, ...]
  batch_norm: bool
  num_classes: int
  dtype: DTypeLike = jnp.float32
  dropout_rate: float = 0.5
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`."""
    conv = functools.partial(layers.conv, padding=1, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train=train, dtype=self.dtype, axis_name=self.axis_name
    )
    x = images.astype(self.dtype)
    for i, (width, size) in enumerate(zip(WIDTHS, self.stage_sizes, strict=True), 1):
      for j in range(1, size + 1):
        x = conv(width, 3, name=f"conv{i}_{j}")(x)
        if self.batch_norm:
          x = norm(name=f"norm{i}_{j}")(x, relu=True)
        else:
          x = nn.relu(x)
      x = layers.feature(self, f"stage{i}", x)
      x = pooling.max_pool(x, 2)
    x = pooling.adaptive_avg_pool(x, 7)
    x = x.reshape(x.shape[0], -1)
    for i in (1, 2):
      x = nn.relu(layers.dense(HIDDEN, dtype=self.dtype, name=f"dense{i}")(x))
      if i == 2:
        x = layers.feature(self, "pre_logits", x)
      if train:
        x = layers.dropout(x, self.dropout_rate, keys, stream=i)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
