"""What processes tell each other, with the service's client as a dict: who is silent, who ended and
why."""

import json
import os
import signal
import socket
import threading
import time

import pytest

from imgclf import job as module
from imgclf.interrupt import Interrupt
from imgclf.job import Job

ALIVE, LEFT, SIGNAL = "imgclf/alive/", "imgclf/left/", "imgclf/signal"
# What the module does in seconds takes as many of these here.
TICK = 0.05
SILENCE = 20 * TICK


class Client:
  """The coordination service's keys."""

  def __init__(self):
    self.values = {}
    self.lock = threading.Lock()

  def key_value_set(self, key, value, allow_overwrite=False):
    with self.lock:
      if key in self.values and not allow_overwrite:
        raise RuntimeError(f"ALREADY_EXISTS: {key}")
      self.values[key] = value

  def key_value_dir_get(self, prefix):
    with self.lock:
      return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


class Hung(Client):
  """Calls never return until the test is over, as where process 0 was stopped."""

  def __init__(self):
    super().__init__()
    self.over = threading.Event()

  def key_value_set(self, *_, **__):
    self.over.wait()
    raise RuntimeError("over")

  key_value_dir_get = key_value_set


class Gone(Client):
  """Every call fails, as where process 0 has ended."""

  def key_value_set(self, *_, **__):
    raise RuntimeError("UNAVAILABLE: failed to connect to all addresses")

  key_value_dir_get = key_value_set


class Peer:
  """Another process: sets its sign of life anew in every tick until it is told to stop."""

  def __init__(self, client, index, where="node7, pid 4711"):
    self.client, self.index, self.where = client, index, where
    self.silent = threading.Event()
    self.thread = threading.Thread(target=self._beat, daemon=True)
    self.thread.start()

  def _beat(self):
    beat = 0
    while not self.silent.wait(TICK / 2):
      beat += 1
      self.client.key_value_set(f"{ALIVE}{self.index}", f"{beat} {self.where}", True)

  def fall_silent(self):
    self.silent.set()
    self.thread.join()


@pytest.fixture
def ends(monkeypatch):
  """Quick beats, and the codes and lines with which this process would have ended."""
  told, over = [], threading.Event()

  def leave(code, line):
    if not over.is_set():
      told.append((code, line))
      over.wait()  # the thread goes no further, as if the process had ended

  monkeypatch.setattr(module, "leave", leave)
  monkeypatch.setattr(module, "BEAT_SECONDS", TICK)
  monkeypatch.setattr(module, "SILENCE_SECONDS", SILENCE)
  monkeypatch.setattr(module, "FAREWELL_SECONDS", 20 * TICK)
  yield told
  over.set()
  until(lambda: not [t for t in threading.enumerate() if t.name.startswith("job-")])


@pytest.fixture
def joined(ends):
  """Joins jobs of two or more processes, and ends their threads and peers afterwards."""
  jobs, peers, clients = [], [], []

  def join(client, index=0, count=2, interrupt=None, alive=None):
    clients.append(client)
    others = [other for other in range(count) if other != index] if alive is None else alive
    made = [Peer(client, other, f"node{other}, pid 471{other}") for other in others]
    peers.extend(made)
    job = Job()
    job.join(client, index, count, interrupt or Interrupt())
    jobs.append(job)
    return (job, *made)

  yield join
  for job in jobs:
    job._leaving = True
  for peer in peers:
    peer.fall_silent()
  for client in clients:
    if isinstance(client, Hung):
      client.over.set()


def until(condition, seconds=30):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(TICK / 10)


def test_alone_it_does_nothing(ends, monkeypatch):
  monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("ended"))
  before = threading.active_count()
  job = Job()
  assert job.alone
  for code in (0, 1, 2, 75):
    job.leave(code, "error: x")
  assert threading.active_count() == before
  assert ends == []


def test_a_process_says_that_it_is_alive_and_where(joined):
  client = Client()
  job, _ = joined(client)
  assert not job.alone

  def sign():
    return client.values.get(f"{ALIVE}0", " ").partition(" ")

  until(lambda: sign()[2] == f"{socket.gethostname()}, pid {os.getpid()}")
  first = sign()[0]
  until(lambda: sign()[0] != first)


def test_nobody_ends_while_all_are_heard_of(joined, ends):
  joined(Client(), count=3)
  time.sleep(1.5 * SILENCE)
  assert ends == []


def test_silence_ends_the_process_and_names_who_is_silent(joined, ends):
  client = Client()
  _, _, two = joined(client, count=3)
  until(lambda: len(client.values) == 3)
  time.sleep(4 * TICK)
  assert ends == []
  two.fall_silent()
  until(lambda: ends)
  code, line = ends[0]
  assert code == 1
  assert line.startswith("error: process 2 (node2, pid 4712) is dead or frozen: nothing was heard")
  # And it tells the others why, with a code that ends them.
  told = json.loads(client.values[f"{LEFT}0"])
  assert (told["code"], told["line"]) == (1, line)


def test_silence_from_the_start_is_noticed_too(joined, ends):
  joined(Client(), alive=[])
  until(lambda: ends)
  assert ends[0][0] == 1
  assert ends[0][1].startswith("error: process 1 (never heard of) is dead or frozen")


def test_silence_after_a_signal_ends_with_the_code_of_a_stop(joined, ends):
  interrupt = Interrupt()
  _, peer = joined(Client(), interrupt=interrupt)
  interrupt.signal_name = "SIGTERM"
  peer.fall_silent()
  until(lambda: ends)
  assert ends[0][0] == 75


def test_process_0_that_hangs_is_noticed_though_no_call_returns(joined, ends):
  joined(Hung(), index=1, alive=[])
  until(lambda: ends)
  code, line = ends[0]
  assert code == 1
  assert line.startswith("error: process 0 (never heard of) is dead or frozen")


def test_process_0_that_hangs_later_is_named_by_its_machine(joined, ends, monkeypatch):
  client = Client()
  job, _ = joined(client, index=1)
  until(lambda: job._signs[0][0])
  hung = Hung()
  try:
    job._client = hung
    until(lambda: ends)
  finally:
    hung.over.set()
  assert ends[0][1].startswith("error: process 0 (node0, pid 4710) is dead or frozen")


def test_process_0_that_is_gone_is_named(joined, ends):
  joined(Gone(), index=1, alive=[])
  until(lambda: ends)
  assert ends[0] == (1, "error: process 0 (never heard of) is gone; see what it printed last")


@pytest.mark.parametrize("code", [1, 2, 3])
def test_a_farewell_with_an_error_ends_this_one_with_its_code_and_line(joined, ends, code):
  client = Client()
  joined(client)
  client.key_value_set(f"{LEFT}1", json.dumps({"code": code, "line": "error: cat.jpg: mend it"}))
  until(lambda: ends)
  assert ends[0] == (code, "process 1: error: cat.jpg: mend it")


def test_a_farewell_of_one_that_is_done_ends_nobody_nor_does_the_silence_after_it(joined, ends):
  client = Client()
  _, one, two = joined(client, count=3)
  for peer in (one, two):
    client.key_value_set(f"{LEFT}{peer.index}", json.dumps({"code": 0, "line": ""}))
    peer.fall_silent()
  time.sleep(1.5 * SILENCE)
  assert ends == []


def test_one_that_stopped_leaves_time_to_follow_and_not_for_ever(joined, ends):
  """All have passed what they do together by then, so who is still there waits for nobody."""
  client = Client()
  _, one = joined(client)
  farewell = json.dumps({"code": 75, "line": "stopped: step 3 is saved"})
  client.key_value_set(f"{LEFT}{one.index}", farewell)
  one.fall_silent()
  time.sleep(0.5 * SILENCE)
  assert ends == []
  until(lambda: ends)
  assert ends == [(75, "process 1: stopped: step 3 is saved")]


def test_a_signal_of_one_process_is_told_to_all_and_taken_up_by_the_others_once(joined, ends):
  client = Client()
  with Interrupt() as interrupt:
    interrupt.busy()
    forwarded = []
    forward = interrupt.forward
    interrupt.forward = lambda number: (forwarded.append(number), forward(number))
    joined(client, interrupt=interrupt)
    client.key_value_set(SIGNAL, str(int(signal.SIGTERM)))
    until(lambda: interrupt.signal_name == "SIGTERM")
    time.sleep(6 * TICK)
    assert forwarded == [signal.SIGTERM]
  assert ends == []


def test_a_signal_that_came_here_is_told_and_not_taken_up_again(joined, ends):
  client = Client()
  with Interrupt() as interrupt:
    interrupt.busy()
    interrupt.forward = lambda number: pytest.fail("forwarded")
    joined(client, interrupt=interrupt)
    signal.raise_signal(signal.SIGINT)
    until(lambda: client.values.get(SIGNAL) == str(int(signal.SIGINT)))
    time.sleep(6 * TICK)
  assert ends == []


def test_two_signals_at_a_time_in_two_processes_leave_the_first_and_hurt_nobody(joined, ends):
  client = Client()
  client.values[SIGNAL] = str(int(signal.SIGINT))
  with Interrupt() as interrupt:
    interrupt.busy()
    interrupt.signal_name = "SIGTERM"
    joined(client, interrupt=interrupt)
    interrupt.on_signal(signal.SIGTERM)
    time.sleep(2 * TICK)
  assert client.values[SIGNAL] == str(int(signal.SIGINT))
  assert ends == []


@pytest.mark.parametrize("code", [2, 75])
def test_leaving_is_told_and_ends_the_process_with_its_code(joined, monkeypatch, code):
  client, exits = Client(), []
  monkeypatch.setattr(os, "_exit", exits.append)
  job, _ = joined(client, index=1)
  job.leave(code, "error: a line")
  assert exits == [code]
  assert json.loads(client.values[f"{LEFT}1"]) == {"code": code, "line": "error: a line"}


def test_leaving_at_the_good_end_is_told_and_returns(joined, ends, monkeypatch):
  client = Client()
  monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("ended"))
  job, peer = joined(client)
  job.leave(0, "")
  assert json.loads(client.values[f"{LEFT}0"]) == {"code": 0, "line": ""}
  peer.fall_silent()  # which no longer matters
  time.sleep(1.5 * SILENCE)
  assert ends == []


def test_process_0_stays_until_the_others_have_said_good_bye(joined, monkeypatch):
  monkeypatch.setattr(module, "FAREWELL_SECONDS", 60)
  client, exits = Client(), []
  monkeypatch.setattr(os, "_exit", exits.append)
  job, _ = joined(client)
  thread = threading.Thread(target=job.leave, args=(2, "error: a line"))
  thread.start()
  until(lambda: f"{LEFT}0" in client.values)
  time.sleep(4 * TICK)
  assert exits == []
  client.key_value_set(f"{LEFT}1", json.dumps({"code": 2, "line": "process 0: error: a line"}))
  thread.join(30)
  assert exits == [2]


def test_process_0_does_not_stay_for_ever(joined, monkeypatch):
  exits = []
  monkeypatch.setattr(os, "_exit", exits.append)
  job, _ = joined(Client())
  job.leave(2, "error: a line")
  assert exits == [2]


def test_leaving_ends_the_process_though_nobody_hears_it(joined, ends, monkeypatch):
  exits = []
  monkeypatch.setattr(os, "_exit", exits.append)
  job, *_ = joined(Gone(), alive=[])
  job.leave(3, "diverged: a line")
  assert exits == [3]
