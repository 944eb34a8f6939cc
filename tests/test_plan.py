"""What a config is held against before a run."""

import contextlib

import numpy as np
import pytest

import imgclf
from imgclf import parallel, plan
from imgclf.errors import UserError


@pytest.mark.parametrize(
  ("devices", "batch_size", "repeats", "words"),
  [
    (4, 12, 1, "config.train.batch_size: 12 is an odd number for each of 4 devices"),
    (1, 9, 1, "choose a multiple of 2"),
    (2, 12, 4, "config.augment.repeats: 12 / 4 examples in a batch are an odd number"),
    (2, 16, 4, None),
  ],
)
def test_mixing_needs_pairs_on_each_device(monkeypatch, devices, batch_size, repeats, words):
  monkeypatch.setattr(parallel, "device_count", lambda: devices)
  config = imgclf.default_config()
  config.train.batch_size, config.augment.repeats = batch_size, repeats
  plan.check_config(config)  # without a mix there are no pairs
  config.augment.mixup = 0.1
  if words is None:
    plan.check_config(config)
    return
  with pytest.raises(UserError, match=words):
    plan.check_config(config)


def test_frozen_norms_whose_statistics_move_are_told():
  config = imgclf.default_config()
  config.dataset.image_size = 32
  config.model.update(name="vgg11_bn")
  config.optimizer.rules = "head/*: lr=1; *: lr=0"
  (note,) = plan.check_config(config)
  assert note.startswith("8 batch norms have frozen parameters and moving statistics")
  config.model.frozen_batch_norm = "rules"
  assert plan.check_config(config) == []


def test_the_weights_of_classes_follow_from_the_train_split(small_config, tmp_path):
  for name, number in (("cat", 6), ("dog", 2)):
    for split in ("train", "validation"):
      (tmp_path / "data" / split / name).mkdir(parents=True)
      for i in range(number):
        (tmp_path / "data" / split / name / f"{i}.png").write_bytes(b"not read")
  small_config.dataset.name = f"folder:{tmp_path / 'data'}"
  for which, expected in (("none", None), ("balanced", [8 / 12, 8 / 4])):
    small_config.train.class_weights = which
    with contextlib.ExitStack() as held:
      found = plan.prepare(small_config, tmp_path / which, held).class_weights
    if expected is None:
      assert found is None
    else:
      np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_how_slow_layer_decay_makes_the_first_layer_is_told():
  config = imgclf.default_config()
  config.dataset.image_size = 32
  config.model.name, config.optimizer.layer_decay = "lenet5", 0.5
  (note,) = plan.check_config(config)
  assert note.endswith("of conv1, 4 layers below the head, is 0.062 of the head's")  # 0.0625
