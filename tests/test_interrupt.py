"""Signals in every state of a process: what ends at once, what is only noted, what is cut short."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from fresh import fresh_environment
import pytest

from imgclf import interrupt as interrupts
from imgclf.errors import Stopped
from imgclf.interrupt import Abandoned, Interrupt

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def until(condition, seconds=30):
  """Waits, as the thread that watches for signals has a moment of its own."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.005)


@pytest.mark.parametrize("number", NUMBERS)
def test_while_there_is_nothing_to_save_a_signal_stops_at_once(number):
  with Interrupt() as interrupt:
    with pytest.raises(Stopped, match="nothing was to be saved; the same command starts again"):
      signal.raise_signal(number)
    assert interrupt.signal_name == signal.Signals(number).name


@pytest.mark.parametrize("number", NUMBERS)
def test_once_there_is_something_to_save_a_signal_is_only_noted(number):
  with Interrupt() as interrupt:
    interrupt.busy()
    assert interrupt.signal_name is None
    signal.raise_signal(number)
    assert interrupt.signal_name == signal.Signals(number).name


def test_a_wait_that_may_be_cut_short_is_cut_at_once():
  with Interrupt() as interrupt:
    interrupt.busy()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    never = threading.Event()
    with pytest.raises(Abandoned), interrupt.abandonable():
      never.wait()
    timer.join()
    assert interrupt.signal_name == "SIGTERM"


def test_a_wait_that_begins_after_the_signal_is_cut_before_it_begins():
  with Interrupt() as interrupt:
    interrupt.busy()
    signal.raise_signal(signal.SIGINT)
    for _ in range(2):  # and so is every later one
      with pytest.raises(Abandoned), interrupt.abandonable():
        pytest.fail("begun")


def test_a_wait_that_ends_by_itself_may_not_be_cut_afterwards():
  with Interrupt() as interrupt:
    interrupt.busy()
    with interrupt.abandonable():
      pass
    with pytest.raises(KeyError), interrupt.abandonable():
      raise KeyError
    signal.raise_signal(signal.SIGTERM)
    assert interrupt.signal_name == "SIGTERM"


def test_handlers_and_the_descriptor_that_wakes_are_put_back():
  mine = {number: lambda *_: None for number in NUMBERS}
  before = {number: signal.signal(number, mine[number]) for number in NUMBERS}
  outlet, inlet = socket.socketpair()
  inlet.setblocking(False)
  descriptor = signal.set_wakeup_fd(inlet.fileno())
  try:
    with Interrupt():
      assert all(signal.getsignal(number) is not mine[number] for number in NUMBERS)
    assert all(signal.getsignal(number) is mine[number] for number in NUMBERS)
    with pytest.raises(RuntimeError), Interrupt():
      raise RuntimeError
    assert all(signal.getsignal(number) is mine[number] for number in NUMBERS)
    assert signal.set_wakeup_fd(-1) == inlet.fileno()
  finally:
    signal.set_wakeup_fd(descriptor)
    for number in NUMBERS:
      signal.signal(number, before[number])
    inlet.close()
    outlet.close()


def test_of_two_one_within_the_other_the_inner_one_has_the_signal_and_then_the_outer_one():
  with Interrupt() as outer:
    outer.busy()
    with Interrupt() as inner:
      inner.busy()
      signal.raise_signal(signal.SIGTERM)
      assert (inner.signal_name, outer.signal_name) == ("SIGTERM", None)
    told = []
    outer.on_signal = told.append
    signal.raise_signal(signal.SIGINT)
    assert (inner.signal_name, outer.signal_name) == ("SIGTERM", "SIGINT")
    until(lambda: told == [signal.SIGINT])  # its thread listens again, too


def test_in_another_thread_entering_changes_nothing():
  before = {number: signal.getsignal(number) for number in NUMBERS}
  seen = []

  def other():
    with Interrupt() as interrupt:
      seen.append({number: signal.getsignal(number) for number in NUMBERS})
      interrupt.busy()
      interrupt.forward(signal.SIGTERM)  # would end this process
      with interrupt.abandonable():
        seen.append(interrupt.signal_name)

  thread = threading.Thread(target=other)
  thread.start()
  thread.join()
  assert seen == [before, None]


def test_the_first_signal_is_told_once_and_in_a_thread_of_its_own():
  told = []
  with Interrupt() as interrupt:
    interrupt.busy()
    interrupt.on_signal = lambda number: told.append((number, threading.current_thread().name))
    signal.raise_signal(signal.SIGTERM)
    until(lambda: told)
  assert told == [(signal.SIGTERM, "signals")]


def test_other_signals_are_none_of_its_business():
  got = []
  before = signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
  try:
    with Interrupt() as interrupt:
      signal.raise_signal(signal.SIGUSR1)
      assert interrupt.signal_name is None
  finally:
    signal.signal(signal.SIGUSR1, before)
  assert got == [1]


_WAIT = """
import signal, sys, threading, time
from imgclf.interrupt import Interrupt
with Interrupt() as interrupt:
  interrupt.busy()
  print("ready", flush=True)
  {body}
"""


def started(body, **environment):
  """A process that has begun to look after signals."""
  process = subprocess.Popen(
    [sys.executable, "-c", body],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    env=fresh_environment(**environment),
    text=True,
  )
  assert process.stdout.readline() == "ready\n", process.stderr.read()
  return process


@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("second", NUMBERS)
def test_a_second_signal_ends_the_process_at_once_with_its_own_code(first, second):
  body = """
  while interrupt.signal_name is None: time.sleep(0.005)
  print("noted", flush=True)
  threading.Event().wait(60)
"""
  process = started(_WAIT.format(body=body.strip()))
  process.send_signal(first)
  assert process.stdout.readline() == "noted\n"
  process.send_signal(second)
  _, err = process.communicate(timeout=30)
  assert process.returncode == 128 + second
  assert err == f"stopped: a second {second.name}; nothing was saved since the first\n"


def test_a_signal_from_another_process_does_not_count_as_the_first_of_two():
  """Else the scheduler's own, which reaches all processes, would be the second and lose the
  save."""
  body = """
  told = []
  interrupt.on_signal = told.append
  interrupt.forward(signal.SIGTERM)
  while interrupt.signal_name is None: time.sleep(0.005)
  time.sleep(0.1)
  print("forwarded", told, flush=True)
  while not told: time.sleep(0.005)
  print("first", told, flush=True)
  threading.Event().wait(60)
"""
  process = started(_WAIT.format(body=body.strip()))
  assert process.stdout.readline() == "forwarded []\n"  # nor is it told on
  process.terminate()
  assert process.stdout.readline() == f"first [{int(signal.SIGTERM)}]\n"
  process.terminate()
  assert process.wait(30) == 128 + signal.SIGTERM
  process.communicate()


# One call of many minutes into C, which Python's own handlers wait for, as a compilation is.
_DEEP = """
import hashlib, sys
from imgclf import interrupt as module
module.LEAVE_SECONDS = 0.2
with module.Interrupt() as interrupt:
  print("ready", flush=True)
  sys.stdout.write("buffered")
  hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
"""


@pytest.mark.parametrize("number", NUMBERS)
def test_a_process_deep_in_a_call_is_ended_where_python_does_not_get_to_it(number):
  process = started(_DEEP, PYTHONUNBUFFERED="")
  time.sleep(0.1)  # to be in the call, or a moment before it
  process.send_signal(number)
  out, err = process.communicate(timeout=30)
  assert process.returncode == 75
  assert err == "stopped: nothing was to be saved; the same command starts again\n"
  assert out == "buffered"  # what was said before is not lost


def test_a_process_that_turns_busy_before_the_time_is_up_is_not_ended():
  body = """
import hashlib, sys, time
from imgclf import interrupt as module
module.LEAVE_SECONDS = 0.3
ended = []
with module.Interrupt() as interrupt:
  interrupt.leave = lambda code, line: ended.append(code)
  try:
    print("ready", flush=True)
    time.sleep(60)
  except module.Stopped:
    interrupt.busy()
  time.sleep(0.6)
print(ended)
"""
  process = started(body)
  process.terminate()
  out, err = process.communicate(timeout=30)
  assert (process.returncode, out, err) == (0, "[]\n", "")


def test_where_python_lets_no_thread_start_any_more_the_process_is_ended_as_well(monkeypatch):
  """As while it leaves, from Python 3.12 on."""

  def refused(thread):
    raise RuntimeError("can't start new thread at interpreter shutdown")

  left = []
  monkeypatch.setattr(interrupts, "LEAVE_SECONDS", 0.05)
  with Interrupt() as interrupt:
    interrupt.leave = lambda code, line: left.append(code)
    with monkeypatch.context() as patch:
      patch.setattr(threading.Thread, "start", refused)
      with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGINT)
      until(lambda: left)
  assert left == [75]


def test_a_program_that_was_stopped_ends_without_waiting_for_the_time_to_be_up():
  body = """
import time
from imgclf import interrupt as module
module.LEAVE_SECONDS = 60
try:
  with module.Interrupt():
    print("ready", flush=True)
    time.sleep(60)
except module.Stopped:
  print("stopped")
"""
  process = started(body)
  process.terminate()
  out, err = process.communicate(timeout=30)
  assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_a_stop_that_a_callback_of_the_garbage_collector_swallows_is_raised_anew(capsys):
  """Python drops what is raised there; JAX has such a callback, so it is a matter of time."""
  came = []

  def callback(phase, info):
    if not came:
      came.append(phase)
      signal.raise_signal(signal.SIGTERM)

  hook = sys.unraisablehook

  def wait():
    with Interrupt():
      gc.callbacks.append(callback)  # not before: a collection may come at any time
      gc.collect()
      time.sleep(30)

  try:
    with pytest.raises(Stopped):
      wait()
  finally:
    gc.callbacks.remove(callback)
  assert came == ["start"] and capsys.readouterr().err == ""
  assert sys.unraisablehook == hook
