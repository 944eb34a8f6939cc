"""Muon: the momentum of a bank of filters made orthogonal, from optax's parts. Knows no network, name or config.

Jordan 2024, https://kellerjordan.github.io/posts/muon. A bank is an array of two or more axes, the last being outputs
and the others inputs, and is worked on as a matrix of inputs by outputs.
"""

from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib


def orthogonal_updates(*, momentum: float, steps: int) -> optax.GradientTransformation:
  """Returns what turns the gradients of banks of filters into orthogonal directions.

  Momentum in Nesterov's form, Newton and Schulz' iteration, and the root of outputs / inputs where that is more than 1.
  With the usual five steps the singular values are some 0.7 to 1.2, before that factor; with fewer, small ones of the
  gradient stay smaller.

  Args:
    momentum: in [0, 1).
    steps: of the iteration.
  """
  return optax.chain(
    optax.contrib.scale_by_muon(
      ns_steps=steps, beta=momentum, weight_dimension_numbers=_input_and_output_axes
    ),
    optax.stateless(lambda updates, params: jax.tree.map(_by_shape, updates)),
  )


def _input_and_output_axes(params: Any) -> Any:
  return jax.tree.map(
    lambda leaf: optax.contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), (leaf.ndim - 1,)),
    params,
  )


def _by_shape(update: jax.Array) -> jax.Array:
  outputs = update.shape[-1]
  return update * math.sqrt(max(1.0, outputs / (update.size // outputs)))


def unit_filters(chosen: Callable[[Any], Any]) -> optax.GradientTransformation:
  """Returns what scales a bank, before its update is added, to the norm that it has where each filter has norm 1.

  As airbench94_muon.py of github.com/KellerJordan/cifar10-airbench does: batch norm undoes any scale of the filters
  before it, and so the learning rate alone says how far a step turns them. It comes last in a chain.

  Args:
    chosen: parameters to a tree of bools, whether they are such a bank.
  """

  def update(updates: Any, params: Any) -> Any:
    def add(of_bank: bool, update: jax.Array, bank: jax.Array) -> jax.Array:
      if not of_bank:
        return update
      norm = jnp.maximum(jnp.linalg.norm(bank.reshape(-1)), 1e-12)
      return update + (math.sqrt(bank.shape[-1]) / norm - 1) * bank

    return jax.tree.map(add, chosen(params), updates, params)

  return optax.stateless(update)
