"""What the processes of a job tell each other outside of the steps: a signal, an error, that they
are alive.

A step waits for all of its processes, so one that ended, or that must end, has to be heard of in
another way: by keys in JAX's coordination service, which process 0 holds. Knows no device, and
imports nothing heavy.
"""

from collections.abc import Mapping
import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
from typing import Any

from imgclf.interrupt import EXIT_STOPPED, Interrupt, leave

# A process is taken for dead when nothing was heard of it for so long. JAX itself would end the job
# too, later and with a stack trace that names no host.
SILENCE_SECONDS = 8.0
BEAT_SECONDS = 1.0
# How long process 0, which holds the keys, stays for the others to have heard.
FAREWELL_SECONDS = 10.0

_ALIVE, _LEFT, _SIGNAL = "imgclf/alive/", "imgclf/left/", "imgclf/signal"


class Job:
  """The processes that run one program together. Alone, everything here does nothing."""

  def __init__(self) -> None:
    self._client: Any = None
    self._index, self._count = 0, 1
    self._interrupt: Interrupt | None = None
    self._leaving = False
    # What all have said, by key, and when it was last fetched.
    self._told: dict[str, str] = {}
    self._heard = 0.0
    # By process: its last sign of life, and when it was new.
    self._signs: dict[int, tuple[str, float]] = {}

  @property
  def alone(self) -> bool:
    """Whether there is no other process."""
    return self._client is None

  def join(self, client: Any, index: int, count: int, interrupt: Interrupt) -> None:
    """Begins to speak and to listen, in threads of its own.

    Args:
      client: of JAX's coordination service.
      index: of this process.
      count: of all processes.
      interrupt: takes up a signal that another process got.
    """
    self._client, self._index, self._count, self._interrupt = client, index, count, interrupt
    interrupt.on_signal, interrupt.leave = self._tell_signal, self._leave_with
    self._heard = time.monotonic()
    self._signs = {other: ("", self._heard) for other in range(count) if other != index}
    threading.Thread(target=self._speak, daemon=True, name="job-speak").start()
    threading.Thread(target=self._listen, daemon=True, name="job-listen").start()

  def listen(self) -> None:
    """Waits for as long as it may take to hear that another process is at fault; that ends this
    one.
    """
    time.sleep(SILENCE_SECONDS + 2 * BEAT_SECONDS)

  def leave(self, code: int, line: str) -> None:
    """Says good-bye, and ends this process unless it is alone.

    Args:
      code: the exit code. With 0 this returns, since at Python's own end JAX waits for the others;
        with another one than 0 or 75 the others end as well.
      line: what they print then, without a `process N`.
    """
    if self.alone:
      return
    self._leaving = True
    self._tell_farewell(code, line)
    if code == 0:
      return
    with contextlib.suppress(Exception):
      deadline = time.monotonic() + FAREWELL_SECONDS
      while self._index == 0 and time.monotonic() < deadline:
        left = dict(self._client.key_value_dir_get(_LEFT))
        if len(left) == self._count:
          break
        time.sleep(0.05)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

  def _leave_with(self, code: int, line: str) -> None:
    print(line, file=sys.stderr, flush=True)
    self.leave(code, line)

  def _tell_signal(self, number: int) -> None:
    with contextlib.suppress(Exception):  # another one told it first, or process 0 is gone
      self._client.key_value_set(_SIGNAL, str(number))

  def _speak(self) -> None:
    """Says that this process is alive, and fetches what the others said.

    Hangs where process 0 does.
    """
    me = f"{socket.gethostname()}, pid {os.getpid()}"
    for beat in itertools.count():
      if self._leaving:
        return
      try:
        self._client.key_value_set(f"{_ALIVE}{self._index}", f"{beat} {me}", allow_overwrite=True)
        self._told = dict(self._client.key_value_dir_get("imgclf/"))
      except Exception:
        if not self._leaving:
          self._end(1, f"error: {self._name(0)} is gone; see what it printed last")
        return
      self._heard = time.monotonic()
      time.sleep(BEAT_SECONDS)

  def _listen(self) -> None:
    """Acts on what the others said, and on what they no longer say."""
    while not self._leaving:
      now = time.monotonic()
      if now - self._heard > SILENCE_SECONDS:
        self._end_without(0)
      self._hear(self._told, now)
      time.sleep(BEAT_SECONDS / 4)

  def _hear(self, told: Mapping[str, str], now: float) -> None:
    assert self._interrupt is not None
    if _SIGNAL in told and self._interrupt.signal_name is None:
      self._interrupt.forward(int(told[_SIGNAL]))
    for other, (sign, since) in self._signs.items():
      left = told.get(f"{_LEFT}{other}")
      new = told.get(f"{_ALIVE}{other}", "")
      if left is not None:
        farewell = json.loads(left)
        # After an orderly stop all have passed the last thing that they do together.
        late = farewell["code"] == EXIT_STOPPED and now - since < SILENCE_SECONDS
        if farewell["code"] != 0 and not late:
          self._end(farewell["code"], f"process {other}: {farewell['line']}")
      elif new != sign:
        self._signs[other] = (new, now)
      elif now - since > SILENCE_SECONDS:
        self._end_without(other)

  def _name(self, other: int) -> str:
    where = self._signs.get(other, ("", 0.0))[0].partition(" ")[2]
    return f"process {other} ({where or 'never heard of'})"

  def _end_without(self, other: int) -> None:
    assert self._interrupt is not None
    self._end(
      EXIT_STOPPED if self._interrupt.signal_name is not None else 1,
      f"error: {self._name(other)} is dead or frozen: nothing was heard of it for "
      f"{SILENCE_SECONDS:.0f} s; the same command goes on from the last checkpoint",
    )

  def _end(self, code: int, line: str) -> None:
    """Ends this process from one of the threads, and lets the others know why, if they can be
    told.
    """
    self._leaving = True
    telling = threading.Thread(target=self._tell_farewell, args=(code, line), daemon=True)
    with contextlib.suppress(RuntimeError):  # Python leaves already, and lets no thread start
      telling.start()
      telling.join(BEAT_SECONDS)
    if self._index == 0:
      time.sleep(2 * BEAT_SECONDS)
    leave(code, line)

  def _tell_farewell(self, code: int, line: str) -> None:
    with contextlib.suppress(Exception):
      told = json.dumps({"code": code, "line": line})
      self._client.key_value_set(f"{_LEFT}{self._index}", told, allow_overwrite=True)
