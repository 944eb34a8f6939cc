"""Losses against numpy and the papers' formulas."""

import jax.numpy as jnp
import numpy as np

from imgclf import losses


def test_cross_entropy_is_numpys():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(6, 4)).astype(np.float32), rng.integers(0, 4, 6)
  p = np.exp(logits.astype(np.float64))
  p /= p.sum(axis=1, keepdims=True)
  plain = -np.log(p[np.arange(6), labels])
  np.testing.assert_allclose(losses.cross_entropy(logits, labels), plain, rtol=1e-5)
  target = np.full((6, 4), 0.1 / 4)
  target[np.arange(6), labels] += 0.9
  smooth = -(target * np.log(p)).sum(axis=1)
  np.testing.assert_allclose(losses.cross_entropy(logits, labels, 0.1), smooth, rtol=1e-5)


def test_the_loss_of_a_mix_is_the_weighted_sum_of_those_of_its_labels():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(5, 4))
  labels, others, share = rng.integers(0, 4, 5), rng.integers(0, 4, 5), rng.random(5)
  targets = losses.Targets(
    jnp.asarray(labels), losses.Partner(jnp.asarray(others), jnp.asarray(share))
  )
  log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
  weights = np.full((5, 4), 0.1 / 4)
  for row in range(5):
    weights[row, labels[row]] += 0.9 * (1 - share[row])
    weights[row, others[row]] += 0.9 * share[row]
  train = {"loss": "softmax", "label_smoothing": 0.1, "binary_threshold": None}
  found = losses.training_loss(jnp.asarray(logits), targets, train)
  np.testing.assert_allclose(found, -(weights * log_p).sum(axis=1), rtol=1e-5)
  # Each class for itself: -t log(sigmoid) - (1 - t) log(1 - sigmoid), the mean over classes.
  p = 1 / (1 + np.exp(-logits))
  for threshold in (None, 0.2):
    t = weights if threshold is None else (weights > threshold)
    expected = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean(axis=1)
    train = {"loss": "binary", "label_smoothing": 0.1, "binary_threshold": threshold}
    found = losses.training_loss(jnp.asarray(logits), targets, train)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_label_of_more_weight_is_the_one_that_counts():
  partner = losses.Partner(jnp.array([5, 6, 7]), jnp.array([0.6, 0.4, 0.5]))
  assert losses.Targets(jnp.array([1, 2, 3]), partner).main().tolist() == [5, 2, 3]
  assert losses.Targets(jnp.array([1, 2, 3])).main().tolist() == [1, 2, 3]
