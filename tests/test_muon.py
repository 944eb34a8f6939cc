"""Muon's directions against singular values, and its step against the published one in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import muon


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def directions(gradients, momentum, steps, dtype=jnp.float64):
  transform = muon.orthogonal_updates(momentum=momentum, steps=steps, dtype=dtype)
  state = transform.init(gradients[0])
  for gradient in gradients:
    updates, state = transform.update(gradient, state)
  return jax.device_get(updates)


# The iteration's own coefficients take any singular value to some 0.7 to 1.2 (Jordan 2024).
@pytest.mark.parametrize(
  ("shape", "factor"), [((3, 3, 8, 16), 1), ((16, 64), 2), ((2, 2, 3, 24), 2**0.5)]
)
def test_a_bank_of_filters_moves_along_an_orthogonal_direction(shape, factor):
  gradient = normal(*shape) * 1e-4
  matrix = gradient.reshape(-1, shape[-1])
  with jax.enable_x64(True):
    moved = directions([gradient], 0.0, 5).reshape(matrix.shape) / factor
  values = np.linalg.svd(moved, compute_uv=False)
  assert values.min() > 0.65 and values.max() < 1.25
  # The same singular vectors as the gradient's: u^T moved v is diagonal.
  u, _, v = np.linalg.svd(matrix, full_matrices=False)
  inner = u.T @ moved @ v.T
  np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-3)


def published(gradient, steps=5):
  """The published iteration of one matrix of inputs by outputs, in numpy."""
  x = gradient / (np.linalg.norm(gradient) + 1e-7)
  for _ in range(steps):
    a = x @ x.T
    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
  return x


def test_banks_of_one_shape_and_of_others_are_each_what_they_are_alone():
  """Two of 4 inputs by 6 outputs, one of 6 by 4, which is that shape once it is turned, and one of
  3 by 3."""
  shapes = {"a": (2, 2, 6), "b": (4, 6), "c": (6, 4), "d": (1, 3, 3)}
  banks = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
  with jax.enable_x64(True):
    moved = directions([banks], 0.0, 5)
  for name, bank in banks.items():
    matrix = bank.reshape(-1, bank.shape[-1])
    scale = max(1.0, matrix.shape[1] / matrix.shape[0]) ** 0.5
    np.testing.assert_allclose(
      moved[name].reshape(matrix.shape), scale * published(matrix), rtol=1e-9, atol=1e-12
    )


def test_momentum_is_nesterovs_without_a_correction():
  first, second = normal(4, 4, seed=1), normal(4, 4, seed=2)
  with jax.enable_x64(True):
    moved = directions([first, second], 0.5, 5)
  # v = first, then 0.5 first + second; the step goes along second + 0.5 v.
  expected = published(second + 0.5 * (0.5 * first + second))
  np.testing.assert_allclose(moved, expected, rtol=1e-9, atol=1e-12)


def test_bfloat16_is_for_the_iteration_alone():
  gradients = [np.asarray(normal(8, 16), np.float32)] * 2
  moved = directions(gradients, 0.9, 5, jnp.bfloat16)
  exact = directions(gradients, 0.9, 5, jnp.float32)
  assert moved.dtype == np.float32
  assert 1e-4 < np.abs(moved - exact).max() < 0.1
  state = muon.orthogonal_updates(momentum=0.9, steps=5, dtype=jnp.bfloat16).init(gradients[0])
  assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [np.float32]


def test_units_are_what_a_bank_is_scaled_to_before_its_update():
  bank, bias = normal(3, 3, 2, 5) * 7, normal(5)
  chosen = muon.unit_filters(lambda params: {"bank": True, "bias": False})
  params, updates = {"bank": bank, "bias": bias}, {"bank": 0.1 * bank**2, "bias": bias}
  with jax.enable_x64(True):
    moved = jax.device_get(chosen.update(updates, chosen.init(params), params)[0])
  expected = bank * np.sqrt(5) / np.linalg.norm(bank) + 0.1 * bank**2
  np.testing.assert_allclose(bank + moved["bank"], expected, rtol=1e-12)
  np.testing.assert_array_equal(moved["bias"], bias)


def test_a_bank_of_zeros_stays_finite():
  chosen = muon.unit_filters(lambda params: True)
  moved, _ = chosen.update(jnp.ones((2, 2)), chosen.init(None), jnp.zeros((2, 2)))
  np.testing.assert_array_equal(moved, np.ones((2, 2)))
