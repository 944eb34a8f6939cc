"""Every example of a split is judged once, or it is an error; a stop is seen by all."""

import logging

import numpy as np
import pytest

import imgclf
from imgclf import judge as module
from imgclf import parallel
from imgclf.data import images
from imgclf.data.images import ImageError
from imgclf.data.sources import Record
from imgclf.interrupt import Abandoned
from imgclf.judge import judge, judge_sets, split_batches


@pytest.fixture(scope="module")
def eval_step():
  """A model that says the red value of a picture's corner, and that this is among its five guesses
  where it is no more than 1 off."""

  def step(variables, batch):
    said = batch["image"][:, 0, 0, 0].astype("int32") + variables["more"]
    result = {
      "predicted": said,
      "in_top5": abs(said - batch["label"]) <= 1,
      "loss": said / 2.0,
      "confidence": said / 10.0,
      "logits": said[:, None] * np.array([1.0, -1.0]),
    }
    return result | ({"stop": batch["stop"].max()} if "stop" in batch else {})

  return parallel.pmap(step)


VARIABLES = {"more": np.zeros((1,), np.int32)}


def batch(index, red, label=None, mask=None, **more):
  """Examples at these places of the split, of so much red; the label is the red unless given."""
  image = np.zeros((len(index), 2, 2, 3), np.uint8)
  image[:, :, :, 0] = np.array(red)[:, None, None]
  return {
    "image": image,
    "label": np.array(red if label is None else label, np.int32),
    "index": np.array(index),
    "mask": np.array([i >= 0 for i in index] if mask is None else mask),
    **{name: np.array(value, np.int32) for name, value in more.items()},
  }


def test_what_was_said_of_each_example_is_there_once_and_fillers_are_not(eval_step):
  batches = [batch([0, 1, 2], [5, 6, 7], [5, 5, 5]), batch([3, -1, -1], [8, 0, 0])]
  said = judge(eval_step, VARIABLES, batches, 4)
  assert said.index.tolist() == [0, 1, 2, 3]
  assert said.label.tolist() == [5, 5, 5, 8]
  assert said.predicted.tolist() == [5, 6, 7, 8]
  assert said.in_top5.tolist() == [True, True, False, True]
  assert said.loss.tolist() == [2.5, 3.0, 3.5, 4.0]
  assert said.confidence == pytest.approx([0.5, 0.6, 0.7, 0.8])


def test_the_weights_that_are_judged_are_those_that_were_given(eval_step):
  variables = {"more": np.ones((1,), np.int32)}
  assert judge(eval_step, variables, [batch([0], [5])], 1).predicted.tolist() == [6]


def test_logits_are_kept_only_where_they_are_asked_for(eval_step):
  batches = [batch([0, 1], [5, 6]), batch([2, -1], [7, 0])]
  assert judge(eval_step, VARIABLES, batches, 3).logits is None
  said = judge(eval_step, VARIABLES, batches, 3, keep_logits=True)
  assert said.logits.tolist() == [[5, -5], [6, -6], [7, -7]]


def test_a_masked_example_is_counted_and_has_no_prediction(eval_step):
  batches = [batch([0, 1, 2], [5, 0, 7], [5, 0, 7], mask=[True, False, True])]
  said = judge(eval_step, VARIABLES, batches, 3)
  # Without the mask the blank picture would be a right answer for class 0.
  assert said.predicted.tolist() == [5, -1, 7]
  assert said.label.tolist() == [5, 0, 7]


def test_labels_of_another_set_become_those_of_the_run(eval_step):
  label_map = np.array([2, 0, 1])
  said = judge(eval_step, VARIABLES, [batch([0, 1, 2], [7, 7, 2], [0, 1, 2])], 3, label_map)
  assert said.label.tolist() == [2, 0, 1]
  assert said.in_top5.tolist() == [False, False, True]  # judged by the run's labels


def test_several_classes_an_image_are_judged_once_each_and_by_the_runs_labels():
  """A model whose logits of two classes are the red of the corner, and minus that."""

  def step(variables, batch):
    said = batch["image"][:, 0, 0, 0].astype("float32")[:, None]
    return {"loss": batch["label"].sum(axis=1), "logits": said * np.array([1.0, -1.0])}

  made = [
    batch([1, 0, 2], [6, 5, 7], mask=[True, True, False]) | {"label": np.eye(3, 2, dtype=np.uint8)},
    batch([3, -1, -1], [8, 0, 0]) | {"label": np.ones((3, 2), np.uint8)},
  ]
  said = judge_sets(parallel.pmap(step), {"more": np.zeros(1)}, made, 4, 2, np.array([1, 0]))
  assert said.index.tolist() == [1, 0, 2, 3]
  # The other set's first class is the run's second.
  assert said.label.tolist() == [[0, 1], [1, 0], [0, 0], [1, 1]]
  assert said.loss.tolist() == [1, 1, 0, 2]
  assert said.logits.tolist() == [[6, -6], [5, -5], [7, -7], [8, -8]]
  assert said.read.tolist() == [True, True, False, True]


@pytest.mark.parametrize(("total", "found"), [(3, 2), (1, 2)])
def test_an_example_that_is_lost_or_too_many_is_an_error(eval_step, total, found):
  with pytest.raises(RuntimeError, match=f"{found} of {total} examples were evaluated"):
    judge(eval_step, VARIABLES, [batch([0, 1], [5, 6])], total)


@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_batch_that_wants_to_stop_abandons_the_evaluation(eval_step, place):
  batches = [batch([k], [k], stop=[int(k == place)]) for k in range(5)]
  with pytest.raises(Abandoned):
    judge(eval_step, VARIABLES, batches, 5)


def test_batches_that_do_not_want_to_stop_are_judged_to_the_end(eval_step):
  batches = [batch([k], [k], stop=[0]) for k in range(5)]
  assert judge(eval_step, VARIABLES, batches, 5).predicted.tolist() == [0, 1, 2, 3, 4]


class Pictures:
  """Five pictures, the third of which is none."""

  def __len__(self):
    return 5

  def __getitems__(self, indices):
    good = images.encode_png(np.full((4, 4, 3), 9, np.uint8))
    return [Record(b"none" if i == 2 else good, 1, f"picture\x1b{i}") for i in indices]


@pytest.fixture
def config():
  config = imgclf.default_config()
  config.dataset.image_size = 4
  config.eval.batch_size = 2
  return config


def test_an_image_that_can_not_be_read_stops_the_evaluation_by_name(config):
  with pytest.raises(ImageError, match=r"picture.2: cannot be decoded"):
    list(split_batches(Pictures(), config))


def test_an_image_that_counts_as_wrong_is_told_in_one_line_and_masked(config, caplog):
  config.eval.bad_images = "wrong"
  with caplog.at_level(logging.WARNING, module._log.name):
    batches = list(split_batches(Pictures(), config))
  assert [b["index"].tolist() for b in batches] == [[0, 1], [2, 3], [4, -1]]
  assert [b["mask"].tolist() for b in batches] == [[True, True], [False, True], [True, False]]
  assert not batches[1]["image"][0].any()
  (line,) = caplog.messages
  assert line.startswith("counted as wrong: picture") and "2: cannot be decoded" in line
  assert "\x1b" not in line
