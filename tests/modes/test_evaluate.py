import json
import math
import shutil

import numpy as np
from PIL import Image
import pytest
from sklearn import metrics as reference

import imgclf
from imgclf import judge as judging
from imgclf.data import datasets
from imgclf.errors import UserError


def test_evaluation_tells_to_the_digit_what_training_told(trained):
  for step in (20, 40):
    path = trained / "eval" / f"validation-{step}.json"
    if not (trained / "checkpoints" / str(step)).is_dir():
      continue
    told = json.loads(path.read_text())
    path.unlink()
    imgclf.evaluate(trained, split="validation", step=step, quiet=True)
    assert json.loads(path.read_text()) == told


def test_a_fitted_temperature_moves_the_loss_and_no_answer(trained, tmp_path):
  workdir = shutil.copytree(trained, tmp_path / "run")
  before = imgclf.evaluate(workdir, quiet=True)
  run = imgclf.load(workdir)
  run.folder.write_calibration(run.step, run.checkpoint, 1000.0, {})
  after = imgclf.evaluate(workdir, quiet=True)
  assert (before["temperature"], after["temperature"]) == (1, 1000)
  assert after["confusion_matrix"] == before["confusion_matrix"]
  # So hot that all ten classes are as likely as each other.
  assert after["loss"] == pytest.approx(math.log(10), abs=0.02)
  assert imgclf.load(workdir, calibrated=False).temperature == 1


def test_every_example_of_the_split_counts_once(trained):
  figures = imgclf.evaluate(trained, quiet=True)
  assert figures["n"] == 360
  assert np.sum(figures["confusion_matrix"]) == 360
  assert figures["split"] == "test"
  assert imgclf.evaluate(trained, split="train[:100]", quiet=True)["n"] == 100


@pytest.mark.parametrize("batch_size", [1, 7, 360, 512])
def test_counts_do_not_depend_on_the_batch_size(trained, batch_size):
  whole = imgclf.evaluate(trained, quiet=True)
  other = imgclf.evaluate(trained, batch_size=batch_size, quiet=True)
  assert other["confusion_matrix"] == whole["confusion_matrix"]
  assert other["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_figures_are_scikit_learns_on_the_same_predictions(trained, monkeypatch):
  kept = []
  judge = judging.judge
  monkeypatch.setattr(judging, "judge", lambda *a: kept.append(judge(*a)) or kept[0])
  figures = imgclf.evaluate(trained, quiet=True)
  truth, predicted = kept[0].label, kept[0].predicted
  assert figures["accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted), abs=1e-9)
  p, r, f1, _ = reference.precision_recall_fscore_support(
    truth, predicted, average="macro", zero_division=0
  )
  found = [figures[name] for name in ("precision_macro", "recall_macro", "f1_macro")]
  assert found == pytest.approx([p, r, f1], abs=1e-6)
  assert figures["confusion_matrix"] == reference.confusion_matrix(truth, predicted).tolist()


def test_devices_do_not_change_the_counts(trained, run_python):
  whole = imgclf.evaluate(trained, quiet=True)["confusion_matrix"]
  code = """
import json, sys, imgclf
print(json.dumps(imgclf.evaluate(sys.argv[1], quiet=True)["confusion_matrix"]))
"""
  assert json.loads(run_python(code, trained, devices=8)) == whole


def write_digits(root, trained, names):
  """Writes the test digits as class folders, named by `names[label]`."""
  config = imgclf.load(trained).config
  records = datasets.open(config["dataset"]).records("test[:60]")
  for i in range(60):
    record = records[i]
    folder = root / names[record.label]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{i}.png").write_bytes(record.data)


def test_classes_of_another_set_are_matched_by_name(trained, tmp_path):
  """A folder that lacks classes numbers the rest otherwise: position would be wrong."""
  write_digits(tmp_path / "test", trained, [str(d) for d in range(10)])
  for digit in "0134":
    for file in (tmp_path / "test" / digit).iterdir():
      file.unlink()
    (tmp_path / "test" / digit).rmdir()
  (tmp_path / "train").mkdir()
  for digit in "256789":
    (tmp_path / "train" / digit).mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "train" / digit / "x.png")
  own = imgclf.evaluate(trained, split="test[:60]", quiet=True)
  other = imgclf.evaluate(trained, dataset=f"folder:{tmp_path}", split="test", quiet=True)
  rows = [2, 5, 6, 7, 8, 9]
  assert [other["confusion_matrix"][r] for r in rows] == [own["confusion_matrix"][r] for r in rows]


def test_a_class_that_the_run_does_not_know_is_refused_by_name(trained, tmp_path):
  write_digits(tmp_path / "test", trained, [*"012345678", "nine"])
  write_digits(tmp_path / "train", trained, [*"012345678", "nine"])
  with pytest.raises(UserError, match="nine"):
    imgclf.evaluate(trained, dataset=f"folder:{tmp_path}", quiet=True)


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ({"step": 7}, "7"),
    ({"step": "bets"}, "bets"),
    ({"split": "tset"}, "tset"),
    ({"split": "train[:x]"}, "train[:x]"),
    ({"dataset": "no_such_set"}, "no_such_set"),
    ({"batch_size": 0}, "batch_size"),
    ({"split": ""}, "--split: is empty"),
    ({"tta": "flips"}, "--tta=flips: must be one of none, flip, flip_translate"),
  ],
)
def test_what_is_not_there_is_refused_by_name(trained, arguments, words):
  with pytest.raises(UserError) as refused:
    imgclf.evaluate(trained, quiet=True, **arguments)
  assert words in str(refused.value)
  assert "\n" not in str(refused.value)


def test_a_set_that_changed_since_training_is_refused(trained, tmp_path):
  """`train[90%:]` would select other images, some of them trained on."""
  shutil.copytree(trained, tmp_path / "run")
  (tmp_path / "run" / "dataset.json").write_text('{"splits": {"test": 360, "train": 1400}}')
  with pytest.raises(UserError, match="--dataset=digits"):
    imgclf.evaluate(tmp_path / "run", quiet=True)
  assert imgclf.evaluate(tmp_path / "run", dataset="digits", quiet=True)["n"] == 360


def test_a_set_that_has_one_of_the_runs_classes_is_evaluated(trained, tmp_path):
  write_digits(tmp_path / "test", trained, ["3"] * 10)
  figures = imgclf.evaluate(trained, dataset=f"folder:{tmp_path}", quiet=True)
  assert figures["n"] == 60
  assert np.sum(figures["confusion_matrix"][3]) == 60


def test_a_folder_that_is_no_run_is_refused(tmp_path):
  with pytest.raises(UserError, match="holds no run"):
    imgclf.evaluate(tmp_path, quiet=True)


def test_classes_that_are_not_those_of_the_checkpoint_are_refused(trained, tmp_path):
  shutil.copytree(trained, tmp_path / "run")
  classes = json.loads((trained / "classes.json").read_text())
  (tmp_path / "run" / "classes.json").write_text(json.dumps([*classes, "ten"]))
  with pytest.raises(
    UserError, match=r"not those that the checkpoint was saved with \(class 10: None -> 'ten'\)"
  ):
    imgclf.load(tmp_path / "run")


def test_a_finished_run_is_judged_by_more_views_beside_its_own_figures(trained, tmp_path):
  shutil.copytree(trained, tmp_path / "run")
  before = imgclf.evaluate(tmp_path / "run", quiet=True)
  figures = imgclf.evaluate(tmp_path / "run", tta="flip", quiet=True)
  assert (before["tta"], figures["tta"]) == ("none", "flip")
  assert figures["n"] == before["n"] and figures["loss"] != before["loss"]
  written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "run/eval").iterdir()}
  assert written[f"test-{figures['step']}.json"]["loss"] == before["loss"]
  assert written[f"test-tta%3Dflip-{figures['step']}.json"]["loss"] == figures["loss"]
