"""Mixup and cutmix: pairs, shares and areas, by numpy and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import imgclf
from imgclf.augment import mixing

SIZE = (20, 30)


def make_section(**fields):
  section = imgclf.default_config().augment
  for name, value in fields.items():
    section[name] = value
  return section


def draw(count, mask=None, seed=0, **fields):
  section = make_section(**fields)
  key = jax.random.key(seed)
  run = jax.jit(lambda key, keys, mask: mixing.draw(key, keys, SIZE, section, mask))
  return jax.device_get(run(key, jax.random.split(key, count), mask))


def colours(count):
  """Images of one level each, their place."""
  return np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None, None], (count, *SIZE, 3))


def test_partners_are_the_two_of_each_pair():
  np.testing.assert_array_equal(mixing.partners(jnp.arange(6)), [1, 0, 3, 2, 5, 4])
  rows = np.arange(12).reshape(4, 3)
  np.testing.assert_array_equal(mixing.partners(rows), rows[[1, 0, 3, 2]])


def test_mixup_is_the_weighted_sum_of_the_paper():
  mix = draw(8, mixup=1.0, mix_per_example=True)
  assert not mix.cut.any()
  images = np.random.default_rng(0).normal(size=(8, *SIZE, 3)).astype(np.float32)
  w = mix.weight[:, None, None, None]
  expected = w * images + (1 - w) * images[[1, 0, 3, 2, 5, 4, 7, 6]]
  np.testing.assert_allclose(mixing.apply(jnp.asarray(images), mix), expected, rtol=1e-5, atol=1e-6)


def test_the_weight_of_cutmix_is_the_share_of_pixels_that_are_left_exactly():
  mix = draw(64, cutmix=1.0, mix_per_example=True)
  assert mix.cut.all()
  images = colours(64)
  result = np.asarray(mixing.apply(jnp.asarray(images), mix))
  own = (result == images).all(axis=-1)
  other = (result == images[np.arange(64) ^ 1]).all(axis=-1)
  assert (own ^ other).all()  # each pixel is of one or the other to the bit
  # To the last bit of a division.
  np.testing.assert_allclose(own.mean(axis=(1, 2)), mix.weight, rtol=1.2e-7)
  assert len(np.unique(mix.weight)) > 40


def test_rectangles_of_cutmix_are_about_any_pixel_and_of_the_area_drawn():
  mix = draw(4000, cutmix=1.0, mix_per_example=True)
  (top, left), (bottom, right) = mix.start.T, mix.end.T
  assert top.min() == 0 and bottom.max() == 20 and left.min() == 0 and right.max() == 30
  inner = (top > 0) & (bottom < 20) & (left > 0) & (right < 30)
  height, width = (bottom - top)[inner], (right - left)[inner]
  # Equation 2: sides of the image's shape; each is rounded down to an even number.
  assert np.abs(height - width * 20 / 30).max() <= 2
  # Beta(1, 1) is uniform, so the share of the side, the root of the area, is below 1/2 for a
  # quarter of them; a side of less than 1/2 is one of 8 pixels or fewer, and one that is cut is
  # half of it and more. So those of more than 8 are three quarters, less those that the edge cut.
  assert (bottom - top > 8).mean() < 0.75 + 5 * np.sqrt(0.75 * 0.25 / 4000)
  assert (bottom - top > 8).mean() > 0.5


def test_weights_of_mixup_follow_the_beta_distribution():
  for alpha in (0.1, 1.0):
    weight = draw(4000, mixup=alpha, mix_per_example=True).weight
    assert weight.min() >= 0 and weight.max() <= 1
    # Beta(a, a): mean 1/2, variance 1 / (4 (2 a + 1)).
    variance = 1 / (4 * (2 * alpha + 1))
    assert weight.mean() == pytest.approx(0.5, abs=5 * np.sqrt(variance / 4000))
    assert weight.var() == pytest.approx(variance, rel=0.06)
  # Of Beta(1, 1), which is uniform, each tenth has a tenth: five standard deviations of 19.
  assert np.abs(np.histogram(weight, bins=10, range=(0, 1))[0] - 400).max() < 95


def test_one_draw_is_the_whole_batchs_unless_each_example_has_its_own():
  mix = draw(6, mixup=1.0, cutmix=1.0)
  assert all((column == column[0]).all() for column in mix)
  assert len(np.unique(draw(6, mixup=1.0, mix_per_example=True).weight)) == 6


def test_probability_and_switch_say_how_many_are_mixed_and_how():
  mix = draw(4000, mixup=1.0, cutmix=1.0, mix_probability=0.5, mix_switch=0.2, mix_per_example=True)
  mixed = (mix.weight < 1) | mix.cut
  # Five standard deviations of 4000 draws of 1/2 and of 1/10: 31.6 and 19 each.
  assert abs(mixed.sum() - 2000) < 158
  assert abs(mix.cut.sum() - 400) < 95


def test_what_is_no_image_enters_no_mix():
  mask = np.array([1, 1, 0, 1, 1, 0, 0, 0], bool)
  for fields in ({"mixup": 1.0}, {"cutmix": 1.0}):
    mix = draw(8, mask, **fields)
    np.testing.assert_array_equal(mix.weight[2:], 1)
    result = np.asarray(mixing.apply(jnp.asarray(colours(8)), mix))
    np.testing.assert_array_equal(result[2:], colours(8)[2:])
    assert mix.weight[0] == mix.weight[1] < 1


def test_nothing_is_mixed_unless_a_field_says_so():
  assert not mixing.is_on(make_section())
  assert not mixing.is_on(make_section(mixup=0.2, mix_probability=0.0))
  assert mixing.is_on(make_section(cutmix=1.0))
