import jax
import numpy as np
import pytest
import reference

from imgclf import models
from imgclf.models import layers, vgg
from imgclf.models.vgg import VGG

STAGES = (1, 2, 1, 1, 2)


@pytest.fixture
def narrow(monkeypatch):
  """The same network with few channels, which float64 and a CPU can carry."""
  monkeypatch.setattr(vgg, "WIDTHS", (4, 6, 8, 6, 5))
  monkeypatch.setattr(vgg, "HIDDEN", 9)


def test_each_stage_halves_224_pixels():
  model = VGG((2, 2, 3, 3, 3), False, 10)
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
  _, features = jax.eval_shape(
    lambda v, x: model.apply(v, x, mutable=["intermediates"]), models.shapes(model, 224), images
  )
  shapes = {name: x.shape[1:] for name, x in features["intermediates"].items()}
  # Before pooling: 14 pixels are what Grad-CAM sees of VGG-16 (Selvaraju et al. 2017).
  assert shapes == {
    "stage1": (224, 224, 64),
    "stage2": (112, 112, 128),
    "stage3": (56, 56, 256),
    "stage4": (28, 28, 512),
    "stage5": (14, 14, 512),
    "pre_logits": (4096,),
  }


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.usefixtures("narrow")
def test_logits_are_those_of_the_network_written_in_numpy(batch_norm):
  with jax.enable_x64(True):
    model = VGG(STAGES, batch_norm, 7, dtype="float64")
    variables = reference.random_variables(models.shapes(model, 37))
    params, statistics = variables["params"], variables["batch_stats"]
    images = np.random.default_rng(1).normal(size=(2, 37, 37, 3))
    x = images
    for i, size in enumerate(STAGES, 1):
      for j in range(1, size + 1):
        x = reference.conv(x, params[f"conv{i}_{j}"], padding=1)
        if batch_norm:
          x = reference.batch_norm(x, params[f"norm{i}_{j}"], statistics[f"norm{i}_{j}"])
        x = reference.relu(x)
      x = reference.pool(x, 2, 2)
    assert x.shape[1:3] == (1, 1)
    x = np.tile(x, (1, 7, 7, 1)).reshape(2, -1)
    for i in (1, 2):
      x = reference.relu(reference.dense(x, params[f"dense{i}"]))
    expected = reference.dense(x, params["head"])
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("narrow")
def test_dropout_comes_after_each_hidden_layer(monkeypatch):
  with jax.enable_x64(True):
    model = VGG(STAGES, False, 7, dtype="float64")
    variables = reference.random_variables(models.shapes(model, 32))
    params = variables["params"]
    images = np.random.default_rng(1).normal(size=(1, 32, 32, 3))
    seen = []
    # What comes in, and minus one in its place, so that what follows shows where it went.
    monkeypatch.setattr(layers, "dropout", lambda x, *_, **__: seen.append(x) or 0 * x - 1)

    def apply(variables, images):
      return model.apply(variables, images, train=True), seen[1]

    logits, second = jax.jit(apply)(variables, images)
    hidden = reference.relu(reference.dense(-np.ones((1, 9)), params["dense2"]))
    np.testing.assert_allclose(second, hidden, rtol=1e-9, atol=1e-12)
    expected = reference.dense(-np.ones((1, 9)), params["head"])
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)
