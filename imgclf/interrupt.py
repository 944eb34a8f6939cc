"""Ctrl-C and SIGTERM as a flag that the training loop looks at between two steps."""

import signal
from types import FrameType
from typing import Any


class Interrupt:
  """While entered, the first SIGINT or SIGTERM sets `signal_name`; a second one acts as it always does.

  Signals reach the main thread of Python alone: in any other thread, entering changes nothing.
  """

  def __init__(self) -> None:
    self.signal_name: str | None = None
    self._previous: dict[int, Any] = {}

  def __enter__(self) -> "Interrupt":
    try:
      for number in (signal.SIGINT, signal.SIGTERM):
        # None: a handler from outside Python, such as jax.distributed's, which swallows SIGTERM.
        self._previous[number] = signal.signal(number, self._note) or signal.SIG_DFL
    except ValueError:  # not the main thread: a notebook's or a test's worker
      pass
    return self

  def _note(self, number: int, frame: FrameType | None) -> None:
    self.signal_name = signal.Signals(number).name
    self._restore()

  def _restore(self) -> None:
    for number, previous in self._previous.items():
      signal.signal(number, previous)
    self._previous = {}

  def __exit__(self, *exception: object) -> None:
    self._restore()
