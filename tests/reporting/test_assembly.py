"""The whole of a report, worked out of a real run of a few steps on the digits."""

import base64
import dataclasses
import io
import json
import math
import shutil

import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf.data import datasets, images, loader
from imgclf.errors import UserError
from imgclf.reporting import assembly
from imgclf.reporting.contents import Example


@pytest.fixture(scope="module")
def younger(trained, tmp_path_factory):
  """The same run as it was at its first checkpoint: another run to compare with, for nothing."""
  workdir = shutil.copytree(trained, tmp_path_factory.mktemp("younger") / "run")
  steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
  for step in steps[1:]:
    shutil.rmtree(workdir / "checkpoints" / str(step))
  assert len(steps) > 1
  return workdir


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
  return shutil.copytree(trained, tmp_path_factory.mktemp("report") / "run")


def negatives(run, images, labels):
  """In place of heat maps: the pictures in negative, and only for labels that are predictions."""
  assert images.dtype == np.uint8 and images.shape == (len(labels), 32, 32, 3)
  return 255 - images


@pytest.fixture(scope="module")
def told():
  return []


@pytest.fixture(scope="module")
def report(workdir, younger, told):
  return assembly.report(
    imgclf.load(workdir, step="latest", calibrated=False),
    "test",
    other=imgclf.load(younger, calibrated=False),
    explain=negatives,
    report_command="make it",
    tell=lambda what, text: told.append((what, text)),
  )


def pixels(uri):
  data = base64.b64decode(uri.partition(",")[2], validate=True)
  return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_figures_are_evaluations_own(report, workdir):
  """The temperature is in the run folder now, so evaluation takes it too."""
  figures = imgclf.evaluate(workdir, step="latest", quiet=True)
  assert report.calibration.temperature == figures["temperature"] != 1
  for figure in report.summary:
    assert figure.value == pytest.approx(figures[figure.name], rel=1e-4), figure.name
  assert report.matrix == figures["confusion_matrix"]
  assert [row.name for row in report.class_rows] == report.classes == list("0123456789")
  assert (report.n, report.unreadable, report.split, report.step) == (360, 0, "test", 40)
  assert report.calibration.ece_after == pytest.approx(figures["ece"], rel=1e-4)


def test_every_example_that_is_named_is_there_with_its_picture(report, workdir):
  named = {*report.mistakes, *report.uncertain, *report.label_errors}
  named |= {number for cell in report.confusions for number in cell.examples}
  named |= {*report.comparison.better, *report.comparison.worse}
  assert named == set(report.examples)
  run = imgclf.load(workdir)
  records = datasets.open(run.config["dataset"]).records("test")
  crop = loader.eval_crop(run.config)
  for number, example in report.examples.items():
    record = records[number]
    assert (example.number, example.name) == (number, record.name)
    assert example.truth == report.classes[record.label]
    assert np.array_equal(pixels(example.picture), crop(record))
    assert np.array_equal(pixels(example.heatmap), 255 - crop(record))
    assert 0 <= example.truth_probability <= example.confidence <= 1


def test_mistakes_are_wrong_and_cells_hold_what_they_say(report):
  assert all(report.examples[n].truth != report.examples[n].predicted for n in report.mistakes)
  confidences = [report.examples[n].confidence for n in report.mistakes]
  assert confidences == sorted(confidences, reverse=True) and confidences
  for cell in report.confusions:
    assert report.matrix[cell.truth][cell.predicted] == cell.n
    for number in cell.examples:
      example = report.examples[number]
      assert example.truth == report.classes[cell.truth]
      assert example.predicted == report.classes[cell.predicted]
  wrong = 360 - np.trace(report.matrix)
  assert sum(cell.n for cell in report.confusions) == wrong


def test_the_comparison_is_of_both_runs_on_the_same_examples(report, younger):
  found = report.comparison
  assert (found.other, found.other_step) == (str(younger), 20)
  assert found.both_right + found.only_this + found.only_other + found.both_wrong == 360
  accuracy = {ours.name: (ours.value, theirs.value) for ours, theirs in found.figures}["accuracy"]
  assert found.both_right + found.only_this == round(360 * accuracy[0])
  assert found.both_right + found.only_other == round(360 * accuracy[1])
  assert accuracy[1] == imgclf.evaluate(younger, quiet=True)["accuracy"]
  k, n = min(found.only_this, found.only_other), found.only_this + found.only_other
  assert found.p_value == pytest.approx(
    min(1, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n), rel=1e-9
  )
  right = {n: e.truth == e.predicted for n, e in report.examples.items()}
  assert all(right[n] for n in found.better) and not any(right[n] for n in found.worse)
  assert len(found.better) == min(24, found.only_this)
  # The temperature of the other is its own business: nothing is written into its folder.
  assert not (younger / "calibration").exists()


def test_curves_are_those_of_the_run(report, workdir):
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  expected = [line["accuracy"] for line in lines if line["split"] == "validation"]
  assert list(report.curves["validation accuracy"].values) == expected
  assert list(report.curves["validation accuracy"].steps) == [20, 40]


def test_the_commands_and_the_config_are_there(report, workdir):
  assert report.command == (
    f"python launch.py --config={workdir}/config.json --workdir={workdir}-again"
  )
  assert report.report_command == "make it"
  assert report.config == json.loads((workdir / "config.json").read_text())
  assert report.title == "lenet5 on digits"
  assert report.made.endswith("+00:00")


def test_it_is_plain_values_all_the_way_down(report):
  """What draws it must meet no numpy, and JSON no NaN."""

  def plain(value):
    if dataclasses.is_dataclass(value):
      value = dataclasses.asdict(value)
    if isinstance(value, dict):
      return all(type(key) in (str, int) and plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
      return all(map(plain, value))
    return value is None or type(value) in (str, int, bool) or math.isfinite(value)

  assert plain(report)
  json.dumps(dataclasses.asdict(report), allow_nan=False)


def test_what_is_going_on_is_told(told, report):
  assert [what for what, _ in told] == [
    *("judging", "temperature", "judging", "stored"),
    *("comparing", "judging", "temperature", "judging"),
    *("figures", "pictures"),
  ]
  assert told[-1][1] == f"{len(report.examples)}, with heat maps"


def test_the_same_report_comes_out_twice_but_for_its_time(report, workdir, younger):
  again = assembly.report(
    imgclf.load(workdir, step="latest", calibrated=False),
    "test",
    other=imgclf.load(younger, calibrated=False),
    explain=negatives,
    report_command="make it",
  )
  assert dataclasses.replace(again, made=report.made) == report


def test_a_split_that_was_trained_on_is_told_and_curves_need_not_be_there(
  workdir, younger, tmp_path
):
  copy = shutil.copytree(workdir, tmp_path / "run")
  (copy / "metrics.jsonl").unlink()
  run, other = imgclf.load(copy, calibrated=False), imgclf.load(younger, calibrated=False)
  found = assembly.report(run, "train[-150:]", other=other)
  told = [
    "6 of these images were trained on",
    "144 of these images are of the validation split",
    f"{younger}: 6 of these images were trained on",
    f"{younger}: 144 of these images are of the validation split",
    "There are no curves",
  ]
  assert all(note.startswith(start) for note, start in zip(found.notes, told))
  assert found.curves == {}
  assert all(type(e) is Example and e.heatmap is None for e in found.examples.values())


def test_an_image_that_can_not_be_read_is_a_wrong_answer_and_in_no_gallery(
  workdir, younger, monkeypatch
):
  decode, broken = images.decode, "digits/test[3]"

  def decoded(data, name, **options):
    if name == broken:
      raise images.ImageError(f"{name}: cannot be decoded as an image (gone); replace the file")
    return decode(data, name, **options)

  monkeypatch.setattr(loader.images, "decode", decoded)
  run, other = imgclf.load(workdir, calibrated=False), imgclf.load(younger, calibrated=False)
  with pytest.raises(UserError, match="cannot be decoded"):
    assembly.report(run, "test[:40]")
  found = assembly.report(run, "test[:40]", other=other, bad_images="wrong")
  assert (found.n, found.unreadable) == (40, 1)
  assert sum(map(sum, found.matrix)) == sum(b.n for b in found.calibration.after) == 39
  assert 3 not in found.examples and broken not in {e.name for e in found.examples.values()}
  assert any(note.startswith("Images that could not be read: 1.") for note in found.notes)
  assert dict(found.facts)["unreadable"] == "1, counted as wrong"
  assert found.comparison.both_wrong >= 1


def test_a_split_of_which_nothing_can_be_read_is_refused(workdir, monkeypatch):
  run = imgclf.load(workdir, calibrated=False)
  judge = assembly.Judge.answers

  def unread(self, expression):
    found = judge(self, expression)
    return dataclasses.replace(found, predicted=np.full_like(found.predicted, -1))

  monkeypatch.setattr(assembly.Judge, "answers", unread)
  with pytest.raises(UserError, match=r"--split=test\[:9\]: none of its 9 images can be read"):
    assembly.report(run, "test[:9]")


def test_lines_of_metrics_that_are_none_are_told(workdir, tmp_path):
  copy = shutil.copytree(workdir, tmp_path / "run")
  with (copy / "metrics.jsonl").open("a") as file:
    file.write("oops\n")
  found = assembly.report(imgclf.load(copy, calibrated=False), "test[:20]")
  assert any(note.endswith("were left out: 1.") for note in found.notes)
  assert "train loss" in found.curves


def changed(run, **dataset):
  config = run.config.copy_and_resolve_references()
  config["dataset"].update(dataset)
  return dataclasses.replace(run, config=config)


def test_another_data_set_or_other_classes_are_not_compared(workdir, younger, tmp_path):
  run = imgclf.load(workdir, calibrated=False)
  other = changed(imgclf.load(younger, calibrated=False), name="cifar10")
  with pytest.raises(
    UserError, match=f"--compare={younger}: was trained on cifar10 and this run on digits"
  ):
    assembly.report(run, "test", other=other)
  fewer = dataclasses.replace(imgclf.load(younger), classes=[*"012345678"])
  with pytest.raises(UserError, match="other classes, it lacks '9'"):
    assembly.report(run, "test", other=fewer)
  copy = shutil.copytree(younger, tmp_path / "run")
  (copy / "dataset.json").write_text('{"splits": {"test": 300, "train": 1437}}')
  with pytest.raises(UserError, match="compare runs of the same data"):
    assembly.report(run, "test", other=imgclf.load(copy, calibrated=False))


def test_classes_in_another_order_are_matched_by_name(workdir, younger):
  """The other run's labels are its own: its answers are right by name, not by number."""
  other = imgclf.load(younger, calibrated=False)
  order = np.random.default_rng(0).permutation(10)
  head = other.variables["params"]["head"]
  variables = {**other.variables, "params": {**other.variables["params"]}}
  variables["params"]["head"] = {
    "kernel": np.asarray(head["kernel"])[:, order],
    "bias": np.asarray(head["bias"])[order],
  }
  shuffled = dataclasses.replace(
    other, classes=[other.classes[i] for i in order], variables=variables
  )
  run = imgclf.load(workdir, calibrated=False)
  plain = assembly.report(run, "test[:100]", other=other).comparison
  found = assembly.report(run, "test[:100]", other=shuffled).comparison
  assert (found.only_this, found.only_other) == (plain.only_this, plain.only_other)
  assert found.better == plain.better
