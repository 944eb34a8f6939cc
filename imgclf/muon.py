"""Muon: the momentum of a bank of filters made orthogonal. Knows no network, name or config.

Jordan 2024, https://kellerjordan.github.io/posts/muon. A bank is an array of two or more axes, the
last being outputs and the others inputs, and is worked on as a matrix of inputs by outputs.

optax.contrib has a Muon too. It corrects the bias of its momentum, which the published one does
not: after four steps of airbench94_muon the filters had gone a quarter of their way elsewhere. And
it works bank by bank, in float32.
"""

import collections
from collections.abc import Callable
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
import optax

# Of x, x^3 and x^5 in an iteration that lifts small singular values fast and leaves all of them
# near 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonal_updates(
  *, momentum: float, steps: int, dtype: DTypeLike
) -> optax.GradientTransformation:
  """Returns what turns the gradients of banks of filters into orthogonal directions.

  Momentum in Nesterov's form, Newton and Schulz' iteration, and the root of outputs / inputs where
  that is more than 1. With the usual five steps singular values are some 0.7 to 1.2, before that
  factor; with fewer, those that are small in the momentum stay smaller.

  Args:
    momentum: in [0, 1).
    steps: of the iteration.
    dtype: that the iteration computes in; the momentum is of the gradients' type.
  """

  def directions(updates: Any, _: Any) -> Any:
    return _orthogonalized(updates, steps, dtype)

  return optax.chain(optax.trace(momentum, nesterov=True), optax.stateless(directions))


def _orthogonalized(banks: Any, steps: int, dtype: DTypeLike) -> Any:
  leaves, tree = jax.tree.flatten(banks)
  # Matrices of one shape go through the products together: a GPU is idle between small ones.
  alike: dict[tuple[int, ...], list[int]] = collections.defaultdict(list)
  matrices = []
  for place, bank in enumerate(leaves):
    matrix = bank.reshape(-1, bank.shape[-1])
    matrices.append(matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)
    alike[matrices[-1].shape].append(place)
  for places in alike.values():
    results = newton_schulz(jnp.stack([matrices[place] for place in places]), steps, dtype)
    for place, result in zip(places, results):
      bank = leaves[place]
      inputs, outputs = bank.size // bank.shape[-1], bank.shape[-1]
      result = result if inputs <= outputs else result.T
      scale = math.sqrt(max(1.0, outputs / inputs))
      leaves[place] = scale * result.reshape(bank.shape).astype(bank.dtype)
  return jax.tree.unflatten(tree, leaves)


def newton_schulz(matrices: jax.Array, steps: int, dtype: DTypeLike) -> jax.Array:
  """Takes the singular values of matrices to near 1, and leaves their singular vectors.

  Args:
    matrices: [n, rows, columns] floats, best with no more rows than columns.
    steps: of the iteration.
    dtype: of the computation and the result.
  """
  norm = jnp.linalg.norm(matrices, axis=(1, 2), keepdims=True)
  x = (matrices / (norm + 1e-7)).astype(dtype)  # no singular value is above 1
  a, b, c = _COEFFICIENTS
  for _ in range(steps):
    square = x @ x.mT
    x = a * x + (b * square + c * (square @ square)) @ x
  return x


def unit_filters(chosen: Callable[[Any], Any]) -> optax.GradientTransformation:
  """Returns what scales a bank, before its update is added, to the norm that it has where each
  filter has norm 1.

  As airbench94_muon.py of github.com/KellerJordan/cifar10-airbench does: batch norm undoes any
  scale of the filters before it, and so the learning rate alone says how far a step turns them. It
  comes last in a chain.

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
