"""SIGTERM and Ctrl-C in every phase: out within 30 s with code 75, and not a step lost."""

import signal
import time

from fresh import assert_same_bits, saved_state
import pytest
from runs import Run

# Each phase is made long enough to be hit, and says so on stderr when it begins.
PHASE = """
import hashlib, sys, time
from imgclf import app, loop, parallel, checkpoint, array_files, validation
from imgclf.data import loader

phase, marked = {phase!r}, []

def slow(owner, name, seconds, when=lambda *a, **k: True, native=False):
  real = getattr(owner, name)
  def slowed(*a, **k):
    if not marked and when(*a, **k):
      marked.append(1)
      began = time.monotonic()
      hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)
      rate = 100_000 / (time.monotonic() - began)
      print("PHASE", file=sys.stderr, flush=True)
      if native:
        # One long call that Python's handlers must wait for, as a compilation is.
        hashlib.pbkdf2_hmac("sha256", b"", b"", int(rate * seconds))
      else:
        time.sleep(seconds)
    return real(*a, **k)
  setattr(owner, name, slowed)

if phase == "compile":
  slow(loop.Loop, "_compile", 20, native=True)
elif phase == "restore":
  slow(checkpoint.Checkpoints, "newest_sound", 60)
elif phase == "data":
  # A batch that does not come: read in a thread of the loader, waited for by the loop.
  made = []
  crop = loader.train_crop
  def stuck(*known):
    real = crop(*known)
    def one(record, *rest):
      made.append(1)
      if len(made) > 64 * 8:
        if not marked:
          marked.append(1)
          print("PHASE", file=sys.stderr, flush=True)
        time.sleep(120)
      return real(record, *rest)
    return one
  loader.train_crop = stuck
elif phase == "step":
  slow(loop.Loop, "_wait", 1, when=lambda self, under, bound: self.shown._step > 7)
elif phase == "eval":
  slow(validation, "judged", 2)
elif phase == "save":
  slow(array_files, "write", 3)
app.command()
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, digits_dir):
  """The run that a stopped one must end like, by the number of processes."""
  runs = {}

  def of(processes):
    if processes not in runs:
      run = Run(tmp_path_factory.mktemp("whole") / "run", digits_dir, processes=processes)
      run.start()
      assert set(run.finish()) == {0}, run.printed(0, "err")
      runs[processes] = run
    return runs[processes]

  return of


ALL = [
  (phase, processes, number, victim)
  for processes, victims in ((1, (0,)), (2, (0, 1)))
  for victim in victims
  for phase in ("compile", "data", "step", "eval", "save", "restore")
  for number in (signal.SIGTERM,)
] + [("step", 1, signal.SIGINT, 0), ("eval", 2, signal.SIGINT, 1)]
QUICK = {("data", 1, signal.SIGTERM, 0)}


@pytest.mark.parametrize(
  ("phase", "processes", "number", "victim"),
  [pytest.param(*c, marks=[] if c in QUICK else pytest.mark.faults) for c in ALL],
)
def test_a_signal_in_any_phase_stops_the_run_and_loses_no_step(
  tmp_path, digits_dir, uninterrupted, phase, processes, number, victim
):
  run = Run(tmp_path / "run", digits_dir, processes=processes)
  if phase == "restore":
    run.start()
    run.wait_for(lambda: len(run.steps()) > 12)
    run.processes[0].terminate()
    run.finish()
  run.start(PHASE.format(phase=phase))
  # The restored step is chosen by process 0 alone.
  slow = 0 if phase == "restore" or (phase == "save") else victim
  run.wait_for(lambda: "PHASE" in run.printed(slow, "err"))
  told = run.steps()
  run.processes[victim].send_signal(number)
  since = time.monotonic()
  codes = run.finish()
  took = time.monotonic() - since
  assert codes == [75] * processes, [run.printed(n, "err")[-3000:] for n in range(processes)]
  assert took < 30
  assert all("Traceback" not in run.printed(n, "err") for n in range(processes))
  assert set(told) <= set(run.steps())
  # What was told of is saved.
  assert newest(run) >= max(run.steps(), default=0)
  run.start()
  assert set(run.finish()) == {0}, run.printed(0, "err")
  assert_same_bits(saved_state(run.workdir), saved_state(uninterrupted(processes).workdir))
  assert run.steps() == uninterrupted(processes).steps()


def newest(run):
  saved = (run.workdir / "checkpoints").glob("*")
  return max((int(p.name) for p in saved if p.name.isdecimal()), default=0)


@pytest.mark.faults
@pytest.mark.parametrize("phase", ["compile", "save"])
def test_a_second_signal_ends_the_process_at_once(tmp_path, digits_dir, phase):
  run = Run(tmp_path / "run", digits_dir)
  process = run.start(PHASE.format(phase=phase))
  run.wait_for(lambda: "PHASE" in run.printed(0, "err"))
  time.sleep(0.3)
  process.terminate()
  time.sleep(0.3)
  process.terminate()
  since = time.monotonic()
  assert run.finish() == [128 + signal.SIGTERM]
  assert time.monotonic() - since < 2
  assert "a second SIGTERM" in run.printed(0, "err")
