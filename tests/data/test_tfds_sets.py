import io
import json
import shutil
import socket

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from imgclf.data import tfds_sets
from imgclf.errors import UserError

SIZES = {"train": 30, "test": 7}


def png(value):
  file = io.BytesIO()
  Image.fromarray(np.full((4, 4, 3), value, np.uint8)).save(file, "png")
  file.seek(0)
  return file


class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Grey squares: the value of example i is i, its class i % 3, its shade i % 2, its number -1."""

  VERSION = tfds.core.Version("2.1.0")

  def _info(self):
    features = {
      "id": tfds.features.Text(),
      "image": tfds.features.Image(shape=(4, 4, 3)),
      "label": tfds.features.ClassLabel(names=["red", "green", "blue"]),
      "shade": tfds.features.ClassLabel(num_classes=2),
      "hidden": tfds.features.ClassLabel(num_classes=2),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {split: self._generate_examples(size) for split, size in SIZES.items()}

  def _generate_examples(self, size):
    for i in range(size):
      labels = {"label": i % 3, "shade": i % 2, "hidden": -1}
      yield i, {"id": f"number {i}", "image": png(i), **labels}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A data_dir that holds the tiny set."""
  path = tmp_path_factory.mktemp("data")
  Tiny(data_dir=str(path), file_format="array_record").download_and_prepare()
  shutil.rmtree(path / "downloads", ignore_errors=True)
  return path


@pytest.fixture
def data_dir(prepared, tmp_path):
  """A copy to damage."""
  shutil.copytree(prepared, tmp_path / "data")
  return tmp_path / "data"


def read(data_dir, reference="tiny", image_key="image", label_key="label"):
  return tfds_sets.read(reference, data_dir, image_key, label_key)


def value(record):
  return int(np.asarray(Image.open(io.BytesIO(record.data)))[0, 0, 0])


def refusal(*args, **kwargs):
  with pytest.raises(UserError) as caught:
    read(*args, **kwargs)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_every_example_is_there_once_with_its_class_and_its_stored_bytes(prepared):
  classes, found = read(prepared)
  assert classes == ("red", "green", "blue")
  for split, size in SIZES.items():
    records = found[split].read(range(sum(found[split].shard_lengths)))
    assert sorted(value(record) for record in records) == list(range(size))
    assert all(record.label == value(record) % 3 for record in records)
    assert all(record.data == png(value(record)).read() for record in records)
    assert [record.name for record in records] == [f"tiny/{split}[{i}]" for i in range(size)]


def test_a_batch_is_the_same_as_one_by_one(prepared):
  source = read(prepared)[1]["train"]
  assert source.read([7, 2, 7, 29]) == [source.read([i])[0] for i in (7, 2, 7, 29)]


def test_classes_without_names_are_called_by_their_numbers(prepared):
  assert read(prepared, label_key="shade")[0] == ("0", "1")


def test_an_example_without_a_class_is_named(prepared):
  source = read(prepared, label_key="hidden")[1]["test"]
  with pytest.raises(
    UserError, match=r"tiny/test\[3\]: has the label -1, which stands for no class"
  ):
    source.read([3])


@pytest.mark.parametrize("reference", ["tiny", "tiny:2.1.0"])
def test_a_set_is_found_by_name_and_by_version(prepared, reference):
  assert sorted(read(prepared, reference)[1]) == ["test", "train"]


def test_the_highest_version_is_taken_by_number(data_dir):
  for version in ("2.9.0", "2.10.0"):
    shutil.copytree(data_dir / "tiny" / "2.1.0", data_dir / "tiny" / version)
  (data_dir / "tiny" / "2.10.0" / "label.labels.txt").write_text("a\nb\nc\n")
  assert read(data_dir)[0] == ("a", "b", "c")
  assert read(data_dir, "tiny:2.9.0")[0] == ("red", "green", "blue")


def test_configs_are_found_by_name_and_by_default(data_dir):
  for config in ("big", "small"):
    shutil.copytree(data_dir / "tiny" / "2.1.0", data_dir / "squares" / config / "2.1.0")
  assert read(data_dir, "squares/small")[0] == ("red", "green", "blue")
  assert read(data_dir, "squares/big:2.1.0")[0] == ("red", "green", "blue")
  assert "choose one: squares/big, squares/small" in refusal(data_dir, "squares")
  assert "did you mean squares/small?" in refusal(data_dir, "squares/smal")
  (data_dir / "squares" / ".config").mkdir()
  (data_dir / "squares" / ".config" / "metadata.json").write_text(
    json.dumps({"default_config_name": "big"})
  )
  assert read(data_dir, "squares")[0] == ("red", "green", "blue")


def test_a_set_that_is_not_there_gets_the_command_that_prepares_it(tmp_path):
  text = refusal(tmp_path / "my data", "cifar10:3.0.2")
  assert f"no such set in {tmp_path}/my data; prepare it: pip install 'imgclf[prepare]' && " in text
  command = "tfds build cifar10:3.0.2 --file_format=array_record --data_dir="
  assert f"{command}'{tmp_path}/my data'" in text


@pytest.mark.parametrize("name", ["tinny", "TINY"])
def test_a_name_that_is_nearly_right_gets_a_hint(prepared, name):
  assert "did you mean tiny?" in refusal(prepared, name)


def test_a_folder_of_that_name_gets_a_hint(prepared, tmp_path, monkeypatch):
  (tmp_path / "pets").mkdir()
  monkeypatch.chdir(tmp_path)
  assert "did you mean folder:pets?" in refusal(prepared, "pets")


def test_another_version_is_refused_with_what_there_is(prepared):
  assert "has only version 2.1.0; leave :VERSION out, or prepare it:" in refusal(
    prepared, "tiny:3.0.0"
  )


def test_missing_features_are_refused_with_those_there_are(prepared):
  listed = "id (Text), image (Image), label (ClassLabel), "
  text = refusal(prepared, image_key="img")
  assert text.startswith("config.dataset.image_key=img: is no feature of tiny, whose features are ")
  assert all(part in text for part in listed.split(", ")) and text.endswith("set it to image")
  text = refusal(prepared, label_key="id")
  assert text.startswith("config.dataset.label_key=id: is no ClassLabel of tiny")
  assert all(name in text.rpartition("set it to ")[2] for name in ("label", "shade", "hidden"))


def test_a_set_in_tfrecord_gets_the_command_that_converts_it(data_dir):
  folder = data_dir / "tiny" / "2.1.0"
  path = folder / "dataset_info.json"
  path.write_text(path.read_text().replace("array_record", "tfrecord"))
  assert refusal(data_dir).endswith(
    f"holds tfrecord files, which can't be read by index; convert them: pip install 'imgclf[prepare]' && "
    f"tfds convert_format --dataset_version_dir={folder} --out_file_format=array_record"
  )


def test_a_set_that_was_converted_in_place_is_read(data_dir):
  path = data_dir / "tiny" / "2.1.0" / "dataset_info.json"
  info = json.loads(path.read_text())
  path.write_text(
    json.dumps(info | {"fileFormat": "tfrecord", "alternativeFileFormats": ["array_record"]})
  )
  assert len(read(data_dir)[1]["train"].read(range(30))) == 30


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("dataset_info.json", "{"),
    ("dataset_info.json", "{}"),
    ("dataset_info.json", "[]"),
    ("dataset_info.json", ""),
    ("dataset_info.json", '{"splits": 3}'),
    ("features.json", "{"),
    ("features.json", "{}"),
    ("features.json", '{"pythonClassName": "tensorflow_datasets.core.features.no.Such"}'),
  ],
)
def test_damaged_descriptions_are_refused_with_the_mend(data_dir, name, content):
  folder = data_dir / "tiny" / "2.1.0"
  (folder / name).write_text(content)
  text = refusal(data_dir)
  assert text.startswith(f"{folder}: dataset_info.json or features.json is damaged (")
  assert f"delete {folder} and prepare it: pip install 'imgclf[prepare]' && tfds build tiny" in text


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
def test_missing_descriptions_are_named(data_dir, name):
  (data_dir / "tiny" / "2.1.0" / name).unlink()
  assert f"is incomplete, {name} is missing; delete " in refusal(data_dir)


def test_a_missing_record_file_is_named(data_dir):
  (file,) = (data_dir / "tiny" / "2.1.0").glob("*train*")
  file.unlink()
  assert f"{file} is missing; restore it, or delete " in refusal(data_dir)


@pytest.mark.parametrize("damage", ["cut", "cut at 64 KiB", "bit", "empty"])
def test_a_damaged_record_file_is_told_and_never_read_as_something_else(data_dir, damage):
  (file,) = (data_dir / "tiny" / "2.1.0").glob("*train*")
  data = bytearray(file.read_bytes())
  if damage == "bit":
    data[data.index(b"IHDR")] ^= 1
  file.write_bytes(
    {"cut": data[:-9], "cut at 64 KiB": data[:65536], "bit": data, "empty": b""}[damage]
  )
  source = read(data_dir)[1]["train"]
  with pytest.raises(UserError, match=r"tiny/train: a record file in .* can't be read") as caught:
    source.read(range(30))
  assert "\n" not in str(caught.value)


def test_nothing_is_asked_of_the_network(prepared, monkeypatch):
  def refuse(*args, **kwargs):
    raise AssertionError("a connection was tried")

  monkeypatch.setattr(socket, "getaddrinfo", refuse)
  monkeypatch.setattr(socket.socket, "connect", refuse)
  read(prepared)[1]["train"].read([0])
  refusal(prepared, "mnist")
