"""Losses against numpy and the papers' formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from sklearn.utils.class_weight import compute_class_weight

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


def test_losses_of_several_classes_are_numpys_in_float64():
  rng = np.random.default_rng(0)
  logits = rng.normal(scale=3, size=(6, 4))
  logits[0, :2] = [60, -60]  # p is 1 and 0 in float32
  label, other = rng.integers(0, 2, (2, 6, 4)).astype(np.uint8)
  share = rng.random(6)
  targets = losses.Targets(
    jnp.asarray(label), losses.Partner(jnp.asarray(other), jnp.asarray(share))
  )
  # The mix of the two rows, then a tenth of the way to 1/2.
  t = 0.9 * ((1 - share[:, None]) * label + share[:, None] * other) + 0.05
  log_p, log_q = -np.log1p(np.exp(-logits)), -np.log1p(np.exp(logits))
  for loss, gamma in (("binary", 0.0), ("focal", 0.0), ("focal", 0.5), ("focal", 2.0)):
    p, q = np.exp(log_p), np.exp(log_q)
    expected = -(t * q**gamma * log_p + (1 - t) * p**gamma * log_q).mean(axis=1)
    train = {"loss": loss, "focal_gamma": gamma, "label_smoothing": 0.1, "binary_threshold": None}
    found = losses.training_loss(jnp.asarray(logits), targets, train)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    slope = jax.grad(lambda x: losses.training_loss(x, targets, train).sum())(jnp.asarray(logits))  # noqa: B023
    assert np.isfinite(slope).all()
  sharp = {"loss": "binary", "label_smoothing": 0.1, "binary_threshold": 0.5}
  expected = -np.where(t > 0.5, log_p, log_q).mean(axis=1)
  found = losses.training_loss(jnp.asarray(logits), targets, sharp)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_softmax_is_no_loss_of_several_classes():
  train = {"loss": "softmax", "label_smoothing": 0.0}
  with pytest.raises(ValueError, match="softmax is no loss of several classes"):
    losses.training_loss(jnp.zeros((1, 2)), losses.Targets(jnp.ones((1, 2), jnp.uint8)), train)


def test_an_answer_of_several_classes_is_right_where_all_are_said_and_no_other():
  logits = jnp.array([[1.0, -1.0, 0.0], [1.0, -1.0, 2.0], [-1.0, -2.0, -3.0]])
  label = jnp.array([[1, 0, 1], [1, 1, 1], [0, 0, 0]], jnp.uint8)
  assert losses.are_right(logits, losses.Targets(label)).tolist() == [True, False, True]
  partner = losses.Partner(label[::-1], jnp.array([0.6, 0.1, 0.4]))
  # The first is more of the third's label, and that is none.
  found = losses.are_right(logits, losses.Targets(label, partner))
  assert found.tolist() == [False, False, True]
  assert losses.are_right(logits, losses.Targets(jnp.array([0, 1, 0]))).tolist() == [1, 0, 1]


def test_focal_loss_is_the_papers():
  # p = 0.9 and gamma = 2: a hundredth of the cross-entropy (Lin et al. 2017, section 3.2).
  logits = jnp.log(jnp.array([[0.9, 0.06, 0.04], [0.2, 0.5, 0.3]]))
  found = losses.focal_loss(logits, jnp.array([0, 2]), 2.0)
  np.testing.assert_allclose(found, [0.01 * -np.log(0.9), 0.49 * -np.log(0.3)], rtol=1e-5)
  np.testing.assert_allclose(
    losses.focal_loss(logits, jnp.array([0, 2]), 0.0), -np.log([0.9, 0.3]), rtol=1e-5
  )
  # Smoothing by 0.3 leaves 0.8 of the target and a tenth for each other class.
  parts = [0.49 * np.log(0.3), 0.64 * np.log(0.2), 0.25 * np.log(0.5)]
  smooth = losses.focal_loss(logits, jnp.array([0, 2]), 2.0, smoothing=0.3)[1]
  np.testing.assert_allclose(smooth, -np.dot([0.8, 0.1, 0.1], parts), rtol=1e-5)


def test_focal_loss_of_what_is_certain_has_a_gradient():
  certain = jnp.array([[200.0, 0.0]])
  for gamma in (0.5, 1.0, 2.0):
    loss = functools.partial(losses.focal_loss, labels=jnp.array([0]), gamma=gamma)
    (gradient,) = jax.vjp(loss, certain)[1](jnp.ones(1))
    np.testing.assert_allclose(gradient, np.zeros((1, 2)), atol=1e-6)


def test_balanced_weights_are_scikit_learns():
  labels = np.array([0] * 6 + [3] * 2 + [2])
  found = losses.class_weights(labels, 5, {"class_weights": "balanced"})
  expected = compute_class_weight("balanced", classes=np.array([0, 2, 3]), y=labels)
  np.testing.assert_allclose(found, [expected[0], 0, *expected[1:], 0], rtol=1e-6)
  assert found[labels].mean() == pytest.approx(1)


def test_effective_weights_go_with_the_effective_number_of_examples():
  labels = np.array([0] * 3 + [2])
  # With beta 1/2 three examples count (1 - 1/8) / (1 - 1/2) = 7/4, and one counts 1: the weights go
  # as 4/7 and 1.
  train = {"class_weights": "effective", "class_weights_beta": 0.5}
  found = losses.class_weights(labels, 3, train)
  np.testing.assert_allclose(found, np.array([4 / 7, 0, 1]) * 4 / (3 * 4 / 7 + 1), rtol=1e-6)
  # At 0 all count alike, and towards 1 as if balanced.
  alike = losses.class_weights(labels, 3, train | {"class_weights_beta": 0.0})
  np.testing.assert_array_equal(alike, [1, 0, 1])
  near = losses.class_weights(labels, 3, train | {"class_weights_beta": 1 - 1e-9})
  balanced = losses.class_weights(labels, 3, {"class_weights": "balanced"})
  np.testing.assert_allclose(near, balanced, rtol=1e-6)
  assert losses.class_weights(labels, 3, {"class_weights": "none"}) is None


def test_each_label_of_a_mix_counts_by_its_own_class():
  p = np.array([[0.5, 0.3, 0.2]])
  targets = losses.Targets(jnp.array([0]), losses.Partner(jnp.array([2]), jnp.array([0.25])))
  train = {"loss": "softmax", "label_smoothing": 0.0, "binary_threshold": None, "focal_gamma": 2.0}
  weights = np.array([1.0, 2.0, 4.0])
  found = losses.training_loss(jnp.log(p), targets, train, weights)
  np.testing.assert_allclose(found, [-0.75 * np.log(0.5) - 0.25 * 4 * np.log(0.2)], rtol=1e-5)
  train["loss"] = "focal"
  found = losses.training_loss(jnp.log(p), targets, train, weights)
  expected = -0.75 * 0.25 * np.log(0.5) - 0.25 * 4 * 0.64 * np.log(0.2)
  np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_distillation_is_the_divergence_times_the_square_of_the_temperature():
  rng = np.random.default_rng(0)
  logits, taught = rng.normal(size=(2, 4, 5)) * 3
  p, q = (scipy.special.softmax(each / 4, axis=1) for each in (taught, logits))
  found = losses.distillation(jnp.asarray(logits), jnp.asarray(taught), 4.0)
  np.testing.assert_allclose(found, 16 * scipy.special.rel_entr(p, q).sum(axis=1), rtol=1e-4)
  np.testing.assert_allclose(losses.distillation(logits, logits, 4.0), np.zeros(4), atol=1e-5)
  # T (q - p) for the student, and nothing for the teacher.
  of = lambda logits, taught: losses.distillation(logits, taught, 4.0).sum()  # noqa: E731
  own, its = jax.grad(of, argnums=(0, 1))(jnp.asarray(logits), jnp.asarray(taught))
  np.testing.assert_allclose(own, 4 * (q - p), rtol=1e-3, atol=1e-6)
  np.testing.assert_array_equal(its, np.zeros((4, 5)))
