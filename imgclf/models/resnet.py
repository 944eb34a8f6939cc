"""The ResNet family, v1.5, with ResNeXt, Wide ResNet and ResNet-D. Knows no config."""

import functools

from flax import linen as nn
import jax
from jax.nn import initializers
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers, pooling

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
  """A residual block: x + branch(x), then ReLU.

  Attributes:
    width: channels of the 3x3 convolutions.
    stride: of the block; v1.5 has it in a bottleneck's 3x3 convolution, v1 had it in the first 1x1.
    bottleneck: 1x1, 3x3 and 1x1 to four times the width, instead of 3x3 and 3x3.
    dtype: type of the computation.
    axis_name: see `layers.batch_norm`.
    inner: channels of a bottleneck's 3x3 convolution as a multiple of the width.
    groups: of that convolution.
    averages: whether a shortcut is halved by the mean over 2x2 pixels, not by the stride of its
      convolution.
    drop_path_rate: share of the examples whose branch is dropped in training.
    stream: number of the block; see `layers.drop_path`.
  """

  width: int
  stride: int
  bottleneck: bool
  dtype: DTypeLike
  axis_name: str | None
  inner: int = 1
  groups: int = 1
  averages: bool = False
  drop_path_rate: float = 0.0
  stream: int = 0

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None = None) -> jax.Array:
    """Maps [batch, height, width, channels] to the block's own channels, smaller by the stride."""
    conv = functools.partial(layers.conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train=train, dtype=self.dtype, axis_name=self.axis_name
    )
    if self.bottleneck:
      inner = self.inner * self.width
      y = norm(name="norm1")(conv(inner, 1, name="conv1")(x), relu=True)
      y = conv(inner, 3, stride=self.stride, padding=1, groups=self.groups, name="conv2")(y)
      y = norm(name="norm2")(y, relu=True)
      y = conv(4 * self.width, 1, name="conv3")(y)
    else:
      y = conv(self.width, 3, stride=self.stride, padding=1, name="conv1")(x)
      y = norm(name="norm1")(y, relu=True)
      y = conv(self.width, 3, padding=1, name="conv2")(y)
    if self.stride > 1 or x.shape[-1] != y.shape[-1]:
      stride = self.stride
      if self.averages and stride > 1:
        x, stride = _halved(x), 1
      x = conv(y.shape[-1], 1, stride=stride, name="shortcut_conv")(x)
      x = norm(name="shortcut_norm")(x)
    # The last scale of a branch starts at zero, so that a block starts as the identity (Goyal et
    # al. 2017, https://arxiv.org/abs/1706.02677, section 5.1).
    last = norm(scale_init=initializers.zeros, name="norm3" if self.bottleneck else "norm2")
    if not (train and self.drop_path_rate):
      return last(y, added=x, relu=True)
    return nn.relu(x + layers.drop_path(last(y), self.drop_path_rate, keys, stream=self.stream))


def _halved(x: jax.Array) -> jax.Array:
  """Means over 2x2 pixels; at the far end of an odd size, over those that there are."""
  for axis in (1, 2):
    length = x.shape[axis]
    if length % 2:  # a repeated pixel does not change the mean of itself
      last = jax.lax.slice_in_dim(x, length - 1, length, axis=axis)
      x = jnp.concatenate([x, last], axis=axis)
  return pooling.avg_pool(x, 2)


class ResNet(nn.Module):
  """A stem, four stages of residual blocks, the mean over pixels and the head.

  He et al. 2015, https://arxiv.org/abs/1512.03385, table 1, in torchvision's form (v1.5); ResNeXt:
  Xie et al. 2017, https://arxiv.org/abs/1611.05431; Wide ResNet: Zagoruyko & Komodakis 2016,
  https://arxiv.org/abs/1605.07146; ResNet-D: He et al. 2019, https://arxiv.org/abs/1812.01187,
  figure 2. Takes images of any size: the stem and the stages round up.

  Features: `stem`, `stage1` to `stage4`, `pre_logits`.

  Attributes:
    stage_sizes: blocks of each of the four stages.
    bottleneck: see `Block`.
    num_classes: length of the logits.
    dtype: type of the computation.
    stem: `imagenet` is a 7x7 convolution with stride 2 and 3x3 max-pooling with stride 2; `cifar`,
      for small images, is a 3x3 convolution alone.
    inner, groups: see `Block`.
    deep: ResNet-D: three 3x3 convolutions in place of the 7x7 one, and shortcuts that average.
    drop_path_rate: of the last block; see `layers.drop_path_rates`.
    axis_name: see `layers.batch_norm`.
    remat: whether a block is computed anew for the gradient, so that of the forward pass only what
      goes from block to block is kept.
  """

  stage_sizes: tuple[int, ...]
  bottleneck: bool
  num_classes: int
  dtype: DTypeLike = jnp.float32
  stem: str = "imagenet"
  inner: int = 1
  groups: int = 1
  deep: bool = False
  drop_path_rate: float = 0.0
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`. Keys are for drop-path: there is no dropout."""
    conv = functools.partial(layers.conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train=train, dtype=self.dtype, axis_name=self.axis_name
    )
    x = images.astype(self.dtype)
    if self.stem == "cifar":
      x = conv(64, 3, padding=1, name="stem_conv")(x)
    elif self.deep:
      x = conv(32, 3, stride=2, padding=1, name="stem_conv1")(x)
      x = conv(32, 3, padding=1, name="stem_conv2")(norm(name="stem_norm1")(x, relu=True))
      x = conv(64, 3, padding=1, name="stem_conv3")(norm(name="stem_norm2")(x, relu=True))
    else:
      x = conv(64, 7, stride=2, padding=3, name="stem_conv")(x)
    x = norm(name="stem_norm")(x, relu=True)
    if self.stem == "imagenet":
      x = pooling.max_pool(x, 3, stride=2, padding=1)
    x = layers.feature(self, "stem", x)
    make = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
    rates = layers.drop_path_rates(self.drop_path_rate, sum(self.stage_sizes))
    number = 0
    for i, (width, size) in enumerate(zip(WIDTHS, self.stage_sizes, strict=True), 1):
      for j in range(1, size + 1):
        number += 1
        block = make(
          width,
          2 if i > 1 and j == 1 else 1,
          self.bottleneck,
          self.dtype,
          self.axis_name,
          self.inner,
          self.groups,
          self.deep,
          rates[number - 1],
          number,
          name=f"stage{i}_block{j}",
        )
        x = block(x, train, keys)
      x = layers.feature(self, f"stage{i}", x)
    # In float32 also where the rest is bfloat16: the head reads it so.
    x = jnp.mean(x, axis=(1, 2), dtype=layers.param_dtype(self.dtype))
    x = layers.feature(self, "pre_logits", x)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
