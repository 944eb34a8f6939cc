"""LeNet-5, the digit reader of 1998. Knows no config."""

import functools

from flax import linen as nn
import jax
from jax.nn import initializers
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers

# For tanh: keeps the variance of the signal where tanh is nearly the identity (LeCun et al. 1998,
# "Efficient BackProp", equation 16).
LECUN = initializers.variance_scaling(1.0, "fan_in", "normal")


class LeNet5(nn.Module):
  """LeNet-5 as it is commonly drawn: tanh and average pooling, 61,706 parameters for grey 32x32
  digits.

  LeCun et al. 1998, "Gradient-based learning applied to document recognition", figure 2. Of the
  paper's, this leaves out the trained gain and bias of each pooling, the table of which maps the
  second convolution sees (here: all), the scaled tanh, and the radial basis functions at the end.
  Where images are larger than 32 pixels, the first dense layer grows with them. Takes images from
  16 pixels on: 16 -> 12 -> 6 -> 2 -> 1.

  Features: `stage1` and `stage2` (after tanh, before pooling), `pre_logits`.

  Attributes:
    num_classes: length of the logits.
    dtype: type of the computation.
  """

  num_classes: int
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`. Nothing here differs in training."""
    conv = functools.partial(layers.conv, dtype=self.dtype, kernel_init=LECUN)
    dense = functools.partial(layers.dense, dtype=self.dtype, kernel_init=LECUN)
    x = images.astype(self.dtype)
    for i, width in enumerate((6, 16), 1):
      x = nn.tanh(conv(width, 5, name=f"conv{i}")(x))
      x = layers.feature(self, f"stage{i}", x)
      x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
    x = x.reshape(x.shape[0], -1)
    x = nn.tanh(dense(120, name="dense1")(x))
    x = nn.tanh(dense(84, name="dense2")(x))
    x = layers.feature(self, "pre_logits", x)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
