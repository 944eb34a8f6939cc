"""What the processes of a job tell each other outside of the steps: a signal, an error, that they are alive.

A step waits for all of its processes, so one that ended, or that must end, has to be heard of in another way:
by keys in JAX's coordination service, which process 0 holds. Knows no device, and imports nothing heavy.
"""

from collections.abc import Mapping
import contextlib
import json
import os
import socket
import sys
import threading
import time
from typing import Any

from imgclf.interrupt import EXIT_STOPPED, Interrupt, leave

# A process is taken for dead when nothing was heard of it for so long; JAX itself ends a job after 12 s, with
# a stack trace that names no host.
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
    # By process: its last sign of life, and when it was new.
    self._signs: dict[int, tuple[str, float]] = {}

  @property
  def alone(self) -> bool:
    """Whether there is no other process."""
    return self._client is None

  def join(self, client: Any, index: int, count: int, interrupt: Interrupt) -> None:
    """Begins to speak and to listen, in a thread of its own.

    Args:
      client: of JAX's coordination service.
      index: of this process.
      count: of all processes.
      interrupt: takes up a signal that another process got.
    """
    self._client, self._index, self._count, self._interrupt = client, index, count, interrupt
    interrupt.on_signal, interrupt.leave = self._tell_signal, self._leave_with
    now = time.monotonic()
    self._signs = {other: ("", now) for other in range(count) if other != index}
    threading.Thread(target=self._watch, daemon=True, name="job").start()

  def leave(self, code: int, line: str) -> None:
    """Ends this process, and the job with it, unless all is done or this process is alone.

    Args:
      code: the exit code; with 0 nothing happens here, since JAX's own farewell waits for the others.
      line: what the other processes print, without a `process N`.
    """
    if self.alone or code == 0:
      return
    self._leaving = True
    with contextlib.suppress(Exception):
      told = json.dumps({"code": code, "line": line})
      self._client.key_value_set(f"{_LEFT}{self._index}", told, allow_overwrite=True)
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

  def _watch(self) -> None:
    me = f"{socket.gethostname()}, pid {os.getpid()}"
    beats = 0
    while not self._leaving:
      beats += 1
      try:
        self._client.key_value_set(f"{_ALIVE}{self._index}", f"{beats} {me}", allow_overwrite=True)
        told = dict(self._client.key_value_dir_get("imgclf/"))
      except Exception:
        if not self._leaving and self._index:
          where = self._signs[0][0].partition(" ")[2]
          self._end(1, f"error: process 0 ({where}) is gone; see what it printed last")
        return
      self._hear(told, time.monotonic())
      time.sleep(BEAT_SECONDS)

  def _hear(self, told: Mapping[str, str], now: float) -> None:
    assert self._interrupt is not None
    if _SIGNAL in told and self._interrupt.signal_name is None:
      self._interrupt.forward(int(told[_SIGNAL]))
    for other, (sign, since) in self._signs.items():
      left = told.get(f"{_LEFT}{other}")
      if left is not None:
        self._signs[other] = (sign, now)
        farewell = json.loads(left)
        if farewell["code"] != EXIT_STOPPED:
          self._end(farewell["code"], f"process {other}: {farewell['line']}")
        continue
      new = told.get(f"{_ALIVE}{other}", "")
      if new != sign:
        self._signs[other] = (new, now)
      elif now - since > SILENCE_SECONDS:
        where = sign.partition(" ")[2] or "never heard of"
        stopped = self._interrupt.signal_name is not None
        self._end(
          EXIT_STOPPED if stopped else 1,
          f"error: process {other} ({where}) is dead or hangs: nothing was heard of it for "
          f"{SILENCE_SECONDS:.0f} s; the same command goes on from the last checkpoint",
        )

  def _end(self, code: int, line: str) -> None:
    """Ends this process from the listening thread, and lets the others know why."""
    self._leaving = True
    with contextlib.suppress(Exception):
      told = json.dumps({"code": code, "line": line})
      self._client.key_value_set(f"{_LEFT}{self._index}", told, allow_overwrite=True)
      if self._index == 0:
        time.sleep(2 * BEAT_SECONDS)
    leave(code, line)
