"""One of several processes is gone, or has a fault of its own: the others do not wait for it."""

import signal
import time

import pytest
from runs import Run


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.faults)])
@pytest.mark.parametrize("end", ["SIGKILL", pytest.param("SIGSTOP", marks=pytest.mark.faults)])
def test_the_survivor_of_a_dead_process_is_out_within_15_seconds_and_names_it(
  tmp_path, digits_dir, victim, end
):
  run = Run(tmp_path / "run", digits_dir, steps=100000, processes=2)
  run.start()
  run.wait_for(lambda: len(run.steps()) > 3)
  run.processes[victim].send_signal(getattr(signal, end))
  since = time.monotonic()
  survivor = run.processes[1 - victim]
  code = survivor.wait(60)
  took = time.monotonic() - since
  err = run.printed(1 - victim, "err")
  run.kill()
  assert took < 15
  assert code not in (0, 75)
  # JAX itself speaks of a task, and of process 0 as the leader.
  named = f"process {victim} (" in err or f"Task {victim}" in err or "leader task" in err
  assert named, err[-3000:]


def test_an_error_of_one_process_ends_all_with_its_code_and_line(tmp_path, digits_dir):
  """Both find the same data; one of them finds a folder instead of the class names."""
  script = """
import sys
from imgclf import app, loop
from imgclf.errors import UserError
if sys.argv[-1] == "--process_id=1":
  def fail(*_):
    raise UserError("cat.jpg: cannot be decoded; mend it")
  loop.Loop._to_evaluate = fail
app.command()
"""
  run = Run(tmp_path / "run", digits_dir, processes=2)
  run.start(script)
  assert run.finish(60) == [2, 2]
  assert run.printed(1, "err").endswith("error: cat.jpg: cannot be decoded; mend it\n")
  assert "process 1: error: cat.jpg: cannot be decoded; mend it" in run.printed(0, "err")


@pytest.mark.faults
def test_processes_that_see_other_data_are_refused(tmp_path, digits_dir):
  script = """
import dataclasses, sys
from imgclf import app, plan
if sys.argv[-1] == "--process_id=1":
  real = plan.datasets.open
  plan.datasets.open = lambda *a: dataclasses.replace(real(*a), classes=tuple("abcdefghij"))
app.command()
"""
  run = Run(tmp_path / "run", digits_dir, processes=2)
  run.start(script)
  assert run.finish(60) == [2, 2]
  assert "process 1 has another config, other classes or other splits" in run.printed(0, "err")


def test_a_bad_image_that_one_process_meets_ends_all_and_loses_no_step(tmp_path, digits_dir):
  """Process 1 decodes it; process 0, which saves, hears of it in the step that then is not made."""
  script = """
import sys
from imgclf import app
from imgclf.data import images, loader
crop, made = loader.train_crop, []
def failing(*known):
  real = crop(*known)
  def one(record, *rest):
    made.append(1)
    if sys.argv[-1] == "--process_id=1" and len(made) > 32 * 7:
      raise images.ImageError("cat.jpg: cannot be decoded as an image (cut); mend it", "cut")
    return real(record, *rest)
  return one
loader.train_crop = failing
app.command()
"""
  more = ["--config.dataset.threads=0", "--config.dataset.prefetch=1"]
  run = Run(tmp_path / "run", digits_dir, processes=2, more=more)
  run.start(script)
  assert run.finish(60) == [2, 2]
  assert "error: cat.jpg: cannot be decoded" in run.printed(1, "err")
  assert "process 1: error: cat.jpg: cannot be decoded" in run.printed(0, "err")
  saved = [int(p.name) for p in (run.workdir / "checkpoints").iterdir() if p.name.isdecimal()]
  assert max(saved) == max(run.steps()) == 7
