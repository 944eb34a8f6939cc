"""The parts of a training run measured one by one: decode, input, step, train, eval.

Each is what a run itself does, by the same functions: the loader's batches, the compiled step, the
loop with its logs, evaluation's judge. Knows how to measure them, not what is made of the figures.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import math
import os
import time
from typing import Any

import jax
import numpy as np

from imgclf import config as configs
from imgclf import durations, judge, models, multilabel, parallel, progress, state, steps, timing
from imgclf.checkpoint import Checkpoints
from imgclf.data import label_sets, loader, workers
from imgclf.interrupt import Interrupt
from imgclf.loop import Loop
from imgclf.plan import Plan
from imgclf.timing import Rate

# Encoded images that decoding is measured on, read before: they take tens of MB at most.
DECODED = 256
# By a thread, so that handing them out costs nothing even where images are tiny.
DECODED_AT_ONCE = 16


@dataclasses.dataclass(frozen=True)
class Compiled:
  """What is known of a training step once it is compiled.

  Attributes:
    seconds_cold: to trace and compile it.
    seconds_warm: to trace it and to find it on the disk.
    flops_per_image: by XLA's count for the compiled program; None where XLA can't tell.
    memory_bytes: of each device, arguments and results included; None likewise.
  """

  seconds_cold: float
  seconds_warm: float
  flops_per_image: float | None
  memory_bytes: int | None


class Bench:
  """A run that was planned, with what its parts share."""

  def __init__(self, plan: Plan, seconds: float):
    """Compiles nothing yet.

    Args:
      plan: of a run whose length and intervals are those of `endless`.
      seconds: that each part is measured for, at least; warm-up, and what a last batch takes
        longer, come on top.
    """
    config = plan.config
    self.plan = plan
    self.seconds = seconds
    self._batch_size = config["train"]["batch_size"]
    self.model = models.create(config["model"], len(plan.source.classes), axis_name=parallel.AXIS)
    self.optimizer, self.learning_rate = plan.optimizer(self.model)

  def decode(self) -> Rate:
    """Bytes in memory to training crops, by as many threads as the loader has; nothing is read or
    batched. After the first crop of each, as from the second epoch on.
    """
    plan = self.plan
    count = min(DECODED, len(plan.train_records))
    crop = loader.train_crop(plan.config, np.zeros(count, bool))
    records = plan.train_records.__getitems__(range(count))
    threads = max(loader.threads(plan.config), 1)

    def some(begin: int) -> None:
      for number in range(begin, begin + DECODED_AT_ONCE):
        crop(records[number % count], number, number % count)

    begins = itertools.count(0, DECODED_AT_ONCE)
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:

      def of_each_thread() -> int:
        collections.deque(pool.map(some, itertools.islice(begins, 2 * threads)), maxlen=0)
        return 2 * threads * DECODED_AT_ONCE

      of_each_thread()
      return timing.measure(of_each_thread, self.seconds)

  def input(self, seconds: float | None = None) -> Rate:
    """Whole host batches, as fast as the loader makes them."""
    plan = self.plan
    batches = workers.train_batches(plan.train_records, plan.config, range(plan.every.total))
    processes = batches.process_ids() if isinstance(batches, workers.TrainBatches) else []
    next(batches)
    return timing.measure(
      lambda: len(next(batches)["label"]),
      seconds or self.seconds,
      cpu=lambda: timing.cpu_seconds(processes),
    )

  def compile(self) -> Compiled:
    """Compiles the training step with nothing on the disk, and once more with it there.

    Within `imgclf.compilation.temporary_cache`, before any other part.
    """
    jax.clear_caches()
    cold, compiled = self._compile()
    jax.clear_caches()
    warm, _ = self._compile()
    stats = compiled.memory_analysis()
    # Older versions give a list with the one of each program.
    costs = compiled.cost_analysis() or {}
    flops = (costs[0] if isinstance(costs, list) else costs).get("flops")
    return Compiled(
      seconds_cold=cold,
      seconds_warm=warm,
      flops_per_image=flops and flops * parallel.device_count() / self._batch_size,
      memory_bytes=stats
      and stats.argument_size_in_bytes
      + stats.output_size_in_bytes
      - stats.alias_size_in_bytes
      + stats.temp_size_in_bytes,
    )

  def step(self, seconds: float | None = None) -> Rate:
    """The compiled training step on one batch of noise that stays on the devices."""
    train_step = self._train_step()
    current, *rest = self._arguments()
    under_way: collections.deque[steps.Metrics] = collections.deque()

    def one() -> int:
      nonlocal current
      current, result = train_step(current, *rest)
      under_way.append(result)
      # As the loop does, with as many steps under way.
      while len(under_way) > parallel.IN_FLIGHT:
        parallel.scalar(under_way.popleft()["stop"])
      return self._batch_size

    for _ in range(1 + parallel.IN_FLIGHT):
      one()
    jax.block_until_ready(current)
    under_way.clear()
    rate = timing.measure(one, seconds or self.seconds)
    jax.block_until_ready(current)
    return rate

  def train(
    self, log_steps: int, seconds: float | None = None, trace: str | os.PathLike | None = None
  ) -> tuple[Rate, float]:
    """The loop on real data, with its logs.

    What it makes from the batches that lay ready when the steps were compiled does not count.

    Args:
      log_steps: steps between two log lines, each of which is a repeat.
      seconds: to measure for; left out: those of the bench.
      trace: a folder for a profile of what is measured.

    Returns:
      The rate, and the share of the time that was spent waiting for data.
    """
    plan = dataclasses.replace(self.plan, every=dataclasses.replace(self.plan.every, log=log_steps))
    log = plan.config["log"]["tensorboard"]
    shown = _Watched(
      seconds or self.seconds,
      plan.config["dataset"]["prefetch"] + loader.threads(plan.config),
      trace,
      total_steps=plan.every.total,
      first_step=0,
      batch_size=self._batch_size,
      tensorboard_dir=plan.folder.tensorboard if log else None,
      metrics_file=plan.folder.metrics,
      quiet=True,
    )
    with Checkpoints(plan.folder.checkpoints, run=plan.identity) as checkpoints, shown:
      loop = Loop(
        plan,
        self._made_step(),
        steps.make_eval_step(self.model, plan.config),
        checkpoints,
        shown,
        Interrupt(),  # not entered: signals go on to end the benchmark itself
      )
      with contextlib.suppress(_Enough):
        loop.run(self.begin(), 0)
    rows = [json.loads(line) for line in plan.folder.metrics.read_text().splitlines()]
    rows = [row for row in rows if row["step"] > shown.warm_steps]
    rates = [row["images_per_second"] for row in rows]
    images = len(rows) * log_steps * self._batch_size
    # Windows of equal steps: time goes with 1 / rate.
    waited = sum(row["data_wait_share"] / row["images_per_second"] for row in rows)
    share = waited / sum(1 / rate for rate in rates)
    return timing.of_repeats(rates, images / shown.cpu_seconds), share

  def eval(self) -> Rate:
    """The validation split judged from its first image on, as far as the time goes; reading
    included.
    """
    plan = self.plan
    eval_step = parallel.pmap(steps.make_eval_step(self.model, plan.config))
    variables = parallel.replicate(self.begin().variables())
    records, size = plan.validation_records, configs.eval_batch_size(plan.config)

    def some(batches: int) -> int:
      total = min(batches * size, len(records))
      taken = itertools.islice(judge.split_batches(records, plan.config), batches)
      if multilabel.is_on(plan.config):
        judge.judge_sets(eval_step, variables, taken, total, len(plan.source.classes))
      else:
        judge.judge(eval_step, variables, taken, total)
      return total

    some(1)  # compiles
    began = time.perf_counter()
    some(1)
    batches = math.ceil(self.seconds / 5 / (time.perf_counter() - began))
    return timing.measure(lambda: some(batches), self.seconds)

  def log_steps(self, step: Rate | None, made: Rate | None) -> int:
    """Returns how many steps take about a fifth of the seconds, by what is measured of step and
    input.
    """
    slowest = min((step or self.step(0.1)).median, (made or self.input(0.1)).median)
    return max(1, round(self.seconds / 5 * slowest / self._batch_size))

  def _made_step(self) -> Any:
    return self.plan.train_step(self.model, self.optimizer, self.learning_rate)

  def _train_step(self) -> Any:
    return parallel.pmap(
      self._made_step(),
      donate_argnums=(0,),
    )

  def begin(self) -> state.TrainState:
    """Returns the state before the first step."""
    config = self.plan.config
    return state.create(
      self.model,
      self.optimizer,
      seed=config["seed"],
      image_size=config["dataset"]["image_size"],
      ema=config["optimizer"]["ema_decay"] is not None,
    )

  def _arguments(self) -> tuple[Any, ...]:
    """The replicated state, a batch of noise, and a teacher's variables, laid out as the loop's."""
    config, size = self.plan.config, self._batch_size
    draw = np.random.default_rng(0)
    edge = config["dataset"]["image_size"]
    shape = loader.label_shape(self.plan.train_records)
    label = label_sets.blank(size, shape)
    label[...] = draw.integers(0, 2 if shape else len(self.plan.source.classes), label.shape)
    batch = {
      "image": draw.integers(0, 256, (size, edge, edge, 3), np.uint8),
      "label": label,
      "position": np.arange(size, dtype=np.int32),
      "stop": np.zeros(size, np.int32),
    }
    if config["dataset"]["bad_images"] == "skip":
      batch["mask"] = np.ones(size, bool)
    taught_by = [self.plan.teacher.place()] if self.plan.teacher else []
    return parallel.replicate(self.begin()), parallel.shard(batch), *taught_by

  def _compile(self) -> tuple[float, Any]:
    arguments, train_step = self._arguments(), self._train_step()
    began = time.perf_counter()
    compiled = train_step.lower(*arguments).compile()
    return time.perf_counter() - began, compiled


def endless(config: configs.ConfigDict) -> configs.ConfigDict:
  """Returns the config of the same run without an end, and without evaluations and checkpoints on
  its way.
  """
  config = configs.copy(config)
  for section, name in (("train", "total"), ("eval", "every"), ("checkpoint", "every")):
    for unit in durations.UNITS:
      config[section][f"{name}_{unit}"] = None
    config[section][f"{name}_steps"] = 1_000_000_000
  return config


class _Enough(Exception):
  """The loop has run for long enough."""


class _Watched(progress.Progress):
  """Ends the loop after so many seconds, which begin with the log line that ends the warm-up.

  Attributes:
    warm_steps: of the warm-up, once it is over.
    cpu_seconds: that all after it took, once that is over.
  """

  def __init__(
    self, seconds: float, ready: int, trace: str | os.PathLike | None, **of_progress: Any
  ):
    """Opens nothing yet.

    Args:
      seconds: to go on for.
      ready: batches that may lie ready at first. The warm-up lasts until they are gone; or as long
        again as it is measured, for they hardly matter where steps are that slow.
      trace: a folder for a profile of what comes after the warm-up.
      **of_progress: for `Progress`.
    """
    super().__init__(**of_progress)
    self._seconds = seconds
    self._ready = ready
    self._trace = trace
    self._first: float | None = None
    self._since: tuple[float, float] | None = None
    self.warm_steps = 0
    self.cpu_seconds = 0.0

  def log(self, step: int, split: str, figures: Any) -> None:
    super().log(step, split, figures)
    now = time.perf_counter()
    self._first = self._first or now
    if self._since is not None:
      if now - self._since[0] >= self._seconds:
        self.cpu_seconds = timing.cpu_seconds() - self._since[1]
        raise _Enough
    elif step >= self._ready or now - self._first >= self._seconds:
      if self._trace is not None:
        jax.profiler.start_trace(self._trace)
      self._since, self.warm_steps = (now, timing.cpu_seconds()), step

  def __exit__(self, *exception: object) -> None:
    if self._trace is not None and self._since is not None:
      jax.profiler.stop_trace()
    super().__exit__(*exception)
