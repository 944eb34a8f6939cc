"""A small training run as a command, to be hurt in the fault tests."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from fresh import ROOT, free_port, fresh_environment


class Run:
  """A small training run in processes of its own, to be hurt; the same arguments go on with it.

  Ten classes of digits, LeNet, Adam, moving averages, random crops and rotation.
  """

  def __init__(self, workdir, digits_dir, *, steps=40, processes=1, more=(), environment=None):
    self.workdir, self.count = pathlib.Path(workdir), processes
    self.arguments = [
      f"--config={ROOT / 'configs' / 'digits.py'}",
      f"--workdir={workdir}",
      f"--config.dataset.data_dir={digits_dir}",
      "--config.model.name=lenet5",
      f"--config.train.total_steps={steps}",
      "--config.optimizer.ema_decay=0.9",
      "--config.checkpoint.every_steps=5",
      "--config.eval.every_steps=20",
      "--config.eval.batch_size=72",
      "--config.log.every_steps=1",
      *more,
    ]
    self.environment = environment or {}
    self.processes = []

  def start(self, script=None, **environment):
    """Starts launch.py, or a piece of Python that ends in `imgclf.app.command()`."""
    program = [ROOT / "launch.py"] if script is None else ["-c", script]
    address = f"localhost:{free_port()}"
    several = (
      [f"--coordinator_address={address}", f"--num_processes={self.count}"]
      if self.count > 1
      else []
    )
    self.processes = [
      subprocess.Popen(
        [
          sys.executable,
          *program,
          *self.arguments,
          *several,
          *([f"--process_id={number}"] if several else []),
        ],
        env=fresh_environment(**{**self.environment, **environment}),
        stdout=open(self.output(number), "w"),
        stderr=open(self.output(number, "err"), "w"),
        start_new_session=True,  # so that what it leaves behind can be found
      )
      for number in range(self.count)
    ]
    return self.processes[0]

  def output(self, number=0, kind="out"):
    """The file that a process's output goes to."""
    return self.workdir.with_name(f"{self.workdir.name}-{number}.{kind}")

  def printed(self, number=0, kind="out"):
    return self.output(number, kind).read_text()

  def wait_for(self, condition, seconds=120):
    """Waits until the condition holds; fails if the run ends before."""
    end = time.monotonic() + seconds
    while not condition():
      ended = [p for p in self.processes if p.poll() is not None]
      assert not ended, [self.printed(n, "err")[-2000:] for n in range(self.count)]
      assert time.monotonic() < end, f"waited {seconds} s; {self.printed()[-500:]}"
      time.sleep(0.01)

  def finish(self, seconds=240):
    """Waits for the end; returns the exit codes."""
    end = time.monotonic() + seconds
    try:
      return [p.wait(max(0.1, end - time.monotonic())) for p in self.processes]
    finally:
      self.kill()

  def kill(self):
    """Ends what is left, with all children."""
    for process in self.processes:
      try:
        os.killpg(process.pid, signal.SIGKILL)
      except ProcessLookupError:
        pass
      process.wait()

  def steps(self):
    """The steps that metrics.jsonl tells of."""
    return [row["step"] for row in rows(self.workdir) if row["split"] == "train"]


def rows(workdir):
  """What metrics.jsonl holds, but for a line that is being written."""
  try:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
  except FileNotFoundError:
    return []
  found = []
  for line in lines:
    try:
      found.append(json.loads(line))
    except ValueError:
      pass
  return found


def processes_of_session(leader):
  """The processes that belong to the session of a process which may be gone."""
  found = []
  for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
      continue
    if int(fields[3]) == leader and fields[0] != "Z":
      found.append(int(stat.parent.name))
  return found
