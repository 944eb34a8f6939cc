"""A checkpoint of another model or config is refused before the first step, by the parameter's or
field's name."""

import json
import shutil

import pytest

import imgclf
from imgclf import loop

# What is changed in the config between the run and its resumption, and what the error names.
CASES = [
  ({"model.name": "cnn"}, "config.model.name: 'lenet5' -> 'cnn'"),
  ({"model.name": "resnet18"}, "config.model.name: 'lenet5' -> 'resnet18'"),
  ({"optimizer.name": "sgd"}, "config.optimizer.name: 'adam' -> 'sgd'"),
  ({"optimizer.ema_decay": 0.9}, "config.optimizer.ema_decay: None -> 0.9"),
  ({"optimizer.b1": 0.8}, "config.optimizer.b1: 0.9 -> 0.8"),
  ({"seed": 1}, "config.seed: 0 -> 1"),
  ({"train.batch_size": 8}, "config.train.batch_size: 16 -> 8"),
  ({"augment.mean": (0.1, 0.1, 0.1)}, "config.augment.mean: "),
  ({"dataset.image_size": 28}, "config.dataset.image_size: 32 -> 28"),
]


@pytest.fixture
def run(small_config, tmp_path):
  imgclf.train(small_config, tmp_path / "run", quiet=True)
  return tmp_path / "run"


@pytest.fixture(autouse=True)
def no_step(monkeypatch):
  """From here on no step is made."""

  def forbid():
    monkeypatch.setattr(loop.Loop, "run", lambda *_: pytest.fail("a step was made"))

  return forbid


@pytest.mark.parametrize(("changes", "words"), CASES)
def test_another_config_is_refused_by_the_fields_name(small_config, run, no_step, changes, words):
  for path, value in changes.items():
    section, _, name = path.rpartition(".")
    (small_config[section] if section else small_config)[name] = value
  no_step()
  with pytest.raises(imgclf.UserError) as refused:
    imgclf.train(small_config, run, quiet=True)
  assert words in str(refused.value)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"model.name": "cnn"}, "config.model.name: 'lenet5' -> 'cnn'"),
    ({"augment.std": [0.5, 0.5, 0.5]}, "config.augment.std: "),
    ({"optimizer.ema_decay": 0.9}, "config.optimizer.ema_decay: None -> 0.9"),
  ],
)
def test_a_config_json_that_is_not_the_checkpoints_is_refused_by_the_fields_name(
  run, changes, words
):
  """Such as one that was copied from another run, or edited: evaluation would be silently wrong."""
  config = json.loads((run / "config.json").read_text())
  for path, value in changes.items():
    section, name = path.split(".")
    config[section][name] = value
  (run / "config.json").write_text(json.dumps(config))
  with pytest.raises(imgclf.UserError) as refused:
    imgclf.load(run)
  assert "not those that the checkpoint was saved with" in str(refused.value)
  assert words in str(refused.value)


def test_classes_in_another_order_are_refused_by_the_class(run):
  classes = json.loads((run / "classes.json").read_text())
  classes[3], classes[5] = classes[5], classes[3]
  (run / "classes.json").write_text(json.dumps(classes))
  with pytest.raises(imgclf.UserError, match="class 3: '3' -> '5'"):
    imgclf.load(run)


def test_a_checkpoint_of_another_run_is_refused(small_config, run, tmp_path, no_step):
  """Its files are whole, but they are not this run's."""
  other = imgclf.ConfigDict(small_config)
  other.seed = 9
  imgclf.train(other, tmp_path / "other", quiet=True)
  shutil.rmtree(run / "checkpoints" / "6")
  shutil.copytree(tmp_path / "other" / "checkpoints" / "6", run / "checkpoints" / "6")
  no_step()
  with pytest.raises(imgclf.UserError, match=r"config\.seed: 9 -> 0"):
    imgclf.train(small_config, run, quiet=True)
  with pytest.raises(imgclf.UserError, match=r"config\.seed: 9 -> 0"):
    imgclf.evaluate(run, step=6, quiet=True)
