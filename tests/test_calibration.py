"""The temperature of least loss: held against scipy, against numbers by hand, and where there is
none."""

import math

import numpy as np
import pytest
from scipy import optimize, special
from sklearn.metrics import log_loss

from imgclf import calibration


def drawn(n, classes, temperature, seed=0):
  """Logits, and labels that are drawn from their probabilities at a temperature, which so is the
  true one."""
  rng = np.random.default_rng(seed)
  logits = 3 * rng.standard_normal((n, classes)).astype(np.float32)
  shares = special.softmax(logits / temperature, axis=1)
  labels = (shares.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, classes - 1)
  return logits, labels


@pytest.mark.parametrize(("temperature", "classes"), [(0.4, 10), (1.0, 3), (2.5, 100)])
def test_the_temperature_is_the_minimum_that_scipy_finds(temperature, classes):
  logits, labels = drawn(2000, classes, temperature)

  def loss(log_inverse):
    probabilities = special.softmax(logits.astype(float) * math.exp(log_inverse), axis=1)
    return log_loss(labels, probabilities, labels=range(classes))

  found = calibration.fit_temperature(logits, labels)
  expected = math.exp(-optimize.minimize_scalar(loss, (-2, 2), tol=1e-10).x)
  assert found.note is None
  assert found.temperature == pytest.approx(expected, rel=1e-5)
  assert found.temperature == pytest.approx(temperature, rel=0.1)  # what the labels were drawn with


def test_the_temperature_by_hand():
  """Two classes one apart, 3 of 4 right: the best model says 3/4, so 1 / T = ln 3."""
  logits = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
  found = calibration.fit_temperature(logits, np.array([0, 0, 1, 0]))
  assert found.temperature == pytest.approx(1 / math.log(3), rel=1e-8)
  # Slopes of 1/4, three times, and 3/4; variance 3/16: an error of sqrt((12/64) / 4) / (3/16) in ln
  # 3, or 105%.
  assert "standard error is larger than itself" in found.note


def test_how_uncertain_a_temperature_is_follows_from_the_examples():
  """The case above 16 times: a quarter of the error, 26%; 36 times: a sixth, 18%, which is not
  told."""
  logits = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)
  labels = np.array([0, 0, 1, 0])
  some = calibration.fit_temperature(np.tile(logits, (16, 1)), np.tile(labels, 16))
  assert some.note.startswith("its standard error is 26% of it")
  many = calibration.fit_temperature(np.tile(logits, (36, 1)), np.tile(labels, 36))
  assert many.note is None
  assert many.temperature == pytest.approx(some.temperature, rel=1e-8)


def test_the_uncertainty_is_the_spread_of_temperatures_over_samples():
  found = [
    math.log(calibration.fit_temperature(*drawn(60, 4, 1.5, seed=seed)).temperature)
    for seed in range(300)
  ]
  logits, labels = drawn(60 * 300, 4, 1.5, seed=1000)
  inverse = 1 / calibration.fit_temperature(logits, labels).temperature
  _, curvature, square = calibration._slope(logits, labels, inverse)
  error = math.sqrt(square / 60) / (curvature * inverse)
  assert np.std(found) == pytest.approx(error, rel=0.2)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 500.0])
def test_where_every_answer_is_right_the_temperature_stays_1_and_that_is_told(scale):
  logits = scale * np.eye(4, dtype=np.float32)
  found = calibration.fit_temperature(logits, np.arange(4))
  assert found.temperature == 1
  assert "every example is right" in found.note


def test_what_has_its_minimum_outside_the_bounds_gets_the_bound_and_that_is_told():
  """Always wrong: the hotter, the better.

  One wrong of a thousand by a hair: ln(999) / 1000 is below the bound.
  """
  wrong = calibration.fit_temperature(np.eye(3, dtype=np.float32), np.array([1, 2, 0]))
  assert wrong.temperature == calibration.HOTTEST
  assert "above 20" in wrong.note
  gap = np.full((1000, 2), [0.001, 0], np.float32)
  hair = calibration.fit_temperature(gap, np.array([1] + [0] * 999))
  assert hair.temperature == calibration.COLDEST
  assert "below 0.05" in hair.note


def test_a_tie_is_not_a_right_answer():
  found = calibration.fit_temperature(np.zeros((2, 2), np.float32), np.array([0, 1]))
  assert found.note is not None  # whatever the temperature, the loss is ln 2
  assert calibration.losses(np.zeros((2, 2)), np.array([0, 1]), found.temperature) == (
    pytest.approx(math.log(2))
  )


def test_losses_and_probabilities_are_scipys_however_large_the_logits(monkeypatch):
  monkeypatch.setattr(calibration, "_BLOCK", 64)  # 6 rows a block, and a last one of 2
  logits, labels = drawn(50, 10, 1.0)
  logits[3] *= 1000
  expected = special.softmax(logits.astype(float) / 0.7, axis=1)
  with np.errstate(divide="ignore"):
    logs = special.log_softmax(logits.astype(float) / 0.7, axis=1)
  found = calibration.losses(logits, labels, 0.7)
  np.testing.assert_allclose(found, -logs[np.arange(50), labels], rtol=1e-9, atol=1e-12)
  calibration.to_probabilities(logits, 0.7)
  np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-30)
