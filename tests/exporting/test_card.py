import re

import numpy as np
import pytest

from imgclf.data import loader
from imgclf.data.sources import Record
from imgclf.exporting import card

FIGURES = {"accuracy": 0.5, "top5_accuracy": 0.75, "f1_macro": 0.25, "loss": 1.5, "ece": 0.125}


@pytest.fixture
def record(small_config):
  return {
    "format": "onnx",
    "classes": ["cat", "dog"],
    "step": 1234,
    "model": {"name": "lenet5", "parameters": 62006, "dtype": "float32"},
    "temperature": 1.5,
    "preprocessing": card.preprocessing(small_config),
    "data": {"name": "digits", "splits": {"train": 9, "test": 4}},
    "versions": {"imgclf": "0.1.0"},
    "images": 4,
    "images_from": "test",
    "max_difference": 2e-7,
    "evaluation_difference": 3e-7,
    "latency_ms": 1.0,
    "imgclf_latency_ms": 2.0,
    "device": "1 x cpu in 1 process",
  }


def text(record, *evaluations):
  return card.card(record, evaluations, "def probabilities(pixels): ...\n", ["onnxruntime"])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_the_crop_of_the_script_is_evaluations_own_to_the_bit(
  small_config, record, shared_data, interpolation
):
  small_config.dataset.update(image_size=64, crop_fraction=0.875, interpolation=interpolation)
  record["preprocessing"] = card.preprocessing(small_config)
  names = {"np": np}
  code = card.script(record, "")
  exec(code[: code.index("pixels =")], names)
  crop = loader.eval_crop(small_config)
  photos = sorted((shared_data / "imagenet_photos").rglob("*.jpg"))[::40]
  assert len(photos) == 5
  for path in photos:
    np.testing.assert_array_equal(names["crop"](path), crop(Record(path.read_bytes(), 0, "x")))


def test_what_evaluation_does_to_a_file_is_told(small_config):
  small_config.dataset.update(image_size=224, crop_fraction=0.875, interpolation="bicubic")
  small_config.augment.mean = (0.5, 0.25, 0.125)
  told = card.preprocessing(small_config)
  assert told["before"]["resize_short_side"] == 256
  assert told["before"]["center_crop"] == 224
  assert told["before"]["interpolation"] == "bicubic"
  assert told["inside"]["mean"] == [0.5, 0.25, 0.125]


def test_figures_are_those_of_the_evaluations_that_there_are(record):
  assert "None: this step was not evaluated" in text(record)
  same = {"split": "test", "n": 4000, "temperature": 1.5, **FIGURES}
  assert "| `test` | 4,000 | 50.00% | 75.00% | 25.00% | 1.5000 | 12.50% |" in text(record, same)


def test_of_several_classes_an_image_the_card_tells_map_and_no_best_class(record):
  figures = {"mAP": 0.5, "exact_match": 0.75, "f1_macro": 0.25, "loss": 1.5}
  same = {"split": "test", "n": 4000, "temperature": 1.5, **figures}
  told = text(record | {card.SEVERAL: True}, same)
  assert "| split | images | mAP | exact match | macro F1 | loss |" in told
  assert "| `test` | 4,000 | 50.00% | 75.00% | 25.00% | 1.5000 |" in told
  assert "an image is said to have those of 0.5 or more" in told
  lines = card.script(record | {card.SEVERAL: True}, "").splitlines()
  assert "  for label in np.flatnonzero(row >= 0.5):" in lines
  assert "  for label in np.argsort(-row)[:5]:" in card.script(record, "").splitlines()


def test_loss_and_calibration_at_another_temperature_are_left_out(record):
  other = {"split": "test", "n": 4, "temperature": 1.0, **FIGURES, "f1_macro": None}
  assert "| `test` | 4 | 50.00% | 75.00% | not known | not known | not known |" in text(
    record, other
  )


def test_names_of_others_mark_nothing_up(record):
  record["classes"] = ["`<b>\x1b[2J\n# Heading", "ok"]
  record["data"]["name"] = "folder:`|<script>"
  found = text(record)
  assert "\x1b" not in found and "\n# Heading" not in found
  assert "`folder:'/<script>`" in found
  assert r'      0 "`<b>\u001b[2J\n# Heading"' in found


def test_of_many_classes_the_first_are_listed(record):
  record["classes"] = [f"class {i}" for i in range(1000)]
  found = text(record)
  assert '     19 "class 19"' in found and '"class 20"' not in found
  assert "and 980 more in `export.json`" in found


def test_the_card_says_what_it_does_not_know(record):
  found = text(record)
  assert "calibrated by one temperature" in found
  record["temperature"] = 1.0
  assert "No temperature was fitted" in text(record)
  assert re.search(r"## Licence\n\nNot stated\.", found)
  assert "`train` 9, `test` 4 images" in found
