"""Training batches made by worker processes: in order, in memory that both sides share, without
copies.

Threads of one process share the interpreter's lock, which each image needs for some of its time.
Worker w of W makes the batches k with k % W == w, whole ones, so that pixels depend on no number of
workers. Knows no device; what a batch is, imgclf/data/loader.py knows.
"""

import collections
from collections.abc import Callable, Iterator, Mapping
import dataclasses
import math
import mmap
from multiprocessing import connection as connections
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any
import weakref

import numpy as np

from imgclf.data import images, loader
from imgclf.errors import UserError

# Fewer cores are kept busy by threads.
_CORES = 8

# The process that started them decides about signals: Ctrl-C reaches all of a terminal's processes.
# A worker needs no jax, which Grain would import where it can: without, it starts in 0.5 s of CPU
# time, not 1.2, and takes 69 MB, not 202.
_PROGRAM = """\
import logging, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.modules["jax"] = None
logging.disable(logging.WARNING)  # Grain tells that there is no jax
from imgclf.data import workers
workers.serve(int(sys.argv[1]), int(sys.argv[2]))
"""

# Batches that a training loop holds at a time: in use, about to be, and one that is being let go.
_HELD = 3


def count(config: Mapping[str, Any]) -> int:
  """Returns how many processes make a run's training batches; 0: threads of this one do."""
  given, cores = config["dataset"]["workers"], os.cpu_count() or 1
  if given is not None:
    return given
  # Small images are too little work to send to another process.
  few = cores <= _CORES or config["dataset"]["image_size"] < loader.SMALL
  return 0 if few else min(16, cores)


def train_batches(
  records: loader.TrainRecords,
  config: Mapping[str, Any],
  numbers: range,
  *,
  process_index: int = 0,
  process_count: int = 1,
  on_error: Callable[[images.ImageError, str], None] | None = None,
) -> Iterator[loader.Batch]:
  """Iterates over training batches, made ahead of need by as many processes or threads as the
  config says.

  Args:
    records: the split.
    config: the run's config.
    numbers: of the batches, one after the other.
    process_index: as for `loader.train_batches`.
    process_count: likewise.
    on_error: likewise; with worker processes it is called in the thread that iterates.
  """
  if workers := count(config):
    return TrainBatches(
      records,
      config,
      numbers,
      workers=workers,
      process_index=process_index,
      process_count=process_count,
      on_error=on_error,
    )
  batches = loader.train_batches(
    records, config, process_index=process_index, process_count=process_count, on_error=on_error
  )
  return loader.prefetch(batches[numbers.start : numbers.stop], config)


@dataclasses.dataclass(frozen=True)
class _Task:
  """What a worker is told at its start.

  Attributes:
    records: the split.
    config: the run's config.
    share: `process_index` and `process_count` of `loader.train_batches`.
    skip: whether images that can't be decoded are handed over, not raised.
    slot: shape of the images of one batch.
    slots: how many of them the shared memory begins with; a byte for each record follows, 1 where
      some worker has found it sound.
  """

  records: Any
  config: Mapping[str, Any]
  share: dict[str, int]
  skip: bool
  slot: tuple[int, ...]
  slots: int


@dataclasses.dataclass(frozen=True)
class _Made:
  """What a worker answers: a batch without its images, which lie in their slot, or why there is
  none.
  """

  rest: loader.Batch
  bad: list[tuple[images.ImageError, str]]
  error: BaseException | None = None


class TrainBatches:
  """Iterates over the training batches of a range of numbers, as `loader.train_batches` makes them.

  Images are views of the shared memory: a batch's part of it is used again once no array refers to
  it. If a caller keeps more batches than a training loop does, it gets copies.
  """

  def __init__(
    self,
    records: loader.TrainRecords,
    config: Mapping[str, Any],
    numbers: range,
    *,
    workers: int,
    process_index: int = 0,
    process_count: int = 1,
    on_error: Callable[[images.ImageError, str], None] | None = None,
  ):
    """Starts the workers, which begin at once.

    Args:
      records: the split; is pickled.
      config: the run's config.
      numbers: of the batches, one after the other.
      workers: how many processes, at least 1.
      process_index: as for `loader.train_batches`.
      process_count: likewise.
      on_error: likewise, but called in the thread that iterates, batch by batch.
    """
    size = config["dataset"]["image_size"]
    share = {"process_index": process_index, "process_count": process_count}
    rows = config["train"]["batch_size"] // process_count
    self._shape, self._bytes = (rows, size, size, 3), rows * size * size * 3
    self._on_error = on_error
    self._next = self._asked = numbers.start
    self._stop = numbers.stop
    self._ahead = workers + config["dataset"]["prefetch"]
    self._free = collections.deque(range(self._ahead + _HELD))
    self._slots: dict[int, int] = {}
    task = _Task(records, config, share, on_error is not None, self._shape, len(self._free))
    with _shared_memory(task.slots * self._bytes + len(records)) as file:
      self._memory = mmap.mmap(file.fileno(), 0)
      self._processes, self._connections = _start(workers, file.fileno())
    self._end = weakref.finalize(self, _end, self._processes, self._connections)
    data = pickle.dumps(task)
    for process, connection in zip(self._processes, self._connections):
      try:
        connection.send_bytes(data)
      except ConnectionError:
        raise _gone(process, self._next) from None

  def __iter__(self) -> "TrainBatches":
    return self

  def __next__(self) -> loader.Batch:
    """Returns the next batch.

    Raises:
      UserError: what making the batch raised, such as an ImageError, or that its worker is gone.
    """
    self._ask()
    if self._next >= self._stop:
      self._end()
      raise StopIteration
    number = self._next % len(self._processes)
    try:
      made: _Made = self._connections[number].recv()
    except (EOFError, ConnectionError):
      raise _gone(self._processes[number], self._next) from None
    slot = self._slots.pop(self._next)
    self._next += 1
    image = np.frombuffer(self._memory, np.uint8, self._bytes, slot * self._bytes)
    # Views of the array keep it alive, as a device array without a copy of its own does on CPUs.
    weakref.finalize(image, self._free.append, slot).atexit = False
    if made.error is not None:
      raise made.error
    for error, name in made.bad:
      self._on_error(error, name)  # type: ignore[misc]
    self._ask()
    if self._asked <= self._next < self._stop:  # all slots are held by the caller
      image = image.copy()
    return {"image": image.reshape(self._shape), **made.rest}

  def _ask(self) -> None:
    """Tells the workers of more batches, as far as there is memory for them."""
    while self._free and self._asked < min(self._next + self._ahead, self._stop):
      number, self._slots[self._asked] = self._asked % len(self._processes), self._free.popleft()
      try:
        self._connections[number].send((self._asked, self._slots[self._asked]))
      except ConnectionError:
        raise _gone(self._processes[number], self._asked) from None
      self._asked += 1

  def process_ids(self) -> list[int]:
    """Returns the operating system's number of each worker."""
    return [process.pid for process in self._processes]

  def close(self) -> None:
    """Ends the workers at once.

    So does the end of the iterator, of the iteration and of the process.
    """
    self._end()


def _shared_memory(size: int) -> Any:
  """A file without a name, which goes with the last process that has it open."""
  if hasattr(os, "memfd_create"):
    file: Any = os.fdopen(os.memfd_create("imgclf-batches"), "r+b")
  else:
    file = tempfile.TemporaryFile()
  file.truncate(size)
  return file


def _start(
  workers: int, memory: int
) -> tuple[list[subprocess.Popen], list[connections.Connection]]:
  environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
  processes, ours = [], []
  for _ in range(workers):
    one, other = connections.Pipe()
    with other:
      files = (other.fileno(), memory)
      processes.append(
        subprocess.Popen(
          [sys.executable, "-c", _PROGRAM, *map(str, files)],
          env=environment,
          pass_fds=files,
          stdin=subprocess.DEVNULL,
        )
      )
    ours.append(one)
  return processes, ours


def _end(processes: list[subprocess.Popen], ours: list[connections.Connection]) -> None:
  for process in processes:
    process.kill()
  for process, one in zip(processes, ours):
    process.wait()
    one.close()


def _gone(process: subprocess.Popen, number: int) -> UserError:
  code = process.wait()
  how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
  return UserError(
    f"the data worker with process id {process.pid} {how} before it had made batch {number}; if memory ran "
    "out, lower config.dataset.workers or config.dataset.prefetch, then start the run again"
  )


def serve(connection: int, memory: int) -> None:
  """Makes the batches that are asked for, until the process that asks is gone: a worker's whole
  life.

  Args:
    connection: descriptor that tasks come from and answers go to.
    memory: descriptor of the memory for images and for what is known of records.
  """
  ours = connections.Connection(connection)
  try:
    task: _Task = ours.recv()
  except (EOFError, ConnectionError):
    return
  shared = np.frombuffer(mmap.mmap(memory, 0), np.uint8)
  slots, sound = np.split(shared, [task.slots * math.prod(task.slot)])
  slots = slots.reshape(task.slots, *task.slot)
  asked: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
  threading.Thread(target=_listen, args=(ours, asked), daemon=True).start()
  bad: list[tuple[images.ImageError, str]] = []
  place = 0
  batches = loader.train_batches(
    task.records,
    task.config,
    **task.share,
    on_error=(lambda error, name: bad.append((error, name))) if task.skip else None,
    allocate=lambda shape, dtype: slots[place],
    sound=sound.view(bool),
  )
  while True:
    number, place = asked.get()
    bad.clear()
    try:
      rest = dict(batches[number])
      del rest["image"]
      made = _Made(rest, list(bad))
    except Exception as error:  # raised anew where the batch is waited for
      made = _Made({}, [], _portable(error))
    try:
      ours.send(made)
    except ConnectionError:
      return


def _listen(ours: connections.Connection, asked: queue.SimpleQueue) -> None:
  """Passes on what is asked for; ends the worker, whatever it is at, once the other side is
  gone.
  """
  try:
    while True:
      asked.put(ours.recv())
  except (EOFError, ConnectionError):
    os._exit(0)


def _portable(error: Exception) -> Exception:
  """Returns the error, or one that tells of it if it can't be sent."""
  try:
    pickle.loads(pickle.dumps(error))
    return error
  except Exception:  # whatever an error's own pickling raises
    return RuntimeError(f"in a data worker: {type(error).__name__}: {error}")
