import math

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from imgclf.models import layers


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def make_keys(batch, seed=0):
  return jax.random.split(jax.random.key(seed), batch)


# Types and initial values.


@pytest.mark.parametrize(
  ("dtype", "expected"),
  [("float32", jnp.float32), ("bfloat16", jnp.float32), ("float64", jnp.float64)],
)
def test_parameters_are_never_narrower_than_float32(dtype, expected):
  with jax.enable_x64(True):
    x = jnp.ones((1, 4, 4, 3), dtype)
    parts = [
      layers.conv(2, 3, dtype=dtype, name="conv"),
      layers.dense(2, dtype=dtype, name="dense"),
      layers.batch_norm(train=False, dtype=dtype, axis_name=None, name="norm"),
    ]
    for layer in parts:
      y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
      assert y.dtype == dtype
      assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(expected)}


def test_the_head_starts_at_zero_and_computes_in_float32_for_bfloat16():
  x = jnp.asarray(normal(4, 7), jnp.bfloat16)
  logits, variables = layers.head(3, dtype=jnp.bfloat16).init_with_output(jax.random.key(0), x)
  assert logits.dtype == jnp.float32
  assert logits.shape == (4, 3)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(variables))
  # 1 + 2**-10 is no bfloat16, and would come out as 1.
  params = {"kernel": jnp.full((7, 3), 1 + 2**-10), "bias": jnp.zeros(3)}
  ones = jnp.ones((1, 7), jnp.bfloat16)
  np.testing.assert_allclose(
    layers.head(3, dtype=jnp.bfloat16).apply({"params": params}, ones), 7 + 7 * 2**-10, rtol=1e-6
  )


def test_convolutions_start_he_normal_by_fan_out_and_hidden_dense_layers_by_fan_in():
  key = jax.random.key(0)
  kernel = layers.conv(128, 3, dtype="float32", name="conv").init(key, jnp.ones((1, 3, 3, 64)))
  kernel = np.asarray(kernel["params"]["kernel"])
  std = math.sqrt(2 / (3 * 3 * 128))
  # The spread of 73,728 draws is known to 0.26%.
  assert np.std(kernel) == pytest.approx(std, rel=0.015)
  # Of so many normal draws some lie beyond 3.5 sigma; truncated ones end at 2.3.
  assert np.max(np.abs(kernel)) > 3.5 * std
  kernel = layers.dense(128, dtype="float32", name="dense").init(key, jnp.ones((1, 512)))
  assert np.std(kernel["params"]["kernel"]) == pytest.approx(math.sqrt(2 / 512), rel=0.015)


# Convolution.


@pytest.mark.parametrize("length", [8, 9])
@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 2, 1), (7, 2, 3), (3, 1, 0)])
def test_convolution_pads_alike_on_all_sides(length, size, stride, padding):
  with jax.enable_x64(True):
    x, kernel, bias = normal(2, length, length, 3), normal(size, size, 3, 4), normal(4, seed=1)
    layer = layers.conv(4, size, stride=stride, padding=padding, dtype="float64", name="conv")
    y = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    expected = reference.conv(x, {"kernel": kernel, "bias": bias}, stride, padding)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)


# Batch norm.


def norm_layer(train, axis_name=None, dtype="float32"):
  return layers.batch_norm(train=train, dtype=dtype, axis_name=axis_name, name="norm")


def test_batch_norm_keeps_nine_tenths_of_its_statistics():
  with jax.enable_x64(True):
    x = normal(4, 3, 3, 2) * 3 + 1
    variables = norm_layer(True, dtype="float64").init(jax.random.key(0), x)
    y, updated = norm_layer(True, dtype="float64").apply(variables, x, mutable=["batch_stats"])
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-10)
    statistics = updated["batch_stats"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * mean, rtol=1e-12)
    np.testing.assert_allclose(statistics["var"], 0.9 + 0.1 * var, rtol=1e-12)
    y = norm_layer(False, dtype="float64").apply({**variables, **updated}, x)
    expected = reference.batch_norm(x, variables["params"], statistics)
    np.testing.assert_allclose(y, expected, rtol=1e-10, atol=1e-12)


def test_synchronised_batch_norm_on_shards_is_batch_norm_of_the_whole():
  with jax.enable_x64(True):
    x = normal(8, 3, 3, 2)
    variables = norm_layer(True, dtype="float64").init(jax.random.key(0), x)

    def of_shards(axis_name):
      layer = norm_layer(True, axis_name, "float64")
      y, updated = jax.vmap(
        lambda shard: layer.apply(variables, shard, mutable=["batch_stats"]), axis_name="batch"
      )(x.reshape(4, 2, 3, 3, 2))
      return y.reshape(x.shape), updated["batch_stats"]["mean"]

    whole, updated = norm_layer(True, dtype="float64").apply(variables, x, mutable=["batch_stats"])
    y, means = of_shards("batch")
    np.testing.assert_allclose(y, whole, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(means, [updated["batch_stats"]["mean"]] * 4, rtol=1e-10)
    y, means = of_shards(None)
    expected = 0.1 * x.reshape(4, 2, 3, 3, 2).mean((1, 2, 3))
    np.testing.assert_allclose(means, expected, rtol=1e-10)
    assert np.max(np.abs(y - whole)) > 0.1


# Dropout.


def test_a_dropout_mask_follows_from_the_examples_key_alone():
  keys, ones = make_keys(6), jnp.ones((6, 50))
  whole = layers.dropout(ones, 0.5, keys, stream=1)
  for part in (slice(0, 3), slice(3, 6), np.array([4, 0, 5])):
    np.testing.assert_array_equal(
      layers.dropout(ones[part], 0.5, keys[part], stream=1), whole[part]
    )
  # Six masks of 50 units: no two are the same, nor is another layer's.
  assert len({tuple(row) for row in np.asarray(whole).tolist()}) == 6
  assert not np.any(np.all(whole == layers.dropout(ones, 0.5, keys, stream=2), axis=1))


def test_dropout_masks_are_the_same_in_float64():
  keys = make_keys(4)
  narrow = layers.dropout(jnp.ones((4, 200)), 0.3, keys, stream=1)
  with jax.enable_x64(True):
    wide = layers.dropout(jnp.ones((4, 200), jnp.float64), 0.3, keys, stream=1)
    assert wide.dtype == jnp.float64
  np.testing.assert_array_equal(np.asarray(narrow) == 0, np.asarray(wide) == 0)


@pytest.mark.parametrize(("rate", "dtype"), [(0.1, jnp.float32), (0.75, jnp.bfloat16)])
def test_dropout_drops_its_share_and_keeps_the_mean(rate, dtype):
  x = jnp.ones((100, 10, 20), dtype)
  y = layers.dropout(x, rate, make_keys(100), stream=1)
  assert y.dtype == dtype
  y = np.asarray(y, np.float64)
  np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - rate)], rtol=2**-8)
  # 20,000 draws: five standard deviations of their mean.
  tolerance = 5 * math.sqrt(rate * (1 - rate) / 20_000)
  assert np.mean(y == 0) == pytest.approx(rate, abs=tolerance)


def test_dropout_needs_keys_only_where_there_is_something_to_drop():
  x = jnp.ones((2, 3))
  np.testing.assert_array_equal(layers.dropout(x, 0.0, None, stream=1), x)
  with pytest.raises(ValueError, match="one PRNG key for each example"):
    layers.dropout(x, 0.5, None, stream=1)


# Features.


class Squares(nn.Module):
  """Features `first` (x) and `second` (x * x), output sum of w * second over pixels."""

  @nn.compact
  def __call__(self, x):
    x = layers.feature(self, "first", x)
    x = layers.feature(self, "second", x * x)
    return jnp.sum(self.param("w", nn.initializers.ones, x.shape[-1:]) * x, axis=-1)


X = np.array([[1.0, -2.0, 3.0]])
VARIABLES = {"params": {"w": jnp.array([2.0, 5.0, 7.0])}}


def test_features_are_read_by_name_and_cost_nothing_unasked():
  y, updated = Squares().apply(VARIABLES, X, mutable=["intermediates"])
  assert set(updated) == {"intermediates"}
  assert set(updated["intermediates"]) == {"first", "second"}
  np.testing.assert_array_equal(updated["intermediates"]["first"], X)
  np.testing.assert_array_equal(updated["intermediates"]["second"], [[1.0, 4.0, 9.0]])
  np.testing.assert_array_equal(y, Squares().apply(VARIABLES, X))
  assert set(Squares().init(jax.random.key(0), X)) == {"params"}


def test_the_gradient_of_a_perturbation_is_the_gradient_of_the_feature():
  def score(perturbations):
    return Squares().apply({**VARIABLES, "perturbations": perturbations}, X)[0]

  gradients = jax.grad(score)({"first": jnp.zeros((1, 3)), "second": jnp.zeros((1, 3))})
  np.testing.assert_allclose(gradients["second"], [[2.0, 5.0, 7.0]])
  # d(w x^2)/dx = 2 w x.
  np.testing.assert_allclose(gradients["first"], [[4.0, -20.0, 42.0]])
  # One alone will do.
  np.testing.assert_allclose(jax.grad(score)({"second": jnp.zeros((1, 3))})["second"], [[2, 5, 7]])


def test_a_perturbation_is_added_to_the_feature():
  perturbed = {**VARIABLES, "perturbations": {"first": jnp.array([[1.0, 1.0, 1.0]])}}
  y, updated = Squares().apply(perturbed, X, mutable=["intermediates"])
  np.testing.assert_array_equal(updated["intermediates"]["first"], X + 1)
  np.testing.assert_array_equal(y, [2 * 4 + 5 * 1 + 7 * 16])


# Convolutions of few channels.


@pytest.mark.parametrize(
  ("channels", "features", "padding"), [(3, 32, 0), (3, 27, 1), (1, 16, 1), (3, 26, 0)]
)
def test_a_convolution_and_its_gradients_are_laxs(channels, features, padding):
  with jax.enable_x64(True):
    x, kernel = normal(2, 9, 8, channels), normal(3, 3, channels, features, seed=1)
    bias = normal(features, seed=2)
    layer = layers.conv(features, 3, padding=padding, dtype=jnp.float64, name="conv")

    def ours(x, kernel):
      return jnp.sum(layer.apply({"params": {"kernel": kernel, "bias": bias}}, x) ** 3)

    def laxs(x, kernel):
      pads, order = [(padding, padding)] * 2, ("NHWC", "HWIO", "NHWC")
      y = jax.lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=order)
      return jnp.sum((y + bias) ** 3)

    found = jax.value_and_grad(ours, argnums=(0, 1))(x, kernel)
    expected = jax.value_and_grad(laxs, argnums=(0, 1))(x, kernel)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, expected
    )


# Stochastic depth, groups.


def test_drop_path_keeps_or_drops_the_branch_of_a_whole_example():
  keys = make_keys(4000)
  x = jnp.full((4000, 2, 3), 3.0)
  y = np.asarray(layers.drop_path(x, 0.25, keys, stream=1))
  kept = y[:, 0, 0] != 0
  np.testing.assert_array_equal(y, np.where(kept, 4.0, 0.0)[:, None, None] * np.ones((1, 2, 3)))
  # Four standard deviations of a share of 0.75 among 4000.
  assert abs(kept.mean() - 0.75) < 4 * math.sqrt(0.25 * 0.75 / 4000)
  np.testing.assert_array_equal(layers.drop_path(x[5:9], 0.25, keys[5:9], stream=1), y[5:9])
  assert np.any(layers.drop_path(x, 0.25, keys, stream=2) != y)


def test_drop_path_needs_keys_unless_its_rate_is_zero():
  x = jnp.ones((2, 3))
  assert layers.drop_path(x, 0.0, None, stream=1) is x
  with pytest.raises(ValueError, match="one PRNG key for each example"):
    layers.drop_path(x, 0.5, None, stream=1)


def test_drop_path_rates_rise_evenly_from_zero():
  assert layers.drop_path_rates(0.4, 5) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
  assert layers.drop_path_rates(0.4, 1) == [0]


def test_initial_filters_of_groups_count_the_outputs_that_see_an_input():
  layer = layers.conv(512, 3, groups=64, dtype="float32", name="conv")
  kernel = layer.init(jax.random.key(0), jnp.zeros((1, 1, 1, 128)))["params"]["kernel"]
  assert kernel.shape == (3, 3, 2, 512)
  # He et al. 2015, equation 14: 9 places times the 8 outputs of a group.
  assert np.std(kernel) == pytest.approx(math.sqrt(2 / (9 * 8)), rel=0.03)
