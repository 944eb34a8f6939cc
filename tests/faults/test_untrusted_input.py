"""Files that come from elsewhere are data: nothing in them is run, followed out of its folder or
obeyed by a screen."""

import csv
import dataclasses
import io
import json
import os
import pickle
import shutil
import subprocess
import sys

from fresh import fresh_environment
import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf import app
from imgclf.data import csv_files, datasets, folders, images, tfds_sets
from imgclf.errors import UserError
from imgclf.modes import check, predict
from imgclf.run_folder import RunFolder


class Trap:
  """Leaves a file behind when it is unpickled."""

  def __init__(self, trace):
    self._trace = str(trace)

  def __reduce__(self):
    return open, (self._trace, "w")


@pytest.fixture
def trace(tmp_path):
  return tmp_path / "trace"


@pytest.fixture
def trap(trace):
  """A pickle that leaves a trace, and proof that it does."""
  data = pickle.dumps(Trap(trace))
  pickle.loads(data).close()
  trace.unlink()
  return data


@pytest.fixture
def run(trained, tmp_path):
  """A copy of a trained run, to damage."""
  return shutil.copytree(trained, tmp_path / "run")


def one_line(function, *arguments, **options):
  """The line with which a UserError refuses something."""
  with pytest.raises(UserError) as caught:
    function(*arguments, **options)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def png(color=(1, 2, 3)):
  out = io.BytesIO()
  Image.new("RGB", (40, 40), color).save(out, "PNG")
  return out.getvalue()


# Pickles.


@pytest.mark.parametrize("name", ["config.json", "classes.json"])
@pytest.mark.parametrize("mode", ["eval", "predict", "train"])
def test_a_pickle_in_a_run_folder_is_not_opened(run, trap, trace, name, mode, tmp_path):
  config = RunFolder(run).read_config()
  (run / name).write_bytes(trap)
  if mode == "eval":
    line = one_line(imgclf.evaluate, run, quiet=True)
  elif mode == "predict":
    line = one_line(imgclf.predict, run, images=["x.png"], output=tmp_path / "x.csv", quiet=True)
  else:
    line = one_line(imgclf.train, config, run, quiet=True)
  assert name in line and not trace.exists()


def test_a_pickle_in_place_of_the_splits_is_not_opened(run, trap, trace):
  (run / "dataset.json").write_bytes(trap)
  assert "dataset.json" in one_line(imgclf.evaluate, run, quiet=True)
  assert not trace.exists()


@pytest.mark.parametrize("kind", ["pickle", "npz"])
def test_a_pickle_that_is_called_an_image_is_no_image(run, trap, trace, kind, tmp_path):
  data = trap
  if kind == "npz":
    out = io.BytesIO()
    np.savez(out, np.array([Trap(trace)], object))
    data = out.getvalue()
    np.load(io.BytesIO(data), allow_pickle=True)["arr_0"]
    trace.unlink()
  path = tmp_path / "x.png"
  path.write_bytes(data)
  output = tmp_path / "x.jsonl"
  with pytest.raises(UserError, match="none of 1 files could be read"):
    imgclf.predict(run, images=[str(path)], output=output, quiet=True)
  assert "unlike JPEG, PNG" in json.loads(output.read_text())["error"]
  for name in ("cat/1.png", "dog/2.png", "dog/3.jpg"):
    (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "set" / name).write_bytes(data)
  config = imgclf.default_config()
  config.dataset.name = f"folder:{tmp_path}/set"
  one_line(check.run, config, quiet=True)
  assert not trace.exists()


def test_a_pickle_in_place_of_a_table_is_no_table(trap, trace, tmp_path):
  (tmp_path / "set.csv").write_bytes(trap)
  one_line(csv_files.read, str(tmp_path / "set.csv"))
  assert not trace.exists()


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_pickle_in_a_prepared_set_is_not_opened(prepared, trap, trace, name):
  (prepared / "digits" / "1.0.0" / name).write_bytes(trap)
  assert "is damaged" in one_line(tfds_sets.read, "digits", prepared, "image", "label")
  assert not trace.exists()


# Prepared sets.


@pytest.fixture
def prepared(digits_dir, tmp_path):
  """A data_dir with the digits, to damage."""
  config = imgclf.default_config()
  config.dataset.data_dir = str(digits_dir)
  datasets.open(config.dataset)
  return shutil.copytree(digits_dir, tmp_path / "tfds")


IMAGE = "tensorflow_datasets.core.features.image_feature.Image"
FOREIGN = {
  "new": {"pythonClassName": "foreign_code.Feature", "image": {}},
  "proto name": {"python_class_name": "foreign_code.Feature", "image": {}},
  "old": {"type": "foreign_code.Feature", "content": {}},
  "within": {
    "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
    "sequence": {"feature": {"pythonClassName": "foreign_code.Feature", "image": {}}},
  },
  "as text": {
    "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
    "jsonFeature": {"json": json.dumps([{"type": "foreign_code.Feature", "content": {}}])},
  },
  "beside": {"pythonClassName": "tensorflow_datasets.core.features.x.foreign_code\u200b.Feature"},
  "elsewhere in tfds": {"pythonClassName": "tensorflow_datasets.foreign_code.Feature"},
  "no name": {"pythonClassName": 3},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_class_in_features_json_is_refused_before_its_module_is_imported(
  prepared, trace, kind, tmp_path, monkeypatch
):
  (tmp_path / "foreign_code.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
  monkeypatch.syspath_prepend(tmp_path)
  path = prepared / "digits" / "1.0.0" / "features.json"
  tree = json.loads(path.read_text())
  tree["featuresDict"]["features"]["more"] = FOREIGN[kind]
  path.write_text(json.dumps(tree))
  line = one_line(tfds_sets.read, "digits", prepared, "image", "label")
  assert f"{path}: names the class " in line and "run as code; delete " in line
  assert not trace.exists()


def test_tfds_itself_would_import_that_module(prepared, trace, tmp_path, monkeypatch):
  # If TFDS stops doing so, the check above may go.
  import tensorflow_datasets as tfds

  (tmp_path / "foreign_module.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
  monkeypatch.syspath_prepend(tmp_path)
  path = prepared / "digits" / "1.0.0" / "features.json"
  tree = json.loads(path.read_text())
  tree["pythonClassName"] = "foreign_module.Feature"
  path.write_text(json.dumps(tree))
  with pytest.raises(ValueError, match="Unrecognized"):
    tfds.builder_from_directory(path.parent)
  assert trace.exists()


def test_a_feature_that_is_called_type_and_the_module_of_the_set_are_no_classes(
  prepared, trace, tmp_path, monkeypatch
):
  (tmp_path / "foreign_set.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
  monkeypatch.syspath_prepend(tmp_path)
  folder = prepared / "digits" / "1.0.0"
  tree = json.loads((folder / "features.json").read_text())
  features = tree["featuresDict"]["features"]
  features["type"] = features["label"]
  (folder / "features.json").write_text(json.dumps(tree))
  (folder / "type.labels.txt").write_text("\n".join("0123456789"))
  info = json.loads((folder / "dataset_info.json").read_text())
  (folder / "dataset_info.json").write_text(json.dumps(info | {"moduleName": "foreign_set"}))
  classes, found = tfds_sets.read("digits", prepared, "image", "label")
  assert len(classes) == 10 and len(found["test"].read([0])) == 1
  assert not trace.exists()


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_a_description_nested_ten_thousand_deep_is_damaged(prepared, name):
  (prepared / "digits" / "1.0.0" / name).write_text("[" * 10_000 + "]" * 10_000)
  assert "is damaged" in one_line(tfds_sets.read, "digits", prepared, "image", "label")


# Links.


def test_no_link_leads_out_of_a_data_folder(tmp_path):
  secret = tmp_path / "secret"
  secret.mkdir()
  (secret / "s.png").write_bytes(png())
  root = tmp_path / "set"
  for name in ("cat/1.png", "dog/1.png", "cat/2.png", "dog/2.png"):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(png())
  (root / "cat" / "out.png").symlink_to(secret / "s.png")
  (root / "cat" / "in.png").symlink_to("1.png")
  (root / "cat" / "folder").symlink_to(secret)
  _, found, notes = folders.read(str(root))
  names = {
    os.path.relpath(source.name(i), root)
    for source in found.values()
    for i in range(source.shard_lengths[0])
  }
  assert names == {"cat/1.png", "cat/2.png", "cat/in.png", "dog/1.png", "dog/2.png"}
  assert any("links that leave the folder" in note and note.count(": 2") for note in notes)


@pytest.mark.parametrize("name", ["out.png", "folder/s.png", "folder/../out.png"])
def test_a_table_that_passes_a_link_out_of_its_folder_is_refused_by_line(tmp_path, name):
  (tmp_path / "secret").mkdir()
  (tmp_path / "secret" / "s.png").write_bytes(png())
  root = tmp_path / "set"
  root.mkdir()
  (root / "1.png").write_bytes(png())
  (root / "in.png").symlink_to("1.png")
  (root / "out.png").symlink_to("../secret/s.png")
  (root / "folder").symlink_to("../secret")
  # What says outright where it leads is the table's own business.
  fine = ["path,label", "1.png,a", "in.png,b", "../secret/s.png,c"]
  table = root / "set.csv"
  table.write_text("\n".join(fine) + "\n")
  assert csv_files.read(str(table))[0] == ("a", "b", "c")
  table.write_text("\n".join([*fine, f"{name},d"]) + "\n")
  line = one_line(csv_files.read, str(table))
  assert line.startswith(f"csv:{table}, line 5: {name} is or passes a link that leaves")


def test_predict_follows_no_link_out_of_a_folder_but_takes_one_that_is_named(run, tmp_path):
  (tmp_path / "secret.png").write_bytes(png())
  folder = tmp_path / "photos"
  folder.mkdir()
  (folder / "a.png").write_bytes(png())
  (folder / "in.png").symlink_to("a.png")
  (folder / "out.png").symlink_to("../secret.png")
  (folder / "gone.png").symlink_to("nowhere.png")
  os.mkfifo(folder / "pipe.png")
  named = folder / "out.png"
  output = tmp_path / "out.jsonl"
  assert imgclf.predict(run, images=[str(folder), str(named)], output=output, quiet=True) == 3
  answers = [json.loads(line) for line in output.read_text().splitlines()]
  told = [(os.path.basename(answer["path"]), answer["error"]) for answer in answers]
  assert [name for name, error in told if error is None] == ["a.png", "in.png", "out.png"]
  errors = dict(told[:-1])
  for name in ("out.png", "gone.png"):
    assert errors[name].endswith("cannot be read (a link that leads nowhere or out of the folder)")
  assert errors["pipe.png"].endswith("(a pipe, socket or device, not a file)")


# What others read: spreadsheets and terminals.


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_name_starts_no_formula_in_a_spreadsheet(run, tmp_path, monkeypatch, start):
  restored = imgclf.load(run)
  classes = [f"{start}{name}" for name in restored.classes]
  renamed = dataclasses.replace(restored, classes=classes)
  monkeypatch.setattr(predict, "load", lambda *_: renamed)
  monkeypatch.chdir(tmp_path)
  name = f"{start}cmd|' calc'!A0.png"
  (tmp_path / name).write_bytes(png())
  (tmp_path / f"{start}bad.png").write_bytes(b"?")
  paths = [name, f"{start}bad.png"]
  imgclf.predict(run, images=paths, output="out.csv", top_k=2, quiet=True)
  with open("out.csv", newline="", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 3
  cells = [cell for row in rows for cell in row.values()]
  assert not any(cell.startswith(start) for cell in cells)
  assert [row["path"] for row in rows] == [f"'{path}" for path in [name, *paths]]
  assert {row["label"] for row in rows[:2]} <= {f"'{label}" for label in classes}
  # A reason is one line, so a carriage return at its start has become a space.
  shown = " " if start == "\r" else f"'{start}"
  assert rows[2]["error"].startswith(f"{shown}bad.png: ")
  # In JSON every text is as it is.
  imgclf.predict(run, images=paths, output="out.jsonl", top_k=1, quiet=True)
  with open("out.jsonl", encoding="utf-8") as file:
    answers = [json.loads(line) for line in file.read().split("\n")[:-1]]
  assert [answer["path"] for answer in answers] == paths
  assert answers[0]["predictions"][0]["label"] in classes


def test_names_in_error_lines_do_nothing_to_a_terminal(tmp_path, capsys):
  evil = "\x1b]0;owned\x07\x1b[2J\u202e"
  folder = tmp_path / evil
  folder.mkdir()
  recipe = tmp_path / "recipe.py"
  recipe.write_text("import imgclf\n\n\ndef get_config():\n  return imgclf.default_config()\n")
  for command in (
    ["--mode=eval", f"--workdir={folder}"],
    ["--mode=predict", f"--workdir={folder}", "--images=x", "--output=x.csv"],
    ["--mode=check", f"--config={recipe}", f"--config.dataset.name=folder:{folder}"],
    [f"--config={recipe}", f"--config.dataset.name=csv:{folder}"],
    [f"--config={folder}/{evil}.py"],
    [f"--{evil}"],
  ):
    assert app.main(command) == 2
    line = capsys.readouterr().err.removesuffix("\n")
    assert line.isprintable() and r"\x1b" in line


# Configs.


def nested(depth):
  return "[" * depth + "]" * depth


@pytest.mark.parametrize(
  ("text", "words"),
  [
    (nested(10_000), "config.json"),
    ('{"dataset": ' + nested(10_000) + "}", "config.json"),
    ("{", "is not JSON"),
    ("3", "is not a JSON object"),
    ("NaN", "is not a JSON object"),
    ("9" * 10_000, "config.json"),
    ('"\\ud800"', "is not a JSON object"),
  ],
)
def test_a_config_that_is_no_object_is_one_line(run, text, words):
  (run / "config.json").write_text(text)
  line = one_line(imgclf.evaluate, run, quiet=True)
  assert words in line and len(line) < 1000


@pytest.mark.parametrize(
  ("path", "value", "words"),
  [
    ("dataset", "[]", "config.dataset: got []"),
    ("dataset", "null", "config.dataset: got None"),
    ("dataset", '"digits"', "config.dataset: got 'digits'"),
    ("seed", "{}", "config.seed: got {}"),
    ("seed", "NaN", "config.seed: got nan"),
    ("seed", "1e400", "config.seed: got inf"),
    ("seed", "9" * 400, "config.seed: got 999"),
    ("seed", "true", "config.seed: got True"),
    ("dataset.image_size", "-1", "config.dataset.image_size: got -1"),
    ("dataset.image_size", "1e3", "config.dataset.image_size: got 1000.0"),
    ("dataset.image_size", '"224"', "config.dataset.image_size: got '224'"),
    ("dataset.crop_fraction", "NaN", "config.dataset.crop_fraction: got nan"),
    ("dataset.crop_fraction", "[0.5]", "config.dataset.crop_fraction: got [0.5]"),
    ("dataset.name", "[]", "config.dataset.name: got []"),
    ("augment.mean", "[1, 2, NaN]", "config.augment.mean: got [1, 2, nan]"),
    ("augment.mean", '{"0": 1}', "config.augment.mean: got {'0': 1}"),
    ("optimizer.learning_rate", "-Infinity", "config.optimizer.learning_rate: got -inf"),
    ("optimizer.learning_rate", "9" * 400, "config.optimizer.learning_rate: got 999"),
    ("model.name", '"../../etc/passwd"', "config.model.name: got '../../etc/passwd'"),
    ("dataset.__class__", "1", "config.dataset.__class__: no such field"),
    ("evil", "1", "config.evil: no such field"),
  ],
)
def test_a_field_of_an_odd_type_is_one_line_that_names_it(run, path, value, words):
  tree = json.loads((run / "config.json").read_text())
  section, _, name = path.rpartition(".")
  (tree[section] if section else tree)[name] = "PLACE"
  (run / "config.json").write_text(json.dumps(tree).replace('"PLACE"', value))
  line = one_line(imgclf.evaluate, run, quiet=True)
  assert words in line and len(line) < 1000


def test_a_key_that_is_given_twice_is_refused(run):
  text = (run / "config.json").read_text()
  (run / "config.json").write_text(text.replace('"seed": 0,', '"seed": 0, "seed": 1,', 1))
  assert "gives 'seed' twice" in one_line(imgclf.evaluate, run, quiet=True)


@pytest.mark.parametrize(
  "text", [nested(10_000), "{}", "3", "[1, 2]", '["a", "a"]', "[]", '["a", ["b"]]', '[null, "a"]']
)
def test_classes_that_are_no_list_of_names_are_one_line(run, text):
  (run / "classes.json").write_text(text)
  assert "classes.json: is not a JSON list of distinct names" in one_line(
    imgclf.evaluate, run, quiet=True
  )


@pytest.mark.parametrize(
  "text", [nested(10_000), "[]", '{"splits": []}', '{"splits": {"train": "9"}}', '{"splits": 3}']
)
def test_splits_that_are_no_sizes_are_one_line(run, text):
  (run / "dataset.json").write_text(text)
  assert "dataset.json: does not hold the sizes" in one_line(imgclf.evaluate, run, quiet=True)


# Files that are not files.


def test_a_pipe_under_a_name_that_is_read_does_not_hang_the_command(tmp_path):
  os.mkfifo(tmp_path / "x.png")
  code = """
import sys
from imgclf.data import files, folders
try:
  files.read_file(sys.argv[1])
except OSError as error:
  print(error.strerror)
"""
  done = subprocess.run(
    [sys.executable, "-c", code, tmp_path / "x.png"],
    env=fresh_environment(),
    capture_output=True,
    text=True,
    timeout=60,
  )
  assert done.stdout == "a pipe, socket or device, not a file\n"


def test_a_file_larger_than_any_image_of_max_pixels_is_read_no_further(tmp_path):
  for name in ("cat/1.png", "dog/1.png"):
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_bytes(png())
  huge = tmp_path / "cat" / "huge.png"
  huge.write_bytes(png())
  os.truncate(huge, 1 << 40)  # a terabyte of zeros, which takes no room
  _, found, _ = folders.read(str(tmp_path), 1000)
  records = [
    record for source in found.values() for record in source.read(range(source.shard_lengths[0]))
  ]
  assert sorted(len(record.data) for record in records) == [len(png()), len(png()), 1001]


def test_what_was_cut_off_at_that_size_is_refused_as_too_large():
  # 8 bytes a pixel and 64 MiB.
  data = png() + bytes(8 * 1600 + 2**26)
  with pytest.raises(images.ImageError, match="the file is larger than the 67121664 bytes allowed"):
    images.decode(data, "x", max_pixels=1600)
  assert images.decode(data[: 8 * 1600 + 2**26], "x", max_pixels=1600).shape == (40, 40, 3)
