import functools

import jax
import numpy as np
import pytest
import reference

from imgclf import models
from imgclf.models.cnn import CNN


def test_the_textbook_form_counts_as_by_hand():
  # Convolutions, then 224 -> 222 -> 111 -> 109 -> 54 -> 52 -> 26 pixels, then the dense layers.
  convolutions = (9 * 3 * 32 + 32) + (9 * 32 * 64 + 64) + (9 * 64 * 128 + 128)
  dense = (26 * 26 * 128 * 512 + 512) + (512 * 10 + 10)
  params = models.shapes(CNN(10), 224)["params"]
  assert models.parameter_count(params) == convolutions + dense == 44_401_226


@pytest.mark.parametrize(("size", "left"), [(22, 1), (23, 1), (31, 2)])
def test_logits_are_those_of_the_network_written_in_numpy(size, left):
  with jax.enable_x64(True):
    model = CNN(7, dtype="float64")
    variables = reference.random_variables(models.shapes(model, size))
    params = variables["params"]
    assert params["dense"]["kernel"].shape == (left * left * 128, 512)
    images = np.random.default_rng(1).normal(size=(2, size, size, 3))
    apply = jax.jit(functools.partial(model.apply, mutable=["intermediates"]))
    logits, updated = apply(variables, images)
    x = images
    for i in (1, 2, 3):
      x = reference.relu(reference.conv(x, params[f"conv{i}"]))
      np.testing.assert_allclose(updated["intermediates"][f"stage{i}"], x, rtol=1e-9, atol=1e-12)
      x = reference.pool(x, 2, 2)
    x = reference.relu(reference.dense(x.reshape(2, -1), params["dense"]))
    np.testing.assert_allclose(updated["intermediates"]["pre_logits"], x, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(logits, reference.dense(x, params["head"]), rtol=1e-9, atol=1e-12)


def test_training_logits_do_not_depend_on_how_the_batch_is_cut():
  model = CNN(7, dropout_rate=0.5)
  variables = reference.random_variables(models.shapes(model, 22))
  variables = jax.tree.map(np.float32, variables)
  images = np.random.default_rng(1).normal(size=(4, 22, 22, 3)).astype(np.float32)
  keys = jax.random.split(jax.random.key(2), 4)
  apply = jax.jit(functools.partial(model.apply, variables), static_argnames="train")
  whole = apply(images, train=True, keys=keys)
  halves = [apply(images[i : i + 2], train=True, keys=keys[i : i + 2]) for i in (0, 2)]
  np.testing.assert_allclose(whole, np.concatenate(halves), rtol=1e-4, atol=1e-5)
  assert np.max(np.abs(whole - apply(images, train=False, keys=keys))) > 0.01
