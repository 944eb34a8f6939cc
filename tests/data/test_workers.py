import os
import pathlib
import signal
import subprocess
import sys
import time

from fresh import ROOT, fresh_environment
import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf.data import datasets, images, loader, workers
from imgclf.errors import UserError

BATCHES = range(2, 9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """24 noisy JPEGs, of them one that is cut short."""
  path, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
  for number in range(24):
    file = path / "train" / f"class {number % 2}" / f"{number}.jpg"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(file)
    if number == 5:
      file.write_bytes(file.read_bytes()[:2000])
  return path


@pytest.fixture
def config(folder):
  config = imgclf.default_config()
  config.dataset.name = f"folder:{folder}"
  config.dataset.image_size = 16
  config.dataset.prefetch = 2
  config.train.batch_size = 6
  return config


@pytest.fixture
def records(config):
  return datasets.open(config.dataset).records("train")


def assert_ended(pid):
  end = time.monotonic() + 5
  while pathlib.Path(f"/proc/{pid}").exists():
    assert time.monotonic() < end, f"worker {pid} is still there"
    time.sleep(0.02)


def same(batch, other):
  assert list(batch) == list(other)
  for key in batch:
    assert batch[key].dtype == other[key].dtype
    np.testing.assert_array_equal(batch[key], other[key])


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_batches_do_not_depend_on_the_number_of_workers(config, records, count):
  config.dataset.workers = count
  noted, expected_notes = [], []
  expected = loader.train_batches(
    records, config, on_error=lambda *note: expected_notes.append(note)
  )
  found = workers.train_batches(records, config, BATCHES, on_error=lambda *note: noted.append(note))
  numbers = []
  for k, batch in zip(BATCHES, found):
    same(batch, expected[k])
    numbers.append(k)
  assert numbers == list(BATCHES)
  assert next(iter(found), None) is None
  # Threads run ahead of each other, workers are listened to in order.
  order = sorted if count == 0 else list
  assert order((str(e), e.reason, name) for e, name in noted) == order(
    (str(e), e.reason, name) for e, name in expected_notes
  )
  assert noted and all(name.endswith("5.jpg") for _, name in noted)


def test_an_image_that_cannot_be_decoded_stops_the_iteration_by_name(config, records):
  found = workers.TrainBatches(records, config, range(0, 40), workers=1)
  with pytest.raises(images.ImageError, match=r"5\.jpg: cannot be decoded"):
    for _ in found:
      pass
  found.close()


def test_batches_that_are_kept_stay_as_they_are_and_the_workers_end_after_the_last(config, records):
  share = {"process_index": 1, "process_count": 2, "on_error": lambda *_: None}
  found = workers.TrainBatches(records, config, range(20), workers=2, **share)
  pids = [process.pid for process in found._processes]
  kept = list(found)  # more than there is shared memory for
  expected = loader.train_batches(records, config, **share)
  for k, batch in enumerate(kept):
    same(batch, expected[k])
  for pid in pids:
    assert_ended(pid)


def test_a_worker_that_is_killed_is_told_in_one_line(config, records):
  found = workers.TrainBatches(records, config, range(10**6), workers=1, on_error=lambda *_: None)
  next(found)
  process = found._processes[0]
  os.kill(process.pid, signal.SIGKILL)
  with pytest.raises(UserError, match=rf"process id {process.pid} was ended by SIGKILL") as caught:
    list(found)
  assert "\n" not in str(caught.value)
  assert "config.dataset.workers" in str(caught.value)


def test_an_iterator_that_is_dropped_takes_its_workers_with_it(config, records):
  found = workers.TrainBatches(records, config, range(10**6), workers=1, on_error=lambda *_: None)
  next(found)
  pid = found._processes[0].pid
  for number in (signal.SIGINT, signal.SIGTERM):  # of which the process that asks decides
    os.kill(pid, number)
  next(found)
  del found
  assert_ended(pid)


ASK = """
import sys, time
import imgclf
from imgclf.data import datasets, workers
config = imgclf.default_config()
config.dataset.name = sys.argv[1]
config.dataset.image_size, config.train.batch_size = 16, 6
records = datasets.open(config.dataset).records("train")
found = workers.TrainBatches(records, config, range(10**6), workers=2, on_error=lambda *_: None)
next(found)
print(*[process.pid for process in found._processes], flush=True)
time.sleep(60)
"""


def test_the_kill_of_a_process_takes_its_workers_with_it_and_leaves_no_memory(config):
  shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else None
  process = subprocess.Popen(
    [sys.executable, "-c", ASK, config.dataset.name],
    stdout=subprocess.PIPE,
    env=fresh_environment(),
    cwd=ROOT,
  )
  pids = [int(pid) for pid in process.stdout.readline().split()]
  assert len(pids) == 2
  process.kill()
  process.wait()
  process.stdout.close()
  for pid in pids:
    assert_ended(pid)
  if shared is not None:
    assert not [name for name in set(os.listdir("/dev/shm")) - shared if "imgclf" in name]


def test_workers_are_chosen_for_large_images_on_many_cores(config, monkeypatch):
  def chosen(cores, image_size):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    config.dataset.image_size = image_size
    return workers.count(config)

  assert [chosen(cores, 224) for cores in (2, 8, 12, 64)] == [0, 0, 12, 16]
  assert chosen(64, 32) == 0
  config.dataset.workers = 5
  assert chosen(2, 32) == 5


def test_what_one_worker_has_read_the_others_need_not_read_whole(config, records):
  found = workers.TrainBatches(
    records, config, range(10**6), workers=3, on_error=lambda error, name: None
  )
  known = np.frombuffer(found._memory, bool)[-len(records) :]
  bad = [i for i, r in enumerate(records.__getitems__(range(24))) if r.name.endswith("/5.jpg")]
  expected = [i for i in range(24) if i not in bad]
  for _ in range(2 * 24 // 6):  # each example at least once
    next(found)
  assert np.flatnonzero(known).tolist() == expected
  found.close()
