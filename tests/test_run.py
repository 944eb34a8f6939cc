"""A restored run answers for what a notebook has: as evaluation would, compiled once, whatever the
number."""

import dataclasses
import io
import shutil

import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf import parallel, steps
from imgclf.data import datasets, loader
from imgclf.errors import UserError


@pytest.fixture(scope="module")
def run(trained):
  return imgclf.load(trained)


@pytest.fixture(scope="module")
def digits(run):
  """The 360 test digits, [360, 8, 8] uint8, as Pillow decodes them."""
  records = datasets.open(run.config["dataset"]).records("test")
  opened = [Image.open(io.BytesIO(record.data)) for record in records.__getitems__(range(360))]
  return np.stack([np.asarray(image) for image in opened])


def evaluations(run):
  """What evaluation's own step says of the test split, [360, classes]."""
  records = datasets.open(run.config["dataset"]).records("test")
  step = parallel.pmap(steps.make_eval_step(run.model, run.config, run.temperature))
  variables = parallel.replicate(run.variables)
  batches = loader.eval_batches(records, run.config, run.config["eval"]["batch_size"])
  rows = []
  for k in range(len(batches)):
    given = parallel.shard({name: batches[k][name] for name in ("image", "label")})
    rows.append(parallel.unshard(step(variables, given)["probabilities"])[batches[k]["mask"]])
  return np.concatenate(rows)


@pytest.mark.parametrize("temperature", [None, 1.7])
def test_answers_are_evaluations_to_the_digit_also_at_a_fitted_temperature(
  run, trained, digits, tmp_path, temperature
):
  if temperature is not None:
    workdir = shutil.copytree(trained, tmp_path / "run")
    run.folder.__class__(workdir).write_calibration(run.step, run.checkpoint, temperature, {})
    run = imgclf.load(workdir)
  expected = evaluations(run)
  # Seven whole batches of 50 and one that is filled up.
  told = run.predict(list(digits), top_k=1)
  np.testing.assert_array_equal([each.probabilities for each in told], expected)
  assert [each.label for each in told] == [run.classes[i] for i in expected.argmax(axis=1)]
  assert np.float32(told[0].probability) == expected[0].max()
  # A few are as good in evaluation's batch; in a smaller one within rounding.
  few = run.predict(list(digits[:3]), batch_size=run.config["eval"]["batch_size"])
  np.testing.assert_array_equal([each.probabilities for each in few], expected[:3])
  small = run.predict(list(digits[:3]))
  np.testing.assert_allclose([each.probabilities for each in small], expected[:3], atol=1e-6)


def test_whatever_an_image_comes_as_the_answer_is_the_same(run, digits, tmp_path):
  path = tmp_path / "digit.png"
  Image.fromarray(digits[0]).save(path)
  colour = np.repeat(digits[0][..., None], 3, axis=2)
  each = [digits[0], colour, str(path), path, Image.open(path), Image.fromarray(colour)]
  told = run.predict(each)
  assert len({prediction.top for prediction in told}) == 1
  (batched,) = run.predict(colour[None])
  for single in (run.predict(digits[0]), run.predict(path), run.predict(Image.open(path)), batched):
    assert single.label == told[0].label
    np.testing.assert_allclose(single.probabilities, told[0].probabilities, atol=1e-6)
  assert told[0].probabilities.dtype == np.float32
  assert told[0].probabilities.sum() == pytest.approx(1, abs=1e-6)


def test_a_program_is_compiled_once_for_a_size_and_odd_numbers_share_it(run, digits, monkeypatch):
  traced = []
  make = steps.make_eval_step

  def counted(*arguments, **options):
    step = make(*arguments, **options)

    def counting(variables, batch):
      traced.append(len(batch["image"]))
      return step(variables, batch)

    return counting

  monkeypatch.setattr(steps, "make_eval_step", counted)
  fresh = dataclasses.replace(run)
  for count in (5, 16, 11, 7, 1, 50, 360, 49, 101):
    assert len(fresh.predict(list(digits[:count]))) == count
  # 5 to 16 in one of 16, one alone, and more in evaluation's 50.
  assert sorted(set(traced)) == [1, 16, 50]
  before = len(traced)
  fresh.predict(list(digits[:13]))
  fresh.predict(digits[3])
  assert len(traced) == before
  assert fresh.classifier is fresh.classifier


def test_another_runs_weights_are_not_those_that_were_compiled(run, digits):
  run.predict(digits[0])
  head = run.variables["params"]["head"]
  zero = {name: np.zeros_like(x) for name, x in head.items()}
  variables = {**run.variables, "params": {**run.variables["params"], "head": zero}}
  changed = dataclasses.replace(run, variables=variables)
  np.testing.assert_allclose(changed.predict(digits[0]).probabilities, 0.1, rtol=1e-6)


def test_features_are_what_the_head_makes_its_logits_of(run, digits):
  told = run.predict(list(digits[:5]), features=True)
  features = np.stack([each.features for each in told]).astype(np.float64)
  assert told[0].features.dtype == np.float32
  assert features.shape == (5, run.classifier.feature_size) == (5, 84)  # LeCun et al. 1998: F6
  head = run.variables["params"]["head"]
  logits = features @ head["kernel"] + head["bias"]
  shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  np.testing.assert_allclose([each.probabilities for each in told], shares, rtol=1e-4)
  assert run.predict(digits[0]).features is None


def test_in_a_list_what_cannot_be_read_has_an_error_and_alone_it_is_raised(run, digits, tmp_path):
  (tmp_path / "text.png").write_text("no image")
  told = run.predict([digits[0], tmp_path / "gone.png", tmp_path / "text.png", digits[1]], top_k=3)
  assert [each.label is None for each in told] == [False, True, True, False]
  assert told[1].error == f"{tmp_path}/gone.png: cannot be read (No such file or directory)"
  assert "cannot be decoded as an image" in told[2].error
  assert told[1].top == () and told[1].probability is told[1].probabilities is None
  assert [len(each.top) for each in told] == [3, 0, 0, 3]
  with pytest.raises(UserError, match=r"gone\.png: cannot be read \(No such file"):
    run.predict(tmp_path / "gone.png")


def test_no_image_has_no_answer(run):
  assert run.predict([]) == []
  assert run.predict(np.empty((0, 9, 9, 3), np.uint8)) == []


def test_a_threshold_takes_the_label_and_nothing_else(run, digits):
  known, none = run.predict(digits[0]), run.predict(digits[0], threshold=1.0)
  assert none.is_none and none.label is None and not known.is_none
  assert (none.top, none.probability) == (known.top, known.probability)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"top_k": 0}, "top_k=0: must be at least 1"),
    ({"threshold": 2}, "threshold=2: is a probability"),
    ({"batch_size": 0}, "batch_size=0: must be at least 1"),
  ],
)
def test_a_wrong_number_is_refused(run, digits, options, words):
  with pytest.raises(UserError, match=f"^{words}"):
    run.predict(digits[0], **options)


def test_pixels_that_are_not_uint8_are_refused(run, digits):
  with pytest.raises(UserError, match=r"images\[1\]: got float32 8x8; give uint8"):
    run.predict([digits[0], digits[1].astype(np.float32)])
