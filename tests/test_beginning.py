"""What a run begins with, on networks that stand for the real ones."""

import contextlib
import types

import numpy as np
from PIL import Image
import pytest

from imgclf import beginning, plan, state
from imgclf.errors import UserError


class Fitted:
  """Takes its weights from three training images: their pixels."""

  fitted_to = 3

  def fitted(self, params, images):
    return {**params, "pixels": images}


@pytest.fixture
def planned(small_config, tmp_path):
  """Of a set of grey images, whose level is their place among the training images times ten."""
  for split, number in (("train", 6), ("validation", 2)):
    for i in range(number):
      path = tmp_path / "data" / split / "ab"[i % 2] / f"{i}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new("RGB", (32, 32), (10 * i + 10,) * 3).save(path)
  small_config.dataset.name = f"folder:{tmp_path / 'data'}"
  small_config.augment.update(mean=(0.0,) * 3, std=(1.0,) * 3)
  with contextlib.ExitStack() as held:
    yield plan.prepare(small_config, tmp_path / "run", held)


def fresh_state():
  params = {"head": np.zeros(2)}
  return state.TrainState(np.int32(0), np.int32(0), params, {}, (), {})


def test_a_network_without_weights_of_its_own_begins_as_it_was_drawn(planned):
  fresh = fresh_state()
  assert beginning.begun(planned, types.SimpleNamespace(), fresh) is fresh


def test_weights_come_from_the_first_training_images_that_can_be_read(planned):
  records = planned.train_records
  first = [np.asarray(Image.open(records[i].name))[0, 0, 0] / 255 for i in range(3)]
  found = beginning.begun(planned, Fitted(), fresh_state()).params
  np.testing.assert_array_equal(found["head"], np.zeros(2))
  np.testing.assert_allclose(found["pixels"][:, 5, 7, 1], first, rtol=1e-6)
  with open(records[1].name, "wb") as file:
    file.write(b"no image")
  with pytest.raises(UserError, match=r"\.png"):
    beginning.begun(planned, Fitted(), fresh_state())
  with planned.config.unlocked():
    planned.config.dataset.bad_images = "skip"
  found = beginning.begun(planned, Fitted(), fresh_state()).params
  np.testing.assert_allclose(found["pixels"][:, 5, 7, 1], [first[0], first[2]], rtol=1e-6)
  for i in (0, 2):
    with open(records[i].name, "wb") as file:
      file.write(b"no image")
  with pytest.raises(UserError, match="none of the first 3 training images can be decoded"):
    beginning.begun(planned, Fitted(), fresh_state())
