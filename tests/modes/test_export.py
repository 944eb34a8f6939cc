import dataclasses
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from fresh import fresh_environment
import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf import app, exporting, models
from imgclf.data import datasets
from imgclf.errors import UserError
from imgclf.exporting import exportable
from imgclf.modes import export
from imgclf.run_folder import RunFolder

TEMPERATURE = 1.75


def needs(package):
  missing = importlib.util.find_spec(package) is None
  return pytest.mark.skipif(missing, reason=f"needs the extra `export`: {package}")


stablehlo_runs = needs("flatbuffers")
FORMATS = [
  pytest.param("stablehlo", marks=stablehlo_runs),
  pytest.param("onnx", marks=[needs("onnx"), needs("onnxruntime")]),
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, trained):
  """The trained run, with an evaluation and a temperature."""
  folder = tmp_path_factory.mktemp("export") / "run"
  shutil.copytree(trained, folder)
  run = imgclf.load(folder)
  RunFolder(folder).write_calibration(run.step, run.checkpoint, TEMPERATURE, {})
  imgclf.evaluate(folder, quiet=True)
  return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory, workdir):
  """A digit as an odd-shaped picture, which has to be resized and cropped."""
  record = datasets.open(imgclf.load(workdir).config["dataset"]).records("test")[3]
  path = tmp_path_factory.mktemp("photo") / "photo.png"
  path.write_bytes(record.data)
  with Image.open(path) as image:
    wide = Image.new("RGB", (91, 64), "white")
    wide.paste(image.resize((64, 64)), (11, 0))
  wide.save(path)
  return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory, workdir):
  """Returns the folder of an export of the run, made once for each format; tests change nothing in
  it."""

  @functools.cache
  def make(name):
    output = tmp_path_factory.mktemp("exported") / name
    imgclf.export(workdir, format=name, output=output, quiet=True)
    return output

  return make


def predicted(workdir, photo, tmp_path):
  """What `--mode=predict` says of the photo, in the words that an export's script prints."""
  imgclf.predict(workdir, images=[str(photo)], output=tmp_path / "out.jsonl", quiet=True)
  found = json.loads((tmp_path / "out.jsonl").read_text())["predictions"]
  return [f"{p['probability']:7.2%}  {p['label']}" for p in found]


def files_below(folder):
  return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_answers_without_imgclf_as_predict_does(exported, workdir, photo, tmp_path, name):
  output = tmp_path / "copy"
  shutil.copytree(exported(name), output)
  record = json.loads((output / "export.json").read_text())
  assert record["max_difference"] <= 1e-5
  assert record["images"] == 64 and record["images_from"] == "test"
  assert min(record["latency_ms"], record["imgclf_latency_ms"]) > 0
  # Every file is told, with its size and digest.
  assert files_below(output) == sorted([*record["files"], "README.md", "export.json"])
  for path, told in record["files"].items():
    data = (output / path).read_bytes()
    assert told == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
  assert record["size_bytes"] == sum(told["bytes"] for told in record["files"].values())
  # The card's own code, in a process where imgclf can't be imported.
  (code,) = re.findall(r"```python\n(.*?)```", (output / "README.md").read_text(), re.DOTALL)
  assert code == record["script"]
  shutil.copy(photo, output / "photo.jpg")
  blocked = "import sys; sys.modules['imgclf'] = None\n"
  if name != "stablehlo":
    blocked += "sys.modules['jax'] = None\n"
  done = subprocess.run(
    [sys.executable, "-c", blocked + code],
    cwd=output,
    env=fresh_environment(),
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == predicted(workdir, photo, tmp_path)


@needs("tensorflow")
def test_a_saved_model_answers_in_tensorflow_as_predict_does(workdir, photo, tmp_path):
  # In a process of its own: TensorFlow is large, and its start-up must not be heard on stderr.
  output = tmp_path / "exported"
  code = """
import json, os, sys
from imgclf import app
output, workdir = sys.argv[1:]
code = app.main(["--mode=export", "--format=savedmodel", f"--output={output}", f"--workdir={workdir}"])
if code:
  sys.exit(code)
os.chdir(output)
os.symlink("../photo.jpg", "photo.jpg")
exec(json.load(open("export.json"))["script"])
print(json.dumps([name.decode() for name in model.signatures["classes"]()["classes"].numpy()]))
"""
  shutil.copy(photo, tmp_path / "photo.jpg")
  done = subprocess.run(
    [sys.executable, "-c", code, output, workdir],
    env=fresh_environment(),
    capture_output=True,
    text=True,
    timeout=200,
  )
  assert (done.returncode, done.stderr) == (0, "")
  *told, classes = done.stdout.splitlines()
  assert told[-5:] == predicted(workdir, photo, tmp_path)
  assert json.loads(classes) == list("0123456789")
  assert json.loads((output / "model/assets/classes.json").read_text()) == list("0123456789")
  record = json.loads((output / "export.json").read_text())
  assert record["max_difference"] <= 1e-5 and record["versions"]["tensorflow"]


@needs("onnx")
@needs("onnxruntime")
def test_an_onnx_file_tells_its_classes_and_preprocessing(exported):
  import onnxruntime

  session = onnxruntime.InferenceSession(exported("onnx") / "model.onnx")
  told = session.get_modelmeta().custom_metadata_map
  assert json.loads(told["classes"]) == list("0123456789")
  assert json.loads(told["temperature"]) == TEMPERATURE
  assert json.loads(told["preprocessing"])["before"]["center_crop"] == 32
  assert [x.name for x in (*session.get_inputs(), *session.get_outputs())] == ["pixels", "probabilities"]  # fmt: skip


@stablehlo_runs
def test_the_card_has_the_figures_of_the_evaluation_of_this_step(exported, workdir):
  step = imgclf.load(workdir).step
  figures = RunFolder(workdir).read_evaluation("test", step)
  card = (exported("stablehlo") / "README.md").read_text()
  assert f"| `test` | 360 | {figures['accuracy']:.2%} |" in card
  assert f"| {figures['loss']:.4f} | {figures['ece']:.2%} |" in card
  assert "calibrated by one temperature" in card and "Not stated" in card


@stablehlo_runs
def test_other_weights_in_the_files_are_refused_and_nothing_is_left(workdir, tmp_path, monkeypatch):
  stablehlo = exporting.open("stablehlo")

  def write(carried, about, folder, whole=stablehlo.write):
    kernel = carried.weights["params/conv1/kernel"]
    other = {**carried.weights, "params/conv1/kernel": kernel * np.float32(1.05)}
    whole(dataclasses.replace(carried, weights=other), about, folder)

  monkeypatch.setattr(stablehlo, "write", write)
  with pytest.raises(UserError, match=r"probabilities differ from evaluation's by up to \d\.\de-"):
    imgclf.export(workdir, format="stablehlo", output=tmp_path / "a", quiet=True)
  assert os.listdir(tmp_path) == []


@stablehlo_runs
@pytest.mark.parametrize(
  ("error", "words"),
  [
    (ValueError("no rule for\nsort"), r"can't carry this lenet5 \(ValueError: no rule for sort\)"),
    (OSError(28, "No space left on device"), "can't be written"),
  ],
)
def test_a_converter_that_fails_leaves_the_earlier_export(
  exported, workdir, tmp_path, monkeypatch, error, words
):
  output = tmp_path / "a"
  shutil.copytree(exported("stablehlo"), output)
  before = {p.name: p.read_bytes() for p in output.iterdir()}

  def write(carried, about, folder):
    (folder / "half").write_text("half")
    raise error

  monkeypatch.setattr(exporting.open("stablehlo"), "write", write)
  with pytest.raises(UserError, match=words) as refused:
    imgclf.export(workdir, format="stablehlo", output=output, quiet=True)
  assert "\n" not in str(refused.value)
  assert os.listdir(tmp_path) == ["a"]
  assert {p.name: p.read_bytes() for p in output.iterdir()} == before


@stablehlo_runs
def test_a_run_in_bfloat16_is_exported_in_float32_and_told_how_far_that_is(
  workdir, tmp_path, monkeypatch, capsys
):
  run = imgclf.load(workdir)
  config = run.config.copy_and_resolve_references()
  config["model"]["dtype"] = "bfloat16"
  model = models.create(config["model"], 10, axis_name=None)
  half = dataclasses.replace(run, config=config, model=model)
  monkeypatch.setattr(export, "load", lambda *_: half)
  record = imgclf.export(workdir, format="stablehlo", output=tmp_path / "a")
  assert json.loads((tmp_path / "a/export.json").read_text()) == {"imgclf_export": 1, **record}
  # bfloat16 keeps 8 bits, float32 24.
  assert record["max_difference"] <= 1e-5 < record["evaluation_difference"] < 0.1
  assert record["model"]["dtype"] == config["model"]["dtype"] == "bfloat16"
  assert "type      float32; evaluation in bfloat16" in capsys.readouterr().out


@stablehlo_runs
def test_images_of_ones_own_do_where_the_data_is_gone(
  workdir, photo, tmp_path, monkeypatch, capsys
):
  run = imgclf.load(workdir)
  config = imgclf.ConfigDict(run.config)
  config["dataset"]["name"] = f"folder:{tmp_path}/gone/photos"
  monkeypatch.setattr(export, "load", lambda *_: dataclasses.replace(run, config=config))
  arguments = [
    "--mode=export",
    "--format=stablehlo",
    f"--workdir={workdir}",
    f"--output={tmp_path}/a",
  ]
  assert app.main(arguments) == 2
  told = capsys.readouterr().err
  assert told.count("\n") == 1 and "or give others: --images=PATH" in told
  assert app.main([*arguments, f"--images={photo}"]) == 0
  assert "verified  1 images (given by --images)" in capsys.readouterr().out
  record = json.loads((tmp_path / "a/export.json").read_text())
  assert record["data"]["name"] == "folder:photos"  # and not where it lay


@stablehlo_runs
@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"format": "tflite"}, "there are stablehlo, savedmodel, onnx"),
    ({"format": "onxx"}, "did you mean onnx?"),
    ({"output": "nowhere/a"}, "make it first"),
    ({"output": "file"}, "is no folder"),
    ({"output": "other"}, "is no export"),
    ({"workdir": "other"}, "holds no run"),
    ({"images": ["file"]}, "cannot be decoded"),
    ({"images": ["gone.png"]}, "No such file"),
    ({"images": [""]}, "give image files or folders"),
    ({"step": 12345}, "12345"),
  ],
)
def test_a_wrong_argument_is_one_line_and_nothing_is_written(
  workdir, tmp_path, monkeypatch, changes, words
):
  monkeypatch.chdir(tmp_path)
  pathlib.Path("other").mkdir()
  pathlib.Path("other/notes.txt").write_text("mine")
  pathlib.Path("file").write_text("mine")
  arguments = {"workdir": workdir, "format": "stablehlo", "output": "a"} | changes
  with pytest.raises(UserError) as refused:
    imgclf.export(quiet=True, **arguments)
  assert words in str(refused.value)
  assert files_below(tmp_path) == ["file", "other/notes.txt"]


@pytest.mark.parametrize(
  ("name", "package"),
  [("stablehlo", "flatbuffers"), ("onnx", "onnxruntime"), ("savedmodel", "tensorflow")],
)
def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(
  workdir, tmp_path, monkeypatch, name, package
):
  for present in ("flatbuffers", "onnx", "onnxruntime", "tensorflow"):
    monkeypatch.setitem(sys.modules, present, None if present == package else sys)
  monkeypatch.delitem(sys.modules, f"imgclf.exporting.{exporting.FORMATS[name]}", raising=False)
  monkeypatch.setitem(sys.modules, "imgclf.exporting.onnx_operators", exportable)
  with pytest.raises(UserError, match=rf"needs {package}, .*pip install 'imgclf\[export\]'"):
    imgclf.export(workdir, format=name, output=tmp_path / "a", quiet=True)
  assert os.listdir(tmp_path) == []
