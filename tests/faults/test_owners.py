"""One run folder, one owner: a second start is refused by name, a lock that a killed process left
is taken over."""

import time

import pytest
from runs import Run


@pytest.mark.parametrize("starts", [2, pytest.param(20, marks=pytest.mark.faults)])
def test_a_second_start_in_the_same_folder_is_refused_at_once_by_name(
  tmp_path, digits_dir, starts, capsys
):
  first = Run(tmp_path / "run", digits_dir, steps=100000)
  owner = first.start()
  first.wait_for(lambda: first.steps())
  second = Run(tmp_path / "run", digits_dir, steps=100000)
  second.output = lambda number=0, kind="out": tmp_path / f"second.{kind}"
  slowest = 0.0
  for _ in range(starts):
    began = time.monotonic()
    second.start()
    assert second.finish() == [2]
    slowest = max(slowest, time.monotonic() - began)
    told = second.printed(0, "err")
    assert f"process {owner.pid} on " in told and "is training in it" in told
    assert told.count("\n") == 1
    assert slowest < 5
  # The owner never noticed.
  before = len(first.steps())
  first.wait_for(lambda: len(first.steps()) > before + 2)
  first.kill()
  with capsys.disabled():
    print(f"\n{starts} of {starts} second starts refused, the slowest after {slowest:.1f} s")


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.faults)])
def test_the_lock_of_a_killed_run_is_taken_over(tmp_path, digits_dir, kills):
  run = Run(tmp_path / "run", digits_dir, steps=100000)
  dead = run.start().pid
  run.wait_for(lambda: run.steps())
  run.kill()
  for _ in range(kills):
    before = len(run.steps())
    now = run.start().pid
    run.wait_for(lambda owner=dead: f"the lock of process {owner} on " in run.printed())
    run.wait_for(lambda before=before: run.steps() and len(run.steps()) != before)
    run.kill()
    dead = now
