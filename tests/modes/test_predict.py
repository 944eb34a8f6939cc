import csv
import io
import json
import os
import re
import shutil
import types

import numpy as np
from PIL import Image
from pyarrow import parquet
import pytest

import imgclf
from imgclf import app
from imgclf import judge as judging
from imgclf.data import datasets
from imgclf.errors import UserError


@pytest.fixture(scope="module")
def digits_folder(tmp_path_factory, trained):
  """The 360 test digits as files 000.png to 359.png."""
  folder = tmp_path_factory.mktemp("digits")
  records = datasets.open(imgclf.load(trained).config["dataset"]).records("test")
  for i in range(len(records)):
    (folder / f"{i:03}.png").write_bytes(records[i].data)
  return folder


def read_csv(path):
  with open(path, newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def test_answers_are_evaluations_own_to_the_digit(trained, digits_folder, tmp_path, monkeypatch):
  kept = []
  judge = judging.judge
  monkeypatch.setattr(judging, "judge", lambda *a: kept.append(judge(*a)) or kept[0])
  imgclf.evaluate(trained, quiet=True)
  output = tmp_path / "out.csv"
  assert imgclf.predict(trained, images=[str(digits_folder)], output=output, top_k=1) == 360
  rows = read_csv(output)
  assert [row["path"] for row in rows] == sorted(str(p) for p in digits_folder.iterdir())
  order = np.argsort(kept[0].index)
  assert [int(row["label"]) for row in rows] == kept[0].predicted[order].tolist()
  told = np.array([float(row["probability"]) for row in rows], np.float32)
  np.testing.assert_array_equal(told, kept[0].confidence[order])


def test_top_k_is_ranked_and_all_classes_sum_to_one(trained, digits_folder, tmp_path):
  output = tmp_path / "out.jsonl"
  images = [str(digits_folder / "007.png"), str(digits_folder / "003.png")]
  imgclf.predict(trained, images=images, output=output, top_k=99)
  answers = [json.loads(line) for line in output.read_text().splitlines()]
  assert [answer["path"] for answer in answers] == images
  for answer in answers:
    found = answer["predictions"]
    assert answer["error"] is None
    assert [p["rank"] for p in found] == list(range(1, 11))
    assert sorted(p["label"] for p in found) == list("0123456789")
    values = [p["probability"] for p in found]
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)


def test_a_file_that_cannot_be_read_gets_a_row_that_says_why(
  trained, digits_folder, tmp_path, capsys
):
  broken = tmp_path / "broken.png"
  broken.write_bytes((digits_folder / "000.png").read_bytes()[:60])
  text = tmp_path / "text.jpg"
  text.write_text("no image")
  good = str(digits_folder / "001.png")
  images = [str(broken), good, str(tmp_path / "gone.png"), str(text), good]
  output = tmp_path / "out.csv"
  assert imgclf.predict(trained, images=images, output=output, top_k=2) == 2
  rows = read_csv(output)
  assert [row["path"] for row in rows] == [images[0], good, good, *images[2:4], good, good]
  failed = [row for row in rows if row["error"]]
  assert [row["path"] for row in failed] == [images[0], *images[2:4]]
  assert all(not row["label"] and not row["rank"] for row in failed)
  assert "No such file" in failed[1]["error"]
  said = capsys.readouterr().out
  assert said.startswith("2 of 5 images predicted in ")
  assert said.endswith(f" images/s; 3 could not be read; written to {output}\n")


def test_if_nothing_can_be_read_the_rows_are_there_and_the_command_fails(trained, tmp_path):
  output = tmp_path / "out.csv"
  with pytest.raises(UserError, match="none of 1 files could be read"):
    imgclf.predict(trained, images=[str(tmp_path / "gone.png")], output=output, quiet=True)
  assert "No such file" in read_csv(output)[0]["error"]


def test_folders_are_searched_and_named_files_are_taken_whatever_their_ending(
  trained, digits_folder, tmp_path
):
  inside = tmp_path / "a" / "b"
  inside.mkdir(parents=True)
  data = (digits_folder / "000.png").read_bytes()
  (inside / "x.PNG").write_bytes(data)
  (inside / "notes.txt").write_text("hello")
  (inside / ".hidden.png").write_bytes(data)
  (tmp_path / "image").write_bytes(data)
  output = tmp_path / "out.jsonl"
  images = [str(tmp_path / "a"), str(tmp_path / "image")]
  assert imgclf.predict(trained, images=images, output=output, quiet=True) == 2
  answers = [json.loads(line) for line in output.read_text().splitlines()]
  assert [answer["path"] for answer in answers] == [str(inside / "x.PNG"), images[1]]


def test_pictures_of_any_mode_and_shape_are_predicted(trained, tmp_path):
  modes = ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16")
  for mode in modes:
    image = Image.new("L", (40, 23), 200).convert(mode if mode != "I;16" else "I").convert(mode)
    image.save(tmp_path / f"{mode.replace(';', '_')}.{'jpg' if mode == 'CMYK' else 'png'}")
  output = tmp_path / "out.csv"
  assert imgclf.predict(trained, images=[str(tmp_path)], output=output, quiet=True) == len(modes)


def test_a_file_name_that_is_not_utf_8_is_written_as_escapes(trained, digits_folder, tmp_path):
  name = os.fsencode(tmp_path) + b"/\xff.png"
  with open(name, "wb") as file:
    file.write((digits_folder / "000.png").read_bytes())
  output = tmp_path / "out.csv"
  assert imgclf.predict(trained, images=[os.fsdecode(name)], output=output, quiet=True) == 1
  assert read_csv(output)[0]["path"].endswith("/\\udcff.png")


def test_answers_are_evaluations_own_at_a_fitted_temperature_too(
  trained, digits_folder, tmp_path, monkeypatch
):
  workdir = shutil.copytree(trained, tmp_path / "run")
  run = imgclf.load(workdir)
  run.folder.write_calibration(run.step, run.checkpoint, 1.7, {})
  kept = []
  judge = judging.judge
  monkeypatch.setattr(judging, "judge", lambda *a: kept.append(judge(*a)) or kept[0])
  imgclf.evaluate(workdir, quiet=True)
  output = tmp_path / "out.csv"
  imgclf.predict(workdir, images=[str(digits_folder)], output=output, top_k=1, quiet=True)
  told = np.array([float(row["probability"]) for row in read_csv(output)], np.float32)
  np.testing.assert_array_equal(told, kept[0].confidence[np.argsort(kept[0].index)])


def test_without_an_output_the_answers_are_a_table(trained, digits_folder, tmp_path, capsys):
  images = [f"{digits_folder}/00[01].png", str(tmp_path / "gone.png")]
  assert imgclf.predict(trained, images=images, top_k=3) == 2
  table, last = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
  lines = table.splitlines()
  assert lines[0].split() == ["image", "label", "prob.", "then"]
  told = imgclf.load(trained).predict(digits_folder / "000.png", top_k=3)
  shares = [f"{100 * guess.probability:.2f}%" for guess in told.top]
  assert lines[1].split()[1:4] == [told.label, shares[0], told.top[1].label]
  assert lines[1].endswith(f", {told.top[2].label} {shares[2]}")
  assert lines[3].split() == ["..." + str(tmp_path / "gone.png")[-27:], "-"]
  reason = "".join("".join(lines[4:]).split())  # a long path is cut anywhere
  assert "gone.png:cannotberead(Nosuchfile" in reason
  assert re.fullmatch(
    r"2 of 3 images predicted in \d+\.\d s, [\d,]+ images/s; 1 could not be read", last
  )
  assert max(map(len, lines)) <= 80


def test_a_threshold_says_none_of_these_on_the_screen_and_in_files(
  trained, digits_folder, tmp_path, capsys
):
  images, output = [str(digits_folder / "000.png")], tmp_path / "out.csv"
  imgclf.predict(trained, images=images, threshold=1.0, top_k=2)
  assert "none of these" in capsys.readouterr().out
  imgclf.predict(trained, images=images, threshold=1.0, top_k=2, output=output, quiet=True)
  rows = read_csv(output)
  assert [(row["rank"], row["label"]) for row in rows[:1]] == [("0", "none of these")]
  imgclf.predict(trained, images=images, top_k=2, output=output, quiet=True)
  assert rows[1:] == read_csv(output)


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_features_are_written_for_what_could_be_read(trained, digits_folder, tmp_path, name):
  images = [str(digits_folder / "000.png"), "gone.png", str(digits_folder / "001.png")]
  output = tmp_path / name
  imgclf.predict(trained, images=images, features=True, output=output, quiet=True)
  if name == "out.jsonl":
    rows = [json.loads(line) for line in output.read_text().splitlines()]
  else:
    rows = parquet.read_table(output).to_pylist()
  assert [row["path"] for row in rows] == images
  told = imgclf.load(trained).predict([images[0], images[2]], features=True)
  for row, expected in zip((rows[0], rows[2]), told):
    np.testing.assert_allclose(row["features"], expected.features, atol=1e-5)
    assert row["predictions"][0]["label"] == expected.label
  assert rows[1]["features"] is None


def test_paths_come_from_a_pipe_and_the_command_says_how_fast_it_was(
  trained, digits_folder, tmp_path, capsys, monkeypatch
):
  paths = f"{digits_folder}/003.png\n{digits_folder}/001.png\n{digits_folder}/003.png\n"
  monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(paths.encode())))
  output = tmp_path / "out.csv"
  command = ["--mode=predict", f"--workdir={trained}", "--images=-", f"--output={output}"]
  assert app.main([*command, "--top_k=1", "--threshold=0"]) == 0
  assert [row["path"] for row in read_csv(output)] == paths.splitlines()
  said = capsys.readouterr().out
  assert said.startswith("3 of 3 images predicted in ") and f"; written to {output}" in said


def test_a_comma_separates_paths_unless_it_is_part_of_the_one_that_is_there(
  trained, digits_folder, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  for name in ("a,b.png", "c.png"):
    shutil.copy(digits_folder / "000.png", name)
  command = ["--mode=predict", f"--workdir={trained}", "--output=out.csv", "--top_k=1"]
  for given, paths in (("a,b.png", ["a,b.png"]), ("c.png,?.png,c.png", ["c.png"] * 3)):
    assert app.main([*command, f"--images={given}"]) == 0
    assert [row["path"] for row in read_csv("out.csv")] == paths


def test_any_number_of_devices_will_do(trained, digits_folder, tmp_path, run_python):
  code = """
import sys, imgclf
print(imgclf.predict(sys.argv[1], images=[sys.argv[2]], output=sys.argv[3], top_k=1, quiet=True))
"""
  many, one = tmp_path / "many.csv", tmp_path / "one.csv"
  assert run_python(code, trained, digits_folder, many, devices=3) == "360\n"
  imgclf.predict(trained, images=[str(digits_folder)], output=one, top_k=1, quiet=True)
  assert [r["label"] for r in read_csv(many)] == [r["label"] for r in read_csv(one)]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"output": "out.txt"}, ".csv or .jsonl"),
    ({"output": "nowhere/out.csv"}, "there is no folder nowhere"),
    ({"images": []}, "give image files or folders"),
    ({"images": ["empty"]}, "no image in this folder"),
    ({"top_k": 0}, "at least 1"),
    ({"images": ["", ""]}, "give image files or folders"),
    ({"output": "folder.csv"}, "is a folder"),
    ({"step": 12345}, "12345"),
    ({"output": None, "features": True}, "--features: needs a file"),
    ({"features": True}, "--features: a CSV file has no column"),
    ({"threshold": 1.5}, "--threshold=1.5: is a probability; give 0 to 1"),
    ({"images": ["*.png"]}, "--images=*.png: no file matches"),
    ({"images": ["@empty"]}, "--images=@empty: the list empty can't be read"),
    ({"images": ["gone.png"], "output": None}, "none of 1 files could be read"),
  ],
)
def test_a_wrong_argument_is_refused_and_nothing_is_written(
  trained, tmp_path, monkeypatch, changes, words
):
  monkeypatch.chdir(tmp_path)
  os.mkdir("empty")
  os.mkdir("folder.csv")
  arguments = {"images": ["x.png"], "output": "out.csv"} | changes
  with pytest.raises(UserError) as refused:
    imgclf.predict(trained, quiet=True, **arguments)
  assert "\n" not in str(refused.value)
  assert words in str(refused.value)
  assert sorted(os.listdir()) == ["empty", "folder.csv"]
