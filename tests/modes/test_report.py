"""One HTML file about a run, and what the command line says of it; its values and its page:
tests/reporting/."""

import base64
import io
import shutil

import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf import app, explain
from imgclf.errors import UserError
from imgclf.interrupt import Interrupt
from imgclf.job import Job
from imgclf.modes import report as mode


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
  return shutil.copytree(trained, tmp_path_factory.mktemp("report") / "run")


def decoded(uri):
  data = base64.b64decode(uri.partition(",")[2], validate=True)
  return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture
def younger(trained, tmp_path):
  """The same run as it was at its first checkpoint."""
  copy = shutil.copytree(trained, tmp_path / "younger")
  shutil.rmtree(copy / "checkpoints" / "40")
  return copy


def test_the_page_lies_in_the_run_folder_and_what_was_found_is_told(workdir, younger, capsys):
  found = imgclf.report(workdir, step=40, compare=younger)
  text = (workdir / "report.html").read_text(encoding="utf-8")
  assert text.lstrip().lower().startswith("<!doctype html>")
  # Each picture, and the same under Grad-CAM of what was predicted.
  assert text.count("data:image/webp;base64,") >= 2 * len(found.examples) > 100
  run = imgclf.load(workdir, step=40)
  example = found.examples[found.mistakes[0]]
  pixels = decoded(example.picture)
  heat = explain.heatmaps(run, pixels[None], np.array([run.classes.index(example.predicted)]))
  assert np.array_equal(decoded(example.heatmap), explain.overlay(pixels, heat[0]))
  lines = capsys.readouterr().out.splitlines()
  paths = str(workdir.parent), str(younger.parent)
  assert all(len(line) <= 80 for line in lines if not any(path in line for path in paths))
  (accuracy,) = (figure for figure in found.summary if figure.name == "accuracy")
  assert (
    f"accuracy     {100 * accuracy.value:.2f}% (95%: {100 * accuracy.low:.2f}% to"
    in "\n".join(lines)
  )
  (against,) = (line for line in lines if line.startswith("against "))
  assert f"{found.comparison.only_this} images only this run gets right" in against
  size = (workdir / "report.html").stat().st_size
  assert lines[-1] == f"written to {workdir / 'report.html'} ({size / 1e6:.1f} MB)"
  # The command that the page gives makes the same page again.
  assert f"--step=40 --compare={younger}" in found.report_command


def test_the_temperature_is_used_from_then_on(workdir):
  found = imgclf.report(workdir, split="test[:60]", step=40, quiet=True)
  assert imgclf.load(workdir, step=40).temperature == found.calibration.temperature != 1


def test_another_file_is_written_whole_and_nothing_is_printed(workdir, tmp_path, capsys):
  output = tmp_path / "pages" / "a.html"
  output.parent.mkdir()
  imgclf.report(workdir, split="test[:30]", output=output, quiet=True)
  assert [path.name for path in output.parent.iterdir()] == ["a.html"]
  assert output.read_text(encoding="utf-8").rstrip().endswith("</html>")
  assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ({"split": "tset"}, "--split=tset"),
    ({"split": "test[:x]"}, "--split=test[:x]"),
    ({"split": ""}, "--split: is empty"),
    ({"step": 7}, "7"),
    ({"output": "report.pdf"}, "--output=report.pdf: ends in '.pdf'; let it end in .html"),
    ({"output": "no/such/folder/r.html"}, "there is no folder"),
    ({"compare": "no/such/run"}, "--compare=no/such/run: holds no run"),
    ({"bad_images": "maybe"}, "bad_images"),
  ],
)
def test_what_is_not_there_is_refused_in_one_line(workdir, arguments, words):
  with pytest.raises(UserError) as refused:
    imgclf.report(workdir, quiet=True, **arguments)
  assert words in str(refused.value)
  assert "\n" not in str(refused.value)


def test_a_run_folder_that_is_none_is_refused(tmp_path):
  with pytest.raises(UserError, match="holds no run"):
    imgclf.report(tmp_path, quiet=True)


def test_several_processes_are_refused(workdir, monkeypatch):
  monkeypatch.setattr(mode.parallel, "process_count", lambda: 2)
  with pytest.raises(UserError, match="--mode=report: runs in one process"):
    imgclf.report(workdir, quiet=True)


def test_every_flag_arrives(monkeypatch):
  given = {}
  monkeypatch.setattr(mode, "run", lambda workdir, **flags: given.update(flags, workdir=workdir))
  monkeypatch.setattr("imgclf.compilation.keep_programs", lambda: None)
  expected = {"split": "validation", "step": "latest", "compare": "b", "output": "c.html"}
  expected |= {"data_dir": "d", "bad_images": "wrong", "workdir": "a"}
  flags = [f"--{name}={value}" for name, value in expected.items()]
  app.run(["--mode=report", *flags], Interrupt(), Job())
  assert given == expected
