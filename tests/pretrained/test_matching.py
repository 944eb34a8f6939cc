"""Weights of a narrow ResNet, filled by a formula: what fits, and ten files that do not."""

import json

from filled import filled
import jax
import ml_dtypes
import numpy as np
import pytest

from imgclf import config as configs
from imgclf import models, safetensors_file
from imgclf.errors import UserError
from imgclf.models import resnet, torch_names
from imgclf.pretrained import matching, positions, sources

CLASSES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
  """ResNet-18 with a block a stage and few channels."""
  monkeypatch.setattr(resnet, "WIDTHS", (4, 5, 6, 7))
  monkeypatch.setitem(models._MODELS, "resnet18", models._resnet(False, 1, 1, 1, 1))


def arrays(classes=3):
  """The arrays that PyTorch would write, by hand where it matters: the names are ResNet's."""
  widths, found = (64, 4, 5, 6, 7), {}  # the stem is never narrow

  def norm(name, width):
    for leaf in ("weight", "bias", "running_mean", "running_var"):
      found[f"{name}.{leaf}"] = (width,)

  found["conv1.weight"] = (64, 3, 7, 7)
  norm("bn1", 64)
  for i in range(1, 5):
    before, width = widths[i - 1 : i + 1]
    found[f"layer{i}.0.conv1.weight"] = (width, before, 3, 3)
    norm(f"layer{i}.0.bn1", width)
    found[f"layer{i}.0.conv2.weight"] = (width, width, 3, 3)
    norm(f"layer{i}.0.bn2", width)
    found[f"layer{i}.0.downsample.0.weight"] = (width, before, 1, 1)
    norm(f"layer{i}.0.downsample.1", width)
  found["fc.weight"], found["fc.bias"] = (classes, 7), (classes,)
  values = {name: filled(name, shape) for name, shape in found.items()}
  counters = {n.replace("running_mean", "num_batches_tracked") for n in found if "_mean" in n}
  return values | {name: np.array(3, np.int64) for name in counters}


@pytest.fixture
def fit(tmp_path):
  """Writes arrays and matches them with the config; returns the match and what it puts in place of
  zeros."""

  def run(given, classes=CLASSES, **fields):
    path = tmp_path / "weights.safetensors"
    safetensors_file.write(path, given)
    config = configs.default_config()
    config.dataset.image_size = 32
    config.model.name, config.model.weights = "resnet18", f"file:{path}"
    config.model.update(fields)
    source = sources.find(config.model.weights)
    matched = matching.match(source, config, classes)
    model = models.create(config["model"], len(classes), axis_name=None)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), models.shapes(model, 32))
    return matched, *matching.variables(source, matched, zeros)

  return run


def test_each_array_lands_where_its_name_says(fit):
  given = arrays()
  matched, variables, record = fit(given)
  params, statistics = variables["params"], variables["batch_stats"]
  # [out, in, height, width] becomes [height, width, in, out]
  assert params["stem_conv"]["kernel"][6, 1, 2, 3] == given["conv1.weight"][3, 2, 6, 1]
  block = params["stage2_block1"]
  assert block["conv1"]["kernel"][2, 0, 1, 4] == given["layer2.0.conv1.weight"][4, 1, 2, 0]
  assert (
    block["shortcut_conv"]["kernel"][0, 0, 3, 4]
    == given["layer2.0.downsample.0.weight"][4, 3, 0, 0]
  )
  np.testing.assert_array_equal(block["norm2"]["scale"], given["layer2.0.bn2.weight"])
  np.testing.assert_array_equal(
    statistics["stage2_block1"]["shortcut_norm"]["var"], given["layer2.0.downsample.1.running_var"]
  )
  np.testing.assert_array_equal(params["head"]["kernel"], given["fc.weight"].T)
  assert matched.head == "kept"
  assert matched.notes == [
    "the head of the weights is kept: its 3 classes count as the run's, in the order of that file"
  ]
  assert len(record["sha256"]) == 64


def test_the_head_is_replaced_where_the_classes_are_others(fit):
  matched, variables, _ = fit(arrays(1000))
  assert matched.head == "new"
  assert matched.notes == [
    "the head of the weights for 1000 classes is replaced by a new one for 3"
  ]
  assert not variables["params"]["head"]["kernel"].any()
  assert variables["params"]["stem_conv"]["kernel"].any()
  # A file without a head, and a wish for a new one.
  headless = {name: x for name, x in arrays().items() if not name.startswith("fc.")}
  assert fit(headless)[0].notes == ["the head of the weights is replaced by a new one for 3"]
  wished = fit(arrays(), head="new")[0]
  assert wished.head == "new"
  assert wished.notes == [
    "the head of the weights for 3 classes is replaced by a new one for 3, as config.model.head=new has it"
  ]
  assert fit(arrays(), head="keep")[0].head == "kept"


def test_as_many_classes_are_kept_only_where_they_are_the_same(fit, tmp_path):
  card = {"architecture": "resnet18", "label_names": CLASSES}
  (tmp_path / "config.json").write_text(json.dumps(card))
  assert fit(arrays())[0].head == "kept"
  matched = fit(arrays(), classes=["cat", "eel", "dog"])[0]
  assert matched.head == "new"
  assert matched.notes[0].endswith("for 3 classes is replaced by a new one for 3 others")


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(fit, kind):
  given = {n: x.astype(kind) if x.dtype == np.float32 else x for n, x in arrays().items()}
  matched, variables, _ = fit(given)
  mean = variables["batch_stats"]["stem_norm"]["mean"]
  assert mean.dtype == np.float32
  np.testing.assert_array_equal(mean, given["bn1.running_mean"].astype(np.float32))
  rounded = "weights of float64 are rounded to float32"
  assert (rounded in matched.notes) == (kind is np.float64)


def without(name):
  return {key: x for key, x in arrays().items() if key != name}


WRONG = {
  "an array is missing": (
    without("layer3.0.bn2.running_var"),
    {},
    "resnet18 needs and the file lacks layer3.0.bn2.running_var; take weights of resnet18, or",
  ),
  "an array is left over": (
    arrays() | {"layer1.1.conv1.weight": np.ones((4, 4, 3, 3), np.float32)},
    {},
    "nothing takes layer1.1.conv1.weight; take",
  ),
  "two of a kind, and both kinds": (
    without("bn1.bias") | {f"extra{i}": np.ones(1, np.float32) for i in range(5)},
    {},
    "lacks bn1.bias; nothing takes extra0, extra1, extra2 and 2 more; take",
  ),
  "another shape": (
    arrays() | {"conv1.weight": np.ones((64, 3, 3, 3), np.float32)},
    {},
    r"conv1.weight is \[64, 3, 3, 3\] and this config's resnet18 takes \[64, 3, 7, 7\]; set config.model",
  ),
  "the stem of the config": (
    arrays(),
    {"stem": "cifar"},
    r"conv1.weight is \[64, 3, 7, 7\] and this config's resnet18 takes \[64, 3, 3, 3\]",
  ),
  "another family": (
    {f"features.{i}.weight": np.ones((4, 3, 3, 3), np.float32) for i in range(9)},
    {},
    "holds weights of another network than resnet18: 0 of its 65 arrays are there, not bn1.bias; set",
  ),
  "numbers that are no weights": (
    arrays() | {"fc.weight": np.ones((3, 7), np.int8)},
    {},
    "fc.weight is of type I8, and weights are of F16, BF16, F32, F64; convert it",
  ),
  "a NaN": (
    arrays() | {"bn1.weight": np.full(64, np.nan, np.float32)},
    {},
    "bn1.weight holds a NaN or an infinity; fetch",
  ),
  "a head that must be kept": (
    arrays(1000),
    {"head": "keep"},
    "its head has 1000 classes and the data set 3, so config.model.head=keep can't be; set it to auto",
  ),
  "a head that must be kept and is not there": (
    {name: x for name, x in arrays().items() if not name.startswith("fc.")},
    {"head": "keep"},
    "its head is not in the file and the data set 3",
  ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused_by_name(fit, what):
  given, fields, words = WRONG[what]
  with pytest.raises(UserError, match=rf"^config.model.weights=file:\S+: .*{words}"):
    fit(given, **fields)


def test_a_network_without_files_is_told_what_it_can_take(fit):
  with pytest.raises(UserError, match=r"imgclf/models/lenet.py; .*; run:DIR takes those"):
    fit(arrays(), name="lenet5")


def test_a_file_that_says_whose_it_is_is_believed(fit, tmp_path):
  (tmp_path / "config.json").write_text('{"architecture": "resnet34.a1_in1k"}')
  with pytest.raises(
    UserError, match=r"weights of resnet34, and config.model.name is resnet18; make"
  ):
    fit(arrays())


def test_a_head_without_a_bias_is_told_by_its_kernel():
  config = configs.default_config()
  config.dataset.image_size = 32
  config.model.name = "airbench94"
  shapes = models.shapes(models.create(config.model, 3, axis_name=None), 32)
  leaves = jax.tree_util.tree_flatten_with_path(shapes)[0]
  held = {"/".join(k.key for k in path): (leaf.shape, "F32") for path, leaf in leaves}
  source = sources.Source("w", "airbench94", tuple(CLASSES), None, 32, None, held, True, dict)
  assert matching.match(source, config, CLASSES).head == "kept"
  assert matching.match(source, config, ["a", "b"]).notes == [
    "the head of the weights for 3 classes is replaced by a new one for 2"
  ]


def test_what_it_takes_is_what_the_library_has():
  model = resnet.ResNet((1, 1, 1, 1), False, 3)
  (layout,) = torch_names.layouts(model)
  tensors = torch_names.tensors(models.shapes(model, 32), layout).values()
  counted = [name for name in arrays() if not name.endswith(torch_names.COUNTER)]
  assert sorted(t.name for t in tensors) == sorted(counted)


def network(name):
  config = configs.default_config().model
  config.name = name
  return models.create(config, 3, axis_name=None)


def read_from(tmp_path, name, size, given, card=None):
  """Matches arrays with a network at an image size; returns the match and what it puts in place of
  zeros."""
  safetensors_file.write(tmp_path / "model.safetensors", given)
  if card is not None:
    (tmp_path / "config.json").write_text(json.dumps(card))
  config = configs.default_config()
  config.dataset.image_size = size
  config.model.name, config.model.weights = name, f"file:{tmp_path}"
  source = sources.find(config.model.weights)
  matched = matching.match(source, config, CLASSES)
  shapes = models.shapes(models.create(config["model"], 3, axis_name=None), size)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  return matched, matching.variables(source, matched, zeros)[0]


def of_library(model, size, place):
  """Arrays filled by a formula, as one of the libraries that have a network calls them."""
  layout = torch_names.layouts(model)[place]
  tensors = torch_names.tensors(models.shapes(model, size), layout).values()
  return {t.name: filled(t.name, t.shape) for t in tensors}


def test_positions_of_another_image_size_are_resampled_and_told(tmp_path, monkeypatch):
  monkeypatch.setitem(models._MODELS, "vit_ti_16", models._vit(6, 1, 2))
  given = of_library(network("vit_ti_16"), 48, place=1)
  assert given["pos_embed"].shape == (1, 10, 6)
  matched, variables = read_from(tmp_path, "vit_ti_16", 64, given)
  expected = positions.resample(given["pos_embed"][0], 17)
  np.testing.assert_array_equal(variables["params"]["position"], expected)
  assert matched.notes[1:] == [
    "the positions of 3x3 patches are resampled to 4x4, for the run's image size"
  ]
  assert len(read_from(tmp_path, "vit_ti_16", 48, given)[0].notes) == 1
  # Of no square picture, and of another width.
  for shape in ((1, 9, 6), (1, 10, 5), (10, 6)):
    with pytest.raises(UserError, match=rf"pos_embed is \[{str(shape)[1:-1]}\] and this config's"):
      read_from(tmp_path, "vit_ti_16", 64, given | {"pos_embed": np.ones(shape, np.float32)})


def test_what_batch_norm_adds_follows_from_whose_names_the_weights_have(tmp_path):
  name = "mobilenet_v3_small"
  for place, epsilon in enumerate([1e-3, 1e-5]):
    given = of_library(network(name), 32, place)
    assert read_from(tmp_path, name, 32, given)[0].epsilon == epsilon
  card = {"architecture": "mobilenetv3_small_100", "model_args": {"bn_eps": 0.01}}
  assert read_from(tmp_path, name, 32, given, card)[0].epsilon == 0.01
