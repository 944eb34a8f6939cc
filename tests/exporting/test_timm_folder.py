import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest

import imgclf
from imgclf import app, models, safetensors_file
from imgclf import config as configs
from imgclf.errors import UserError
from imgclf.exporting import timm_folder
from imgclf.models import alexnet, resnet, vgg
from imgclf.modes import export
from imgclf.pretrained import matching, sources

CLASSES = list("0123456789")


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
  """One small member of each family."""
  monkeypatch.setattr(resnet, "WIDTHS", (4, 5, 6, 7))
  monkeypatch.setattr(vgg, "WIDTHS", (2, 3, 4, 5, 6))
  monkeypatch.setattr(vgg, "HIDDEN", 8)
  monkeypatch.setattr(alexnet, "HIDDEN", 8)


def network(name):
  """A config of a network at 64 px, and random variables."""
  config = configs.default_config()
  config.dataset.image_size = 64
  config.model.name = name
  shapes = models.shapes(models.create(config.model, 10, axis_name=None), 64)
  rng = np.random.default_rng(0)
  return config, jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize(
  ("name", "library", "arrays"),
  [("alexnet", "torchvision", 16), ("vgg11_bn", "timm", 62), ("resnet50", "timm", 320)],
)
def test_what_is_written_comes_back_to_the_bit(tmp_path, name, library, arrays):
  # As many arrays as a `state_dict` of the library has.
  config, variables = network(name)
  assert timm_folder.write(config, CLASSES, variables, tmp_path) == (library, arrays)
  source = sources.find(f"file:{tmp_path}")
  assert (source.network, source.classes, source.image_size) == (name, tuple(CLASSES), 64)
  matched = matching.match(source, config, CLASSES)
  assert matched.head == "kept"
  zeros = jax.tree.map(np.zeros_like, variables)
  read, _ = matching.variables(source, matched, zeros)
  jax.tree.map(np.testing.assert_array_equal, read, variables)


def test_how_timms_network_has_to_be_made_is_told_and_read(tmp_path, monkeypatch):
  monkeypatch.setitem(models._MODELS, "vit_ti_16", models._vit(6, 1, 2))
  config, variables = network("vit_ti_16")
  timm_folder.write(config, CLASSES, variables, tmp_path)
  tree = json.loads((tmp_path / "config.json").read_text())
  assert tree["architecture"] == "vit_tiny_patch16_224" and tree["model_args"] == {"img_size": 64}
  assert tree["pretrained_cfg"]["fixed_input_size"]
  # timm's adds 0.00001, ours as published 0.001.
  config, variables = network("mobilenet_v3_small")
  timm_folder.write(config, CLASSES, variables, tmp_path)
  tree = json.loads((tmp_path / "config.json").read_text())
  assert tree["architecture"] == "mobilenetv3_small_100" and tree["model_args"] == {"bn_eps": 1e-3}
  assert sources.find(f"file:{tmp_path}").epsilon == 1e-3
  config.model.batch_norm_epsilon = 1e-5
  timm_folder.write(config, CLASSES, variables, tmp_path)
  assert "model_args" not in json.loads((tmp_path / "config.json").read_text())


def test_the_head_is_named_for_timm(tmp_path):
  config, variables = network("vgg11_bn")
  timm_folder.write(config, CLASSES, variables, tmp_path)
  tree = json.loads((tmp_path / "config.json").read_text())
  assert tree["pretrained_cfg"]["classifier"] == "head.fc"
  assert (tree["architecture"], tree["num_features"]) == ("vgg11_bn", 8)
  kernel = safetensors_file.read(tmp_path / "model.safetensors", "it")[0]["head.fc.weight"]
  np.testing.assert_array_equal(kernel, variables["params"]["head"]["kernel"].T)


def test_what_no_library_has_is_refused(tmp_path):
  config, variables = network("resnet18")
  config.model.stem = "cifar"
  with pytest.raises(UserError, match=r"^--format=timm: timm's resnet18 has no stem 'cifar'; take"):
    timm_folder.write(config, CLASSES, variables, tmp_path)
  with pytest.raises(
    UserError, match=r"^--format=timm: .*imgclf/models/lenet.py; .*; take another format"
  ):
    timm_folder.write(*[network("lenet5")[0], CLASSES, network("lenet5")[1]], tmp_path)


@pytest.mark.parametrize(
  ("name", "line"),
  [
    ("resnet18", 'timm.create_model("local-dir:.", pretrained=True)'),
    ("alexnet", "torchvision.models.alexnet(num_classes=10)"),
  ],
)
def test_a_run_is_exported_with_its_record_and_card(
  trained, tmp_path, monkeypatch, capsys, name, line
):
  run = imgclf.load(trained)
  config, variables = network(name)
  config.eval.tta = "flip"
  other = dataclasses.replace(run, config=config, variables=variables, temperature=1.75)
  monkeypatch.setattr(export, "load", lambda workdir, step: other)
  output = tmp_path / "weights"
  arguments = ["--mode=export", f"--workdir={trained}", "--format=timm", f"--output={output}"]
  assert app.main(arguments) == 0
  record = json.loads((output / "export.json").read_text())
  assert record["format"] == "timm" and record["classes"] == run.classes
  assert record["checkpoint"] == run.checkpoint and record["temperature"] == 1.75
  assert sorted(record["files"]) == ["config.json", "model.safetensors"]
  for file, told in record["files"].items():
    data = (output / file).read_bytes()
    assert told == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
  card = (output / "README.md").read_text()
  assert line in card
  assert "softmax(logits / 1.75), the logits being means over views of an image (flip)" in card
  told = capsys.readouterr().out
  assert f"verified  {record['arrays']} arrays read back, equal to the bit" in told
  # An export is replaced by the next.
  assert app.main(arguments) == 0
  assert app.main([*arguments, "--images=photo.jpg"]) == 2
  assert "--images: --format=timm is read back to the bit" in capsys.readouterr().err


def test_what_the_disk_changes_is_not_passed_on(tmp_path, monkeypatch):
  config, variables = network("resnet18")
  read = safetensors_file.read

  def flipped(path, where):
    arrays, digest = read(path, where)
    arrays["fc.bias"] = arrays["fc.bias"] + 1
    return arrays, digest

  monkeypatch.setattr(safetensors_file, "read", flipped)
  with pytest.raises(OSError, match=r"fc\.bias is read back otherwise than it was written"):
    timm_folder.write(config, CLASSES, variables, tmp_path)
