"""What the networks share: layers with this project's types and initial values, features.

A layer computes in `dtype`. Parameters, running statistics and logits have `param_dtype(dtype)`.
This file knows no network and no config.
"""

from collections.abc import Callable
import math

from flax import linen as nn
import jax
from jax.nn import initializers
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import convolution
from imgclf.models.fused import EPSILON, MOMENTUM, BatchNorm

# He et al. 2015, https://arxiv.org/abs/1502.01852, equations 14 and 10: normal, not truncated.
# Convolutions keep the size of the gradient on its way down, as in torchvision's networks. A hidden
# dense layer keeps that of the signal: VGG's first has six times as many inputs as outputs.
HE_FAN_OUT = initializers.variance_scaling(2.0, "fan_out", "normal")
HE_FAN_IN = initializers.variance_scaling(2.0, "fan_in", "normal")


def param_dtype(dtype: DTypeLike) -> jnp.dtype:
  """Returns float64 for float64, else float32, so that small updates of weights are not lost."""
  return jnp.promote_types(dtype, jnp.float32)


def conv(
  features: int,
  size: int,
  *,
  dtype: DTypeLike,
  name: str,
  stride: int = 1,
  padding: int = 0,
  groups: int = 1,
  use_bias: bool = True,
  kernel_init: Callable[..., jax.Array] | None = None,
  bias_init: Callable[..., jax.Array] = initializers.zeros,
) -> nn.Conv:
  """A `size` x `size` convolution with `padding` zeros on each of the four sides.

  With a stride this differs from "SAME", which pads more at the far end: weights from torchvision
  and timm expect the symmetric form. With `groups` an output sees only the inputs of its group,
  which is why fewer outputs see an input: `HE_FAN_OUT`, the default, counts those alone.
  """
  if kernel_init is None:
    kernel_init = initializers.variance_scaling(2.0 * groups, "fan_out", "normal")
  return nn.Conv(
    features,
    (size, size),
    strides=stride,
    padding=padding,
    feature_group_count=groups,
    use_bias=use_bias,
    dtype=dtype,
    param_dtype=param_dtype(dtype),
    kernel_init=kernel_init,
    bias_init=bias_init,
    conv_general_dilated=convolution.conv_general_dilated,
    name=name,
  )


def dense(
  features: int,
  *,
  dtype: DTypeLike,
  name: str,
  kernel_init: initializers.Initializer = HE_FAN_IN,
) -> nn.Dense:
  """A fully connected hidden layer."""
  return nn.Dense(
    features, dtype=dtype, param_dtype=param_dtype(dtype), kernel_init=kernel_init, name=name
  )


def head(num_classes: int, *, dtype: DTypeLike) -> nn.Dense:
  """The classifier, named `head`: starts at zero and computes in `param_dtype(dtype)`.

  bfloat16 would round logits to 8 bits, and the loss with them.
  """
  return nn.Dense(
    num_classes,
    dtype=param_dtype(dtype),
    param_dtype=param_dtype(dtype),
    kernel_init=initializers.zeros,
    name="head",
  )


def batch_norm(
  *,
  train: bool,
  dtype: DTypeLike,
  axis_name: str | None,
  name: str,
  scale_init: initializers.Initializer = initializers.ones,
  use_scale: bool = True,
  momentum: float = MOMENTUM,
  epsilon: float = EPSILON,
) -> BatchNorm:
  """Batch norm over all but the last axis (Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167).

  It is called as `norm(x, added=None, relu=False)`: what follows it is best computed by it, since
  the backward pass then keeps less; see `imgclf.models.fused`. The variance is the batch's own, not
  the unbiased estimate that torch keeps.

  Args:
    train: whether to use, and keep, the batch's statistics; else the running ones are used.
    dtype: type of the result. Statistics are computed in `param_dtype(dtype)`.
    axis_name: the mapped axis whose shards, of equal size, make up the batch; none: each its own.
    name: of the layer.
    scale_init: initial scale.
    use_scale: whether there is a scale to learn; else it is 1.
    momentum: what a running statistic keeps of itself at each step of training.
    epsilon: added to the variance.
  """
  return BatchNorm(
    train=train,
    dtype=dtype,
    param_dtype=param_dtype(dtype),
    axis_name=axis_name,
    scale_init=scale_init,
    use_scale=use_scale,
    momentum=momentum,
    epsilon=epsilon,
    name=name,
  )


def layer_norm(*, dtype: DTypeLike, name: str, epsilon: float = 1e-6) -> nn.LayerNorm:
  """Layer norm over the last axis (Ba et al. 2016, https://arxiv.org/abs/1607.06450), in
  `param_dtype(dtype)` inside.
  """
  # The fast variance is a difference of large numbers where the mean is far from zero.
  return nn.LayerNorm(
    epsilon=epsilon,
    dtype=dtype,
    param_dtype=param_dtype(dtype),
    use_fast_variance=False,
    name=name,
  )


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
  """x times the normal distribution function of x (Hendrycks & Gimpel 2016,
  https://arxiv.org/abs/1606.08415).

  Computed in `param_dtype` of x's type and rounded once: bfloat16 has no digits left for the
  distribution function where x is below -2. For the backward pass x alone is kept.
  """
  wide = x.astype(param_dtype(x.dtype))
  return (wide * _normal_cdf(wide)).astype(x.dtype)


def _normal_cdf(x: jax.Array) -> jax.Array:
  return (1 + jax.lax.erf(x * math.sqrt(0.5))) / 2


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  return gelu(x), x


def _gelu_backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
  wide = x.astype(param_dtype(x.dtype))
  density = jnp.exp(-wide * wide / 2) / math.sqrt(2 * math.pi)
  slope = _normal_cdf(wide) + wide * density
  return ((gradient.astype(wide.dtype) * slope).astype(x.dtype),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None, *, stream: int) -> jax.Array:
  """Zeroes each unit with probability `rate` and scales the others by 1 / (1 - rate).

  An example's mask follows from its key alone, so it does not depend on how a batch is cut over
  devices (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html).

  Args:
    x: [batch, ...].
    rate: in [0, 1).
    keys: [batch] typed PRNG keys; may be none where the rate is 0.
    stream: a number of its own for each dropout layer of a network.

  Raises:
    ValueError: if keys are needed and there are none.
  """
  if not rate:
    return x
  if keys is None:
    raise ValueError("dropout in training needs `keys`, one PRNG key for each example")

  def mask(key: jax.Array) -> jax.Array:
    # A float32 threshold makes the draws the same with and without x64.
    kept = jnp.float32(1 - rate)
    return jax.random.bernoulli(jax.random.fold_in(key, stream), kept, x.shape[1:])

  return jnp.where(jax.vmap(mask)(keys), x / (1 - rate), 0)


def drop_path(x: jax.Array, rate: float, keys: jax.Array | None, *, stream: int) -> jax.Array:
  """Zeroes a residual branch of a whole example with probability `rate`, else scales it by 1 / (1 -
  rate).

  Stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382), with the scaling in
  training, as in dropout. As there, what happens to an example follows from its key alone.

  Args:
    x: [batch, ...], what the branch adds.
    rate: in [0, 1).
    keys: [batch] typed PRNG keys; may be none where the rate is 0.
    stream: a number of its own for each such layer, and each dropout, of a network.

  Raises:
    ValueError: if keys are needed and there are none.
  """
  if not rate:
    return x
  if keys is None:
    raise ValueError("drop-path in training needs `keys`, one PRNG key for each example")
  kept = jax.vmap(
    lambda key: jax.random.bernoulli(jax.random.fold_in(key, stream), jnp.float32(1 - rate))
  )(keys)
  return jnp.where(kept.reshape(-1, *[1] * (x.ndim - 1)), x / (1 - rate), 0)


def drop_path_rates(rate: float, blocks: int) -> list[float]:
  """Rates that rise evenly from 0 at the first block to `rate` at the last, as in timm."""
  return [rate * i / max(blocks - 1, 1) for i in range(blocks)]


def feature(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
  """Hands a feature of a network out by name and returns it; costs nothing where nobody asks.

  With `mutable=["intermediates"]`, `apply` also returns `{"intermediates": {name: x, ...}}`. Where
  the variables have a collection `perturbations`, what it holds under this name is added to the
  feature; the gradient with respect to that is the gradient with respect to the feature:

      def score(perturbations):
        return model.apply({**variables, "perturbations": perturbations}, images)[0, label]

      jax.grad(score)({"stage4": jnp.zeros_like(features["stage4"])})

  Args:
    module: the network; no submodule of it may have the feature's name.
    name: such as `stage4`.
    x: the feature.
  """
  # Asked for one by one: `perturb` by itself would demand a perturbation of every feature, and
  # would put all of them into what `init` returns.
  if module.has_variable("perturbations", name):
    x = module.perturb(name, x)
  # The array itself, where `sow` by default would grow a tuple.
  module.sow("intermediates", name, x, init_fn=lambda: None, reduce_fn=lambda _, new: new)
  return x
