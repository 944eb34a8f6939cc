"""An hour of faults at random, run by hand: python tests/faults/chaos.py --minutes=60 --seed=0

Round after round a run is killed, stopped, started twice, frozen, cut short at a write, filled up,
and robbed of bits of its newest checkpoint, until it ends; then its state must be that of the run
that nothing happened to, to the bit. Prints what was done, and the goodput: the steps of the whole
run for the steps that were made, and its time likewise.
"""

import argparse
import collections
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]

from fresh import assert_same_bits, saved_state  # noqa: E402
from runs import Run  # noqa: E402

STEPS = 300


def newest(run):
  saved = (run.workdir / "checkpoints").glob("*")
  return sorted((p for p in saved if p.name.isdecimal()), key=lambda p: int(p.name))


def damage(run, draw):
  """Hurts one file of the newest checkpoint, if there is another one to go back to."""
  steps = newest(run)
  if len(steps) < 2:
    return False
  files = sorted(p for p in steps[-1].rglob("*") if p.is_file() and p.stat().st_size)
  path, data = draw.choice(files), None
  match draw.randrange(3):
    case 0:
      data = bytearray(path.read_bytes())
      data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    case 1:
      data = path.read_bytes()[: draw.randrange(path.stat().st_size)]
    case 2:
      path.unlink()
  if data is not None:
    path.write_bytes(data)
  return True


def one_start(run, draw, disk, done):
  """Starts the run with one fault on its way; returns whether it ended by itself."""
  fault = draw.choice(
    ["kill", "kill", "terminate", "interrupt", "twice", "freeze", "cut", "full", "damage", "none"]
  )
  if fault == "damage" and not damage(run, draw):
    fault = "none"
  environment = {}
  if fault in ("cut", "full"):
    environment = {
      "LD_PRELOAD": str(disk),
      "FAULT_FOLDER": str(run.workdir),
      "FAULT_AT": str(draw.randrange(1, 3000)),
      "FAULT_MODE": "kill" if fault == "cut" else "full",
    }
  run.start(**environment)
  (process,) = run.processes
  until = time.monotonic() + draw.uniform(0.5, 25)
  while time.monotonic() < until and process.poll() is None:
    time.sleep(0.005)
  allowed = {0}
  if process.poll() is None:
    if fault in ("kill", "damage", "none", "cut", "full"):
      process.kill()
      allowed = {0, -9}
    elif fault == "terminate":
      process.terminate()
      allowed = {0, 75, -15}  # -15: before Python looks after signals
    elif fault == "interrupt":
      process.send_signal(signal.SIGINT)
      allowed = {0, 75, 130, -2}
    elif fault == "twice":
      other = subprocess.run(process.args, capture_output=True, text=True, timeout=300)
      assert other.returncode in (2, 75, 0), other.stderr
      done["second start refused" if other.returncode == 2 else "second start took over"] += 1
      process.kill()
      allowed = {0, -9, 2}  # 2: where the second took the lock before the first did
    elif fault == "freeze":
      process.send_signal(signal.SIGSTOP)
      time.sleep(draw.uniform(0.1, 3))
      process.send_signal(signal.SIGCONT)
      process.kill()
      allowed = {0, -9}
  if fault == "cut":
    allowed |= {-9}
  if fault == "full":
    allowed |= {2}
  process.wait(60)
  done[fault] += 1
  code = process.returncode
  assert code in allowed, (fault, code, run.printed(0, "err")[-3000:])
  assert "Traceback" not in run.printed(0, "err"), (fault, run.printed(0, "err")[-3000:])
  return code == 0


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--minutes", type=float, default=60)
  parser.add_argument("--seed", type=int, default=0)
  given = parser.parse_args()
  draw, done = random.Random(given.seed), collections.Counter()
  root = pathlib.Path(tempfile.mkdtemp(prefix="chaos-"))
  disk = root / "disk.so"
  subprocess.run(
    ["gcc", "-shared", "-fPIC", "-O1", "-o", disk, HERE / "disk.c", "-ldl"], check=True
  )
  whole = Run(root / "whole", root / "data", steps=STEPS)
  began = time.monotonic()
  whole.start()
  assert whole.finish() == [0], whole.printed(0, "err")
  clean = time.monotonic() - began
  expected = saved_state(whole.workdir)
  print(f"the run that nothing happens to: {STEPS} steps, {clean:.0f} s", flush=True)
  end, rounds, spent, made = time.monotonic() + 60 * given.minutes, 0, 0.0, 0
  while time.monotonic() < end:
    run = Run(root / f"run{rounds}", root / "data", steps=STEPS)
    began, ended = time.monotonic(), False
    while not ended:
      before = max((int(p.name) for p in newest(run)), default=0)
      ended = one_start(run, draw, disk, done)
      made += max(0, max(run.steps(), default=0) - before)
      for old in (run.workdir / "checkpoints" / "damaged").glob("*"):
        shutil.rmtree(old)
    spent += time.monotonic() - began
    assert_same_bits(saved_state(run.workdir), expected)
    assert run.steps() == whole.steps()
    rounds += 1
    shutil.rmtree(run.workdir)
    faults = ", ".join(f"{number} x {name}" for name, number in sorted(done.items()))
    print(
      f"{rounds} runs ended in the bits of the clean one after {sum(done.values())} starts ({faults}); "
      f"steps {rounds * STEPS / max(made, 1):.0%}, time {rounds * clean / spent:.0%}",
      flush=True,
    )
  shutil.rmtree(root)


if __name__ == "__main__":
  main()
