"""Batches that say whether a process wants to stop before they are worked on, so that all stop at
the same one.
"""

from collections.abc import Iterator
import time

import numpy as np

from imgclf.data import loader
from imgclf.errors import UserError
from imgclf.interrupt import Abandoned, Interrupt


class Stoppable:
  """What stands between a process's batches and its devices.

  Attributes:
    failure: what keeps this process from going on, to be raised once all have stopped.
  """

  def __init__(self, interrupt: Interrupt):
    self._interrupt = interrupt
    self.failure: UserError | None = None

  def batches(
    self, batches: Iterator[loader.Batch], blank: loader.Batch
  ) -> Iterator[tuple[loader.Batch, float]]:
    """Yields each batch with its `stop`, and the seconds waited for it; blank ones for ever once it
    is to end.

    So a signal ends a wait for data at once, an image that can't be decoded ends the run in order,
    and this process still takes its part in the steps that the others have begun.
    """
    while True:
      asked = time.perf_counter()
      stop = 0
      try:
        with self._interrupt.abandonable():
          batch = next(batches, None) if self.failure is None else blank
      except Abandoned:
        batch, stop = blank, 1
      except UserError as error:
        self.failure, batch = error, blank
      stop = int(stop or self.failure is not None)
      if batch is None:
        return
      yield with_stop(batch, stop), time.perf_counter() - asked


def with_stop(batch: loader.Batch, stop: int) -> loader.Batch:
  """The batch with `stop`, [batch] int32, which is the same for each example."""
  rows = len(next(iter(batch.values())))
  return {**batch, "stop": np.full(rows, stop, np.int32)}
