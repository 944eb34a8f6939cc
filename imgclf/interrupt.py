"""Ctrl-C and SIGTERM, so that a run stops in order: at once where there is nothing to save, else
after saving.

Knows nothing of steps, devices or other processes.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Any, NoReturn

from imgclf.errors import Stopped

# How long Python may take to leave by itself, its files closed, before the process is ended: it may
# be deep in a compilation, which no signal reaches.
LEAVE_SECONDS = 5.0
EXIT_STOPPED = 75


class Abandoned(BaseException):
  """A signal cut short what may be cut short; see `Interrupt.abandonable`.

  No Exception, as `Stopped` is none.
  """


class Interrupt:
  """While entered, SIGINT and SIGTERM are taken note of; the second one ends the process at once.

  At first the process is `idle`: nothing is lost if it ends, so the first signal raises `Stopped`,
  and ends the process itself where Python does not get to it. Once `busy` was called the signal
  sets `signal_name`, which the training loop looks at.

  Signals reach the main thread of Python alone: in any other thread, entering changes nothing.

  Attributes:
    signal_name: of the first signal; None as long as there was none.
    on_signal: called with the number of the first signal, in a thread of its own and even while the
      main one is in a compilation.
    leave: ends the process with this code and last line, where Python does not get to it.
  """

  def __init__(self) -> None:
    """Changes nothing yet."""
    self.signal_name: str | None = None
    self.on_signal: Callable[[int], None] | None = None
    self.leave: Callable[[int, str], None] = leave
    self._idle = True
    self._abandonable = False
    self._previous: dict[int, Any] = {}
    self._previous_hook: Callable[[Any], object] = sys.unraisablehook
    self._previous_descriptor = -1
    self._seen = 0
    self._inlet: socket.socket | None = None

  def __enter__(self) -> "Interrupt":
    if threading.current_thread() is not threading.main_thread():
      return self
    outlet, self._inlet = socket.socketpair()
    self._inlet.setblocking(False)
    # The number of a signal is written here at once, whatever the main thread is in.
    self._previous_descriptor = signal.set_wakeup_fd(
      self._inlet.fileno(), warn_on_full_buffer=False
    )
    for number in (signal.SIGINT, signal.SIGTERM):
      # None: a handler from outside Python, such as jax.distributed's.
      self._previous[number] = signal.signal(number, self._in_main_thread) or signal.SIG_DFL
    self._previous_hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
    threading.Thread(target=self._watch, args=(outlet,), daemon=True, name="signals").start()
    return self

  def __exit__(self, *exception: object) -> None:
    if self._inlet is None:
      return
    for number, previous in self._previous.items():
      signal.signal(number, previous)
    signal.set_wakeup_fd(self._previous_descriptor, warn_on_full_buffer=False)
    if (
      sys.unraisablehook == self._swallowed
    ):  # else another one was put on top, and passes on what is not its own
      sys.unraisablehook = self._previous_hook
    self._inlet.close()  # ends the thread
    self._inlet = None

  def busy(self) -> None:
    """From here on there is something to save: signals no longer end the process by themselves."""
    self._idle = False

  @contextlib.contextmanager
  def abandonable(self) -> Iterator[None]:
    """Within it the first signal raises `Abandoned`, at once or on entering: what is waited for may
    be let go.

    What is begun here must bear being cut anywhere in Python, and never be used again afterwards.
    """
    self._abandonable = True
    try:
      if self.signal_name is not None:
        raise Abandoned
      yield
    finally:
      self._abandonable = False

  def forward(self, number: int) -> None:
    """Acts as if a signal had come, from any thread; it does not count as the first of two."""
    if self._inlet is not None:
      self._seen -= 1
      os.kill(os.getpid(), number)

  def _in_main_thread(self, number: int, frame: FrameType | None) -> None:
    """Python's handler: runs in the main thread, between two of its instructions."""
    self._note(number)
    if self._idle:
      raise Stopped("nothing was to be saved; the same command starts again")
    if self._abandonable:
      raise Abandoned

  def _swallowed(self, unraisable: Any) -> None:
    """Raises anew what came up in a callback of the garbage collector or the like, where Python
    drops it.
    """
    if isinstance(unraisable.exc_value, Stopped | Abandoned) and self.signal_name is not None:
      # From another thread, and later: here it would be raised within the callback once more.
      again = threading.Timer(0.05, self.forward, [signal.Signals[self.signal_name]])
      again.daemon = True
      with contextlib.suppress(RuntimeError):  # Python leaves already, and lets no thread start
        again.start()
    else:
      self._previous_hook(unraisable)

  def _note(self, number: int) -> None:
    if self.signal_name is None:
      self.signal_name = signal.Signals(number).name

  def _watch(self, outlet: socket.socket) -> None:
    """Sees the signals that the main thread is too busy to see."""
    with outlet:
      while True:
        try:
          numbers = outlet.recv(16)
        except TimeoutError:
          outlet.settimeout(None)
          self._end_if_idle()
          continue
        if not numbers:
          return
        for number in numbers:
          if number not in (signal.SIGINT, signal.SIGTERM):
            continue
          self._seen += 1
          self._note(number)
          if self._seen > 1:
            name = signal.Signals(number).name
            leave(128 + number, f"stopped: a second {name}; nothing was saved since the first")
          if self._seen == 1 and self.on_signal is not None:
            self.on_signal(number)
          if self._idle:
            # By this thread: Python, which may be leaving by now, lets no new one start then.
            outlet.settimeout(LEAVE_SECONDS)

  def _end_if_idle(self) -> None:
    if self._idle and self._inlet is not None:
      self.leave(EXIT_STOPPED, "stopped: nothing was to be saved; the same command starts again")


def leave(code: int, line: str) -> NoReturn:
  """Ends the process from any thread, whatever the others do; what Python has buffered is written
  out.
  """
  if sys.stderr.isatty():
    line = f"\x1b[?25h\r{line}"  # the cursor, which a progress bar hides
  with contextlib.suppress(Exception):
    print(line, file=sys.stderr, flush=True)
  with contextlib.suppress(Exception):
    sys.stdout.flush()
  os._exit(code)
