import functools

from flax import linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from toys import MEAN, SIZE, linear_run, pixels, red_run, weights_of

from imgclf import explain
from imgclf.errors import UserError

CLASSES = np.array([1, 0, 1])


@pytest.mark.parametrize(
  ("baseline", "levels"),
  [
    ("mean", 255 * MEAN),
    ("black", np.zeros(3)),
    ("white", np.full(3, 255)),
    ([10, 20, 30], np.array([10, 20, 30])),
    (pixels(3, seed=5), pixels(3, seed=5)),
  ],
)
def test_integrated_gradients_of_a_linear_model_are_weight_times_difference(baseline, levels):
  run, images = linear_run(), pixels(3)
  maps = explain.heatmaps(run, images, CLASSES, "integrated_gradients", baseline=baseline)
  expected = (weights_of(run, CLASSES) * (images.astype(float) - levels)).sum(axis=-1)
  assert maps.dtype == np.float32
  np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-4)


def above_a_sixth(reds):
  return nn.relu(jnp.mean(reds, axis=(1, 2)) - 1 / 6)


def test_steps_are_doubled_until_the_map_sums_to_the_difference():
  run = red_run(above_a_sixth)
  images = np.zeros((2, SIZE, SIZE, 3), np.uint8)
  images[..., 0] = np.array([255, 30])[:, None, None]  # the second never gets to the kink
  zeros = np.zeros(2, int)
  found = explain.integrated(run, images, zeros, baseline="black", steps=2, tolerance=0.02)
  # The slope is 0 up to a sixth of the way from black and 1 beyond; 5/6 is right. Of n steps the
  # trapezoidal rule counts those edges that lie beyond, the last by half: 1/2 and 1/2 of 1; 1/4 to
  # 3/4 and 1/2 of 1; 2/8, 3/16 ...
  sums = {2: 1.5 / 2, 4: 3.5 / 4, 8: 6.5 / 8, 16: 13.5 / 16}
  gaps = {n: abs(total - 5 / 6) / (5 / 6) for n, total in sums.items()}
  assert [n for n, gap in gaps.items() if gap <= 0.02] == [16]
  assert found.steps.tolist() == [16, 2]
  np.testing.assert_allclose(found.differences, [5 / 6, 0], atol=1e-6)
  np.testing.assert_allclose(found.gaps, [gaps[16], 0], rtol=1e-4)
  np.testing.assert_allclose(found.heatmaps[0], 13.5 / 16 / SIZE**2, rtol=1e-5)
  assert not found.heatmaps[1].any()
  # Where the bound comes first, that is told.
  options = {"baseline": "black", "steps": 2, "max_steps": 8}
  with pytest.warns(
    UserWarning, match=r"of 1 of 2 images .* within 1%: off by up to 2\.5% after 8"
  ):
    explain.heatmaps(run, images, zeros, "integrated_gradients", **options)


def test_logits_that_are_no_numbers_are_never_complete():
  run = red_run(lambda reds: jnp.log(-1 - jnp.mean(reds, axis=(1, 2))))
  with pytest.warns(UserWarning, match="of 2 of 2 images"):
    explain.heatmaps(run, pixels(2), np.zeros(2, int), "integrated_gradients", max_steps=16)


def test_smoothgrad_of_a_linear_model_is_the_size_of_its_weights():
  run = linear_run()
  maps = explain.heatmaps(run, pixels(3), CLASSES, "smoothgrad", samples=3)
  expected = 255 * np.abs(weights_of(run, CLASSES)).sum(axis=-1)
  np.testing.assert_allclose(maps, expected, rtol=1e-4)


def test_the_noise_of_smoothgrad_is_the_share_of_the_range_that_is_told():
  # Half the sum of the squares: the slope by a level is the level.
  run = red_run(lambda reds: jnp.sum(reds**2, axis=(1, 2)) / 2, size=32)
  images = np.full((1, 32, 32, 3), 128, np.uint8)
  images[0, 0, 0], images[0, 0, 1] = 77, 179  # a range of 0.4
  slopes = functools.partial(explain.heatmaps, run, images, np.array([0]), "smoothgrad")
  np.testing.assert_allclose(slopes(noise=0.0)[0], images[0, ..., 0] / 255, rtol=1e-5)
  # One sample: the slopes are the noisy levels themselves, of 1,022 grey pixels. Their spread is
  # known to 2.2%.
  off = slopes(samples=1, noise=0.1)[0].reshape(-1)[2:] - 128 / 255
  assert np.std(off) == pytest.approx(0.04, rel=0.09)
  # Were nine samples all the same, their mean would be no closer than one.
  off = slopes(samples=9, noise=0.1)[0].reshape(-1)[2:] - 128 / 255
  assert np.std(off) == pytest.approx(0.04 / 3, rel=0.09)
  np.testing.assert_array_equal(slopes(samples=2), slopes(samples=2))
  assert np.any(slopes(samples=2) != slopes(samples=2, seed=1))


@pytest.mark.parametrize(
  ("method", "options", "words"),
  [
    ("integrated_gradients", {"steps": 0}, "steps=0, max_steps=512: needs 1 <= steps"),
    ("integrated_gradients", {"steps": 8, "max_steps": 4}, "needs 1 <= steps <= max_steps"),
    (
      "integrated_gradients",
      {"baseline": "blck"},
      "baseline=blck: no such baseline; there are black",
    ),
    ("integrated_gradients", {"baseline": [0, 0, 256]}, "levels must be from 0 to 255"),
    ("integrated_gradients", {"baseline": [0.0, np.nan, 0]}, "levels must be from 0 to 255"),
    (
      "integrated_gradients",
      {"baseline": np.zeros((4, 4, 3))},
      r"got \[4, 4, 3\], which does not fit",
    ),
    ("smoothgrad", {"samples": 0}, "samples=0, noise=0.15: needs samples >= 1"),
    ("smoothgrad", {"noise": -0.1}, "noise=-0.1: needs"),
  ],
)
def test_an_impossible_option_is_refused(method, options, words):
  with pytest.raises(UserError, match=words):
    explain.heatmaps(linear_run(), pixels(1), np.array([0]), method, **options)
