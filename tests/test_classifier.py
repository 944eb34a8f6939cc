"""The model on the devices answers batch by batch, in order, for what could be read."""

import numpy as np
import pytest

import imgclf
from imgclf import parallel
from imgclf.classifier import Classifier
from imgclf.data import inputs, loader
from imgclf.errors import UserError

PICTURES = np.random.default_rng(0).integers(0, 256, (7, 40, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def run(trained):
  return imgclf.load(trained)


def answers(run, images, **options):
  given, _ = inputs.of_python(images, run.config["dataset"])
  return given, list(run.classifier.answers(given, **options))


def test_batches_follow_each_other_and_show_what_the_model_saw(run):
  bad = [*PICTURES[:5], "gone.png", PICTURES[6]]
  given, told = answers(run, bad, batch_size=3)
  assert [(each.start, each.stop) for each in told] == [(0, 3), (3, 6), (6, 7)]
  assert [each.index.tolist() for each in told] == [[0, 1, 2], [3, 4], [6]]
  assert set(given.errors) == {5}
  whole = loader.eval_batches(inputs.of_python(PICTURES, run.config["dataset"])[0], run.config, 7)[
    0
  ]
  for each in told:
    np.testing.assert_array_equal(each.images, whole["image"][each.index])
    assert each.images.shape == (len(each.index), 32, 32, 3)
    assert each.probabilities.shape == (len(each.index), 10) and each.features is None
  _, (once,) = answers(run, PICTURES, batch_size=8)
  np.testing.assert_allclose(told[1].probabilities, once.probabilities[3:5], atol=1e-6)


def test_why_there_is_no_answer_is_known_when_its_batch_is(run):
  given, _ = inputs.of_python([f"{i}.png" for i in range(12)], run.config["dataset"])
  for batch in run.classifier.answers(given, batch_size=2):
    assert len(batch.index) == 0 and len(batch.probabilities) == 0
    assert {batch.start, batch.start + 1} <= set(given.errors)
    assert batch.stop == batch.start + 2


def test_few_images_take_a_small_batch_and_many_evaluations(run):
  assert run.config["eval"]["batch_size"] == 50
  sizes = {1: 1, 2: 4, 4: 4, 5: 16, 16: 16, 17: 50, 50: 50, 360: 50, 0: 1}
  assert {count: run.classifier.few(count) for count in sizes} == sizes


def test_devices_share_any_number_of_images(trained, run_python):
  code = """
import sys, imgclf, numpy as np
run = imgclf.load(sys.argv[1])
images = np.random.default_rng(0).integers(0, 256, (7, 40, 50, 3), np.uint8)
for count in (1, 2, 7):
  told = run.predict(images[:count])
  print(*[format(p, ".5f") for each in told for p in each.probabilities])
"""
  lines = run_python(code, trained, devices=3).splitlines()
  expected = imgclf.load(trained).predict(PICTURES)
  for line, count in zip(lines, (1, 2, 7), strict=True):
    values = np.array(line.split(), float).reshape(count, 10)
    np.testing.assert_allclose(values, [each.probabilities for each in expected[:count]], atol=2e-5)


def test_several_processes_are_refused(run, monkeypatch):
  monkeypatch.setattr(parallel, "process_count", lambda: 2)
  with pytest.raises(UserError, match="prediction runs in one process"):
    Classifier(run.model, run.variables, run.config)
