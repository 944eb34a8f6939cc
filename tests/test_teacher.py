"""A run that another run teaches: what it learns, what it refuses, and that it goes on with the
same teacher."""

import dataclasses
import json
import shutil

from fresh import assert_same_bits, saved_state
import jax
import numpy as np
import pytest

import imgclf
from imgclf import augment, models, optim, parallel, state, steps, teacher
from imgclf import config as configs
from imgclf.errors import UserError

# Images of the student are normalised otherwise than the teacher's were.
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def taught_by(folder, digits_dir, **fields):
  """The config of four steps of a student of `folder`."""
  config = imgclf.default_config()
  config.dataset.data_dir = str(digits_dir)
  config.dataset.image_size, config.dataset.crop_fraction = 32, 1.0
  config.augment.crop = "padded"
  config.augment.mean, config.augment.std = MEAN, STD
  config.model.name = "lenet5"
  config.distill.teacher, config.distill.weight = f"run:{folder}", 0.25
  config.schedule.name = "constant"
  config.train.batch_size, config.train.total_steps = 32, 4
  config.eval.batch_size, config.checkpoint.every_steps = 50, 2
  config.log.every_steps, config.log.tensorboard = 1, False
  for path, value in fields.items():
    section, name = path.split("__")
    config[section][name] = value
  return config


@pytest.fixture(scope="module")
def student(tmp_path_factory, trained, digits_dir):
  """A run of four steps that the session's run has taught, and the folder of the teacher; tests
  copy both."""
  folder = tmp_path_factory.mktemp("teacher") / "run"
  shutil.copytree(trained, folder)
  workdir = tmp_path_factory.mktemp("student") / "run"
  imgclf.train(taught_by(folder, digits_dir), workdir, quiet=True)
  return workdir, folder


def resolved(*arguments, **fields):
  return configs.resolve(taught_by(*arguments, **fields))


def softmax(logits):
  p = np.exp(logits.astype(np.float64))
  return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_loss_is_the_labels_and_the_teachers_by_their_shares(trained, digits_dir, parts):
  fields = {"augment__crop": "center", "augment__flip": False, "distill__temperature": 3.0}
  config = resolved(trained, digits_dir, **fields, optimizer__accumulate_steps=parts)
  run = imgclf.load(trained)
  found = teacher.prepare(config, run.classes)
  model = models.create(config["model"], 10, axis_name=parallel.AXIS)
  schedule = optim.schedule(config, total_steps=4, warmup_steps=0)
  optimizer = optim.create(config, schedule)
  begin = state.create(model, optimizer, seed=0, image_size=32, ema=False)
  made = steps.make_train_step(model, config, optimizer, schedule, teacher=found.logits)
  rng = np.random.default_rng(0)
  batch = {
    "image": rng.integers(0, 256, (8, 32, 32, 3), np.uint8),
    "label": np.arange(8, dtype=np.int32),
    "position": np.arange(8, dtype=np.int32),
    "stop": np.zeros(8, np.int32),
  }
  step = parallel.pmap(made)
  after, result = step(parallel.replicate(begin), parallel.shard(batch), found.place())
  pixels = augment.eval_transform(batch["image"], run.config["augment"], np.float32)
  p = softmax(np.asarray(run.model.apply(run.variables, pixels, train=False)) / 3)
  # The head of the student starts at zero: it gives each class a tenth.
  divergence = 9 * np.mean(np.sum(p * np.log(10 * p), axis=1))
  assert parallel.scalar(result["distillation_loss"]) == pytest.approx(divergence, rel=1e-4)
  expected = 0.75 * np.log(10) + 0.25 * divergence
  assert parallel.scalar(result["loss"]) == pytest.approx(expected, rel=1e-4)
  assert parallel.scalar(after.step) == 1


def test_a_run_records_what_teaches_it_and_what_it_learnt(student, trained):
  workdir, folder = student
  taught = imgclf.load(trained)
  record = json.loads((workdir / "teacher.json").read_text())
  assert record == {"source": f"run:{folder}", "step": taught.step, "sha256": taught.checkpoint}
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  assert all(row["distillation_loss"] > 0 for row in rows if row["split"] == "train")


def test_a_run_goes_on_with_the_same_teacher_to_the_bit_wherever_that_lies(
  student, digits_dir, tmp_path
):
  workdir, folder = student
  run = tmp_path / "run"
  imgclf.train(taught_by(folder, digits_dir, train__total_steps=2), run, quiet=True)
  shutil.copytree(folder, tmp_path / "moved")
  imgclf.train(taught_by(tmp_path / "moved", digits_dir), run, quiet=True)
  assert_same_bits(saved_state(run), saved_state(workdir))


def test_a_split_that_the_device_holds_is_taught_alike(student, digits_dir, tmp_path):
  workdir, folder = student
  imgclf.train(taught_by(folder, digits_dir, dataset__resident=True), tmp_path / "run", quiet=True)
  assert_same_bits(saved_state(tmp_path / "run"), saved_state(workdir))


def test_another_teacher_than_the_run_began_with_is_refused(student, digits_dir, tmp_path):
  workdir, folder = student
  shutil.copytree(workdir, tmp_path / "run")
  more = taught_by(folder, digits_dir, train__total_steps=6)
  with pytest.raises(UserError, match=r"another config \(config.distill.teacher: .* -> None"):
    imgclf.train(taught_by(folder, digits_dir, distill__teacher=None), tmp_path / "run", quiet=True)
  imgclf.train(
    taught_by(folder, digits_dir, distill__teacher=None, train__total_steps=2),
    tmp_path / "untaught",
    quiet=True,
  )
  with pytest.raises(UserError, match=r"another config \(config.distill.teacher: None -> 'run:"):
    imgclf.train(more, tmp_path / "untaught", quiet=True)
  record = tmp_path / "run" / "teacher.json"
  tree = json.loads(record.read_text())
  record.write_text(json.dumps(tree | {"sha256": "0" * 64}))
  with pytest.raises(UserError, match=rf"step {tree['step']} of it is not the checkpoint that has"):
    imgclf.train(more, tmp_path / "run", quiet=True)
  record.write_text(json.dumps(tree | {"step": 7}))
  with pytest.raises(UserError, match=r"^config.distill.teacher=run:\S+: .*7"):
    imgclf.train(more, tmp_path / "run", quiet=True)
  for text in ("[]", json.dumps(tree | {"step": "7"})):
    record.write_text(text)
    with pytest.raises(UserError, match=r"teacher.json: does not say what teaches the run; rest"):
      imgclf.train(more, tmp_path / "run", quiet=True)
  record.unlink()
  with pytest.raises(UserError, match=r"teacher.json"):
    imgclf.train(more, tmp_path / "run", quiet=True)


CLASSES = [str(digit) for digit in range(10)]


@pytest.mark.parametrize(
  ("fields", "classes", "words"),
  [
    ({}, [*CLASSES[:9], "ten"], r"other classes than the data set \(9, ten\); take"),
    ({}, CLASSES[::-1], r"other classes than the data set \(their order\); take"),
    ({"train__loss": "binary"}, CLASSES, r"and this run's config.train.loss is binary; take"),
    ({"dataset__image_size": 40}, CLASSES, r"its lenet5 takes images of 32 px alone; set config"),
    ({"dataset__image_size": 8}, CLASSES, r"config.dataset.image_size: got 8, lenet5 needs"),
  ],
)
def test_what_can_not_teach_is_refused_in_a_line(trained, digits_dir, fields, classes, words):
  config = resolved(trained, digits_dir, **fields)
  with pytest.raises(UserError, match=rf"^config.distill.teacher=run:\S+: .*{words}") as refused:
    teacher.prepare(config, classes)
  assert "\n" not in str(refused.value)


def test_a_folder_without_a_run_is_refused_by_the_check_as_well(tmp_path, digits_dir):
  with pytest.raises(UserError, match=r"teacher=run:\S+: .*holds no run"):
    imgclf.check(taught_by(tmp_path, digits_dir), quiet=True)


def test_a_network_of_any_size_teaches_at_the_students(trained, digits_dir, monkeypatch):
  run = imgclf.load(trained)
  config = configs.resolve(run.config)
  config.model.name = "mobilenet_v2"
  model = models.create(config["model"], 10, axis_name=None)
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), models.shapes(model, 32))
  other = dataclasses.replace(run, config=config, model=model, variables=zeros)
  monkeypatch.setattr(teacher.run, "load", lambda *_, **__: other)
  student = resolved(trained, digits_dir, dataset__image_size=48, model__dtype="bfloat16")
  found = teacher.prepare(student, run.classes)
  assert found.notes[1:] == ["the teacher was trained at 32 px, and sees images of 48 px"]
  # It computes in the student's type.
  assert found.model.dtype == "bfloat16"
