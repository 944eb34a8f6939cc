"""Batch norm, a sum and ReLU as one function whose backward pass keeps as little as it can.

Differentiated one operation after the other, batch norm keeps its input a second time, in float32,
and ReLU a mask. Here the input is kept as it came, and where something was added the result, which
the next convolution keeps in any case: of ResNet-50 at 224 px in bfloat16 41 MB an image in place
of 136 (benchmarks/roofline.py). On a CPU ResNet-18's step at 32 px takes 0.4% to 5% less time, in
each of four pairs. The variables are those of `flax.linen.BatchNorm`.
"""

import functools

from flax import linen as nn
import jax
from jax.nn import initializers
import jax.numpy as jnp
from jax.typing import DTypeLike

MOMENTUM, EPSILON = 0.9, 1e-5


def _normalized(x, mean, rstd, scale, bias):
  return (x - mean) * (rstd * scale) + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  added: jax.Array | None,
  relu: bool,
  axis_name: str | None,
  epsilon: float = EPSILON,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalises by the batch's own statistics, adds, and rectifies (Ioffe & Szegedy 2015, algorithm
  1).

  Args:
    x: [batch, ..., channels].
    scale: [channels], gamma of the paper; of the type that statistics are computed in.
    bias: [channels], beta of the paper.
    added: of x's shape and type, what is added after the normalisation, or None.
    relu: whether negative results become zero.
    axis_name: mapped axis whose shards, of equal size, make up the batch; None: this shard alone.
    epsilon: added to the variance.

  Returns:
    The result, of x's shape and type; the mean and the (biased) variance of each channel,
    [channels] of scale's type, which pass no gradient on.
  """
  return _forward(x, scale, bias, added, relu, axis_name, epsilon)[0]


def _forward(x, scale, bias, added, relu, axis_name, epsilon):
  wide = x.astype(scale.dtype)
  axes = tuple(range(x.ndim - 1))
  moments = jnp.mean(wide, axes), jnp.mean(wide * wide, axes)
  mean, mean_of_squares = moments if axis_name is None else jax.lax.pmean(moments, axis_name)
  var = jnp.maximum(0, mean_of_squares - mean * mean)
  rstd = jax.lax.rsqrt(var + epsilon)
  # Rounded before the sum, as by a layer of its own.
  y = _normalized(wide, mean, rstd, scale, bias).astype(x.dtype)
  if added is not None:
    y = y + added
  if relu:
    y = jnp.maximum(y, 0)
  # An empty array stands for a sum whose result is not needed.
  kept = None if added is None else y if relu else y[:0]
  return (y, mean, var), (x, mean, rstd, scale, bias, kept)


def _backward(relu, axis_name, epsilon, residuals, cotangents):
  del epsilon  # is in rstd
  x, mean, rstd, scale, bias, kept = residuals
  gradient = cotangents[0]
  wide = x.astype(scale.dtype)
  if relu:
    # Without a sum the sign comes from x, which is read in any case.
    y = _normalized(wide, mean, rstd, scale, bias) if kept is None else kept
    gradient = jnp.where(y > 0, gradient, 0)
  of_added = None if kept is None else gradient
  gradient = gradient.astype(scale.dtype)
  x_hat = (wide - mean) * rstd
  axes = tuple(range(x.ndim - 1))
  of_bias, of_scale = jnp.sum(gradient, axes), jnp.sum(gradient * x_hat, axes)
  # The mean and the variance depend on the x of every device, so their share is averaged over them.
  count = x.size // x.shape[-1]
  mean_gradient, mean_product = of_bias / count, of_scale / count
  if axis_name is not None:
    mean_gradient, mean_product = jax.lax.pmean((mean_gradient, mean_product), axis_name)
  of_x = (scale * rstd) * (gradient - mean_gradient - x_hat * mean_product)
  return of_x.astype(x.dtype), of_scale, of_bias, of_added


batch_norm.defvjp(_forward, _backward)


class BatchNorm(nn.Module):
  """The layer around `batch_norm`, with running statistics; see `imgclf.models.layers.batch_norm`.

  Attributes:
    train: whether to use, and keep, the batch's statistics; else the running ones are used.
    dtype: type of the result.
    param_dtype: type of the parameters and the statistics.
    axis_name: see `batch_norm`.
    scale_init: initial scale.
    use_scale: whether there is a scale to learn; else it is 1.
    momentum: what a running statistic keeps of itself at each step.
    epsilon: added to the variance.
  """

  train: bool
  dtype: DTypeLike
  param_dtype: DTypeLike
  axis_name: str | None
  scale_init: initializers.Initializer = initializers.ones
  use_scale: bool = True
  momentum: float = MOMENTUM
  epsilon: float = EPSILON

  @nn.compact
  def __call__(self, x: jax.Array, added: jax.Array | None = None, relu: bool = False) -> jax.Array:
    """Normalises [batch, ..., channels], adds what has the same shape, and rectifies if asked
    to.
    """
    shape = x.shape[-1:]
    if self.use_scale:
      scale = self.param("scale", self.scale_init, shape, self.param_dtype)
    else:
      scale = jnp.ones(shape, self.param_dtype)
    bias = self.param("bias", initializers.zeros, shape, self.param_dtype)
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, self.param_dtype)
    running_var = self.variable("batch_stats", "var", jnp.ones, shape, self.param_dtype)
    x = x.astype(self.dtype)
    if not self.train:
      rstd = jax.lax.rsqrt(running_var.value + self.epsilon)
      y = _normalized(x, running_mean.value, rstd, scale, bias).astype(self.dtype)
      y = y if added is None else y + added
      return nn.relu(y) if relu else y
    axis_name = None if self.is_initializing() else self.axis_name
    y, mean, var = batch_norm(x, scale, bias, added, relu, axis_name, self.epsilon)
    if not self.is_initializing():
      kept = self.momentum
      running_mean.value = kept * running_mean.value + (1 - kept) * mean
      running_var.value = kept * running_var.value + (1 - kept) * var
    return y
