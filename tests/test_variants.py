import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import pytest

from imgclf import config as configs
from imgclf import models
from imgclf.augment import operations

PATH = pathlib.Path(__file__).parents[1] / "benchmarks" / "variants.py"


@pytest.fixture(scope="module")
def variants():
  spec = importlib.util.spec_from_file_location("variants", PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_each_variant_changes_the_network_where_it_says(variants, monkeypatch):
  # Of an image three channels come in blocks on GPUs alone.
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
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

  shapes, programs, policies, few, whole = {}, {}, {}, {}, operations.where_wanted
  for name, variant in variants.VARIANTS.items():
    config = configs.default_config()
    with variant(config):
      few[name] = operations.where_wanted is whole
      shapes[name] = jax.eval_shape(model.init, jax.random.key(0), images)
      # A new function each time: the trace of one that JAX knows would be the first variant's.
      programs[name] = str(jax.make_jaxpr(lambda variables: traced(variables))(shapes[name]))
    policies[name] = config.augment.policy
  names = [
    "as it is",
    "flax's batch norm",
    "convolutions as written",
    "max-pooling with scatter",
    "RSB-A2's augmentation",
    "RSB-A2's, of every image",
  ]
  assert list(variants.VARIANTS) == names
  has = {
    word: [word in programs[name] for name in names]
    for word in ("[4,4,12,64]", "select_and_scatter_add")
  }
  assert has["[4,4,12,64]"] == [True, True, False, True, True, True]
  assert has["select_and_scatter_add"] == [False, False, False, True, False, False]
  assert [policies[name] for name in names] == ["none"] * 4 + ["randaugment"] * 2
  assert [few[name] for name in names] == [True] * 5 + [False]
  # Flax's layer lies within ours there, and has the parameters.
  assert "BatchNorm_0" in shapes.pop("flax's batch norm")["params"]["stem_norm"]
  assert all(shape == shapes["as it is"] for shape in shapes.values())


def test_ratios_are_of_the_step_as_it_is(variants, capsys, monkeypatch):
  spent = iter([3.0, 1.5, 2.0, 6.0, 1.0, 2.0, 2.0, 4.0, 8.0, 8.0, 8.0, 4.0])
  monkeypatch.setattr(variants, "stepper", lambda *_: None)
  monkeypatch.setattr(variants, "seconds", lambda _: next(spent))
  names = ["as it is", "flax's batch norm", "convolutions as written", "RSB-A2's augmentation"]
  asked = [f"--variant={name}" for name in names[1:]]
  variants.main(["--rounds=3", "--batch=10", "--steps=6", *asked])
  lines = capsys.readouterr().out.splitlines()[1:]
  assert [line[:26].strip() for line in lines] == names
  # Ratios 2, 0.5, 1; 1.5, 0.5, 1; 0.5, 0.25, 2. Times 3, 1, 8: 60 images in 3 s.
  assert [line.split()[-1] for line in lines] == ["1.000x", "1.000x", "1.000x", "0.500x"]
  assert " 20.0 images/s" in lines[0]
