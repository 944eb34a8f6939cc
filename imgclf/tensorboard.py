"""TensorBoard's files: scalars by step, written without a thread, so that a full disk is told where
it is met.

Knows no figure by name.
"""

import os
import pathlib
import time

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2
from tensorboardX.summary import scalar

FLUSH_SECONDS = 10


class EventFile:
  """One event file of a run; each start of a run begins another."""

  def __init__(self, folder: str | os.PathLike[str], first_step: int):
    """Makes the folder and the file.

    Args:
      folder: of the run's event files.
      first_step: what earlier files have from this step on is hidden, as of a run that was killed.

    Raises:
      OSError: if they can't be written, here or below.
    """
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    # The library's names have seconds, and a second file of the same name erases the first.
    self._writer = EventsWriter(str(pathlib.Path(folder) / "events"), f".{time.time_ns()}")
    self._flushed = time.monotonic()
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._write(event_pb2.Event(step=first_step, session_log=start))

  def add(self, name: str, value: float, step: int) -> None:
    """Adds a figure; it is on the disk some ten seconds later."""
    self._write(event_pb2.Event(step=step, summary=scalar(name, value)))
    if time.monotonic() > self._flushed + FLUSH_SECONDS:
      self._writer.flush()
      self._flushed = time.monotonic()

  def close(self) -> None:
    """Writes out what is left."""
    self._writer.close()

  def _write(self, event: event_pb2.Event) -> None:
    event.wall_time = time.time()
    self._writer.write_event(event)
