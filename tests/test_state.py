"""First weights that come from training images: which, when, and that a resumed run keeps them."""

import csv
import io
import json
import shutil

from fresh import assert_same_bits, saved_state
import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf import judge as judging
from imgclf import models, state
from imgclf.data import datasets


@pytest.fixture
def config(small_config, monkeypatch):
  """All that the recipe of the speed run has, on a network and images that make it cheap."""
  entry = models._Entry("airbench", "Airbench", 9, {"widths": (8, 8, 8)}, batch_norm=True)
  monkeypatch.setitem(models._MODELS, "airbench94", entry)
  config = small_config
  config.optimizer.muon_steps = 2
  config.dataset.image_size = 9
  config.dataset.resident = True
  config.augment.update(crop_padding=1, flip=True, flip_alternate=True, rotation=0.0)
  config.model.name = "airbench94"
  # Which filters answer to grey's empty directions depends on the processor; at ten times the rate
  # some diverge.
  config.optimizer.update(
    name="muon", learning_rate=0.01, muon_unit_filters=True, muon_rest="sgd", nesterov=True
  )
  config.optimizer.ema_decay = 0.9
  config.optimizer.rules = "whitening/kernel: lr=0; */bias: lr=2 until=0.5"
  config.eval.tta = "flip_translate"
  return config


def kernels(workdir, step):
  """The filters of the first layer in the state of a checkpoint: among the parameters, and in their
  averages."""
  return [leaf for leaf in saved_state(workdir, step)[1] if leaf.shape == (2, 2, 3, 24)]


def patch_covariance(config):
  """By Pillow and numpy: the train split as evaluation shows it, every patch of it written out."""
  source = datasets.open(config.dataset)
  records = source.records(datasets.roles(config.dataset, source)["train"])
  shown = [Image.open(io.BytesIO(records[i].data)).convert("RGB") for i in range(len(records))]
  shown = [np.asarray(image.resize((9, 9), Image.Resampling.BILINEAR)) for image in shown]
  images = (np.stack(shown) / 255 - config.augment.mean) / np.array(config.augment.std)
  windows = np.lib.stride_tricks.sliding_window_view(images, (2, 2), axis=(1, 2))
  flat = np.moveaxis(windows, 3, 5).reshape(-1, 12)
  return flat.T @ flat / len(flat)


def test_a_run_starts_from_its_images_and_a_resumed_one_from_its_checkpoint(
  config, tmp_path, monkeypatch
):
  imgclf.train(config, tmp_path / "whole", quiet=True)
  cut = shutil.copytree(tmp_path / "whole", tmp_path / "cut")
  shutil.rmtree(cut / "checkpoints" / "6")
  # The filters are as at the start: they are frozen, in the averages too.
  found = [*kernels(cut, 3), *kernels(tmp_path / "whole", 6)]
  assert len(found) == 4
  for filters in found:
    np.testing.assert_array_equal(filters, found[0])
  # The digits are grey, so that many eigenvalues are 0 and the filters of those are any; but not
  # what all answer.
  covariance = patch_covariance(config)
  filters = found[0].reshape(12, 24)[:, :12].astype(np.float64)
  values = np.linalg.eigvalsh(covariance)
  np.testing.assert_allclose(
    filters.T @ covariance @ filters, np.diag(values / (values + 5e-4)), atol=2e-3
  )
  monkeypatch.setattr(state, "fitted", None)
  assert imgclf.train(config, cut, quiet=True)["step"] == 6
  assert_same_bits(saved_state(cut), saved_state(tmp_path / "whole"))


def test_evaluation_and_prediction_look_at_the_views_that_training_did(
  config, tmp_path, monkeypatch
):
  config.train.total_steps = 3
  imgclf.train(config, tmp_path / "run", quiet=True)
  path = tmp_path / "run" / "eval" / "validation-3.json"
  told = json.loads(path.read_text())
  assert told["tta"] == "flip_translate"
  assert imgclf.evaluate(tmp_path / "run", split="validation", quiet=True) == told
  kept, judge = [], judging.judge
  monkeypatch.setattr(judging, "judge", lambda *a: kept.append(judge(*a)) or kept[0])
  imgclf.evaluate(tmp_path / "run", split="test[:20]", quiet=True)
  records = datasets.open(config.dataset).records("test[:20]")
  for i in range(20):
    (tmp_path / f"{i:02}.png").write_bytes(records[i].data)
  images = [str(tmp_path / f"{i:02}.png") for i in range(20)]
  imgclf.predict(tmp_path / "run", images=images, output=tmp_path / "a.csv", top_k=1, quiet=True)
  with open(tmp_path / "a.csv", newline="") as file:
    said = [float(row["probability"]) for row in csv.DictReader(file)]
  np.testing.assert_array_equal(np.array(said, np.float32), kept[0].confidence)


def test_no_images_no_weights(config, tmp_path, monkeypatch):
  """Where training leaves bad images out, the first weights do as well, and there must be a good
  one."""
  for name, colour in (("dark", 10), ("light", 200)):
    folder = tmp_path / "set" / name
    folder.mkdir(parents=True)
    for i in range(20):
      Image.new("RGB", (9, 9), (colour + i,) * 3).save(folder / f"{i}.png")
  for file in (tmp_path / "set").rglob("*.png"):
    file.write_bytes(file.read_bytes()[:40])
  config.dataset.name = f"folder:{tmp_path / 'set'}"
  config.dataset.update(bad_images="skip", max_bad_share=1.0)
  with pytest.raises(
    imgclf.UserError, match=r"none of the first 3\d training images can be decoded"
  ):
    imgclf.train(config, tmp_path / "run", quiet=True)
