import importlib.util
import pathlib

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import config as configs
from imgclf import models

PATH = pathlib.Path(__file__).parents[1] / "benchmarks" / "variants.py"


@pytest.fixture(scope="module")
def variants():
  spec = importlib.util.spec_from_file_location("variants", PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 10)])
def test_a_space_to_depth_stem_with_the_same_weights_is_the_same(variants, height, width):
  with jax.enable_x64(True):
    x, kernel = normal(2, height, width, 3), normal(7, 7, 3, 5, seed=1)

    def plain(x, kernel):
      return jax.lax.conv_general_dilated(
        x, kernel, (2, 2), ((3, 3), (3, 3)), dimension_numbers=("NHWC", "HWIO", "NHWC")
      )

    expected, pullback = jax.vjp(plain, x, kernel)
    found, our_pullback = jax.vjp(variants.space_to_depth_stem, x, kernel)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    weights = normal(*expected.shape, seed=2)
    for a, b in zip(our_pullback(weights), pullback(weights)):
      np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 9), (6, 11)])
def test_the_gradient_of_max_pooling_without_scatter_is_xlas_where_nothing_ties(
  variants, height, width
):
  with jax.enable_x64(True):
    x = normal(2, height, width, 3)

    def pool(x):
      return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

    expected, pullback = jax.vjp(pool, x)
    found, our_pullback = jax.vjp(variants.max_pool_3x3, x)
    np.testing.assert_array_equal(found, expected)
    weights = normal(*expected.shape, seed=1)
    np.testing.assert_allclose(our_pullback(weights)[0], pullback(weights)[0], rtol=1e-12)


def test_pixels_that_are_the_maximum_of_a_window_together_share_its_gradient(variants):
  # Windows with stride 2 and padding 1 of 2x2 pixels: one, and it has all four.
  x = jnp.asarray([[5.0, 5.0], [1.0, 5.0]]).reshape(1, 2, 2, 1)
  gradient = jax.grad(lambda x: 6 * variants.max_pool_3x3(x).sum())(x)
  np.testing.assert_allclose(gradient[0, :, :, 0], [[2, 2], [0, 2]])


def test_each_variant_changes_the_network_where_it_says(variants):
  section = configs.default_config().model
  section.name, section.dtype = "resnet18", "float32"
  model = models.create(section, 3, axis_name=None)
  images = jnp.ones((2, 32, 32, 3))

  def traced(variables):
    def loss(params):
      logits, _ = model.apply(
        {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
      )
      return jnp.sum(logits)

    return jax.grad(loss)(variables["params"])

  shapes, programs = {}, {}
  for name, variant in variants.VARIANTS.items():
    with variant():
      shapes[name] = jax.eval_shape(model.init, jax.random.key(0), images)
      # A new function each time: the trace of one that JAX knows would be the first variant's.
      programs[name] = str(jax.make_jaxpr(lambda variables: traced(variables))(shapes[name]))
  names = list(variants.VARIANTS)
  has = {
    word: [word in programs[name] for name in names]
    for word in ("[4,4,12,64]", "select_and_scatter_add")
  }
  assert names == [
    "as it is",
    "flax's batch norm",
    "space-to-depth stem",
    "max-pool without scatter",
  ]
  assert has["[4,4,12,64]"] == [False, False, True, False]
  assert has["select_and_scatter_add"] == [True, True, True, False]
  assert shapes["as it is"] == shapes["space-to-depth stem"] == shapes["max-pool without scatter"]
  # Flax's layer lies within ours there, and has the parameters.
  assert "BatchNorm_0" in shapes["flax's batch norm"]["params"]["stem_norm"]


def test_ratios_are_of_the_step_as_it_is(variants, capsys, monkeypatch):
  spent = iter([3.0, 1.5, 2.0, 6.0, 1.0, 2.0, 2.0, 4.0, 8.0, 8.0, 8.0, 4.0])
  monkeypatch.setattr(variants, "stepper", lambda *_: None)
  monkeypatch.setattr(variants, "seconds", lambda _: next(spent))
  variants.main(["--rounds=3", "--batch=10", "--steps=6"])
  lines = capsys.readouterr().out.splitlines()[1:]
  assert [line[:26].strip() for line in lines] == list(variants.VARIANTS)
  # Ratios 2, 0.5, 1; 1.5, 0.5, 1; 0.5, 0.25, 2. Times 3, 1, 8: 60 images in 3 s.
  assert [line.split()[-1] for line in lines] == ["1.000x", "1.000x", "1.000x", "0.500x"]
  assert " 20.0 images/s" in lines[0]
