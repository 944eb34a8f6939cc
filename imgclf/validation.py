"""The validation split, judged on the way: by the weights as they are, again and again in one run.

When that is due, and what follows from the figures, is for imgclf/loop.py to say.
"""

from collections.abc import Callable, Iterator
import itertools

import jax
import jax.numpy as jnp

from imgclf import config as configs
from imgclf import memory, parallel, progress, state
from imgclf.data import loader
from imgclf.errors import UserError
from imgclf.judge import figures as judged
from imgclf.judge import split_batches
from imgclf.plan import Plan
from imgclf.stoppable import Stoppable, with_stop


class Validation:
  """The validation split of one run, with what stays the same from one evaluation to the next."""

  def __init__(
    self, plan: Plan, eval_step: Callable, shown: progress.Progress, stoppable: Stoppable
  ):
    """Compiles nothing yet.

    Args:
      plan: the run.
      eval_step: as from `imgclf.steps.make_eval_step`.
      shown: what a person sees.
      stoppable: of the run; ends an evaluation in all processes alike.
    """

    def eval_and_stop(variables, batch):
      stop = jax.lax.psum(jnp.max(batch["stop"]), parallel.AXIS)
      return {**eval_step(variables, batch), "stop": stop}

    self._plan, self._shown, self._stoppable = plan, shown, stoppable
    self._step = parallel.pmap(eval_and_stop)
    self._size = configs.eval_batch_size(plan.config)
    self._keeping = False
    self._kept: list[loader.Batch] = []

  def keep_batches(self) -> None:
    """Has the first evaluation keep its batches in the host's memory for those after it."""
    self._keeping = True

  def compile(self, current: state.TrainState) -> None:
    """Compiles the evaluation step.

    Raises:
      UserError: if it takes more memory than the devices have.
    """
    blank = self._blank()
    batch = with_stop({key: blank[key] for key in ("image", "label")}, 1)
    arguments = (current.variables(), parallel.shard(batch))
    memory.check(self._step, arguments, self._size, "config.eval.batch_size", 1)

  def evaluate(self, current: state.TrainState, step: int) -> dict[str, float]:
    """Judges the split with the weights as they are; records and returns the figures.

    Args:
      current: replicated.
      step: how many steps made it.

    Raises:
      Abandoned: if a signal came before it was over, in all processes alike.
      UserError: for an image that can't be decoded, or too little memory.
    """
    plan = self._plan
    with self._shown.pause("evaluating"):
      records = plan.validation_records
      flagged = self._stoppable.batches(self._batches(), self._blank())
      # As many as there are in every process, whatever comes in between.
      batches = itertools.islice((batch for batch, _ in flagged), -(-len(records) // self._size))
      try:
        figures = judged(
          plan.config,
          plan.source.classes,
          self._step,
          current.variables(),
          batches,
          len(records),
        )
      except Exception as error:
        if isinstance(error, UserError) or not memory.exhausted(error):
          raise
        raise memory.refusal(error, self._size, "config.eval.batch_size") from error
      if parallel.process_index() == 0:
        how = {"temperature": 1.0, "tta": plan.config["eval"]["tta"]}
        plan.folder.write_evaluation("validation", step, {**how, **figures})
    self._shown.log(step, "validation", figures)
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}

  def _blank(self) -> loader.Batch:
    plan = self._plan
    share = self._size // parallel.process_count()
    return loader.blank_batch(plan.config, share, loader.label_shape(plan.validation_records))

  def _batches(self) -> Iterator[loader.Batch]:
    if self._kept:
      yield from self._kept
      return
    made = []
    for batch in split_batches(self._plan.validation_records, self._plan.config):
      if self._keeping:
        made.append(batch)
      yield batch
    self._kept = made
