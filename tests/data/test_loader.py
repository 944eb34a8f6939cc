import io
import itertools
import threading

import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf.data import images, loader
from imgclf.data.datasets import Record

N = 23


class Colours:
  """N records, each a picture whose pixels all hold its index."""

  def __init__(self, broken=()):
    self.broken = broken

  def __len__(self):
    return N

  def __getitems__(self, indices):
    return [self._record(i) for i in indices]

  def _record(self, i):
    data = images.encode_png(np.full((8, 8, 3), i, np.uint8))
    return Record(b"no image" if i in self.broken else data, i % 5, f"colour {i}")


def encode_jpeg(pixels):
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, "JPEG")
  return out.getvalue()


@pytest.fixture
def config():
  config = imgclf.default_config()
  config.dataset.image_size = 8
  config.dataset.crop_fraction = 1.0
  config.augment.crop = "center"
  config.train.batch_size = 6
  return config


def shown(batch):
  """The indices of a batch's records, read off the pixels."""
  assert (batch["image"] == batch["image"][:, :1, :1, :1]).all()
  return batch["image"][:, 0, 0, 0].tolist()


def test_an_epoch_has_every_example_once_and_the_next_another_order(config):
  batches = loader.train_batches(Colours(), config)
  stream = list(itertools.chain(*(shown(batches[k]) for k in range(2 * N))))[: 12 * N]
  epochs = [stream[e * N : (e + 1) * N] for e in range(12)]
  assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
  assert len({tuple(epoch) for epoch in epochs}) == 12


def test_labels_and_positions_go_with_their_pictures(config):
  batch = loader.train_batches(Colours(), config)[5]
  assert batch["label"].tolist() == [i % 5 for i in shown(batch)]
  assert batch["position"].tolist() == [0, 1, 2, 3, 4, 5]
  assert batch["image"].dtype == np.uint8


def test_a_batch_is_a_function_of_seed_and_number_alone(config):
  config.augment.crop = "random_resized"
  one, other = (loader.train_batches(Photo(), config) for _ in range(2))
  forwards = [one[k] for k in range(4)]
  backwards = [other[k] for k in reversed(range(4))][::-1]
  for a, b in zip(forwards, backwards):
    np.testing.assert_array_equal(a["image"], b["image"])
  config.seed = 1
  changed = loader.train_batches(Photo(), config)[0]
  assert not np.array_equal(changed["image"], forwards[0]["image"])


class Photo(Colours):
  """N records of the same noisy picture: what differs in a batch are the crops."""

  pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)

  def _record(self, i):
    return Record(images.encode_png(self.pixels), 0, "photo")


def test_what_the_device_shifts_is_the_whole_image(config):
  """And not the part of it that evaluation looks at."""
  config.augment.crop, config.augment.crop_padding = "padded", 2
  config.dataset.crop_fraction, config.dataset.image_size = 0.5, 20
  batch = loader.train_batches(Photo(), config)[3]
  # 24 x 20 pixels at their own scale: the middle rows, all columns.
  np.testing.assert_array_equal(batch["image"], np.tile(Photo.pixels[2:22], (6, 1, 1, 1)))


def test_crops_differ_between_examples_and_epochs(config):
  config.augment.crop = "random_resized"
  batches = loader.train_batches(Photo(), config)
  crops = np.concatenate([batches[k]["image"] for k in range(10)])
  assert len(np.unique(crops.reshape(len(crops), -1), axis=0)) == len(crops)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_the_processes_share_each_batch_without_gap_or_overlap(config, count):
  config.augment.crop = "random_resized"
  whole = loader.train_batches(Photo(), config)
  shares = [
    loader.train_batches(Photo(), config, process_index=p, process_count=count)
    for p in range(count)
  ]
  for k in (0, 7):
    together = np.empty_like(whole[k]["image"])
    for share in shares:
      together[share[k]["position"]] = share[k]["image"]
    np.testing.assert_array_equal(together, whole[k]["image"])


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_threads_do_not_change_the_batches(config, threads):
  config.augment.crop = "random_resized"
  config.dataset.threads = threads
  batches = loader.train_batches(Photo(), config)
  ahead = loader.prefetch(batches[3:9], config)
  for k, batch in enumerate(ahead, 3):
    np.testing.assert_array_equal(batch["image"], batches[k]["image"])
  assert k == 8


@pytest.mark.parametrize(
  ("batch_size", "processes"), [(1, 1), (6, 1), (23, 1), (40, 1), (6, 2), (8, 4)]
)
def test_evaluation_has_every_example_once_in_equal_batches(config, batch_size, processes):
  seen, shapes = [], set()
  counts = set()
  for p in range(processes):
    batches = loader.eval_batches(
      Colours(), config, batch_size, process_index=p, process_count=processes
    )
    counts.add(len(batches))
    for batch in batches:
      shapes.add(batch["image"].shape)
      mask = batch["mask"]
      assert (batch["index"][~mask] == -1).all()
      assert np.array(shown(batch))[mask].tolist() == batch["index"][mask].tolist()
      assert batch["label"][mask].tolist() == [i % 5 for i in batch["index"][mask]]
      seen += batch["index"][mask].tolist()
  assert sorted(seen) == list(range(N))
  assert shapes == {(batch_size // processes, 8, 8, 3)}
  assert len(counts) == 1


def test_a_file_that_cannot_be_decoded_stops_training_and_evaluation_by_name(config):
  records = Colours(broken=[4])
  with pytest.raises(images.ImageError, match="colour 4"):
    list(loader.prefetch(loader.eval_batches(records, config, 6), config))
  with pytest.raises(images.ImageError, match="colour 4"):
    list(loader.prefetch(loader.train_batches(records, config)[:4], config))


def test_a_file_that_cannot_be_decoded_is_masked_where_the_caller_takes_note(config):
  noted = {}
  batches = loader.eval_batches(
    Colours(broken=[4]), config, 6, on_error=lambda index, error: noted.update({index: str(error)})
  )
  seen = [i for batch in batches for i in batch["index"][batch["mask"]]]
  assert seen == [i for i in range(N) if i != 4]
  assert list(noted) == [4]
  assert "colour 4" in noted[4]


def test_an_image_is_read_whole_once_and_whatever_was_read_before_changes_no_pixel(
  config, monkeypatch
):
  config.augment.crop = "random_resized"
  told = []
  real = images.decode_window

  def noted(data, name, choose, *, sound, **options):
    told.append((name, sound))
    return real(data, name, choose, sound=sound, **options)

  monkeypatch.setattr(images, "decode_window", noted)
  bad, sound = (3, 8), np.zeros(N, bool)
  options = {"on_error": lambda *_: None, "sound": sound}
  monkeypatch.setattr(images, "encode_png", encode_jpeg)
  batches = loader.train_batches(Colours(bad), config, **options)
  first = [batches[k] for k in range(8)]  # two epochs and two examples
  assert np.flatnonzero(~sound).tolist() == list(bad)
  seen = set()
  for name, was_read in told:
    assert was_read == (name in seen)
    if int(name.split()[1]) not in bad:
      seen.add(name)
  told.clear()
  fresh = loader.train_batches(Colours(bad), config, on_error=lambda *_: None)
  for k in (7, 3):  # as after a resume
    again = fresh[k]
    assert all(np.array_equal(again[key], first[k][key]) for key in again)
  assert not any(was_read for _, was_read in told[:6])


def test_evaluation_sees_what_pillow_resizes_and_crops(config, tmp_path):
  config.dataset.crop_fraction = 0.5
  pixels = Photo.pixels
  resized = Image.fromarray(pixels).resize((16, 19), Image.Resampling.BILINEAR)
  left, top = 4, (19 - 8) // 2
  expected = np.asarray(resized, np.int32)[top : top + 8, left : left + 8]
  found = loader.eval_batches(Photo(), config, 1)[0]["image"][0].astype(np.int32)
  assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_has_the_positions_of_its_block(config, count):
  for p in range(count):
    batch = loader.train_batches(Colours(), config, process_index=p, process_count=count)[4]
    assert batch["position"].tolist() == list(range(p * 6 // count, (p + 1) * 6 // count))


def test_repeats_show_each_example_of_a_batch_so_often_with_other_crops(config):
  config.train.batch_size, config.augment.repeats = 12, 3
  once = imgclf.default_config()
  once.update(config.to_dict())
  once.train.batch_size, once.augment.repeats = 4, 1
  for k in (0, 5):
    # A batch of 12 is that of 4 examples, three times over.
    expected = shown(loader.train_batches(Colours(), once)[k])
    assert shown(loader.train_batches(Colours(), config)[k]) == expected * 3
    names = [record.name for record in loader.train_examples(Colours(), config, k)]
    assert names == [f"colour {i}" for i in expected]
  config.augment.crop = "random_resized"
  crops = loader.train_batches(Photo(), config)[0]["image"]
  assert len(np.unique(crops.reshape(12, -1), axis=0)) == 12


@pytest.mark.parametrize(
  ("cores", "size", "given", "threads"),
  [(1, 32, None, 1), (6, 224, None, 6), (64, 224, None, 16), (64, 95, None, 4), (64, 32, 9, 9)],
)
def test_small_images_have_few_threads_unless_more_are_asked_for(
  monkeypatch, config, cores, size, given, threads
):
  monkeypatch.setattr(loader.os, "cpu_count", lambda: cores)
  config.dataset.image_size, config.dataset.threads = size, given
  assert loader.threads(config) == threads


def test_every_thread_has_a_batch_to_make(caplog, config):
  config.dataset.threads, config.dataset.prefetch = 5, 2
  at_once, numbers, ever = threading.Barrier(5, timeout=30), itertools.count(), []

  class Records(Colours):
    def __getitems__(self, indices):
      if next(numbers) < 5:
        ever.append(at_once.wait())
      return super().__getitems__(indices)

  batches = loader.prefetch(loader.eval_batches(Records(), config, 4)[:6], config)
  assert [shown(batch)[0] for batch in batches] == [0, 4, 8, 12, 16, 20]
  assert sorted(ever) == [0, 1, 2, 3, 4]
  # Grain would warn of threads that find nothing to do.
  assert not caplog.records
