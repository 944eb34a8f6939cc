"""The steps of a run, one after the other: with logs, evaluations, checkpoints, and an end by
signal.

Stopping, skipping and diverging are decided here, on figures that come from the devices when a log
line needs them; the host waits for no other step but to bound how many are under way.
"""

import collections
from collections.abc import Callable, Iterator
import dataclasses
import math

import jax
import numpy as np

from imgclf import calls, feeds, memory, parallel, progress, state, steps
from imgclf.checkpoint import Checkpoints
from imgclf.data import label_sets, loader
from imgclf.data.bad_images import BadImages
from imgclf.data.files import some
from imgclf.errors import Diverged, UserError
from imgclf.interrupt import Abandoned, Interrupt
from imgclf.plan import Plan
from imgclf.stoppable import Stoppable, with_stop
from imgclf.validation import Validation


@dataclasses.dataclass(frozen=True)
class _Call:
  """A call of the training program that was begun.

  Attributes:
    count: the steps that it makes.
    metrics: of each of them; on the devices.
  """

  count: int
  metrics: steps.Metrics

  def stopped(self) -> bool:
    """Waits for it, and returns whether no step was made, since some process had got a signal."""
    return bool(parallel.first(self.metrics["stop"])[0] > 0)

  def rows(self) -> list[dict[str, float]]:
    """Waits for it, and returns the figures of each step."""
    columns = {name: parallel.first(value)[: self.count] for name, value in self.metrics.items()}
    return [{name: column[i].item() for name, column in columns.items()} for i in range(self.count)]


class Loop:
  """The loop of one run, with what stays the same from one step to the next."""

  def __init__(
    self,
    plan: Plan,
    train_step: Callable,
    eval_step: Callable,
    checkpoints: Checkpoints,
    shown: progress.Progress,
    interrupt: Interrupt,
  ):
    """Compiles nothing yet.

    Args:
      plan: the run.
      train_step: as from `imgclf.steps.make_train_step`.
      eval_step: as from `imgclf.steps.make_eval_step`.
      checkpoints: of the run, open for writing.
      shown: what a person sees.
      interrupt: entered.
    """
    self.plan = plan
    self.train_step = train_step
    self.checkpoints = checkpoints
    self.shown = shown
    self.interrupt = interrupt
    self.bad_steps = 0
    self._stoppable = Stoppable(interrupt)
    self._validation = Validation(plan, eval_step, shown, self._stoppable)

  def run(self, begin: state.TrainState, begun: int) -> bool:
    """Makes the steps after `begun`; returns whether a signal ended it early.

    The end may also be an evaluation at which `train.patience` is over: that step is saved, and the
    same evaluation ends a run that is resumed from it.

    Raises:
      Diverged: when more steps than `train.max_bad_steps` had a NaN or infinite loss or gradient.
      UserError: for an image or a checkpoint that can't be read or written, or too little memory.
    """
    try:
      return self._run(begin, begun)
    except Exception as error:
      if isinstance(error, UserError) or not memory.exhausted(error):
        raise
      config = self.plan.config
      raise memory.refusal(
        error,
        config["train"]["batch_size"],
        "config.train.batch_size",
        config["optimizer"]["accumulate_steps"],
      ) from error

  def _run(self, begin: state.TrainState, begun: int) -> bool:
    feed = self._feed()
    call = parallel.pmap(feed.call(self.train_step), donate_argnums=(0,))
    total, most = self.plan.every.total, feed.steps_per_call
    made = feed.batches(begun, total, self._counts(begun, most))
    batches = self._stoppable.batches(made, feed.blank())
    self.bad_steps = int(begin.bad_steps)
    current = parallel.replicate(begin)
    held: calls.Held = feed.held
    if self.plan.teacher is not None:
      held = {**held, "teacher": self.plan.teacher.place()}
    self._compile(call, current, held, feed.blank())
    if begun and self._to_evaluate(begun) and self.checkpoints.metrics(begun) is None:
      # A stop came between this step and the end of its evaluation.
      try:
        self.checkpoints.add_metrics(begun, self._validation.evaluate(current, begun))
      except Abandoned:
        return self._stop(current, begun, begun, [])
    if begun and self._to_evaluate(begun) and self._is_over(begun):
      return False
    window: list[_Call] = []
    under_way: collections.deque[_Call] = collections.deque()
    step = begun
    for count in self._counts(begun, most):
      batch, waited = next(batches)
      current, result = call(current, held, parallel.shard(batch))
      step += count
      self.shown.step(step, waited=waited)
      self.checkpoints.poll()
      window.append(_Call(count, result))
      under_way.append(window[-1])
      evaluating, saving = self._to_evaluate(step), self._to_save(step)
      due = evaluating or saving or step % self.plan.every.log == 0
      unmade = self._wait(under_way, 0 if due else parallel.IN_FLIGHT)
      if unmade:
        left = window[len(window) - unmade :]
        return self._stop(
          current, begun, step - sum(c.count for c in left), window[: len(window) - unmade]
        )
      if due:
        self._log(window, step)
        window.clear()
      figures = None
      if evaluating:
        try:
          figures = self._validation.evaluate(current, step)
        except Abandoned:
          return self._stop(current, begun, step, window)
        saving = saving or self.checkpoints.improves(figures)
      if saving:
        self._save(step, current, figures)
      if evaluating and self._is_over(step):
        if not saving:
          self._save(step, current, figures)
        return False
    return False

  def _is_over(self, step: int) -> bool:
    """Whether the best evaluation is so long ago, at one that is recorded, that the run ends before
    its length.

    That is seen from the checkpoints that there are, of which the best is one: nothing else need be
    remembered.
    """
    every, best = self.plan.every, self.checkpoints.best() if self.plan.every.patience else None
    if every.patience is None or step == every.total or step - (best or 0) < every.patience:
      return False
    figure = self.plan.config["checkpoint"]["best_metric"]
    why = f"was never better than at step {best}" if best else "was never a number"
    self.shown.note(f"stopped early at step {step}: validation {figure} {why}")
    return True

  def _counts(self, begun: int, most: int) -> Iterator[int]:
    """The steps of each call from here to the end: as many as may be, up to the next step that
    something is due at.
    """
    every = self.plan.every
    while begun < every.total:
      ends = (n - begun % n for n in (every.log, every.evaluate, every.save))
      count = min(most, every.total - begun, *ends)
      yield count
      begun += count

  def _wait(self, under_way: collections.deque[_Call], bound: int) -> int:
    """Waits until no more than `bound` calls are under way.

    Returns:
      How many of the latest calls made no step, since some process had got a signal: the same
      number in all processes.
    """
    while len(under_way) > bound:
      stopped = under_way.popleft().stopped()
      self.interrupt.busy()
      if stopped:
        return len(under_way) + 1
    return 0

  def _stop(self, current: state.TrainState, begun: int, made: int, window: list[_Call]) -> bool:
    """Logs and saves the steps up to `made`, the last one that was made: all processes come here
    alike.

    Raises:
      UserError: what kept this process from going on, if it was that and no signal.
    """
    if window:
      self._log(window, made)
    if made > begun:
      self._save(made, current, None)
    self.checkpoints.wait()
    parallel.barrier("stop")  # nothing is lost when one process ends the others now
    if self._stoppable.failure is not None:
      raise self._stoppable.failure
    return True

  def _to_evaluate(self, step: int) -> bool:
    return step == self.plan.every.total or step % self.plan.every.evaluate == 0

  def _to_save(self, step: int) -> bool:
    return step == self.plan.every.total or step % self.plan.every.save == 0

  def _feed(self) -> feeds.Streamed | feeds.Resident:
    """What the steps are made on, with what is done about an image that can't be decoded."""
    plan, bad = self.plan, None
    if plan.config["dataset"]["bad_images"] == "skip":
      bad = BadImages(
        plan.folder.bad_images,
        total=len(plan.train_records),
        max_share=plan.config["dataset"]["max_bad_share"],
      )
    if not feeds.is_resident(plan.train_records, plan.config):
      return feeds.Streamed(plan.train_records, plan.config, bad)
    with self.shown.pause("decoding"):
      feed = feeds.Resident(plan.train_records, plan.config, bad)
    self._validation.keep_batches()
    size = sum(rows.nbytes for rows in feed.held.values()) // jax.local_device_count()
    self.shown.note(f"resident  the train split takes {size / 1e6:,.0f} MB of each device")
    return feed

  def _compile(
    self, call: Callable, current: state.TrainState, held: calls.Held, blank: loader.Batch
  ) -> None:
    """Compiles both steps while there is nothing that a signal could lose, and tells what they
    take.
    """
    config = self.plan.config
    batch, parts = parallel.shard(with_stop(blank, 1)), config["optimizer"]["accumulate_steps"]
    size = config["train"]["batch_size"]
    arguments = (current, held, batch)
    needed = memory.check(call, arguments, size, "config.train.batch_size", parts)
    if needed is not None:
      self.shown.note(f"memory    a training step takes {needed / 1e9:,.2f} GB of each device")
    self._validation.compile(current)

  def _log(self, window: list[_Call], step: int) -> None:
    """Fetches the window's metrics from the devices and logs their means; counts its bad steps.

    Raises:
      Diverged: when there are more of them than are allowed.
    """
    rows = [row for call in window for row in call.rows()]
    allowed = self.plan.config["train"]["max_bad_steps"]
    good = []
    for number, row in enumerate(rows, step - len(rows) + 1):
      bad = [name for name in ("loss", "gradient_norm") if not math.isfinite(row[name])]
      if not bad:
        good.append(row)
        continue
      self.bad_steps += 1
      if self.bad_steps > allowed:
        count = f" ({self.bad_steps} of {allowed} bad steps)" if allowed else ""
        raise self._diverged(number, f"the {bad[0]} of step {number} is {row[bad[0]]}{count}")
      self.shown.note(
        f"step {number} was left out: its {bad[0]} is {row[bad[0]]} ({self.bad_steps} of {allowed})"
      )
    if good:
      means = {
        name: float(np.mean([row[name] for row in good])) for name in good[0] if name != "stop"
      }
      means["learning_rate"] = good[-1]["learning_rate"]
      if allowed:
        means["bad_steps"] = self.bad_steps
      self.shown.log(step, "train", means)

  def _save(self, step: int, current: state.TrainState, figures: dict[str, float] | None) -> None:
    """Saves the state, unless it is that of a diverged run: an update can overflow by itself."""
    with self.shown.pause("saving"):
      saved = parallel.unreplicate(current)
      if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(saved)):
        raise self._diverged(step, f"the weights after step {step} are NaN or infinite")
      if parallel.process_index() == 0:
        self.plan.lock.check()
      self.checkpoints.save(step, saved, figures)

  def _diverged(self, step: int, what: str) -> Diverged:
    """Writes down the examples of the step's batch, and returns what to raise."""
    plan, kept = self.plan, self.checkpoints.latest()
    last = "there is no checkpoint" if kept is None else f"the last checkpoint is of step {kept}"
    told = ""
    if parallel.process_index() == 0:
      records = loader.train_examples(plan.train_records, plan.config, step - 1)
      words = [label_sets.words(r.label, plan.source.classes) for r in records]
      examples = [{"name": r.name, "label": label} for r, label in zip(records, words)]
      path = plan.folder.write_diverged({"step": step, "reason": what, "examples": examples})
      told = f"; its batch was {some([r.name for r in records], 3)}, all listed in {path}"
    parallel.barrier("diverged")  # or the others would end process 0 before it is through
    return Diverged(
      f"{what}{told}; {last}; look at these images, lower config.optimizer.learning_rate or set "
      "config.optimizer.clip_norm (with another --workdir), or leave such steps out: "
      "config.train.max_bad_steps"
    )
