"""TrainState and nothing else: what a checkpoint holds and a step hands to the next."""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


@flax.struct.dataclass
class TrainState:
  """The whole state of a run.

  With the config and the data set, `step` is all that the rest follows from.

  Attributes:
    step: scalar int32, the number of batches behind it, and so the number of the next one.
    bad_steps: scalar int32, how many of them were left out since their loss or gradient was NaN or
      infinite.
    params: the model's parameters, float32 (float64 with dtype float64).
    batch_stats: running means and variances of batch norm; empty for models without it.
    opt_state: the state of the optax optimizer.
    ema: moving averages of `params` and `batch_stats` under these names; empty where EMA is off.
  """

  step: jax.Array
  bad_steps: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: dict[str, Any]

  def variables(self) -> dict[str, Any]:
    """Returns what the model is applied with in evaluation: the averages where there are any."""
    return dict(self.ema) or {"params": self.params, "batch_stats": self.batch_stats}


def create(
  model: Any, optimizer: optax.GradientTransformation, *, seed: int, image_size: int, ema: bool
) -> TrainState:
  """Returns the state before the first step, which follows from the seed alone.

  Args:
    model: a `flax.linen` module as made by `imgclf.models.create`.
    optimizer: as made by `imgclf.optim.create`.
    seed: of the initial parameters.
    image_size: height and width of the images.
    ema: whether to keep moving averages of the weights.
  """

  def init(key):
    images = jnp.zeros((1, image_size, image_size, 3), jnp.float32)
    variables = model.init(key, images)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    # The averages are copies: a buffer that is in the state twice can't be donated.
    copies = jax.tree.map(jnp.copy, {"params": params, "batch_stats": batch_stats})
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      bad_steps=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=batch_stats,
      opt_state=optimizer.init(params),
      ema=copies if ema else {},
    )

  # A program for all seeds, since the key is an argument. It runs once, and is long: on CPUs LLVM's
  # level 1 compiles it in a third to three quarters of the time, to the same bits.
  options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
  return jax.jit(init, compiler_options=options)(jax.random.key(seed))


def with_weights(state: TrainState, variables: dict[str, Any]) -> TrainState:
  """Returns a state before its first step with other weights, and averages that begin at them.

  Args:
    state: as from `create`.
    variables: `params` and `batch_stats` of the same shapes and types.
  """
  ema = jax.tree.map(np.copy, dict(variables)) if state.ema else {}
  return dataclasses.replace(state, **variables, ema=ema)


def fitted(state: TrainState, model: Any, images: jax.Array) -> TrainState:
  """Returns a state before its first step with the weights that the network takes from training
  images.

  Args:
    state: as from `create`.
    model: one that has `fitted`, see `imgclf.models`.
    images: `model.fitted_to` of them, or all there are: [n, height, width, 3] floats, normalised.
  """
  params = model.fitted(state.params, images)
  ema = {**state.ema, "params": jax.tree.map(np.copy, params)} if state.ema else {}
  return dataclasses.replace(state, params=params, ema=ema)
