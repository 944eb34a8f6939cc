import json

import pytest

from imgclf import config as configs
from imgclf.errors import UserError
from imgclf.pretrained import preprocessing

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
  known = preprocessing.of_timm(card(CARD))
  assert (known.network, known.image_size, known.classes) == ("resnet50", 224, None)
  assert known.fields == {
    "augment.mean": (0.485, 0.456, 0.406),
    "augment.std": (0.229, 0.224, 0.225),
    "dataset.crop_fraction": 0.95,
    "dataset.interpolation": "bicubic",
  }


def test_half_a_description_is_none(card):
  half = {"architecture": "resnet50", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}
  assert preprocessing.of_timm(card(half)).fields is None


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
    preprocessing.of_timm(path)


@pytest.mark.parametrize("text", ["{", "[1]", '{"pretrained_cfg": 3}', "[" * 100000])
def test_what_is_no_description_is_refused(card, text):
  with pytest.raises(
    UserError, match=r"config.json: is not timm's description of weights; mend it"
  ):
    preprocessing.of_timm(card(text))


def test_a_config_takes_over_what_differs_and_says_so(card):
  known = preprocessing.of_timm(card(CARD))
  config = configs.resolve(configs.default_config())
  lines = preprocessing.adopt(config, "weights", known.fields, 224)
  assert lines == [
    "taken over from the weights: config.dataset.crop_fraction: 0.875 -> 0.95; config.dataset.interpolation: "
    "'bilinear' -> 'bicubic' (config.model.preprocessing=config: not)"
  ]
  assert config.dataset.crop_fraction == 0.95 and config.dataset.interpolation == "bicubic"
  assert preprocessing.adopt(config, "weights", known.fields, 224) == []
  configs.validate(config)


def test_a_config_that_keeps_its_own_says_what_differs(card):
  known = preprocessing.of_timm(card(CARD))
  config = configs.default_config()
  config.model.preprocessing = "config"
  config.dataset.image_size = 128
  before = configs.to_json(config)
  assert preprocessing.adopt(config, "weights", known.fields, known.image_size) == [
    "the weights were trained otherwise than this config has it: config.dataset.crop_fraction: 0.875 -> 0.95; "
    "config.dataset.interpolation: 'bilinear' -> 'bicubic'",
    "the weights were trained at 224 px, and this run is at 128 px",
  ]
  assert configs.to_json(config) == before


def test_weights_that_say_nothing_change_nothing():
  config = configs.default_config()
  before = configs.to_json(config)
  (line,) = preprocessing.adopt(config, "file", None, None)
  assert line.startswith("file does not say how its images were prepared: config.augment.mean")
  assert configs.to_json(config) == before


def test_the_way_to_timm_and_back_is_the_same_preparation(card):
  config = configs.default_config()
  config.augment.mean, config.dataset.interpolation = (0.1, 0.2, 0.3), "lanczos"
  known = preprocessing.of_timm(
    card({"architecture": "x", "pretrained_cfg": preprocessing.to_timm(config)})
  )
  assert known.fields == {path: configs.get(config, path) for path in preprocessing.FIELDS}
  assert known.image_size == 224
