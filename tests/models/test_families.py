"""Each family against torchvision or timm: logits of a small member, by numbers that torch
computed."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_twins

from imgclf import config as config_lib
from imgclf import models
from imgclf.errors import UserError
from imgclf.models import layers

# Printed by `python tests/models/torch_twins.py`: torchvision 0.28.0, timm 1.0.31, torch 2.13.0,
# float64.
EXPECTED = {
  "convnext": [
    [-1.237404585, 1.716971341, -2.512662308, -0.311709404, 0.650915423],
    [-2.909221489, 0.563819053, 0.462382352, -0.005175831, 0.190720696],
  ],
  "vit": [
    [0.60736024, -3.032361617, 0.25584493, -1.414494839, 0.330815078],
    [-1.564924697, -0.221277525, -0.482326904, 0.676731125, 0.015667283],
  ],
  "resnet": [
    [1.015857799, 0.895413221, -2.536745632, 0.473742024, 2.64364296],
    [1.36835818, 0.790374117, -3.101003878, -0.380294036, 3.105581168],
  ],
  "densenet": [
    [0.542591681, 1.450836884, 0.854675594, -0.850307752, 1.819672477],
    [0.714057455, 1.489316369, 0.824956465, -0.815459318, 1.585913878],
  ],
  "mobilenet_v2": [
    [0.495805996, 0.271786125, 0.297362454, 0.991540322, -0.008717119],
    [0.409843602, 0.548584768, 0.308193599, 1.337261494, -0.001677613],
  ],
  "mobilenet_v3": [
    [1.340518715, 1.766167018, -0.37606753, 0.203468373, -0.244978804],
    [1.261847467, 1.700586606, -0.403123936, 0.148280859, -0.114201167],
  ],
  "efficientnet_b": [
    [-0.344918559, 0.228152138, 0.446963409, -0.236430688, 0.241974765],
    [-0.359875851, 0.255835706, 0.430004586, -0.218381459, 0.260370606],
  ],
  "efficientnet_v2": [
    [-0.366165547, -0.045776891, 0.328193826, -0.458954358, 0.947586972],
    [-0.397565019, 0.053820543, 0.319726691, -0.303002489, 1.028611819],
  ],
  "regnet": [
    [-0.633748087, -0.135303556, 0.834604324, -0.857383869, 0.613907339],
    [-0.613583691, -0.385727735, 1.127999525, -0.686275596, 0.609393734],
  ],
}


def small(family, **more):
  """The network, with the small tables in the place of its module's."""
  name, fields, _ = torch_twins.SMALL[family]
  module = importlib.import_module(f"imgclf.models.{torch_twins.MODULE.get(family, family)}")
  for table, value in torch_twins.TABLES.get(family, {}).items():
    setattr(module, table, value)
  return getattr(module, name)(
    **{"num_classes": torch_twins.CLASSES, "dtype": "float64", **fields, **more}
  )


def named(tree):
  """The leaves of a tree of variables by name, without the collection."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {"/".join(key.key for key in path[1:]): leaf for path, leaf in leaves}


def shapes_of(family):
  """The shapes of the small member's variables, by name."""
  shapes = models.shapes(small(family), torch_twins.SMALL[family][2])
  return {name: leaf.shape for name, leaf in named(shapes).items()}


def fill(shapes):
  """Variables of these shapes, by the formula of `torch_twins.filled`."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: torch_twins.filled("/".join(key.key for key in path[1:]), leaf.shape),
    shapes,
  )


@pytest.fixture
def restored(monkeypatch):
  """Puts the tables back that `small` replaces."""
  for family, tables in torch_twins.TABLES.items():
    module = importlib.import_module(f"imgclf.models.{torch_twins.MODULE.get(family, family)}")
    for table in tables:
      monkeypatch.setattr(module, table, getattr(module, table))


@pytest.mark.parametrize("family", torch_twins.SMALL)
@pytest.mark.usefixtures("restored")
def test_logits_are_those_of_torchvision_or_timm(family):
  with jax.enable_x64(True):
    model, size = small(family), torch_twins.SMALL[family][2]
    variables = fill(models.shapes(model, size))
    logits = jax.jit(model.apply)(variables, torch_twins.images(size))
    np.testing.assert_allclose(logits, EXPECTED[family], rtol=1e-6, atol=1e-7)


# Features besides the stem, in their order, with height and width of an image of the size in
# `torch_twins.SMALL`.
FEATURES = {
  "convnext": {"stage1": 9, "stage2": 4, "stage3": 2, "stage4": 1},
  "vit": {"block1": 3},
  "resnet": {"stage1": 10, "stage2": 5, "stage3": 3, "stage4": 2},
  "densenet": {"stage1": 10, "stage2": 5, "stage3": 2, "stage4": 1},
  "mobilenet_v2": {"stage1": 17, "stage2": 9, "last": 9},
  "mobilenet_v3": {"stage1": 17, "stage2": 9, "last": 9},
  "efficientnet_b": {"stage1": 17, "stage2": 9, "last": 9},
  "efficientnet_v2": {"stage1": 17, "stage2": 9, "stage3": 5, "last": 5},
  "regnet": {"stage1": 9, "stage2": 5},
}
# Rates of the branches that are added to what came in, where the last block's is 0.3: evenly from 0
# at the first block. A block of another width or a stride has a branch in residual networks, but
# none among the inverted ones.
DROPPED = {
  "convnext": [0, 0.075, 0.15, 0.225, 0.3],
  "vit": [0, 0, 0.3, 0.3],
  "resnet": [0, 0.075, 0.15, 0.225, 0.3],
  "densenet": [],
  "mobilenet_v2": [0.3],
  "mobilenet_v3": [0, 0.3],
  "efficientnet_b": [0, 0.3],
  "efficientnet_v2": [0, 0.15, 0.3],
  "regnet": [0, 0.15, 0.3],
}


@pytest.mark.parametrize("family", torch_twins.SMALL)
@pytest.mark.usefixtures("restored")
def test_what_every_network_keeps_to(family, monkeypatch):
  paths, units = {}, {}
  monkeypatch.setattr(
    layers, "drop_path", lambda x, rate, keys, *, stream: paths.update({stream: rate}) or x
  )
  monkeypatch.setattr(
    layers, "dropout", lambda x, rate, keys, *, stream: units.update({stream: rate}) or x
  )
  heads, make_head = [], layers.head  # which starts at zero: test_layers.py
  monkeypatch.setattr(layers, "head", lambda *a, **k: heads.append(a) or make_head(*a, **k))
  rates = {"drop_path_rate": 0.3} if DROPPED[family] else {}
  rates |= {} if family == "resnet" else {"dropout_rate": 0.1}
  model, size = small(family, dtype=jnp.bfloat16, **rates), torch_twins.SMALL[family][2]
  shapes = models.shapes(model, size)
  assert not paths and not units  # none without `train`
  assert heads == [(torch_twins.CLASSES,)]
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
  assert bool(shapes["batch_stats"]) == (family not in ("convnext", "vit"))

  def apply(variables, pictures):
    collections = ["batch_stats", "intermediates"]
    return model.apply(variables, pictures, train=True, mutable=collections)

  pictures = jax.ShapeDtypeStruct((2, size, size, 3), "float32")
  logits, updated = jax.eval_shape(apply, shapes, pictures)
  assert (logits.shape, logits.dtype) == ((2, torch_twins.CLASSES), "float32")
  assert jax.tree.map(lambda x: x.dtype, updated.get("batch_stats", {})) == (
    jax.tree.map(lambda x: x.dtype, shapes["batch_stats"])
  )
  features = updated["intermediates"]
  last = features.pop("pre_logits")
  # A mean is float32; MobileNetV3 has a dense layer after it.
  exact = "bfloat16" if family == "mobilenet_v3" else "float32"
  assert (last.shape[1:], last.dtype) == (shapes["params"]["head"]["kernel"].shape[:1], exact)
  assert {x.dtype for x in features.values()} == {jnp.dtype("bfloat16")}
  assert features.pop("stem").shape[0] == 2
  assert {name: x.shape[1:3] for name, x in features.items()} == {
    name: (pixels, pixels) for name, pixels in FEATURES[family].items()
  }
  # A stream of its own for each: the same draws in two places would be no chance.
  assert list(units.values()) == [0.1] * (family != "resnet")
  assert not set(units) & set(paths)
  # What is not called where the rate is 0 has no stream.
  told = [paths[stream] for stream in sorted(paths)]
  assert [rate for rate in told if rate] == pytest.approx([r for r in DROPPED[family] if r])


@pytest.mark.parametrize(("family", "smallest"), [("convnext", 32), ("densenet", 29)])
def test_a_pixel_is_left_of_the_smallest_image_and_none_of_a_smaller_one(family, smallest):
  for size, left in ((smallest, 1), (smallest - 1, 0)):
    model, pictures = small(family, dtype="float32"), jnp.zeros((1, size, size, 3))
    _, updated = jax.eval_shape(
      lambda x, m=model: m.init_with_output(
        jax.random.key(0), x, mutable=["params", "batch_stats", "intermediates"]
      ),
      pictures,
    )
    assert updated["intermediates"]["stage4"].shape[1:3] == (left, left)
  name = {"convnext": "convnext_atto", "densenet": "densenet121"}[family]
  section = config_lib.default_config().model
  section.name = name
  models.check(section, smallest)
  with pytest.raises(UserError, match=f"{name} needs at least {smallest}"):
    models.check(section, smallest - 1)


def test_dropped_branches_leave_what_came_in(monkeypatch):
  model = small("convnext", dtype="float32", drop_path_rate=0.5)
  variables = fill(models.shapes(model, 32))
  monkeypatch.setattr(layers, "drop_path", lambda x, *_, **__: jnp.zeros_like(x))
  pictures = jnp.asarray(torch_twins.images(32), jnp.float32)

  @jax.jit
  def apply(variables):
    _, updated = model.apply(variables, pictures, train=True, mutable=["intermediates"])
    return updated["intermediates"]

  features = apply(variables)
  np.testing.assert_array_equal(features["stem"], features["stage1"])


BLOCKS = {
  **{"convnext": 5, "vit": 2, "resnet": 5, "densenet": 5, "mobilenet_v2": 3, "mobilenet_v3": 3},
  **{"efficientnet_b": 3, "efficientnet_v2": 5, "regnet": 3},
}


@pytest.mark.parametrize("family", torch_twins.SMALL)
@pytest.mark.usefixtures("restored")
def test_blocks_are_computed_anew_and_batch_norm_is_synchronised_where_it_is_asked_for(family):
  rates = {"drop_path_rate": 0.3} if DROPPED[family] else {}
  model, size = small(family, dtype="float32", remat=True, **rates), torch_twins.SMALL[family][2]
  shapes, pictures = models.shapes(model, size), torch_twins.images(size).astype(np.float32)
  keys = jax.random.split(jax.random.key(0), 2)

  def trace(model):
    def apply(variables):
      return model.apply(variables, pictures, train=True, keys=keys, mutable=["batch_stats"])

    return jax.make_jaxpr(apply)(shapes)

  found = [equation.primitive.name for equation in trace(model).jaxpr.eqns]
  assert sum(name in ("checkpoint", "remat", "remat2") for name in found) == BLOCKS[family]
  if shapes["batch_stats"]:
    # Outside of pmap there is no such axis.
    with pytest.raises(NameError, match="devices"):
      trace(model.clone(axis_name="devices"))
