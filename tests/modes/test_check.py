"""The look at a data set, held against sets whose every flaw is known."""

import io
import json
import os
import signal
import subprocess
import sys
import time

from fresh import ROOT, fresh_environment
import numpy as np
from PIL import Image
import pytest
from rich.cells import cell_len

import imgclf
from imgclf import app
from imgclf import config as configs
from imgclf.data import datasets, files, loader
from imgclf.errors import UserError
from imgclf.modes import check


def picture(color, size=(40, 40), format="PNG", mode="RGB", **options):
  out = io.BytesIO()
  Image.new(mode, size, color).save(out, format, **options)
  return out.getvalue()


def write(folder, files):
  for name, data in files.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def config_of():
  """Makes the config of a small run on a folder."""

  def make(path):
    config = imgclf.default_config()
    config.dataset.name = f"folder:{path}"
    config.dataset.image_size = 32
    config.dataset.crop_fraction = 1.0
    config.dataset.threads = 2
    config.model.name = "lenet5"
    config.train.batch_size = 8
    return config

  return make


# Every picture has a colour of its own unless it is meant to be a copy.
GOOD = {
  "train/cat/1.png": picture((255, 0, 0)),
  "train/cat/2.png": picture((1, 0, 0), (50, 60)),
  "train/dog/1.png": picture((0, 0, 0)),
  "validation/cat/1.png": picture((2, 0, 0)),
  "validation/dog/1.png": picture((3, 0, 0)),
  "test/cat/1.png": picture((4, 0, 0)),
  "test/dog/1.png": picture((5, 0, 0)),
}


def refused(config, **options):
  with pytest.raises(UserError) as caught:
    check.run(config, quiet=True, **options)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def reported(config, tmp_path):
  """The report of a set that would stop a run, and the error's line."""
  path = tmp_path / "report.json"
  line = refused(config, output=path)
  return json.loads(path.read_text()), line


def test_a_sound_set_is_described_and_nothing_is_said_against_it(tmp_path, config_of):
  write(tmp_path / "set", GOOD)
  report = check.run(config_of(tmp_path / "set"), quiet=True)
  assert report["splits"] == report["parts"] == {"train": 3, "validation": 2, "test": 2}
  assert report["roles"] == {"train": "train", "validation": "validation", "test": "test"}
  assert report["images_per_class"] == {
    "cat": {"train": 2, "validation": 1, "test": 1},
    "dog": {"train": 1, "validation": 1, "test": 1},
  }
  assert report["formats"] == {"PNG": 7} and report["modes"] == {"RGB": 7}
  assert report["width"] == {"min": 40, "median": 40, "max": 50}
  assert report["height"] == {"min": 40, "median": 40, "max": 60}
  for name in ("unreadable", "misnamed", "copies", "missing", "stops"):
    assert report[name] == []
  assert report["smaller_than_image_size"] == 0
  # Three train images of one colour each: red 255, 1 and 0 over 255, green and blue 0.
  red = np.array([255, 1, 0]) / 255
  assert report["train"]["images"] == 3
  assert report["train"]["mean"] == pytest.approx([red.mean(), 0, 0], abs=1e-6)
  assert report["train"]["std"] == pytest.approx([red.std(), 0, 0], abs=1e-6)


def test_mean_and_deviation_are_those_of_the_pixels_that_evaluation_shows(small_config):
  report = check.run(small_config, quiet=True)
  resolved = configs.resolve(small_config)
  records = datasets.open(resolved["dataset"]).records("train[:90%]")
  crop = loader.eval_crop(resolved)
  pixels = np.stack([crop(records[i]) for i in range(len(records))]).reshape(-1, 3) / 255
  assert report["train"]["images"] == len(records) == 1293
  assert report["train"]["mean"] == pytest.approx(pixels.mean(0).tolist(), abs=1e-6)
  assert report["train"]["std"] == pytest.approx(pixels.std(0).tolist(), abs=1e-6)
  assert report["roles"] == {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}


def test_the_report_is_the_same_on_any_number_of_threads(small_config):
  reports = []
  for threads in (0, 1, 5):
    small_config.dataset.threads = threads
    reports.append(json.dumps(check.run(small_config, quiet=True), allow_nan=False))
  assert reports[0] == reports[1] == reports[2]


def test_every_unreadable_file_is_told_with_its_reason_and_no_other(tmp_path, config_of):
  write(tmp_path / "set", GOOD)
  bad = {
    "train/cat/cut.png": GOOD["train/cat/1.png"][:60],
    "train/dog/empty.jpg": b"",
    "test/dog/page.jpg": b"<html>404</html>",
  }
  write(tmp_path / "set", bad)
  report, line = reported(config_of(tmp_path / "set"), tmp_path)
  told = {os.path.relpath(row["name"], tmp_path / "set"): row for row in report["unreadable"]}
  assert set(told) == set(bad)
  assert told["train/cat/cut.png"]["part"] == told["train/cat/cut.png"]["split"] == "train"
  assert "truncated" in told["train/cat/cut.png"]["reason"]
  assert "it is empty" == told["train/dog/empty.jpg"]["reason"]
  assert "<html>404" in told["test/dog/page.jpg"]["reason"]
  assert report["stops"] == [
    "train: images that can't be decoded: 2; mend them, or let training pass them over: "
    "--config.dataset.bad_images=skip",
    "test: images that can't be decoded: 1; mend them, or let them count as wrong: "
    "--config.eval.bad_images=wrong",
  ]
  assert line.startswith("this would stop a run with this config (and 1 more): train: images that")
  # They count neither as images of their class nor as copies of each other.
  assert report["images_per_class"]["dog"]["test"] == 1


def test_what_stops_a_run_is_the_configs_to_say(tmp_path, config_of):
  write(tmp_path / "set", GOOD)
  write(tmp_path / "set", {"train/cat/bad.png": b"?", "validation/cat/bad.png": b"?"})
  config = config_of(tmp_path / "set")
  config.eval.bad_images = "wrong"
  assert "(and" not in refused(config)
  config.dataset.bad_images = "skip"
  # One of four train images is bad.
  config.dataset.max_bad_share = 0.2
  assert "a share of 0.25 and more than config.dataset.max_bad_share=0.2" in refused(config)
  config.dataset.max_bad_share = 0.25
  assert len(check.run(config, quiet=True)["unreadable"]) == 2


def test_a_bad_image_that_plays_no_role_is_told_and_stops_nothing(tmp_path, config_of):
  write(tmp_path / "set", GOOD)
  write(tmp_path / "set", {"train/cat/bad.png": b"?"})
  config = config_of(tmp_path / "set")
  source = datasets.open(config.dataset).sources["train"]
  (place,) = [i for i in range(4) if source.name(i).endswith("bad.png")]
  terms = [f"train[:{place}]" if place else "", f"train[{place + 1}:]" if place < 3 else ""]
  config.dataset.train_split = "+".join(filter(None, terms))
  report = check.run(config, quiet=True)
  assert report["parts"] == {"train": 3, "validation": 2, "test": 2, "unused": 1}
  assert [row["part"] for row in report["unreadable"]] == ["unused"]


def test_endings_of_another_format_are_told_and_other_names_are_not(tmp_path, config_of):
  write(tmp_path / "set", GOOD)
  write(
    tmp_path / "set",
    {
      "train/cat/really_png.JPEG": picture((9, 0, 0)),
      "train/cat/really_jpeg.png": picture((9, 9, 0), format="JPEG"),
      "train/dog/x.JPG": picture((9, 9, 9), format="JPEG"),
      "train/dog/x.tif": picture((9, 9, 8), format="GIF", mode="RGB"),
    },
  )
  report = check.run(config_of(tmp_path / "set"), quiet=True)
  told = {os.path.basename(row["name"]): row["format"] for row in report["misnamed"]}
  assert told == {"really_png.JPEG": "PNG", "really_jpeg.png": "JPEG", "x.tif": "GIF"}


def test_sizes_are_upright_and_small_images_are_counted(tmp_path, config_of):
  exif = Image.Exif()
  exif[0x0112] = 6
  write(tmp_path / "set", GOOD)
  write(
    tmp_path / "set",
    {
      # Stored 300 wide and 31 high, shown 31 wide and 300 high.
      "train/cat/turned.jpg": picture((7, 7, 7), (300, 31), "JPEG", exif=exif),
      "train/cat/exact.png": picture((8, 8, 8), (32, 32)),
    },
  )
  report = check.run(config_of(tmp_path / "set"), quiet=True)
  assert report["width"]["min"] == 31 and report["height"]["max"] == 300
  assert report["smaller_than_image_size"] == 1


def test_colours_are_counted_by_what_a_pixel_is(tmp_path, config_of):
  write(tmp_path / "set", GOOD)
  modes = {"grey.png": "L", "alpha.png": "RGBA", "palette.png": "P", "deep.png": "I;16"}
  for name, mode in modes.items():
    Image.new(mode, (40, 40), 7 if len(mode) != 4 or mode == "I;16" else (1, 2, 3, 4)).save(
      tmp_path / "set/train/cat" / name
    )
  write(tmp_path / "set", {"train/cat/ink.jpg": picture((1, 2, 3, 4), format="JPEG", mode="CMYK")})
  assert check.run(config_of(tmp_path / "set"), quiet=True)["modes"] == {
    "RGB": 7,
    "16-bit grey": 1,
    "CMYK": 1,
    "RGB with alpha": 1,
    "grey": 1,
    "palette": 1,
  }


def test_copies_are_grouped_and_leaks_and_other_classes_are_told_apart(tmp_path, config_of):
  write(tmp_path / "set", GOOD)
  same = picture((77, 0, 0))
  twice = picture((78, 0, 0))
  write(
    tmp_path / "set",
    {
      "train/cat/copy.png": same,
      "test/dog/copy.bmp": same,
      "train/dog/a.png": twice,
      "train/dog/b.png": twice,
    },
  )
  report = check.run(config_of(tmp_path / "set"), quiet=True)
  groups = {
    frozenset(os.path.relpath(image["name"], tmp_path / "set") for image in copy["images"]): copy
    for copy in report["copies"]
  }
  leak = groups[frozenset({"train/cat/copy.png", "test/dog/copy.bmp"})]
  assert leak["parts"] == ["test", "train"] and leak["classes"] == ["cat", "dog"]
  harmless = groups[frozenset({"train/dog/a.png", "train/dog/b.png"})]
  assert harmless["parts"] == ["train"] and harmless["classes"] == ["dog"]
  assert len(groups) == 2
  assert report["copies_across_parts"] == report["copies_of_other_class"] == 1
  assert report["stops"] == []


def test_a_class_that_a_role_lacks_is_told(tmp_path, config_of):
  there = {name: data for name, data in GOOD.items() if name != "validation/dog/1.png"}
  write(tmp_path / "set", there)
  report = check.run(config_of(tmp_path / "set"), quiet=True)
  assert report["missing"] == [{"class": "dog", "part": "validation"}]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"dataset.train_split": "train", "dataset.validation_split": "train[:1]"}, "share 1 examples"),
    ({"train.batch_size": 10, "optimizer.accumulate_steps": 3}, "does not divide"),
    ({"model.name": "alexnet"}, "image_size"),
    ({"dataset.validation_split": "nothing"}, "no split is called 'nothing'"),
  ],
)
def test_what_a_run_would_refuse_is_refused(tmp_path, config_of, changes, words):
  write(tmp_path / "set", GOOD)
  config = config_of(tmp_path / "set")
  for path, value in changes.items():
    section, name = path.split(".")
    config[section][name] = value
  assert words in refused(config)


def test_one_class_alone_is_looked_at_and_refused_for_every_reason(tmp_path, config_of):
  write(tmp_path / "set", {name: data for name, data in GOOD.items() if "cat" in name})
  config = config_of(tmp_path / "set")
  config.model.name = "alexnet"
  report, line = reported(config, tmp_path)
  assert report["parts"] == {"train": 2, "validation": 1, "test": 1}
  assert len(report["stops"]) == 2
  assert "image_size" in line and "has only one class, 'cat'" in report["stops"][1]


def test_records_that_cannot_be_read_are_told_and_the_others_looked_at(
  tmp_path, config_of, monkeypatch
):
  write(tmp_path / "set", GOOD)
  read_file = files.read_file

  def fail(path, max_bytes):
    if str(path).endswith("train/cat/1.png"):
      raise OSError(5, "Input/output error")
    if str(path).endswith("train/cat/2.png"):
      raise PermissionError(13, "Permission denied")
    return read_file(path, max_bytes)

  monkeypatch.setattr(files, "read_file", fail)
  config = config_of(tmp_path / "set")
  config.dataset.bad_images = "skip"  # is about what can't be decoded
  config.dataset.max_bad_share = 1.0
  report, line = reported(config, tmp_path)
  reasons = {os.path.basename(row["name"]): row["reason"] for row in report["unreadable"]}
  assert "Input/output error" in reasons["1.png"] and "Permission denied" in reasons["2.png"]
  assert "train: records that can't be read: 2" in line
  assert report["images_per_class"]["cat"] == {"train": 0, "validation": 1, "test": 1}


def test_the_text_fits_80_columns_and_no_name_can_move_the_cursor(tmp_path, config_of, capsys):
  deep = "train/cat/" + "x" * 60 + "/" + "\u732b" * 40 + "\x1b[2J\n"
  write(tmp_path / "set", GOOD)
  write(
    tmp_path / "set",
    {
      f"{deep}.png": b"not an image",
      f"{deep}2.png": picture((77, 0, 0)),
      f"{deep}3.jpg": picture((77, 0, 0)),
      "train/\x1b]0;title\x07" + "y" * 90 + "/1.png": picture((78, 0, 0)),
    },
  )
  with pytest.raises(UserError):
    check.run(config_of(tmp_path / "set"))
  text = capsys.readouterr().out
  lines = text.splitlines()
  assert max(map(cell_len, lines)) <= 80
  assert all(line.isprintable() for line in lines)
  assert any(line.endswith("\\x1b[2J\\n.png (train)") for line in lines)
  assert "This would stop a run with this config:" in text
  assert "classes without an image in validation: 1" in text
  assert "images with copies (2 files): 1" in text
  assert "files whose ending is that of another format: 1" in text


def test_the_command_line_needs_a_config_and_no_run_folder(tmp_path, config_of, capsys):
  write(tmp_path / "set", GOOD)
  recipe = tmp_path / "recipe.py"
  recipe.write_text("import imgclf\n\n\ndef get_config():\n  return imgclf.default_config()\n")
  command = ["--mode=check", f"--config={recipe}", f"--config.dataset.name=folder:{tmp_path}/set"]
  command += ["--config.dataset.image_size=32", "--config.model.name=lenet5"]
  output = tmp_path / "report.json"
  before = sorted(os.listdir(tmp_path))
  assert app.main([*command, f"--output={output}"]) == 0
  out = capsys.readouterr().out
  assert "config.augment.mean = (" in out and f"written to {output}" in out.replace("\n", "")
  assert json.loads(output.read_text())["parts"] == {"train": 3, "validation": 2, "test": 2}
  assert sorted(os.listdir(tmp_path)) == sorted([*before, "report.json"])
  write(tmp_path / "set", {"train/cat/bad.png": b"?"})
  assert app.main([*command, f"--output={output}"]) == 2
  assert capsys.readouterr().err.startswith("error: this would stop a run with this config: train:")
  assert len(json.loads(output.read_text())["unreadable"]) == 1


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ([], "--config: --mode=check needs it"),
    (["--config=configs/digits.py", "--workdir=x"], "--mode=check does not read it"),
    (["--config=configs/digits.py", "--split=test"], "--mode=check does not read it"),
    (["--config=configs/digits.py", "--output=x.csv"], "let it end in .json"),
    (["--config=configs/digits.py", "--config.dataset.name=folder:nowhere"], "no such folder"),
  ],
)
def test_a_wrong_command_is_refused_before_anything_is_read(capsys, monkeypatch, arguments, words):
  monkeypatch.chdir(ROOT)
  assert app.main(["--mode=check", *arguments]) == 2
  assert words in capsys.readouterr().err


def test_ctrl_c_ends_it_at_once(tmp_path):
  # 400 images that take a while each.
  noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
  (tmp_path / "cat").mkdir()
  (tmp_path / "dog").mkdir()
  Image.fromarray(noise).save(tmp_path / "cat/0.png", compress_level=1)
  for i in range(1, 400):
    os.link(tmp_path / "cat/0.png", tmp_path / f"{'cat' if i % 2 else 'dog'}/{i}.png")
  code = f"""
import threading, os, signal, sys
from imgclf.data import loader
whole = loader.eval_crop
def announced(config):
  print("begun", flush=True)
  return whole(config)
loader.eval_crop = announced
from imgclf import app
sys.exit(app.main(["--mode=check", "--config={ROOT}/configs/folder.py",
                   "--config.dataset.name=folder:{tmp_path}", "--config.dataset.threads=2"]))
"""
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    env=fresh_environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "begun\n"
  time.sleep(0.5)
  process.send_signal(signal.SIGINT)
  began = time.monotonic()
  _, errors = process.communicate(timeout=60)
  assert time.monotonic() - began < 5
  assert process.returncode == 75
  assert errors == "stopped: nothing was to be saved; the same command starts again\n"


def test_a_preview_is_a_picture_whole_or_not_at_all(config_of, tmp_path):
  write(tmp_path / "set", GOOD)
  config = config_of(tmp_path / "set")
  config.train.batch_size = 2
  check.run(config, preview=tmp_path / "sheet.png", quiet=True)
  with Image.open(tmp_path / "sheet.png") as sheet:
    assert (sheet.format, sheet.mode) == ("PNG", "RGB")
  # A run that would be refused has nothing to show.
  config.model.name = "vgg16"
  config.dataset.image_size = 16
  refused(config, preview=tmp_path / "other.png")
  assert not (tmp_path / "other.png").exists()
  assert "--preview" in refused(config, preview=tmp_path / "sheet.jpg")
