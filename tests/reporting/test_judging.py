"""A run judged for a report gives evaluation's own figures, and a temperature that was fitted on
validation."""

import json
import shutil

import numpy as np
import pytest
from scipy import optimize, special

import imgclf
from imgclf import calibration, metrics
from imgclf.errors import UserError
from imgclf.reporting import judging


@pytest.fixture(scope="module")
def judge(trained):
  return judging.Judge(imgclf.load(trained, calibrated=False))


@pytest.fixture(scope="module")
def temperature(judge):
  return judge.temperature()


def test_what_is_asked_of_a_judgement_does_not_become_the_runs_own(trained):
  run = imgclf.load(trained)
  before = run.config.to_json()
  judged = judging.Judge(run, bad_images="wrong")
  assert judged.config["eval"]["bad_images"] == "wrong"
  assert run.config.to_json() == before


def test_the_temperature_is_the_best_on_validation_and_makes_no_answer_another(judge, temperature):
  found = judge.answers(judge.roles["validation"])
  logits, label = found.logits.astype(np.float64), found.label

  def loss(log_temperature):
    logs = special.log_softmax(logits / np.exp(log_temperature), axis=1)
    return -logs[np.arange(len(label)), label].mean()

  best = optimize.minimize_scalar(loss, (-1, 1), tol=1e-10)
  assert temperature.value == pytest.approx(np.exp(best.x), rel=1e-5)
  assert (temperature.fitted_on, temperature.n, temperature.note) == ("train[90%:]", 144, None)
  assert temperature.figures["loss_after"] == pytest.approx(best.fun, rel=1e-6)
  assert temperature.figures["loss_before"] == pytest.approx(loss(0), rel=1e-5)
  assert temperature.figures["loss_after"] < temperature.figures["loss_before"]
  judged = judging.calibrated(found, temperature.value)
  assert np.array_equal(judged.probabilities.argmax(axis=1), judged.before.predicted)
  np.testing.assert_allclose(
    judged.probabilities, special.softmax(logits / temperature.value, axis=1), rtol=1e-5
  )


def test_figures_are_those_that_evaluation_tells_before_and_after(
  trained, tmp_path, judge, temperature
):
  judged = judging.calibrated(judge.answers("test"), temperature.value)
  before = imgclf.evaluate(trained, quiet=True)
  assert metrics.figures(judged.before, judge.run.classes).items() <= before.items()
  workdir = shutil.copytree(trained, tmp_path / "run")
  judging.store(imgclf.load(workdir, calibrated=False), temperature)
  evaluated = imgclf.evaluate(workdir, quiet=True)
  assert evaluated["temperature"] == temperature.value
  after = metrics.figures(judged.after, judge.run.classes)
  assert after["loss"] == pytest.approx(evaluated["loss"], rel=1e-5)
  assert after["ece"] == pytest.approx(evaluated["ece"], rel=1e-4)
  assert after["confusion_matrix"] == evaluated["confusion_matrix"]
  told = json.loads((workdir / "calibration" / f"{judge.run.step}.json").read_text())
  assert told["fitted_on"] == "train[90%:]" and told["n"] == 144
  assert told["loss_after"] < told["loss_before"]


def test_a_set_without_validation_leaves_the_temperature_at_1_and_says_so(judge, tmp_path):
  alone = judging.Judge(judge.run, source=judge.source)
  alone.roles = {**judge.roles, "validation": None}
  found = alone.temperature()
  assert (found.value, found.fitted_on, found.n) == (1, None, 0)
  assert "no validation split" in found.note
  judging.store(judge.run, found)
  assert not judge.run.folder.calibration(judge.run.step).exists()


def test_a_validation_split_that_is_all_right_is_told(judge, monkeypatch):
  found = judge.answers("test[:30]")
  found.label[:] = found.predicted
  monkeypatch.setattr(judging.Judge, "answers", lambda self, expression: found)
  told = judge.temperature()
  assert told.value == 1
  assert told.note.startswith("Temperature, fitted on train[90%:] (30 images): every example is")
  assert told.figures["loss_after"] == told.figures["loss_before"]


def test_images_that_can_not_be_read_are_no_answers(judge, temperature):
  found = judge.answers("test[:50]")
  label = found.label.copy()
  found.predicted[[4, 9]] = -1
  found.logits[[4, 9]] = np.nan  # what is said of a blank picture may be anything
  judged = judging.calibrated(found, temperature.value)
  assert judged.places.tolist() == [i for i in range(50) if i not in (4, 9)]
  assert judged.probabilities.shape == (48, 10)
  figures = metrics.figures(judged.after, judge.run.classes)
  assert (figures["n"], figures["unreadable"]) == (50, 2)
  loss, _ = judging.loss_and_ece(judged.after)
  own = judged.probabilities[np.arange(48), label[judged.places]]
  assert loss == pytest.approx(-np.log(own).mean(), rel=1e-4)


def test_numbers_that_are_not_finite_are_no_report(judge, monkeypatch):
  broken = imgclf.load(judge.run.folder.path, calibrated=False)
  for leaf in broken.variables["params"]["head"].values():
    leaf[...] = np.nan
  with pytest.raises(UserError, match=r"answers 20 of 20 images with numbers that are not finite"):
    judging.Judge(broken, source=judge.source).answers("test[:20]")


def test_examples_that_the_run_has_seen_are_counted(judge):
  assert judge.shared("test", "train") == judge.shared("test", "validation") == 0
  assert judge.shared("train", "train") == 1293
  assert judge.shared("train[-10:]+test[:5]", "validation") == 10


def test_at_temperature_1_nothing_changes(judge):
  found = judge.answers("test[:40]")
  logits = found.logits.copy()
  judged = judging.calibrated(found, 1.0)
  assert np.array_equal(judged.after.loss, judged.before.loss)
  assert np.array_equal(judged.after.confidence, judged.before.confidence)
  losses = calibration.losses(logits, found.label, 1.0)
  np.testing.assert_allclose(losses, judged.before.loss, rtol=1e-4, atol=1e-6)
