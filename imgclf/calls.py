"""What the devices are called with: one training step on examples from the host, or several on a
split that they hold.

Pure functions of one device's share, as the steps are; the loop replicates them. Knows no loss.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from imgclf.parallel import AXIS
from imgclf.state import TrainState
from imgclf.steps import Batch, Metrics

# What a device holds from call to call: rows of a resident split by name, a teacher's variables as
# `teacher`.
Held = Mapping[str, Any]


def one_call(
  train_step: Callable[..., tuple[TrainState, Metrics]],
) -> Callable[[TrainState, Held, Batch], tuple[TrainState, Metrics]]:
  """Returns the function of a call that makes one step on examples that the host hands over.

  It takes the state, what the device holds (the variables of a `teacher`, or nothing), and a batch
  of `train_step`; metrics have a leading axis of 1 step.
  """

  def call(state: TrainState, held: Held, batch: Batch) -> tuple[TrainState, Metrics]:
    state, metrics = train_step(state, batch, held.get("teacher"))
    return state, {name: value[None] for name, value in metrics.items()}

  return call


def resident_call(
  train_step: Callable[..., tuple[TrainState, Metrics]], most: int
) -> Callable[[TrainState, Held, Batch], tuple[TrainState, Metrics]]:
  """Returns the function of a call that makes up to `most` steps on examples that the device holds.

  It takes the state, the split (`image` [n, size, size, 3] uint8, `label` [n] int32, and `mask` [n]
  bool where examples may be bad) with the variables of a `teacher` where there is one, and which of
  its examples to take: `index` [batch, most] int32, `count` [batch] int32 (how many of the steps to
  make, the same in all rows), `mirror` [batch, most], `position` and `stop` as for `train_step`.
  Metrics have a leading axis of `most` steps, of which the first `count` are filled.
  """

  def call(state: TrainState, held: Held, batch: Batch) -> tuple[TrainState, Metrics]:
    split = {name: rows for name, rows in held.items() if name != "teacher"}

    def step(number: int | jax.Array, state: TrainState) -> tuple[TrainState, Metrics]:
      index = batch["index"][:, number]
      chosen = {name: jnp.take(rows, index, axis=0, mode="clip") for name, rows in split.items()}
      if "mirror" in batch:
        chosen["mirror"] = batch["mirror"][:, number]
      whole = {**chosen, "position": batch["position"], "stop": batch["stop"]}
      return train_step(state, whole, held.get("teacher"))

    if most == 1:
      state, metrics = step(0, state)
      return state, {name: value[None] for name, value in metrics.items()}

    def add_step(
      number: jax.Array, carry: tuple[TrainState, Metrics]
    ) -> tuple[TrainState, Metrics]:
      state, filled = carry
      state, metrics = step(number, state)
      return state, {name: filled[name].at[number].set(value) for name, value in metrics.items()}

    shapes = jax.eval_shape(step, 0, state)[1]
    empty = {name: jnp.zeros((most, *x.shape), x.dtype) for name, x in shapes.items()}
    # The number of steps is a value, not a shape: one program serves up to every log line, whatever
    # is left. A process that has got a signal may ask for fewer; all must make the same number, be
    # they not made.
    count = jax.lax.pmax(batch["count"][0], AXIS)
    return jax.lax.fori_loop(0, count, add_step, (state, empty))

  return call
