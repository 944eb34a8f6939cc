"""Runs of several classes an image, from a table to predictions, and to the bit on every way
there."""

import csv
import json
import signal

from fresh import assert_same_bits, saved_state
import numpy as np
from PIL import Image
import pytest
from sklearn import metrics as reference

import imgclf
from imgclf import explain, progress
from imgclf.errors import Stopped, UserError
from imgclf.modes import report

NAMES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  """Pictures of 16 px whose channels are bright or dark, each a class; the first has none."""
  root = tmp_path_factory.mktemp("set")
  rng = np.random.default_rng(0)
  lines = ["path,label,split"]
  for number in range(90):
    has = rng.integers(0, 2, 3) if number else np.zeros(3, int)
    pixels = rng.integers(0, 60, (16, 16, 3)) + 190 * has
    Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number}.png")
    split = "train" if number < 60 else "validation" if number < 73 else "test"
    names = [name for name, there in zip(NAMES, has[::-1]) if there]
    lines.append(f"{number}.png,{'; '.join(names)},{split}")
  (root / "set.csv").write_text("\n".join(lines) + "\n")
  return root / "set.csv"


@pytest.fixture(scope="module")
def config(table):
  config = imgclf.default_config()
  config.dataset.name = f"csv:{table}"
  config.dataset.label_separator = ";"
  config.dataset.image_size = 16
  config.dataset.crop_fraction = 1.0
  config.dataset.threads = 2
  config.augment.crop, config.augment.crop_padding = "padded", 1
  config.augment.mixup = 0.2
  config.model.name = "lenet5"
  config.optimizer.learning_rate = 5e-3
  config.train.loss = "focal"
  config.train.batch_size = 12
  config.train.total_steps = 30
  config.eval.every_steps, config.eval.batch_size = 15, 8
  config.checkpoint.every_steps = 15
  config.checkpoint.best_metric = "mAP"
  config.log.every_steps = 10
  config.log.tensorboard = False
  return config


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  imgclf.train(config, folder, quiet=True)
  return folder


def labels_of(table):
  with open(table, newline="") as file:
    return {
      str(table.parent / row["path"]): [name in row["label"] for name in NAMES]
      for row in csv.DictReader(file)
    }


def test_training_learns_and_tells_exact_match_and_map(workdir):
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  first, *_, last = [row for row in rows if row["split"] == "train"]
  assert last["loss"] < first["loss"]
  assert "accuracy" not in first and 0 <= first["exact_match"] <= 1
  validation = [row for row in rows if row["split"] == "validation"]
  assert [row["n"] for row in validation] == [13, 13]  # 8 a batch: the last one is padded
  assert validation[-1]["mAP"] > 0.9


def test_evaluation_prediction_and_scikit_learn_agree(workdir, table, tmp_path, capsys):
  found = imgclf.evaluate(workdir, split="test")
  out = capsys.readouterr().out
  assert f"mAP {found['mAP']:.2%}" in out and "AP" in out
  assert found["n"] == 17
  output = tmp_path / "said.csv"
  imgclf.predict(workdir, images=[str(table.parent)], output=output, quiet=True)
  with open(output, newline="") as file:
    said = {row["path"]: row for row in csv.DictReader(file)}
  there = labels_of(table)
  tested = [str(table.parent / f"{number}.png") for number in range(73, 90)]
  label = np.array([there[path] for path in tested])
  p = np.array([[float(said[path][f"p({name})"]) for name in NAMES] for path in tested])
  assert found["mAP"] == pytest.approx(reference.average_precision_score(label, p), abs=1e-6)
  assert found["exact_match"] == pytest.approx(reference.accuracy_score(label, p >= 0.5))
  expected = -np.where(label, np.log(p), np.log1p(-p)).mean()
  assert found["loss"] == pytest.approx(expected, rel=1e-4)
  names = [[name for name, value in zip(NAMES, row) if value >= 0.5] for row in p]
  assert [sorted(said[path]["label"].split(";")) for path in tested] == [
    names_of or [""] for names_of in names
  ]


def test_a_prediction_has_every_class_that_reaches_the_threshold(workdir, table, capsys):
  run = imgclf.load(workdir)
  told = run.predict(str(table.parent / "80.png"))
  p = dict(zip(NAMES, told.probabilities.tolist()))
  assert {guess.label for guess in told.labels} == {name for name in p if p[name] >= 0.5}
  every = run.predict(str(table.parent / "80.png"), threshold=0.0).labels
  assert [guess.probability for guess in every] == pytest.approx(sorted(p.values())[::-1])
  none = run.predict(str(table.parent / "80.png"), threshold=1.0)
  assert none.is_none and none.labels == ()
  imgclf.predict(workdir, images=[str(table.parent / "80.png")], threshold=0.0)
  line = next(line for line in capsys.readouterr().out.splitlines() if "80.png" in line)
  # There is room for one more beside the best.
  assert line.index(every[0].label) < line.index(every[1].label)


def test_another_table_is_judged_by_the_names_of_its_classes(workdir, table, tmp_path):
  lines = ["path,label,split"]
  lines += [f"{table.parent}/{n}.png,red ;green,test" for n in (80, 81)]
  (tmp_path / "other.csv").write_text("\n".join(lines) + "\n")
  found = imgclf.evaluate(workdir, split="test", dataset=f"csv:{tmp_path}/other.csv", quiet=True)
  assert [(row["name"], row["n"]) for row in found["per_class"]] == [
    *(("blue", 0), ("green", 2), ("red", 2))
  ]
  (tmp_path / "other.csv").write_text(f"path,label\n{table.parent}/80.png,red;pink;blue\n")
  with pytest.raises(UserError, match="the run does not know the class 'pink'"):
    imgclf.evaluate(workdir, split="test", dataset=f"csv:{tmp_path}/other.csv", quiet=True)


def test_a_run_that_goes_on_from_resident_data_with_worker_processes_has_the_same_bits(
  config, tmp_path, workdir, monkeypatch
):
  log = progress.Progress.log

  def signalling(self, step, split, figures):
    log(self, step, split, figures)
    if step == 10:
      signal.raise_signal(signal.SIGTERM)

  config = imgclf.ConfigDict(config)
  config.dataset.resident = True
  with monkeypatch.context() as patch:
    patch.setattr(progress.Progress, "log", signalling)
    with pytest.raises(Stopped):
      imgclf.train(config, tmp_path, quiet=True)
  config.dataset.resident, config.dataset.workers = False, 1
  imgclf.train(config, tmp_path, quiet=True)
  assert_same_bits(saved_state(workdir), saved_state(tmp_path))


def test_two_devices_judge_every_image_once_and_alike(workdir, run_python):
  code = """
import json, sys, imgclf
found = imgclf.evaluate(sys.argv[1], split="test", batch_size=6, quiet=True)
print(json.dumps({name: found[name] for name in ("n", "mAP", "exact_match", "f1_micro", "loss")}))
"""
  found = json.loads(run_python(code, workdir, devices=2).splitlines()[-1])
  alone = imgclf.evaluate(workdir, split="test", quiet=True)
  assert found == pytest.approx({name: alone[name] for name in found}, rel=1e-5)


def test_a_check_counts_the_images_of_each_class_and_the_classes_of_each_image(
  config, table, capsys
):
  found = imgclf.check(config)
  there = np.array(list(labels_of(table).values()))
  train = there[:60]
  assert [found["images_per_class"][name]["train"] for name in NAMES] == train.sum(0).tolist()
  told = found["labels_per_image"]["train"]
  assert told["mean"] == pytest.approx(train.sum() / 60, abs=1e-6)
  sizes, counts = np.unique(train.sum(axis=1), return_counts=True)
  assert told["images"] == dict(zip(map(str, sizes.tolist()), counts.tolist()))
  assert f"classes an image in train: {told['mean']:.2f} in the mean; 0 in " in (
    capsys.readouterr().out
  )


def test_an_image_that_can_not_be_read_is_wrong_where_that_is_asked_for(workdir, table, tmp_path):
  (tmp_path / "bad.png").write_bytes(b"none")
  lines = f"path,label,split\n{table.parent}/80.png,red;green,test\nbad.png,blue,test\n"
  (tmp_path / "bad.csv").write_text(lines)
  name = f"csv:{tmp_path}/bad.csv"
  found = imgclf.evaluate(workdir, dataset=name, bad_images="wrong", quiet=True)
  assert (found["n"], found["unreadable"]) == (2, 1)
  assert found["per_class"][0]["average_precision"] == 0


def test_what_knows_one_class_an_image_refuses_the_run_in_a_line(workdir):
  with pytest.raises(UserError, match=r"^--compare=.*: a comparison: is of one class an image"):
    report._other(workdir)
  nothing = np.zeros((0, 16, 16, 3), np.uint8)
  with pytest.raises(UserError, match=r"^deletion_insertion: is of one class an image"):
    explain.deletion_insertion(imgclf.load(workdir), nothing, np.zeros(0, int), nothing[..., 0])
  with pytest.raises(UserError, match=r"--mode=report: is of one class an image, .* --mode=eval"):
    imgclf.report(workdir, quiet=True)
