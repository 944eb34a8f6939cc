import json

import pytest

from imgclf import config as configs
from imgclf import timm_config
from imgclf.errors import UserError

# As the hub has it for resnet50.a1_in1k, shortened.
CARD = {
  "architecture": "resnet50",
  "num_classes": 1000,
  "pretrained_cfg": {
    "tag": "a1_in1k",
    "input_size": [3, 224, 224],
    "interpolation": "bicubic",
    "crop_pct": 0.95,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
  },
}


@pytest.fixture
def card(tmp_path):
  def write(tree):
    path = tmp_path / "config.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))
    return path

  return write


def test_timms_description_becomes_fields_of_the_config(card):
  known = timm_config.read(card(CARD))
  assert (known.network, known.image_size, known.classes) == ("resnet50", 224, None)
  assert known.fields == {
    "augment.mean": (0.485, 0.456, 0.406),
    "augment.std": (0.229, 0.224, 0.225),
    "dataset.crop_fraction": 0.95,
    "dataset.interpolation": "bicubic",
  }


def test_half_a_description_is_none(card):
  half = {"architecture": "resnet50", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}
  assert timm_config.read(card(half)).fields is None


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (
      {"interpolation": "nearest"},
      r"interpolation is 'nearest', which config.dataset.interpolation",
    ),
    ({"mean": [0.5, 0.5]}, r"mean is \(0.5, 0.5\), which config.augment.mean"),
    ({"std": [0, 0.2, 0.2]}, "which config.augment.std"),
    ({"crop_pct": "1"}, "crop_pct is '1', which"),
  ],
)
def test_a_preparation_that_is_not_known_is_refused(card, change, words):
  path = card(CARD | {"pretrained_cfg": CARD["pretrained_cfg"] | change})
  with pytest.raises(UserError, match=words):
    timm_config.read(path)


@pytest.mark.parametrize("text", ["{", "[1]", '{"pretrained_cfg": 3}', "[" * 100000])
def test_what_is_no_description_is_refused(card, text):
  with pytest.raises(
    UserError, match=r"config.json: is not timm's description of weights; mend it"
  ):
    timm_config.read(card(text))


def test_the_way_to_timm_and_back_is_the_same_preparation(tmp_path):
  config = configs.default_config()
  config.augment.mean, config.dataset.interpolation = (0.1, 0.2, 0.3), "lanczos"
  timm_config.write(tmp_path, "resnet18", config, ["cat", "dog"], 512, "fc", {"bn_eps": 0.002})
  known = timm_config.read(tmp_path / "config.json")
  assert known.fields == {path: configs.get(config, path) for path in timm_config.FIELDS}
  assert (known.image_size, known.classes, known.network) == (224, ("cat", "dog"), "resnet18")
  assert known.epsilon == 0.002
  timm_config.write(tmp_path, "resnet18", config, ["cat", "dog"], 512, "fc", {})
  assert timm_config.read(tmp_path / "config.json").epsilon is None


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ({"bn_eps": -1}, r"config.json: bn_eps is -1, which is not a number above 0; mend"),
    ({"img_size": 96, "act_layer": "silu"}, "was made with act_layer='silu', which this project's"),
    ([3], "is not timm's description of weights"),
  ],
)
def test_a_network_that_was_made_otherwise_is_refused(card, arguments, words):
  with pytest.raises(UserError, match=words):
    timm_config.read(card(CARD | {"model_args": arguments}))
  harmless = {"img_size": 96, "num_classes": 3, "drop_path_rate": 0.1}
  assert timm_config.read(card(CARD | {"model_args": harmless})).network == "resnet50"
