"""kill -9 at any moment: the same command goes on, and ends in the bits of a run that nothing
happened to."""

import getpass
import pathlib
import random
import shutil
import time

from fresh import assert_same_bits, saved_state
import pytest
from runs import Run, processes_of_session

SAVE_EVERY = 5


def assert_ends_like(run, whole):
  """The run ends by itself, with the state, the figures and the records of the whole one."""
  run.start()
  assert run.finish() == [0], run.printed(0, "err")
  assert_same_bits(saved_state(run.workdir), saved_state(whole.workdir))
  assert run.steps() == whole.steps()
  for file in sorted((whole.workdir / "eval").iterdir()):
    assert (run.workdir / "eval" / file.name).read_text() == file.read_text()


def killed(run, delay):
  """Starts the run and kills it after `delay` seconds; returns the steps lost, None if it ended
  before."""
  process = run.start()
  began = time.monotonic()
  while time.monotonic() < began + delay and process.poll() is None:
    time.sleep(0.002)
  ended = process.poll() is not None
  run.kill()
  assert not ended or process.returncode == 0, run.printed(0, "err")
  done = max(run.steps(), default=0)
  saved = [int(p.name) for p in (run.workdir / "checkpoints").glob("*") if p.name.isdecimal()]
  return None if ended else done - max(saved, default=0)


@pytest.mark.parametrize(
  ("kills", "steps"), [(3, 40), pytest.param(50, 400, marks=pytest.mark.faults)]
)
def test_a_run_that_is_killed_at_random_moments_ends_like_one_that_is_not(
  tmp_path, digits_dir, whole, kills, steps, capsys
):
  if steps != 40:
    whole = Run(tmp_path / "whole", digits_dir, steps=steps)
    whole.start()
    assert whole.finish() == [0]
  run = Run(tmp_path / "killed", digits_dir, steps=steps)
  start = time.monotonic()
  run.start()
  run.wait_for(lambda: run.steps())
  run.kill()
  to_first_step = time.monotonic() - start
  draw, lost = random.Random(0), []
  for _ in range(4 * kills):
    # From the start-up to well beyond the first save of this start.
    one = killed(run, draw.uniform(0.3, 1.3) * to_first_step)
    if one is None:  # the machine was faster than before: once more from the beginning
      shutil.rmtree(run.workdir)
      continue
    lost.append(one)
    if len(lost) == kills:
      break
  assert len(lost) == kills, f"killed {len(lost)} times, and then it always ended first"
  # A step that is logged while the save before it is under way may be lost with that save.
  assert max(lost) <= 2 * SAVE_EVERY
  with capsys.disabled():
    print(
      f"\n{len(lost)} kills, steps lost at each: at most {max(lost)}, mean {sum(lost) / len(lost):.1f}"
    )
  assert_ends_like(run, whole)


@pytest.mark.parametrize(
  "operations",
  [[5, 100], pytest.param(list(range(1, 360, 18)), marks=pytest.mark.faults)],
  ids=["quick", "all"],
)
def test_a_kill_at_any_change_of_the_disk_loses_nothing_that_was_saved(
  tmp_path, digits_dir, whole, failing_disk, operations, capsys
):
  """Between a write and its rename, between the rename and what is deleted after it, and so on."""
  run, killed = Run(tmp_path / "run", digits_dir), []
  for number in operations:
    before = newest(run.workdir)
    run.start(
      LD_PRELOAD=str(failing_disk),
      FAULT_FOLDER=str(run.workdir),
      FAULT_AT=str(number),
      FAULT_MODE="kill",
    )
    (code,) = run.finish()
    assert code in (-9, 0), run.printed(0, "err")
    assert newest(run.workdir) >= before
    if code == 0:
      break
    killed.append(number)
  assert killed
  with capsys.disabled():
    print(f"\nkilled at {len(killed)} changes of the disk, one by one")
  assert_ends_like(run, whole)


def newest(workdir):
  return max(
    (int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdecimal()), default=0
  )


@pytest.mark.parametrize(
  ("end", "workers"),
  [
    ("kill", 2),
    *(
      pytest.param(*case, marks=pytest.mark.faults)
      for case in (("kill", 0), ("terminate", 0), ("terminate", 2))
    ),
  ],
)
def test_nothing_of_a_run_that_is_ended_is_left_behind(tmp_path, digits_dir, end, workers):
  more = ["--config.dataset.threads=4", f"--config.dataset.workers={workers}"]
  run = Run(tmp_path / "run", digits_dir, steps=100000, more=more)
  memory = shared_memory()
  process = run.start()
  run.wait_for(lambda: len(run.steps()) > 3)
  assert len(processes_of_session(process.pid)) == 1 + workers
  getattr(process, end)()
  process.wait(30)
  time.sleep(5)
  assert processes_of_session(process.pid) == []
  assert shared_memory() <= memory


def shared_memory():
  """What lies in the machine's shared memory, by this user."""
  return {p.name for p in pathlib.Path("/dev/shm").glob("*") if p.owner() == getpass.getuser()}


@pytest.mark.faults
def test_a_run_with_workers_ends_in_the_bits_of_one_with_threads(tmp_path, digits_dir, whole):
  run = Run(tmp_path / "run", digits_dir, more=["--config.dataset.workers=3"])
  run.start()
  run.wait_for(lambda: len(run.steps()) > 11)
  run.kill()
  assert_ends_like(run, whole)
