import json
import sys
import types

import numpy as np
import pytest

from imgclf import safetensors_file
from imgclf.errors import UserError
from imgclf.pretrained import sources

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
  """What the hub holds of some weights."""
  safetensors_file.write(tmp_path / "model.safetensors", {"fc.bias": np.ones(2, np.float32)})
  card = {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 160, 160]}}
  (tmp_path / "config.json").write_text(json.dumps(card))
  return tmp_path


@pytest.fixture
def hub(folder, monkeypatch):
  """A hub with that folder as `timm/resnet18.a1_in1k`; what it was asked for."""
  asked = []

  def model_info(repository, *, revision=None):
    asked.append((repository, revision))
    if repository != "timm/resnet18.a1_in1k":
      raise OSError(f"404 Client Error: {repository} not found")
    return types.SimpleNamespace(sha=COMMIT)

  def hf_hub_download(repository, filename, *, revision=None):
    asked.append((repository, filename, revision))
    return str(folder / filename)

  fake = types.SimpleNamespace(model_info=model_info, hf_hub_download=hf_hub_download)
  monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
  return asked


def test_a_file_and_its_folder_are_the_same_weights(folder):
  for place in (folder, folder / "model.safetensors"):
    source = sources.find(f"file:{place}")
    assert source.arrays == {"fc.bias": ((2,), "F32")}
    assert (source.network, source.image_size) == ("resnet18", 160)
    values, record = source.read()
    np.testing.assert_array_equal(values["fc.bias"], [1, 1])
    assert set(record) == {"sha256"}
  (folder / "config.json").unlink()
  source = sources.find(f"file:{folder}")
  assert (source.network, source.preparation, source.image_size) == (None, None, None)


def test_a_name_is_resolved_to_a_commit_and_read_at_it(hub):
  source = sources.find("timm:resnet18.a1_in1k")
  assert source.where == "config.model.weights=timm:resnet18.a1_in1k"
  assert source.read()[1]["revision"] == COMMIT
  name = "timm/resnet18.a1_in1k"
  assert hub == [(name, None), (name, "model.safetensors", COMMIT), (name, "config.json", COMMIT)]


def test_a_commit_is_taken_from_the_cache_without_asking(hub):
  other = COMMIT[::-1]
  source = sources.find(f"timm:resnet18.a1_in1k@{other}")
  assert source.read()[1]["revision"] == other
  assert [len(each) for each in hub] == [3, 3]
  sources.find("timm:resnet18.a1_in1k@main")
  assert hub[2] == ("timm/resnet18.a1_in1k", "main")


def test_what_the_hub_does_not_give_is_told_in_a_line(hub):
  with pytest.raises(
    UserError, match=r"timm:resnet19: the hub does not give timm/resnet19 \(OSError: 404.*; look"
  ):
    sources.find("timm:resnet19")


def test_a_missing_package_is_told_with_the_way_to_it(monkeypatch):
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(
    UserError, match=r"needs huggingface_hub.*pip install 'imgclf\[hub\]', or give file:"
  ):
    sources.find("timm:resnet18.a1_in1k")


@pytest.mark.parametrize("ending", ["pth", "pt", "bin"])
def test_files_that_are_programs_are_refused_by_their_names(tmp_path, ending):
  with pytest.raises(
    UserError, match=rf"a .{ending} file is a pickle, .*convert it where you trust it: safe"
  ):
    sources.find(f"file:{tmp_path}/weights.{ending}")


def test_a_file_that_is_not_there_is_told(tmp_path):
  with pytest.raises(
    UserError, match=r"none.safetensors: can't be read \(No such file or directory\)"
  ):
    sources.find(f"file:{tmp_path}/none.safetensors")
