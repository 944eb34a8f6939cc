"""Compiled programs on the disk: found again, never damaged, bounded, and done without where there
is no room."""

import errno
import os

import pytest

from imgclf import compilation
from imgclf.compilation import ProgramStore

# Compiles one program, and tells what came of it and whether it was compiled or found.
PROGRAM = """
import collections
import jax
from imgclf import compilation

events = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **_: events.update([event.rpartition("/")[2]]))
compilation.keep_programs()
result = jax.jit(lambda x: x @ x + 1)(jax.numpy.full((8, 8), 2.0))
print(float(result[0, 0]), events["cache_hits"], events["cache_misses"])
"""


@pytest.fixture
def start(run_python, tmp_path):
  """Runs PROGRAM with a cache folder of its own; returns its result, programs found and programs
  kept."""

  def start(**environment):
    told = run_python(
      PROGRAM,
      XDG_CACHE_HOME=str(tmp_path),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
      **environment,
    )
    result, hits, misses = told.split()
    return float(result), int(hits), int(misses)

  return start


def entries(folder):
  return sorted(folder.iterdir())


def test_the_second_start_finds_every_program_of_the_first_and_a_damaged_one_is_made_again(
  start, tmp_path
):
  # 8 x 2 x 2 + 1.
  result, found, kept = start()
  assert (result, found) == (33.0, 0) and kept >= 1
  folder = tmp_path / "imgclf" / "jax"
  assert folder.stat().st_mode & 0o777 == 0o700
  assert len(entries(folder)) == kept
  assert start() == (33.0, kept, 0)
  whole = {path: path.read_bytes() for path in entries(folder)}
  for path, content in whole.items():
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  assert start() == (33.0, 0, kept)
  assert start() == (33.0, kept, 0)


@pytest.mark.parametrize(
  "variables",
  [{"JAX_COMPILATION_CACHE_DIR": ""}, {"JAX_ENABLE_COMPILATION_CACHE": "0"}],
)
def test_the_cache_can_be_switched_off(start, tmp_path, variables):
  assert start(**variables) == (33.0, 0, 0)
  assert entries(tmp_path) == []


def test_a_folder_that_jax_was_told_is_left_to_jax(start, tmp_path):
  own = tmp_path / "own"
  result, _, kept = start(JAX_COMPILATION_CACHE_DIR=str(own))
  assert result == 33.0 and len(list(own.glob("*-cache"))) == kept >= 1  # the names of JAX's store
  assert entries(tmp_path) == [own]


def test_a_home_that_cannot_be_written_is_told_in_one_line(monkeypatch, tmp_path, caplog):
  (tmp_path / "imgclf").write_text("no folder")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  told_jax = []
  monkeypatch.setattr(compilation.jax, "config", _Config(told_jax))
  compilation.keep_programs()
  (record,) = caplog.records
  assert "compiled programs can't be kept there" in record.message
  assert "set JAX_COMPILATION_CACHE_DIR to another folder" in record.message
  assert "\n" not in record.message and told_jax == []


def test_a_folder_that_others_can_write_to_is_not_used(monkeypatch, tmp_path, caplog):
  folder = tmp_path / "imgclf" / "jax"
  folder.mkdir(parents=True)
  folder.chmod(0o777)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  told_jax = []
  monkeypatch.setattr(compilation.jax, "config", _Config(told_jax))
  compilation.keep_programs()
  assert "others can write to it" in caplog.text and told_jax == []


class _Config:
  """JAX's configuration where nobody set anything."""

  jax_compilation_cache_dir = None
  jax_enable_compilation_cache = True

  def __init__(self, told):
    self._told = told

  def update(self, *setting):
    self._told.append(setting)


@pytest.mark.parametrize(
  ("given", "expected"),
  [("/var/caches", "/var/caches/imgclf/jax"), ("relative", "/home/me/.cache/imgclf/jax")],
)
def test_the_folder_is_where_the_xdg_specification_has_it(monkeypatch, given, expected):
  monkeypatch.setenv("HOME", "/home/me")
  monkeypatch.setenv("XDG_CACHE_HOME", given)
  assert str(compilation.default_folder()) == expected


@pytest.mark.parametrize(
  "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:40] + b"x" + b[41:]]
)
def test_a_damaged_entry_counts_as_none_until_it_is_put_again(tmp_path, caplog, damage):
  store = ProgramStore(tmp_path)
  store.put("step", b"machine code" * 5)
  (path,) = entries(tmp_path)
  path.write_bytes(damage(path.read_bytes()))
  assert store.get("step") is None
  assert f"{path}: is damaged; the program is compiled again" in caplog.text
  store.put("step", b"machine code" * 5)
  assert store.get("step") == b"machine code" * 5
  assert entries(tmp_path) == [path]


def test_what_was_not_used_for_longest_makes_room(tmp_path):
  store = ProgramStore(tmp_path, max_bytes=3 * (100 + 32))  # three entries with their SHA-256
  for age, key in enumerate("abc"):
    store.put(key, key.encode() * 100)
    os.utime(next(tmp_path.glob(f"{key}-*")), (age + 1, age + 1))
  assert store.get("a") == b"a" * 100  # is used now
  store.put("d", b"d" * 100)
  assert [key for key in "abcd" if store.get(key)] == ["a", "c", "d"]
  store.put("larger than all", b"x" * 400)
  assert [key for key in "abcd" if store.get(key)] == ["a", "c", "d"]


def test_what_a_killed_process_left_unfinished_goes_too(tmp_path):
  left = tmp_path / "tmpabc"
  left.write_bytes(b"x" * 200)
  os.utime(left, (1, 1))
  ProgramStore(tmp_path, max_bytes=150).put("step", b"y" * 100)
  assert [path.name.startswith("step-") for path in entries(tmp_path)] == [True]


def test_a_program_for_another_cpu_is_none_of_this_ones(tmp_path, monkeypatch):
  store = ProgramStore(tmp_path)
  store.put("step", b"one")
  with monkeypatch.context() as patch:
    patch.setattr(compilation, "_cpu", lambda: "another")
    assert store.get("step") is None
    store.put("step", b"other")
    assert store.get("step") == b"other"
  assert store.get("step") == b"one"


def test_a_full_disk_is_told_once_and_leaves_nothing_behind(tmp_path, monkeypatch, caplog):
  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(compilation.os, "replace", full)
  store = ProgramStore(tmp_path)
  store.put("one", b"1")
  store.put("two", b"2")
  (record,) = caplog.records
  assert "No space left on device" in record.message
  assert entries(tmp_path) == [] and store.get("one") is None


def test_a_folder_that_is_gone_is_told_and_done_without(tmp_path, caplog):
  store = ProgramStore(tmp_path / "gone")
  store.put("one", b"1")
  assert store.get("one") is None
  assert len(caplog.records) == 1
