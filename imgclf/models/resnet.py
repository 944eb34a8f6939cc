"""The ResNet family, v1.5. Knows no config."""

import functools

from flax import linen as nn
import jax
from jax.nn import initializers
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
  """A residual block: x + branch(x), then ReLU.

  Attributes:
    width: channels of the 3x3 convolutions.
    stride: of the block; v1.5 has it in a bottleneck's 3x3 convolution, v1 had it in the first 1x1.
    bottleneck: 1x1, 3x3 and 1x1 to four times the width, instead of 3x3 and 3x3.
    dtype: type of the computation.
    axis_name: see `layers.batch_norm`.
  """

  width: int
  stride: int
  bottleneck: bool
  dtype: DTypeLike
  axis_name: str | None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [batch, height, width, channels] to the block's own channels, smaller by the stride."""
    conv = functools.partial(layers.conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      layers.batch_norm, train=train, dtype=self.dtype, axis_name=self.axis_name
    )
    if self.bottleneck:
      y = norm(name="norm1")(conv(self.width, 1, name="conv1")(x), relu=True)
      y = conv(self.width, 3, stride=self.stride, padding=1, name="conv2")(y)
      y = norm(name="norm2")(y, relu=True)
      y = conv(4 * self.width, 1, name="conv3")(y)
    else:
      y = conv(self.width, 3, stride=self.stride, padding=1, name="conv1")(x)
      y = norm(name="norm1")(y, relu=True)
      y = conv(self.width, 3, padding=1, name="conv2")(y)
    if self.stride > 1 or x.shape[-1] != y.shape[-1]:
      x = conv(y.shape[-1], 1, stride=self.stride, name="shortcut_conv")(x)
      x = norm(name="shortcut_norm")(x)
    # The last scale of a branch starts at zero, so that a block starts as the identity (Goyal et al.
    # 2017, https://arxiv.org/abs/1706.02677, section 5.1).
    last = norm(scale_init=initializers.zeros, name="norm3" if self.bottleneck else "norm2")
    return last(y, added=x, relu=True)


class ResNet(nn.Module):
  """A stem, four stages of residual blocks, the mean over pixels and the head.

  He et al. 2015, https://arxiv.org/abs/1512.03385, table 1, in torchvision's form (v1.5). Takes images of
  any size: the stem and the stages round up.

  Features: `stem`, `stage1` to `stage4`, `pre_logits`.

  Attributes:
    stage_sizes: blocks of each of the four stages.
    bottleneck: see `Block`.
    num_classes: length of the logits.
    dtype: type of the computation.
    stem: `imagenet` is a 7x7 convolution with stride 2 and 3x3 max-pooling with stride 2; `cifar`, for
      small images, is a 3x3 convolution alone.
    axis_name: see `layers.batch_norm`.
    remat: whether a block is computed anew for the gradient, so that of the forward pass only what goes
      from block to block is kept.
  """

  stage_sizes: tuple[int, ...]
  bottleneck: bool
  num_classes: int
  dtype: DTypeLike = jnp.float32
  stem: str = "imagenet"
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`. Has no dropout: keys are not used."""
    stem = functools.partial(layers.conv, use_bias=False, dtype=self.dtype, name="stem_conv")
    norm = functools.partial(
      layers.batch_norm, train=train, dtype=self.dtype, axis_name=self.axis_name
    )
    x = images.astype(self.dtype)
    if self.stem == "cifar":
      x = stem(64, 3, padding=1)(x)
    else:
      x = stem(64, 7, stride=2, padding=3)(x)
    x = norm(name="stem_norm")(x, relu=True)
    if self.stem == "imagenet":
      x = layers.max_pool(x, 3, stride=2, padding=1)
    x = layers.feature(self, "stem", x)
    make = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
    for i, (width, size) in enumerate(zip(WIDTHS, self.stage_sizes, strict=True), 1):
      for j in range(1, size + 1):
        stride = 2 if i > 1 and j == 1 else 1
        block = make(
          width, stride, self.bottleneck, self.dtype, self.axis_name, name=f"stage{i}_block{j}"
        )
        x = block(x, train)
      x = layers.feature(self, f"stage{i}", x)
    # In float32 also where the rest is bfloat16: the head reads it so.
    x = jnp.mean(x, axis=(1, 2), dtype=layers.param_dtype(self.dtype))
    x = layers.feature(self, "pre_logits", x)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
