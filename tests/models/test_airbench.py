import math

import jax
import jax.numpy as jnp
import numpy as np
import reference
from scipy.special import ndtr

from imgclf import models
from imgclf.models import airbench, layers


def test_the_published_number_of_parameters():
  """1.97 million (https://arxiv.org/abs/2404.00498)."""
  shapes = models.shapes(airbench.Airbench(10), 32)["params"]
  whitening = 2 * 2 * 3 * 24 + 24
  filters = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256)
  biases = 2 * (64 + 256 + 256)  # of batch norm, which has no scale
  assert models.parameter_count(shapes) == whitening + filters + biases + 256 * 10 == 1_971_640


def written_out(variables, x):
  params, statistics = variables["params"], variables["batch_stats"]

  def gelu(x):
    return x * ndtr(x)

  def norm(x, block, name):
    kept = statistics[block][name]
    return (x - kept["mean"]) / np.sqrt(kept["var"] + 1e-12) + params[block][name]["bias"]

  x = gelu(reference.conv(x, params["whitening"]))
  for block in ("block1", "block2", "block3"):
    x = reference.pool(reference.conv(x, params[block]["conv1"], padding=1), 2, 2)
    x = gelu(norm(x, block, "norm1"))
    x = gelu(norm(reference.conv(x, params[block]["conv2"], padding=1), block, "norm2"))
  x = x.max(axis=(1, 2))
  return x @ params["head"]["kernel"] / x.shape[1]


def test_the_network_is_the_published_one_written_out():
  # 28 -> 27 -> 13 -> 6 -> 3: each stage rounds down.
  with jax.enable_x64(True):
    model = airbench.Airbench(4, dtype=jnp.float64, widths=(5, 6, 7))
    variables = reference.random_variables(models.shapes(model, 28))
    images = np.random.default_rng(1).normal(size=(2, 28, 28, 3))
    logits = jax.jit(model.apply)(variables, images)
  np.testing.assert_allclose(logits, written_out(variables, images), rtol=1e-10, atol=1e-12)


def test_a_new_networks_filters_pass_their_inputs_on():
  kernel = airbench.identity_conv_init(jax.random.key(0), (3, 3, 4, 6), jnp.float32)
  x = np.random.default_rng(0).normal(size=(1, 5, 5, 4)).astype(np.float32)
  y = reference.conv(x, {"kernel": np.asarray(kernel)}, padding=1)
  np.testing.assert_allclose(y[..., :4], x, rtol=1e-6)
  rest = np.asarray(kernel[..., 4:])
  # Uniform in plus and minus 1 / sqrt(36), as torch draws them.
  assert 0.14 < np.abs(rest).max() <= 1 / 6 and abs(rest.mean()) < 0.04


def test_running_statistics_keep_six_tenths_of_themselves_at_a_step():
  model = airbench.Airbench(3, widths=(4, 4, 4))
  images = jax.random.normal(jax.random.key(1), (8, 9, 9, 3))
  variables = jax.jit(model.init)(jax.random.key(0), images)
  apply = jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"])[1])
  once = apply(variables)["batch_stats"]["block1"]["norm1"]
  twice = apply({**variables, **apply(variables)})["batch_stats"]["block1"]["norm1"]
  # From 0 and 1: 0.4 of the batch's, then 0.4 + 0.6 * 0.4.
  np.testing.assert_allclose(twice["mean"], once["mean"] * 1.6, rtol=1e-5)
  np.testing.assert_allclose(twice["var"] - 0.36, (once["var"] - 0.6) * 1.6, rtol=1e-4, atol=1e-6)


def test_the_loss_of_a_new_network_is_near_the_log_of_the_number_of_classes():
  model = airbench.Airbench(10, widths=(8, 8, 256))
  images = jax.random.normal(jax.random.key(1), (4, 9, 9, 3))
  logits, _ = jax.jit(model.init_with_output)(jax.random.key(0), images)
  loss = -jax.nn.log_softmax(logits).mean()
  assert abs(loss - math.log(10)) < 0.05 and np.std(logits) > 1e-3


def test_gelu_and_its_slope_are_the_formulas_also_in_bfloat16():
  x = np.linspace(-6, 6, 97)
  density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
  for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.bfloat16, 2**-8)):
    rounded = np.asarray(jnp.asarray(x, dtype), np.float64)
    np.testing.assert_allclose(rounded, x, rtol=2**-8)
    y, pullback = jax.vjp(layers.gelu, jnp.asarray(x, dtype))
    (slope,) = pullback(jnp.ones_like(y))
    assert y.dtype == slope.dtype == dtype
    if dtype == jnp.bfloat16:
      x = rounded
      density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(np.asarray(y, np.float64), x * ndtr(x), rtol=tolerance, atol=1e-6)
    expected = ndtr(x) + x * density
    np.testing.assert_allclose(np.asarray(slope, np.float64), expected, rtol=tolerance, atol=1e-6)
