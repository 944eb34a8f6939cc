"""One run folder, one owner: refused, taken over and given back between processes of their own."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

from fresh import fresh_environment
import pytest

from imgclf import lock
from imgclf.errors import UserError
from imgclf.lock import Lock

# Takes the lock, says so, and waits to be killed or for its input to close.
_HOLD = """
import sys
from imgclf.lock import Lock
with Lock(sys.argv[1]):
  print("held", flush=True)
  sys.stdin.read()
"""

_TRY = """
import sys
from imgclf.errors import UserError
from imgclf.lock import Lock
try:
  with Lock(sys.argv[1]) as lock:
    print("taken", lock.notes)
except UserError as error:
  print(error)
"""


@contextlib.contextmanager
def holder(path):
  """Another process that has the lock; killed at the end."""
  process = subprocess.Popen(
    [sys.executable, "-c", _HOLD, str(path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    env=fresh_environment(),
    text=True,
  )
  with process:
    try:
      assert process.stdout.readline() == "held\n"
      yield process
    finally:
      process.kill()


@pytest.fixture
def path(tmp_path):
  return tmp_path / "run" / "lock"


def test_a_second_process_is_refused_and_told_who_trains_there(path, run_python):
  with Lock(path) as held:
    assert held.notes == []
    told = run_python(_TRY, path)
  assert told.startswith(
    f"--workdir={path.parent}: process {os.getpid()} on {socket.gethostname()} (since 2"
  )
  assert told.endswith("wait for it, stop it, or take another --workdir\n")
  assert run_python(_TRY, path) == "taken []\n"


def test_the_owner_can_go_on_after_another_one_was_refused(path):
  with Lock(path) as held:
    with pytest.raises(UserError, match=f"process {os.getpid()} on"), Lock(path):
      pass
    held.check()
    with pytest.raises(UserError, match="is training in it"):
      lock.refuse_if_held(path)


def test_a_process_that_has_the_lock_is_named_before_anything_is_begun(path):
  with holder(path) as other:
    for take in (lambda: lock.refuse_if_held(path), Lock(path).__enter__):
      with pytest.raises(UserError, match=rf"process {other.pid} on .* is training in it"):
        take()
    assert json.loads(path.read_text())["pid"] == other.pid


def test_the_lock_of_a_killed_process_is_taken_over_and_told(path):
  with holder(path) as other:
    other.send_signal(signal.SIGKILL)
    other.wait()
  lock.refuse_if_held(path)
  with Lock(path) as taken:
    (note,) = taken.notes
    assert note.startswith(f"the lock of process {other.pid} on {socket.gethostname()} (since 2")
    assert note.endswith("which is gone, was taken over")
    assert json.loads(path.read_text())["pid"] == os.getpid()
  with Lock(path) as again:
    assert again.notes == []


def test_a_lock_given_back_leaves_an_empty_file_that_nobody_stands_in(path):
  with Lock(path) as held:
    owner = json.loads(path.read_text())
    assert (owner["host"], owner["pid"]) == (socket.gethostname(), os.getpid())
  assert path.read_bytes() == b""
  lock.refuse_if_held(path)
  held.check()


def test_the_lock_is_given_back_however_the_block_ends(path):
  with pytest.raises(RuntimeError), Lock(path):
    raise RuntimeError
  assert path.read_bytes() == b""
  with Lock(path):
    pass


@pytest.mark.parametrize(
  "text", [b"", b"{", b"\xff\xfe", b"[]", b'"pid"', b"7", b"[" * 100_000, b"\x00" * 100]
)
def test_a_lock_file_that_tells_of_nobody_is_taken_without_a_word(path, text):
  path.parent.mkdir()
  path.write_bytes(text)
  with Lock(path) as held:
    assert held.notes == []
    held.check()
  assert path.read_bytes() == b""


def test_the_longer_words_of_an_earlier_owner_leave_no_rest(path):
  path.parent.mkdir()
  path.write_text(json.dumps({"host": "h" * 1000, "pid": 1, "nonce": "x"}) + "\n")
  with Lock(path):
    assert json.loads(path.read_text())["pid"] == os.getpid()


def test_who_finds_another_owner_in_the_file_goes_no_further(path):
  """As on a mount that keeps locks to one machine: both took the lock."""
  stranger = {"host": "node7", "pid": 4711, "nonce": "another", "since": "noon"}
  with Lock(path) as held:
    held.check()
    path.write_text(json.dumps(stranger) + "\n")
    with pytest.raises(
      UserError, match=r"lock: process 4711 on node7 \(since noon\) has taken this run folder over"
    ):
      held.check()
  # It is the other one's to empty.
  assert json.loads(path.read_text()) == stranger


def test_where_there_are_no_locks_it_goes_on_with_a_note(path, monkeypatch):
  def flock(handle, operation):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

  monkeypatch.setattr(fcntl, "flock", flock)
  lock.refuse_if_held(path)  # neither where there is no file
  with Lock(path) as held:
    lock.refuse_if_held(path)  # nor where there is one
    (note,) = held.notes
    assert note.startswith("this file system has no locks (No locks available); see to it yourself")
    with Lock(path) as second:
      # Whether that one is gone can't be known here.
      assert f"process {os.getpid()} on {socket.gethostname()}" in " ".join(second.notes)
      assert "is gone" not in " ".join(second.notes)
      with pytest.raises(UserError, match="has taken this run folder over"):
        held.check()


def test_without_fcntl_it_goes_on_with_a_note(path, monkeypatch):
  monkeypatch.setattr(lock, "fcntl", None)
  with Lock(path) as held:
    assert "has no locks (not known to Python here)" in held.notes[0]


def test_a_full_disk_is_the_users_to_mend_and_leaves_the_lock_free(path, monkeypatch):
  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "pwrite", full)
  with (
    pytest.raises(
      UserError, match=r"lock: can't be written \(No space left on device\); make room"
    ),
    Lock(path),
  ):
    pass
  monkeypatch.undo()
  with Lock(path) as held:
    assert held.notes == []


def test_a_folder_that_can_not_be_made_is_the_users_to_mend(tmp_path):
  (tmp_path / "file").write_text("")
  with (
    pytest.raises(UserError, match=r"file/run/lock: can't be written \(Not a directory\)"),
    Lock(tmp_path / "file" / "run" / "lock"),
  ):
    pass


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_a_lock_leaves_no_descriptor_open(path):
  before = set(os.listdir("/proc/self/fd"))
  with Lock(path):
    with pytest.raises(UserError), Lock(path):
      pass
    with pytest.raises(UserError):
      lock.refuse_if_held(path)
  assert set(os.listdir("/proc/self/fd")) == before
