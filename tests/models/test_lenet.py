import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from imgclf import models
from imgclf.models.lenet import LeNet5


def count(size, channels):
  images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
  variables = jax.eval_shape(LeNet5(10).init, jax.random.key(0), images)
  return models.parameter_count(variables["params"])


def test_grey_digits_of_32_pixels_give_the_count_that_is_quoted_everywhere():
  dense = (16 * 5 * 5 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)
  assert count(32, 1) == (25 * 1 * 6 + 6) + (25 * 6 * 16 + 16) + dense == 61_706
  # Two more channels: 2 * 25 more weights for each of six maps.
  assert count(32, 3) == (25 * 3 * 6 + 6) + (25 * 6 * 16 + 16) + dense == 61_706 + 300


@pytest.mark.parametrize(("size", "left"), [(16, 1), (19, 1), (32, 5)])
def test_logits_are_those_of_the_network_written_in_numpy(size, left):
  with jax.enable_x64(True):
    model = LeNet5(7, dtype="float64")
    variables = reference.random_variables(models.shapes(model, size))
    params = variables["params"]
    assert params["dense1"]["kernel"].shape == (left * left * 16, 120)
    images = np.random.default_rng(1).normal(size=(2, size, size, 3))
    x = images
    for i in (1, 2):
      x = np.tanh(reference.conv(x, params[f"conv{i}"]))
      x = reference.pool(x, 2, 2, reduce=np.mean)
    x = np.tanh(reference.dense(x.reshape(2, -1), params["dense1"]))
    x = np.tanh(reference.dense(x, params["dense2"]))
    expected = reference.dense(x, params["head"])
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)


def test_layers_start_with_the_variance_that_suits_tanh():
  images = jnp.zeros((1, 32, 32, 3))
  kernel = jax.jit(lambda: LeNet5(10).init(jax.random.key(0), images)["params"]["dense1"]["kernel"])
  # 48,000 draws of variance 1 / 400: the spread is known to 0.3%.
  assert np.std(kernel()) == pytest.approx(1 / 20, rel=0.02)
