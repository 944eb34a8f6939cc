"""A train split that lives on the devices: the same examples, order and results as batches from the
host."""

import json
import signal

from fresh import assert_same_bits, saved_state
import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf import config as configs
from imgclf import feeds, memory, parallel
from imgclf.data import datasets, loader, resident
from imgclf.errors import Diverged, Stopped, UserError


@pytest.fixture
def config(small_config):
  config = imgclf.ConfigDict(small_config)
  config.train.total_steps = 10
  config.log.every_steps, config.eval.every_steps, config.checkpoint.every_steps = 3, 5, 4
  return config


def train(config, workdir, **fields):
  config = imgclf.ConfigDict(config)
  for name, value in fields.items():
    section = "train" if name == "steps_per_call" else "dataset"
    config[section][name] = value
  imgclf.train(config, workdir, quiet=True)
  return rows(workdir)


def rows(workdir):
  """What was recorded, less what depends on the clock."""
  told = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  clock = ("time", "images_per_second", "data_wait_share")
  return [{k: v for k, v in row.items() if k not in clock} for row in told]


def records_of(config):
  source = datasets.open(config.dataset)
  return source, source.records(datasets.roles(config.dataset, source)["train"])


def test_a_resident_split_trains_to_the_bits_of_a_streamed_one(config, tmp_path):
  streamed = train(config, tmp_path / "streamed", resident=False)
  kept = train(config, tmp_path / "kept", resident=True)
  assert kept == streamed
  assert [row["step"] for row in kept if row["split"] == "train"] == [3, 4, 5, 6, 8, 9, 10]
  assert_same_bits(saved_state(tmp_path / "kept"), saved_state(tmp_path / "streamed"))
  name = "validation-10.json"
  one, other = (tmp_path / run / "eval" / name for run in ("kept", "streamed"))
  assert one.read_text() == other.read_text()


def test_balanced_batches_of_a_skewed_set_hold_every_class_alike(small_config, tmp_path):
  for name, number in (("cat", 30), ("dog", 6), ("owl", 1)):
    for split in ("train", "validation"):
      (tmp_path / "data" / split / name).mkdir(parents=True)
      for i in range(number):
        pixels = np.random.default_rng([i, len(name)]).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
  config = imgclf.ConfigDict(small_config)
  config.dataset.update(name=f"folder:{tmp_path / 'data'}", sampling="balanced")
  config.train.batch_size = 12
  _, records = records_of(config)
  batches = loader.train_batches(records, config)
  for number in (0, 1, 50):
    labels = batches[number]["label"]
    assert np.bincount(labels).tolist() == [4, 4, 4]
    names = [record.label for record in loader.train_examples(records, config, number)]
    assert names == labels.tolist()
  again = loader.train_batches(records_of(config)[1], config)[50]
  np.testing.assert_array_equal(again["image"], batches[50]["image"])


def test_a_call_may_take_the_order_of_another_seed(config):
  config.augment.flip = config.augment.flip_alternate = True
  _, records = records_of(config)
  feed = feeds.Resident(records, config, None)
  (own,) = feed.batches(5, 6, [1])
  (other,) = feed.batches(5, 6, [1], seed=3)
  config.seed = 3
  (expected,) = feeds.Resident(records, config, None).batches(5, 6, [1])
  for name in ("index", "mirror"):
    np.testing.assert_array_equal(other[name], expected[name])
    assert (other[name] != own[name]).any()


def test_several_steps_in_one_call_are_the_steps_one_by_one(config, tmp_path):
  """With the log lines, evaluations and checkpoints where they would be, though no interval is a
  multiple."""
  single = train(config, tmp_path / "single", resident=True, steps_per_call=1)
  several = train(config, tmp_path / "several", resident=True, steps_per_call=4)
  assert [(row["step"], row["split"]) for row in several] == [
    (row["step"], row["split"]) for row in single
  ]
  for one, other in zip(single, several):
    # Another program of the same arithmetic: its sums may be added in another order.
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-4)
  step, leaves = saved_state(tmp_path / "several")
  assert step == 10
  for one, other in zip(saved_state(tmp_path / "single")[1], leaves):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
  ("count", "sampling"), [(1, "shuffled"), (2, "shuffled"), (4, "shuffled"), (2, "balanced")]
)
def test_calls_take_the_examples_of_the_streamed_batches(config, count, sampling, monkeypatch):
  """Of each process its share, over the end of an epoch, from any step on."""
  config.train.steps_per_call, config.augment.crop = 3, "center"
  config.dataset.sampling = sampling
  config.augment.flip = config.augment.flip_alternate = True
  _, records = records_of(config)
  monkeypatch.setattr(parallel, "process_count", lambda: count)
  for process in range(count):
    monkeypatch.setattr(parallel, "process_index", lambda process=process: process)
    feed = feeds.Resident(records, config, None)
    streamed = loader.train_batches(records, config, process_index=process, process_count=count)
    image, label = (np.asarray(feed.held[name][0]) for name in ("image", "label"))
    made = 79  # an epoch is 80.8 batches
    for batch, steps in zip(feed.batches(made, made + 6, [2, 3, 1]), [2, 3, 1], strict=True):
      assert set(batch["count"]) == {steps}
      for number in range(steps):
        expected, index = streamed[made], batch["index"][:, number]
        np.testing.assert_array_equal(image[index], expected["image"])
        np.testing.assert_array_equal(label[index], expected["label"])
        np.testing.assert_array_equal(batch["position"], expected["position"])
        np.testing.assert_array_equal(batch["mirror"][:, number], expected["mirror"])
        made += 1


def test_a_stop_between_calls_loses_nothing(config, tmp_path, monkeypatch):
  config.dataset.resident, config.train.steps_per_call = True, 3
  whole = train(config, tmp_path / "whole")
  calls = iter(range(100))
  batches = feeds.Resident.batches

  def signalled(self, *arguments):
    for batch in batches(self, *arguments):
      if next(calls) == 2:
        signal.raise_signal(signal.SIGTERM)
      yield batch

  monkeypatch.setattr(feeds.Resident, "batches", signalled)
  with pytest.raises(Stopped, match=r"step \d of 10 is saved"):
    train(config, tmp_path / "cut")
  step = saved_state(tmp_path / "cut")[0]
  assert 0 < step < 10
  resumed = train(config, tmp_path / "cut")
  assert_same_bits(saved_state(tmp_path / "cut"), saved_state(tmp_path / "whole"))
  assert resumed[-1] == whole[-1]


def test_a_diverged_step_inside_a_call_is_named_with_its_examples(config, tmp_path, monkeypatch):
  config.dataset.resident, config.train.steps_per_call = True, 8
  config.log.every_steps = config.eval.every_steps = config.checkpoint.every_steps = 10
  _, records = records_of(config)
  third = [record.name for record in loader.train_examples(records, config, 2)]
  unlike = set(third) - {r.name for k in (0, 1) for r in loader.train_examples(records, config, k)}
  decode = resident.decode

  def spoiled(records, config, **options):
    held = decode(records, config, **options)
    # One example of the third batch, and of none before it, has a class that there is none of.
    names = [record.name for record in records.__getitems__(range(len(records)))]
    held["label"][names.index(min(unlike))] = 99
    return held

  monkeypatch.setattr(resident, "decode", spoiled)
  with pytest.raises(Diverged, match="the loss of step 3 is nan"):
    train(config, tmp_path)
  told = json.loads((tmp_path / "diverged.json").read_text())
  assert [example["name"] for example in told["examples"]] == third


def test_bad_images_are_left_out_as_in_a_streamed_run(small_config, tmp_path):
  for split, number in (("train", 24), ("validation", 4)):
    for name in ("cat", "dog"):
      (tmp_path / "data" / split / name).mkdir(parents=True)
      for i in range(number):
        pixels = np.random.default_rng([i, name == "cat"]).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{i}.png")
  cut = tmp_path / "data" / "train" / "dog" / "5.png"
  cut.write_bytes(cut.read_bytes()[:-200])
  config = imgclf.ConfigDict(small_config)
  config.dataset.update(name=f"folder:{tmp_path / 'data'}", bad_images="skip", max_bad_share=0.1)
  config.eval.batch_size, config.checkpoint.every_steps = 8, 6
  streamed = train(config, tmp_path / "streamed", resident=False)
  kept = train(config, tmp_path / "kept", resident=True)
  assert kept == streamed
  assert_same_bits(saved_state(tmp_path / "kept"), saved_state(tmp_path / "streamed"))
  listed = [
    json.loads(x) for x in (tmp_path / "kept" / "bad_images.jsonl").read_text().splitlines()
  ]
  assert [row["name"] for row in listed] == [str(cut)]
  config.dataset.bad_images = "error"
  with pytest.raises(UserError, match=r"5\.png: cannot be decoded"):
    train(config, tmp_path / "refused", resident=True)


def test_random_crops_of_the_host_are_refused():
  config = imgclf.default_config()
  config.dataset.resident = True
  with pytest.raises(UserError, match=r"^config.dataset.resident: the host draws the crops"):
    configs.validate(config)


def test_a_split_that_is_too_large_for_a_device_is_refused_before_it_is_decoded(
  config, monkeypatch
):
  _, records = records_of(config)
  monkeypatch.setattr(memory, "device_bytes", lambda: 1_000_000)
  monkeypatch.setattr(resident, "decode", None)
  with pytest.raises(UserError, match=r"^config.dataset.resident: .* which has 0\.0 GB; set it to"):
    feeds.Resident(records, config, None)


@pytest.mark.parametrize(
  ("backend", "limit", "crop", "asked", "expected"),
  [
    ("gpu", 16e6, "padded", None, True),  # 1,293 images of 32 px: 3.97 MB
    ("gpu", 15e6, "padded", None, False),
    ("gpu", 15e6, "padded", True, True),
    ("gpu", 16e6, "padded", False, False),
    ("gpu", 16e6, "center", None, True),
    ("gpu", 16e6, "random_resized", None, False),
    ("gpu", None, "padded", None, False),
    ("cpu", 16e6, "padded", None, False),
  ],
)
def test_a_split_is_resident_where_that_is_faster_and_it_fits(
  config, monkeypatch, backend, limit, crop, asked, expected
):
  config.augment.crop, config.dataset.resident = crop, asked
  _, records = records_of(config)
  monkeypatch.setattr(feeds.jax, "default_backend", lambda: backend)
  monkeypatch.setattr(memory, "device_bytes", lambda: limit)
  assert feeds.is_resident(records, config) is expected
