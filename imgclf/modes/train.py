"""The loop: from a config to a run folder with checkpoints, resumed by itself where one was begun."""

import collections
from collections.abc import Callable, Sequence
import math
import os
import shlex
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import config as configs
from imgclf import metrics, models, optim, parallel, progress, state, steps
from imgclf.checkpoint import Checkpoints
from imgclf.data import loader
from imgclf.errors import Diverged, Stopped
from imgclf.interrupt import Interrupt
from imgclf.modes import evaluate
from imgclf.plan import Plan, prepare
from imgclf.run import retention


def run(
  config: configs.ConfigDict, workdir: str | os.PathLike, *, quiet: bool = False
) -> dict[str, Any]:
  """Trains a classifier, or goes on where the run in `workdir` stopped.

  Args:
    config: as from `imgclf.default_config` or a config file.
    workdir: the run folder, made if it is not there.
    quiet: print nothing.

  Returns:
    `step`, the last step; `best_step`; and `validation`, that step's figures on the validation split (see
    `imgclf.metrics.figures`).

  Raises:
    UserError: for what is wrong with the config, the data set or the folder.
    Diverged: if the loss becomes NaN or infinite.
    Stopped: after SIGINT or SIGTERM, once the state is saved.
  """
  with Interrupt() as interrupt:
    return _run(prepare(config, workdir), interrupt, quiet)


def _run(plan: Plan, interrupt: Interrupt, quiet: bool) -> dict[str, Any]:
  config, every, folder = plan.config, plan.every, plan.folder
  first = parallel.process_index() == 0
  learning_rate = optim.schedule(config, total_steps=every.total, warmup_steps=every.warmup)
  optimizer = optim.create(config, learning_rate)
  model = models.create(config["model"], len(plan.source.classes), axis_name=parallel.AXIS)
  begin = state.create(
    model,
    optimizer,
    seed=config["seed"],
    image_size=config["dataset"]["image_size"],
    ema=config["optimizer"]["ema_decay"] is not None,
  )
  with Checkpoints(folder.checkpoints, keep_every=every.keep, **retention(config)) as checkpoints:
    begun = checkpoints.latest() or 0
    if begun:
      begin = checkpoints.restore(begun, begin)
    if first and not quiet:
      _introduce(plan, begin, begun)
    with progress.Progress(
      total_steps=every.total,
      first_step=begun,
      batch_size=config["train"]["batch_size"],
      tensorboard_dir=folder.tensorboard if first and config["log"]["tensorboard"] else None,
      metrics_file=folder.metrics if first else None,
      quiet=quiet or not first,
    ) as shown:
      loop = _Loop(
        plan,
        steps.make_train_step(model, config, optimizer, learning_rate),
        steps.make_eval_step(model, config),
        checkpoints,
        shown,
        interrupt,
      )
      stopped = loop.run(begin, begun)
    checkpoints.wait()
    best, last = checkpoints.best(), checkpoints.latest() or 0
  if stopped:
    raise Stopped(f"step {last} of {every.total} is saved; the same command goes on from there")
  result: dict[str, Any] = {"step": last, "best_step": best, "validation": None}
  if best is not None:
    result["validation"] = folder.read_evaluation("validation", best)
    if first and not quiet:
      _conclude(plan, result)
  return result


class _Loop:
  """The steps of a run, with what stays the same from one to the next."""

  def __init__(
    self,
    plan: Plan,
    train_step: Callable,
    eval_step: Callable,
    checkpoints: Checkpoints,
    shown: progress.Progress,
    interrupt: Interrupt,
  ):
    def step_and_stop(current, batch):
      current, result = train_step(current, batch)
      # Each process learns in the same step that one of them got a signal, and stops at the same one.
      result["stop"] = jax.lax.psum(jnp.max(batch["stop"]), parallel.AXIS)
      return current, result

    self.plan = plan
    self.train_step = parallel.pmap(step_and_stop, donate_argnums=(0,))
    self.eval_step = parallel.pmap(eval_step)
    self.checkpoints = checkpoints
    self.shown = shown
    self.interrupt = interrupt

  def run(self, begin: state.TrainState, begun: int) -> bool:
    """Makes the steps after `begun`; returns whether a signal ended it early."""
    plan, every = self.plan, self.plan.every
    batches = loader.train_batches(
      plan.train_records,
      plan.config,
      process_index=parallel.process_index(),
      process_count=parallel.process_count(),
    )
    ahead = loader.prefetch(batches[begun : every.total], plan.config)
    current = parallel.replicate(begin)
    window: list[steps.Metrics] = []
    under_way: collections.deque[steps.Metrics] = collections.deque()
    stopping = False
    for step in range(begun + 1, every.total + 1):
      asked = time.perf_counter()
      batch = next(ahead)
      waited = time.perf_counter() - asked
      batch["stop"] = np.full(len(batch["label"]), self.interrupt.signal_name is not None, np.int32)
      current, result = self.train_step(current, parallel.shard(batch))
      self.shown.step(step, waited=waited)
      window.append(result)
      under_way.append(result)
      if len(under_way) > parallel.IN_FLIGHT:
        # Waiting for an older step bounds what is under way; its flag has come by then.
        stopping = parallel.scalar(under_way.popleft()["stop"]) > 0
      if parallel.process_count() == 1:
        stopping = self.interrupt.signal_name is not None  # nobody to agree with

      last = step == every.total
      evaluating = last or step % every.evaluate == 0
      saving = last or stopping or step % every.save == 0
      if evaluating or saving or step % every.log == 0:
        self.shown.log(step, "train", self._means(window, step))
        window.clear()
      figures = None
      if evaluating:
        figures = self._evaluate(current, step)
        saving = saving or self.checkpoints.improves(figures)
      if saving:
        with self.shown.pause("saving"):
          self._save(step, current, figures)
      if stopping and not last:
        return True
    return False

  def _save(self, step: int, current: state.TrainState, figures: dict[str, float] | None) -> None:
    """Saves the state, unless it is that of a diverged run: an update can overflow by itself."""
    saved = parallel.unreplicate(current)
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved)):
      raise self._diverged(f"the weights after step {step} are NaN or infinite")
    self.checkpoints.save(step, saved, figures)

  def _means(self, window: Sequence[steps.Metrics], step: int) -> dict[str, float]:
    """The window's metrics, fetched from the devices; refuses those of a diverged run."""
    rows = [{name: parallel.scalar(value) for name, value in m.items()} for m in window]
    for number, row in enumerate(rows, step - len(rows) + 1):
      for name in ("loss", "gradient_norm"):
        if not math.isfinite(row[name]):
          raise self._diverged(f"the {name} of step {number} is {row[name]}")
    means = {
      name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name != "stop"
    }
    return means | {"learning_rate": rows[-1]["learning_rate"]}

  def _diverged(self, what: str) -> Diverged:
    kept = self.checkpoints.latest()
    last = "there is no checkpoint" if kept is None else f"the last checkpoint is of step {kept}"
    return Diverged(
      f"{what}; {last}; lower config.optimizer.learning_rate or set config.optimizer.clip_norm"
    )

  def _evaluate(self, current: state.TrainState, step: int) -> dict[str, float]:
    """Judges the validation split with the weights as they are; records and returns the figures."""
    plan = self.plan
    with self.shown.pause("evaluating"):
      records = plan.validation_records
      batches = evaluate.split_batches(records, plan.config)
      predictions = evaluate.judge(self.eval_step, current.variables(), batches, len(records))
      figures = metrics.figures(predictions, plan.source.classes)
      if parallel.process_index() == 0:
        plan.folder.write_evaluation("validation", step, figures)
    self.shown.log(step, "validation", figures)
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


def _introduce(plan: Plan, begin: state.TrainState, begun: int) -> None:
  """Prints what is about to run, on what, and with which parameters."""
  config, every = plan.config, plan.every
  progress.parameter_table(begin.params)
  test = plan.roles["test"] or "none"
  lines = [
    f"data      {plan.source.name}: {len(plan.source.classes)} classes; train {plan.roles['train']} "
    f"({len(plan.train_records):,}), validation {plan.roles['validation']} "
    f"({len(plan.validation_records):,}), test {test}",
    f"model     {config['model']['name']}, {config['model']['dtype']}, "
    f"{config['dataset']['image_size']} px",
    f"devices   {parallel.describe_devices()}",
    f"run       {plan.folder.path}: {every.total:,} steps of {config['train']['batch_size']:,} images",
    *(f"note      {note}" for note in plan.notes),
  ]
  if begun:
    lines.append(f"resumed   from the checkpoint of step {begun}")
  for line in lines:
    progress.print_line(line)


def _conclude(plan: Plan, result: dict[str, Any]) -> None:
  """Prints the figures of the best checkpoint and the next command to type."""
  progress.evaluation_summary(result["validation"], "validation", result["best_step"])
  split = "test" if plan.roles["test"] else "validation"
  progress.print_line("These are the figures of the best checkpoint. Evaluate it with:")
  workdir = shlex.quote(str(plan.folder.path))
  progress.print_line(f"  python launch.py --mode=eval --workdir={workdir} --split={split}")
