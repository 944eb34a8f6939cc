"""What the loop costs beside the bare step: logs, the bar, TensorBoard, checkpoints; and how long a
save stalls it.

    python benchmarks/loop.py [--model=lenet5] [--image_size=32] [--batch_size=64] [--seconds=10]

Batches lie ready in memory, so that neither reading nor decoding counts. Rounds of the bare step
and of the loop take turns on the same data, and the ratio is the median of the rounds' ratios.
"""

import argparse
import contextlib
import dataclasses
import itertools
import pathlib
import statistics
import tempfile
import time

from rich.console import Console

import imgclf
from imgclf import compilation, feeds, parallel, plan, progress, steps
from imgclf.checkpoint import Checkpoints
from imgclf.interrupt import Interrupt
from imgclf.loop import Loop
from imgclf.parts import Bench, endless


class Ready(feeds.Streamed):
  """One batch that lies ready in the host's memory, over and over."""

  def batches(self, begun, total, counts):
    """Yields it; see `feeds.Streamed.batches`."""
    return itertools.repeat(self.blank())


class ReadyLoop(Loop):
  """The loop on it, which takes down how long saves stall it.

  Attributes:
    saves: seconds of each save.
    compiled: wall clock and CPU time when the programs were compiled.
  """

  saves: list[float]
  compiled: tuple[float, float]

  def _feed(self):
    self.saves = []
    return Ready(self.plan.train_records, self.plan.config, None)

  def _compile(self, *arguments):
    super()._compile(*arguments)
    self.compiled = time.perf_counter(), time.process_time()

  def _to_evaluate(self, step):
    return False  # not even the last step: evaluation is measured elsewhere

  def _save(self, step, current, figures):
    self.checkpoints.wait()  # of the stall, not of a disk that can't keep up
    began = time.perf_counter()
    super()._save(step, current, figures)
    self.saves.append(time.perf_counter() - began)


def measured(bench: Bench, count: int, log_steps: int) -> tuple[float, float, list[float]]:
  """Makes `count` steps with everything on.

  Returns:
    Images a second from the first step on, images a CPU second, and the seconds of each save.
  """
  planned = bench.plan
  every = dataclasses.replace(
    planned.every, total=count, log=log_steps, save=count // 2, evaluate=10 * count
  )
  planned = dataclasses.replace(planned, every=every)
  with (
    tempfile.TemporaryDirectory() as folder,
    open("/dev/null", "w") as nowhere,
    Checkpoints(folder, run=planned.identity) as checkpoints,
    progress.Progress(
      total_steps=count,
      first_step=0,
      batch_size=planned.config["train"]["batch_size"],
      tensorboard_dir=pathlib.Path(folder, "tensorboard"),
      metrics_file=pathlib.Path(folder, "metrics.jsonl"),
      console=Console(file=nowhere, force_terminal=True),  # the bar is drawn, and not seen
    ) as shown,
  ):
    loop = ReadyLoop(
      planned,
      steps.make_train_step(bench.model, planned.config, bench.optimizer, bench.learning_rate),
      steps.make_eval_step(bench.model, planned.config),
      checkpoints,
      shown,
      Interrupt(),
    )
    loop.run(bench.begin(), 0)
    began, cpu_began = loop.compiled
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu_began
  # The last save is no stall of steps, but the first one is part of the time.
  images = count * planned.config["train"]["batch_size"]
  return images / (elapsed - loop.saves[-1]), images / cpu, loop.saves


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--model", default="lenet5")
  parser.add_argument("--image_size", type=int, default=32)
  parser.add_argument("--batch_size", type=int, default=64)
  parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--log_steps", type=int, default=50)
  options = parser.parse_args()
  config = imgclf.default_config()
  config.dataset.name = "digits"
  config.dataset.image_size = options.image_size
  config.model.name = options.model
  config.train.batch_size = options.batch_size
  with tempfile.TemporaryDirectory() as folder, compilation.temporary_cache():
    with contextlib.ExitStack() as held:
      planned = plan.prepare(endless(config), pathlib.Path(folder, "run"), held)
      bench = Bench(planned, options.seconds)
      rate = bench.step(1.0).median
      count = max(4, round(options.seconds * rate / options.batch_size) // 2 * 2)
      ratios, stalls = [], []
      for number in range(options.rounds):
        bare = bench.step().median
        whole, _, saves = measured(bench, count, options.log_steps)
        ratios.append(whole / bare)
        stalls += saves
        print(
          f"round {number + 1}: bare step {bare:,.0f}, loop {whole:,.0f} images/s, {whole / bare:.3f}",
          flush=True,
        )
  stall = statistics.median(stalls)
  print(
    f"{options.model}, {options.image_size} px, batch {options.batch_size}, {parallel.describe_devices()}"
  )
  print(
    f"loop / bare step: {statistics.median(ratios):.3f} (target 0.98; a save each {count // 2:,} steps)"
  )
  print(
    f"a save stalls the loop for {1000 * stall:.0f} ms: under 1% where it comes once in {100 * stall:.1f} s or more"
  )


if __name__ == "__main__":
  main()
