"""The look at every record, at a set that is made up."""

import io

import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf.data import survey
from imgclf.data.datasets import Dataset
from imgclf.data.sources import Record
from imgclf.errors import UserError


def png(level):
  out = io.BytesIO()
  Image.fromarray(np.full((8, 8), level, np.uint8)).save(out, "PNG")
  return out.getvalue()


class Source:
  """100 grey pictures, of the level and with the label of their place; one can't be read."""

  def __init__(self, lost=None):
    self.shard_lengths, self._lost, self.asked = [100], lost, []

  def name(self, index):
    return f"made/up[{index}]"

  def read(self, indices):
    self.asked.append(list(indices))
    if self._lost in indices:
      raise UserError(f"{self.name(self._lost)}: is lost; find it")
    return [Record(png(i), i, self.name(i)) for i in indices]


@pytest.fixture
def config():
  config = imgclf.default_config()
  config.dataset.image_size = 8
  config.dataset.crop_fraction = 1.0
  config.dataset.threads = 3
  return config


def look(config, source, in_train):
  done = []
  dataset = Dataset("made", tuple(map(str, range(100))), {"train": source})
  return survey.survey(dataset, config, {"train": in_train}, done.append), sum(done)


def test_every_record_is_looked_at_once_in_its_place(config):
  source = Source()
  found, done = look(config, source, np.arange(100) < 10)
  assert done == 100
  assert sorted(i for asked in source.asked for i in asked) == list(range(100))
  split = found.splits["train"]
  np.testing.assert_array_equal(split.label, np.arange(100))
  assert set(split.width) == set(split.height) == {8}
  assert found.kinds == [("PNG", "grey")] and not split.kind.any()
  assert len({tuple(row) for row in split.digest}) == 100
  # The levels 0 to 9 of 64 pixels each: sum 45, sum of squares 285.
  assert (found.images, found.pixels) == (10, 640)
  assert found.sums == [64 * 45] * 3 and found.squares == [64 * 285] * 3


def test_one_record_that_is_lost_takes_no_other_with_it(config):
  found, done = look(config, Source(lost=37), np.ones(100, bool))
  split = found.splits["train"]
  assert done == 100 and found.images == 99
  assert split.unread == {37: "is lost; find it"} and split.undecoded == {}
  assert split.label[37] == split.kind[37] == -1
  np.testing.assert_array_equal(np.flatnonzero(split.label < 0), [37])


def test_what_fails_in_a_thread_is_raised(config):
  class Broken(Source):
    def read(self, indices):
      raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    look(config, Broken(), np.ones(100, bool))
