import pathlib

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf.models import fused

# What XLA makes of a program is what is tested here.
pytestmark = pytest.mark.optimized


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def flaxs(axis_name=None):
  """Flax's layer, which is differentiated operation by operation."""
  return nn.BatchNorm(
    use_running_average=False,
    momentum=0.9,
    epsilon=1e-5,
    dtype=jnp.float64,
    param_dtype=jnp.float64,
    force_float32_reductions=False,
    axis_name=axis_name,
  )


def ours(axis_name=None, dtype=jnp.float64):
  wide = jnp.promote_types(dtype, jnp.float32)
  return fused.BatchNorm(train=True, dtype=dtype, param_dtype=wide, axis_name=axis_name)


def compared(axis_name, added, relu):
  """Of flax's layer and of ours: result, statistics, and gradients of x, the added, scale and
  bias."""
  x, other, weights = (normal(8, 3, 5, 4, seed=seed) for seed in range(3))
  x = x * 2 + 0.5
  params = {"scale": normal(4, seed=3), "bias": normal(4, seed=4)}
  variables = {"batch_stats": {"mean": normal(4, seed=5), "var": normal(4, seed=6) ** 2}}

  def by_flax(params, x, other):
    y, updated = flaxs(axis_name).apply({"params": params, **variables}, x, mutable=["batch_stats"])
    y = y + other if added else y
    return (nn.relu(y) if relu else y), updated

  def by_us(params, x, other):
    return ours(axis_name).apply(
      {"params": params, **variables}, x, other if added else None, relu, mutable=["batch_stats"]
    )

  def everything(function):
    def of_shard(x, other, weights):
      y, pullback, updated = jax.vjp(function, params, x, other, has_aux=True)
      return y, updated, pullback(weights)

    if axis_name is None:
      return of_shard(x, other, weights)
    shards = [a.reshape(8, 1, *a.shape[1:]) for a in (x, other, weights)]
    return jax.vmap(of_shard, axis_name=axis_name)(*shards)

  return everything(by_flax), everything(by_us)


@pytest.mark.parametrize("axis_name", [None, "batch"])
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_values_statistics_and_gradients_are_flaxs(axis_name, added, relu):
  with jax.enable_x64(True):
    expected, found = compared(axis_name, added, relu)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
      assert a.dtype == b.dtype == jnp.float64
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_statistics_over_eight_devices_are_flaxs(run_python):
  run_python(
    """
import sys
sys.path.insert(0, sys.argv[1])
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from test_fused import flaxs, normal, ours

x, weights = normal(8, 2, 3, 3, 4), normal(8, 2, 3, 3, 4, seed=1)
variables = ours().init(jax.random.key(0), x[0])

def gradients(layer):
  def of_device(x, weights):
    def loss(params, x):
      y, updated = layer.apply({**variables, "params": params}, x, mutable=["batch_stats"])
      return jnp.sum(y * weights), updated
    return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], x)
  return jax.pmap(of_device, axis_name="batch")(x, weights)

assert jax.device_count() == 8
jax.tree.map(
  lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-12, atol=1e-12),
  gradients(ours("batch")), gradients(flaxs("batch")),
)
""",
    pathlib.Path(__file__).parent,
    devices=8,
  )


@pytest.mark.parametrize("added", [False, True])
def test_the_backward_pass_of_bfloat16_keeps_nothing_in_float32_but_what_channels_have(added):
  x = jnp.ones((2, 6, 6, 4), jnp.bfloat16)
  layer = ours(dtype=jnp.bfloat16)
  variables = layer.init(jax.random.key(0), x)

  def result(params, x, other):
    variables_ = {**variables, "params": params}
    return layer.apply(variables_, x, other if added else None, True, mutable=["batch_stats"])[0]

  kept = jax.tree.leaves(
    jax.eval_shape(lambda *a: jax.vjp(result, *a)[1], variables["params"], x, x)
  )
  large = [leaf for leaf in kept if leaf.size >= x.size]
  # The input and, where something was added, the result.
  assert [leaf.dtype for leaf in large] == [jnp.bfloat16] * (1 + added)
  assert {leaf.shape for leaf in kept if leaf.dtype == jnp.float32} == {(4,)}


def test_variables_are_those_of_flaxs_layer():
  x = jnp.ones((2, 3, 3, 4), jnp.bfloat16)
  layer = nn.BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
  expected, found = (
    jax.eval_shape(layer.init, jax.random.key(0), x) for layer in (layer, ours(dtype=jnp.bfloat16))
  )
  assert found == expected


def test_evaluation_uses_the_running_statistics():
  with jax.enable_x64(True):
    x = jnp.asarray([[1.0], [3.0]])
    layer = fused.BatchNorm(train=False, dtype=jnp.float64, param_dtype=jnp.float64, axis_name=None)
    variables = {
      "params": {"scale": jnp.asarray([3.0]), "bias": jnp.asarray([0.5])},
      "batch_stats": {"mean": jnp.asarray([2.0]), "var": jnp.asarray([4 - 1e-5])},
    }
    # (x - 2) / 2 * 3 + 0.5.
    np.testing.assert_allclose(layer.apply(variables, x), [[-1.0], [2.0]], rtol=1e-12)
    y = layer.apply(variables, x, jnp.asarray([[0.5], [1.0]]), True)
    np.testing.assert_allclose(y, [[0.0], [3.0]], rtol=1e-12)


def test_without_a_scale_and_with_other_constants_it_is_flaxs_too():
  with jax.enable_x64(True):
    x, weights = normal(8, 3, 5, 4) * 2 + 0.5, normal(8, 3, 5, 4, seed=1)
    variables = {
      "params": {"bias": normal(4, seed=4)},
      "batch_stats": {"mean": normal(4, seed=5), "var": normal(4, seed=6) ** 2},
    }
    options = {"use_scale": False, "momentum": 0.6, "epsilon": 0.3, "dtype": jnp.float64}
    layers = (
      nn.BatchNorm(use_running_average=False, param_dtype=jnp.float64, **options),
      fused.BatchNorm(train=True, param_dtype=jnp.float64, axis_name=None, **options),
    )

    def everything(layer):
      def apply(variables, x):
        return layer.apply(variables, x, mutable=["batch_stats"])

      y, pullback, updated = jax.vjp(apply, variables, x, has_aux=True)
      of_variables, of_x = pullback(weights)
      return y, updated, of_variables["params"], of_x

    expected, found = map(everything, layers)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10), expected, found
    )
