import contextlib
import io
import json
import shutil

from fresh import saved_state
import jax
import numpy as np
import pytest

import imgclf
from imgclf import config as configs
from imgclf.errors import UserError
from imgclf.pretrained import start

MEAN = (0.1, 0.2, 0.3)


def from_run(source, digits_dir):
  """Two steps that change nothing, from the weights of another run."""
  config = imgclf.default_config()
  config.dataset.data_dir = str(digits_dir)
  config.dataset.image_size = 32
  config.dataset.crop_fraction = 1.0
  config.augment.crop, config.augment.flip = "center", False
  config.augment.mean = MEAN
  config.model.name, config.model.weights = "lenet5", f"run:{source}"
  config.optimizer.rules = "*: lr=0"
  config.train.batch_size, config.train.total_steps = 32, 2
  config.eval.batch_size = 50
  config.log.tensorboard = False
  return config


@pytest.fixture(scope="module")
def begun(tmp_path_factory, trained, digits_dir):
  """A run from the weights of one that is gone since; what it printed; tests copy it."""
  source = tmp_path_factory.mktemp("source") / "run"
  shutil.copytree(trained, source)
  workdir = tmp_path_factory.mktemp("begun") / "run"
  with contextlib.redirect_stdout(io.StringIO()) as told:
    imgclf.train(from_run(source, digits_dir), workdir)
  shutil.rmtree(source)
  return workdir, source, " ".join(told.getvalue().split())


@pytest.fixture
def copied(begun, tmp_path):
  """A copy of it, and where its weights lay."""
  shutil.copytree(begun[0], tmp_path / "run")
  return tmp_path / "run", begun[1]


def test_a_run_begins_with_the_weights_of_another_and_records_it(begun, trained):
  workdir, source, told = begun
  run, original = imgclf.load(workdir), imgclf.load(trained)
  jax.tree.map(np.testing.assert_array_equal, run.variables, original.variables)
  record = json.loads((workdir / "weights.json").read_text())
  assert record["source"] == f"run:{source}" and record["network"] == "lenet5"
  assert (record["sha256"], record["step"]) == (original.checkpoint, original.step)
  assert record["head"] == "kept" and record["image_size"] == 32
  assert "the head of the weights is kept: its 10 classes count as the run's" in told
  mean = original.config["augment"]["mean"]
  assert f"taken over from the weights: config.augment.mean: {MEAN} -> {mean}" in told
  assert run.config["augment"]["mean"] == mean != MEAN


def test_a_resumed_run_has_its_own_weights_and_needs_the_others_no_more(copied, digits_dir, capsys):
  workdir, source = copied
  # Where they lay may change; the mean is taken over again, from weights.json.
  config = from_run("elsewhere", digits_dir)
  config.train.total_steps = 3
  imgclf.train(config, workdir)
  assert saved_state(workdir)[0] == 3
  assert "changed since the run was begun: config.model.weights: " in capsys.readouterr().out
  assert json.loads((workdir / "weights.json").read_text())["source"] == f"run:{source}"
  assert imgclf.load(workdir).config["augment"]["mean"] != MEAN
  # What they were may not.
  for other in (None, "timm:resnet18.a1_in1k"):
    config.model.weights = other
    with pytest.raises(UserError, match=r"another config \(.*config.model.weights: "):
      imgclf.train(config, workdir, quiet=True)


def test_a_run_folder_that_forgot_its_weights_is_refused(copied, digits_dir):
  workdir, source = copied
  record = workdir / "weights.json"
  tree = json.loads(record.read_text())
  changes = ({"preparation": {"seed": 3}}, {"batch_norm_epsilon": "0.1"})
  for text in ("[]", "{}", *(json.dumps(tree | change) for change in changes)):
    record.write_text(text)
    with pytest.raises(UserError, match=r"weights\.json: does not say .*; restore the file"):
      imgclf.train(from_run(source, digits_dir), workdir, quiet=True)


def test_weights_of_another_network_or_run_are_refused_before_a_run_is_begun(
  trained, digits_dir, tmp_path
):
  config = from_run(trained, digits_dir)
  config.model.name = "cnn"
  with pytest.raises(UserError, match=r"weights of lenet5, and config.model.name is cnn"):
    imgclf.train(config, tmp_path / "run", quiet=True)
  config.model.weights = f"run:{tmp_path}"
  with pytest.raises(UserError, match=r"^config.model.weights=run:\S+: .*holds no run"):
    imgclf.train(config, tmp_path / "run", quiet=True)
  assert not list((tmp_path / "run").glob("*.json"))
  # What --mode=check looks at as well.
  with pytest.raises(
    UserError, match=r"this would stop a run with this config: config.model.weights="
  ):
    imgclf.check(config, quiet=True)


def test_nothing_is_looked_for_where_nothing_is_named():
  config = configs.resolve(configs.default_config())
  assert start.prepare(config, ["a", "b"]) == start.Start()
