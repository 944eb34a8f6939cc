import jax
import numpy as np
import pytest
import reference

from imgclf import models
from imgclf.models import alexnet, layers
from imgclf.models.alexnet import AlexNet


@pytest.fixture
def narrow(monkeypatch):
  """The same network with few channels, which float64 and a CPU can carry."""
  monkeypatch.setattr(alexnet, "WIDTHS", (4, 6, 8, 6, 5))
  monkeypatch.setattr(alexnet, "HIDDEN", 9)


def test_the_convolutions_leave_six_by_six_of_224_pixels():
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), "float32")
  _, features = jax.eval_shape(
    lambda v, x: AlexNet(10).apply(v, x, mutable=["intermediates"]),
    models.shapes(AlexNet(10), 224),
    images,
  )
  shapes = {name: x.shape[1:] for name, x in features["intermediates"].items()}
  # (13 - 3) / 2 + 1 = 6 after the last pooling.
  assert shapes == {
    "stage1": (55, 55, 64),
    "stage2": (27, 27, 192),
    "stage3": (13, 13, 256),
    "pre_logits": (4096,),
  }


@pytest.mark.parametrize("size", [63, 90])
@pytest.mark.usefixtures("narrow")
def test_logits_are_those_of_the_network_written_in_numpy(size):
  with jax.enable_x64(True):
    model = AlexNet(7, dtype="float64")
    variables = reference.random_variables(models.shapes(model, size))
    params = variables["params"]
    images = np.random.default_rng(1).normal(size=(2, size, size, 3))
    x = reference.relu(reference.conv(images, params["conv1"], stride=4, padding=2))
    x = reference.pool(x, 3, 2)
    x = reference.relu(reference.conv(x, params["conv2"], padding=2))
    x = reference.pool(x, 3, 2)
    for i in (3, 4, 5):
      x = reference.relu(reference.conv(x, params[f"conv{i}"], padding=1))
    x = reference.pool(x, 3, 2)
    # (90 + 4 - 11) // 4 + 1 = 21 -> 10 -> 4 -> 1 as well; test_layers has the bins of other sizes.
    assert x.shape[1:3] == (1, 1)
    x = np.tile(x, (1, 6, 6, 1)).reshape(2, -1)
    for i in (1, 2):
      x = reference.relu(reference.dense(x, params[f"dense{i}"]))
    expected = reference.dense(x, params["head"])
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("narrow")
def test_dropout_comes_before_each_hidden_layer(monkeypatch):
  with jax.enable_x64(True):
    model = AlexNet(7, dtype="float64")
    variables = reference.random_variables(models.shapes(model, 63))
    params = variables["params"]
    images = np.random.default_rng(1).normal(size=(1, 63, 63, 3))
    seen = []
    # What comes in, and minus one in its place, so that what follows shows where it went.
    monkeypatch.setattr(layers, "dropout", lambda x, *_, **__: seen.append(x) or 0 * x - 1)

    def apply(variables, images):
      return model.apply(variables, images, train=True), seen[1]

    logits, second = jax.jit(apply)(variables, images)
    hidden = reference.relu(reference.dense(-np.ones((1, 180)), params["dense1"]))
    np.testing.assert_allclose(second, hidden, rtol=1e-9, atol=1e-12)
    hidden = reference.relu(reference.dense(-np.ones((1, 9)), params["dense2"]))
    expected = reference.dense(hidden, params["head"])
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)
