"""Muon's directions against singular values, and its step against the published one in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import muon


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


def directions(gradients, momentum, steps):
  transform = muon.orthogonal_updates(momentum=momentum, steps=steps)
  state = transform.init({"w": gradients[0]})
  for gradient in gradients:
    updates, state = transform.update({"w": gradient}, state)
  return np.asarray(updates["w"])


# The iteration's own coefficients take any singular value to some 0.7 to 1.2 (Jordan 2024).
@pytest.mark.parametrize(
  ("shape", "factor"), [((3, 3, 8, 16), 1), ((16, 64), 2), ((2, 2, 3, 24), 2**0.5)]
)
def test_a_bank_of_filters_moves_along_an_orthogonal_direction(shape, factor):
  gradient = normal(*shape) * 1e-4
  matrix = gradient.reshape(-1, shape[-1])
  moved = directions([gradient], 0.0, 5).reshape(matrix.shape) / factor
  values = np.linalg.svd(moved, compute_uv=False)
  assert values.min() > 0.65 and values.max() < 1.25
  # The same singular vectors as the gradient's: u^T moved v is diagonal.
  u, _, v = np.linalg.svd(matrix, full_matrices=False)
  inner = u.T @ moved @ v.T
  np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-3)


def test_momentum_is_nesterovs():
  """With one step far larger than the others the direction is that of its own singular vectors."""
  first, second = normal(6, 4, seed=1), normal(6, 4, seed=2)
  with jax.enable_x64(True):
    moved = directions([first, second], 0.5, 5)
    # optax's bias correction: means of 0.25 and 0.5 over 1 - 0.5^3, and 0.5 of the gradient over 1 - 0.5^2.
    average = 0.5 * (0.25 * first + 0.5 * second) / (1 - 0.5**3) + 0.5 * second / (1 - 0.5**2)
    expected = directions([average], 0.0, 5)
  np.testing.assert_allclose(moved, expected, rtol=1e-10)


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
