import jax
import numpy as np
import pytest

from imgclf import config as configs
from imgclf import models, steps
from imgclf.exporting.exportable import exportable


def linear(dtype="float32"):
  """LeNet-5 whose last layer alone says anything: logits are its bias, whatever the image."""
  config = configs.default_config()
  config.model.name, config.model.dtype = "lenet5", dtype
  config.dataset.image_size = 32
  shapes = models.shapes(models.create(config.model, 2, axis_name=None), 32)
  variables = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)
  variables["params"]["head"]["bias"][:] = [0, 3]
  return config, variables


def test_logits_are_divided_by_the_temperature_before_the_softmax():
  carried = exportable(*(linear()[0], ["no", "yes"], linear()[1]), 1.5)
  pixels = np.full((2, 32, 32, 3), 7, np.uint8)
  found = jax.jit(carried.probabilities)(carried.weights, pixels)
  # 1 / (1 + exp(-3 / 1.5))
  np.testing.assert_allclose(found, [[0.11920292, 0.88079708]] * 2, rtol=1e-6)
  assert found.dtype == np.float32


def test_of_several_classes_an_image_each_has_a_sigmoid_of_its_own():
  config, variables = linear()
  config.dataset.label_separator = "|"
  carried = exportable(config, ["no", "yes"], variables, 1.5)
  pixels = np.full((1, 32, 32, 3), 7, np.uint8)
  found = carried.probabilities(carried.weights, pixels)
  # 1 / (1 + exp(0)) and 1 / (1 + exp(-3 / 1.5))
  np.testing.assert_allclose(found, [[0.5, 0.88079708]], rtol=1e-6)


@pytest.mark.parametrize("tta", ["flip", "flip_translate"])
def test_the_views_of_an_image_are_those_of_evaluation(tta):
  config = configs.default_config()
  config.model.name, config.dataset.image_size, config.eval.tta = "lenet5", 16, tta
  model = models.create(config.model, 3, axis_name=None)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), models.shapes(model, 16)
  )
  pixels = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
  batch = {"image": pixels, "label": np.zeros(4, np.int32)}
  expected = steps.make_eval_step(model, config, 0.5)(variables, batch)["probabilities"]
  carried = exportable(config, list("abc"), variables, 0.5)
  found = carried.probabilities(carried.weights, pixels)
  np.testing.assert_allclose(found, expected, rtol=2e-6)
  config.eval.tta = "none"
  without = exportable(config, list("abc"), variables, 0.5)
  assert np.abs(without.probabilities(without.weights, pixels) - expected).max() > 1e-5


def test_weights_have_the_names_of_the_network_and_are_float32():
  config, variables = linear()
  wide = jax.tree.map(lambda x: x.astype(np.float64), variables)
  carried = exportable(config, ["no", "yes"], wide, 1.0)
  assert carried.weights["params/head/bias"].tolist() == [0, 3]
  assert {x.dtype for x in carried.weights.values()} == {np.dtype(np.float32)}
  assert (carried.size, carried.classes) == (32, ("no", "yes"))
  # 5 x 5 kernels: 3 to 6 and 6 to 16 channels; 400 to 120 to 84 units to 2 classes; each with a
  # bias.
  assert carried.parameters == 456 + 2416 + 48120 + 10164 + 170


def test_a_network_in_bfloat16_computes_in_float32_with_full_precision():
  carried = exportable(*(linear("bfloat16")[0], ["no", "yes"], linear()[1]), 1.0)
  traced = str(jax.make_jaxpr(carried.probabilities)(*carried.specs(2)))
  assert "bf16" not in traced
  assert traced.count("precision=(Precision.HIGHEST, Precision.HIGHEST)") == traced.count("precision=") >= 5  # fmt: skip
