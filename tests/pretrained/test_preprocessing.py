import pytest

from imgclf import config as configs
from imgclf import models
from imgclf.errors import UserError
from imgclf.pretrained import preprocessing

# Of resnet50.a1_in1k.
KNOWN = {
  "augment.mean": (0.485, 0.456, 0.406),
  "augment.std": (0.229, 0.224, 0.225),
  "dataset.crop_fraction": 0.95,
  "dataset.interpolation": "bicubic",
}


def test_a_config_takes_over_what_differs_and_says_so():
  config = configs.resolve(configs.default_config())
  lines = preprocessing.adopt(config, "weights", KNOWN, 224)
  assert lines == [
    "taken over from the weights: config.dataset.crop_fraction: 0.875 -> 0.95; config.dataset.interpolation: "
    "'bilinear' -> 'bicubic' (config.model.preprocessing=config: not)"
  ]
  assert config.dataset.crop_fraction == 0.95 and config.dataset.interpolation == "bicubic"
  assert preprocessing.adopt(config, "weights", KNOWN, 224) == []
  configs.validate(config)


def test_a_config_that_keeps_its_own_says_what_differs():
  config = configs.default_config()
  config.model.preprocessing = "config"
  config.dataset.image_size = 128
  before = configs.to_json(config)
  assert preprocessing.adopt(config, "weights", KNOWN, 224) == [
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


def adopted(name, epsilon, wish=None):
  """What a config has after weights were found whose batch norm added this much, and the lines."""
  config = configs.resolve(configs.default_config())
  config.model.name, config.model.batch_norm_epsilon = name, wish
  model = models.create(config.model, 3, axis_name=None)
  lines = preprocessing.adopt_epsilon(config, "weights", epsilon, model)
  return config.model.batch_norm_epsilon, lines


def test_what_batch_norm_adds_is_taken_over_where_it_differs():
  assert adopted("mobilenet_v3_small", 1e-5) == (
    1e-5,
    ["taken over from the weights: config.model.batch_norm_epsilon: 0.001 -> 1e-05"],
  )
  assert adopted("mobilenet_v3_small", 1e-3) == (None, [])
  assert adopted("efficientnet_b0", None) == (None, [])
  assert adopted("efficientnet_b0", 1e-3, wish=1e-3) == (1e-3, [])
  assert adopted("resnet18", 1e-5) == (None, [])
  with pytest.raises(UserError, match=r"epsilon=0.001: weights was trained with 1e-05; leave it"):
    adopted("efficientnet_b0", 1e-5, wish=1e-3)
  with pytest.raises(UserError, match=r"adds 0.001 to the variance, and resnet18 here can't; take"):
    adopted("resnet18", 1e-3)
