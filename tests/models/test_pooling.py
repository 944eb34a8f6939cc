from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from imgclf.models import pooling


def normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(("height", "width"), [(6, 12), (7, 8), (11, 5)])
def test_pooling_of_windows_side_by_side_is_max_pooling(size, height, width):
  x = jnp.asarray(normal(2, height, width, 3), jnp.float32)
  expected = nn.max_pool(x, window_shape=(size, size), strides=(size, size))
  np.testing.assert_array_equal(pooling.max_pool(x, size), expected)


@pytest.mark.parametrize("length", [7, 8])
@pytest.mark.parametrize(("stride", "padding"), [(2, 1), (2, 0), (None, 1)])
def test_padding_of_max_pooling_never_wins(length, stride, padding):
  x = (normal(2, length, length, 3) - 10).astype(np.float32)
  y = pooling.max_pool(jnp.asarray(x), 3, stride=stride, padding=padding)
  np.testing.assert_array_equal(y, reference.pool(x, 3, stride or 3, padding))
  assert np.max(y) < 0


def test_each_window_hands_its_gradient_on_once_however_its_pixels_are_computed():
  # Products and sums at once or apart, as XLA likes: where the maximum was computed in one way and
  # what is compared with it in the other, windows lost their gradients, or had them twice.
  x, slope, shift = (jnp.asarray(normal(*s), jnp.float32) for s in ((4, 24, 24, 8), (8,), (8,)))

  @jax.jit
  def of_shift(x, slope, shift, scale):
    return jax.grad(lambda b: pooling.max_pool(x * slope + b * scale, 2).sum())(shift)

  np.testing.assert_allclose(of_shift(x, slope, shift, 0.5), 4 * 12 * 12 * 0.5, rtol=1e-6)


def test_the_gradient_of_the_maximum_over_all_pixels_goes_to_the_first_that_has_it():
  x = np.random.default_rng(0).integers(0, 4, (3, 5, 4, 7)).astype(np.float32)
  weights = jnp.asarray(normal(3, 7), jnp.float32)
  y, pullback = jax.vjp(pooling.global_max_pool, jnp.asarray(x))
  np.testing.assert_array_equal(y, x.max(axis=(1, 2)))
  expected = np.zeros((3, 20, 7), np.float32)
  first = x.reshape(3, 20, 7).argmax(axis=1)
  np.put_along_axis(expected, first[:, None], weights[:, None], axis=1)
  np.testing.assert_array_equal(pullback(weights)[0], expected.reshape(x.shape))


WINDOWS = [
  (2, None, 0),
  (3, None, 0),
  (3, 2, 1),
  (3, 2, 0),
  (3, None, 1),
  (2, 3, 0),
  (5, 1, 2),
  (3, 4, 1),
]


@pytest.mark.parametrize(("size", "stride", "padding"), WINDOWS)
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10)])
def test_the_gradient_of_pooling_is_laxs_with_ties_and_all(size, stride, padding, height, width):
  with jax.enable_x64(True):
    # Few values, so that most windows have their maximum at several places, and some are all zeros.
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, height, width, 3)) / 1.0)

    def laxs(x):
      strides, sides = (stride or size,) * 2, ((padding, padding),) * 2
      return nn.max_pool(x, (size, size), strides, sides)

    expected, pullback = jax.vjp(laxs, x)
    y, our_pullback = jax.vjp(
      lambda x: pooling.max_pool(x, size, stride=stride, padding=padding), x
    )
    np.testing.assert_array_equal(y, expected)
    weights = normal(*y.shape, seed=1)
    np.testing.assert_allclose(
      our_pullback(weights)[0], pullback(weights)[0], rtol=1e-12, atol=1e-12
    )


def test_the_gradient_of_windows_that_overlap_is_added_up_in_float32():
  # A pixel of four windows, of which each gives 1 or 2**-8: bfloat16 has no 1 + 2**-8.
  x = jnp.zeros((1, 3, 3, 1), jnp.bfloat16).at[0, 1, 1, 0].set(1)
  _, pullback = jax.vjp(lambda x: pooling.max_pool(x, 2, stride=1), x)
  weights = jnp.asarray([[1, 2**-8], [2**-8, 2**-8]], jnp.bfloat16).reshape(1, 2, 2, 1)
  (gradient,) = pullback(weights)
  assert gradient.dtype == jnp.bfloat16
  # 1 + 3 * 2**-8 lies in the middle of two bfloat16s, of which the even one is 1 + 2**-6.
  np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 0, 0], [0, 1 + 2**-6, 0], [0, 0, 0]])


def test_a_window_may_have_more_pixels_than_a_byte_counts():
  x = jnp.zeros((1, 16, 16, 1)).at[0, 15, 14, 0].set(1)
  gradient = jax.grad(lambda x: pooling.max_pool(x, 16, stride=8).sum())(x)
  np.testing.assert_array_equal(gradient, x)


def test_what_is_no_number_is_the_maximum_of_its_windows():
  x = jnp.zeros((1, 5, 5, 1)).at[0, 1, 3, 0].set(jnp.nan)
  y, pullback = jax.vjp(lambda x: pooling.max_pool(x, 3, stride=2, padding=1), x)
  assert np.isnan(y[0, :, :, 0]).tolist() == [[False, True, True]] * 2 + [[False] * 3]
  np.testing.assert_array_equal(y, pooling.max_pool(x, 3, stride=2, padding=1))
  (gradient,) = pullback(jnp.ones_like(y))
  assert gradient[0, 1, 3, 0] == 4


@pytest.mark.parametrize(
  ("pixels", "size", "expected"),
  [
    # Bins 0:2, 1:4, 3:5.
    ([1.0, 3.0, 8.0, 4.0, 6.0], 3, [2.0, 5.0, 5.0]),
    # Bins 0:1, 0:1, 1:2, 1:2, 2:3, 2:3.
    ([1.0, 3.0, 8.0], 6, [1.0, 1.0, 3.0, 3.0, 8.0, 8.0]),
    # Bins 0:1, 0:2, 1:2.
    ([2.0, 6.0], 3, [2.0, 4.0, 6.0]),
    ([1.0, 3.0, 8.0, 4.0], 2, [2.0, 6.0]),
    ([1.0, 3.0, 8.0], 3, [1.0, 3.0, 8.0]),
    ([1.0, 3.0, 8.0], 1, [4.0]),
  ],
)
def test_adaptive_pooling_has_the_bins_of_torch(pixels, size, expected):
  ones = np.ones(size)
  rows = np.tile(np.array(pixels)[:, None], (1, len(pixels)))
  for image, pooled in ((rows, np.outer(expected, ones)), (rows.T, np.outer(ones, expected))):
    x = jnp.asarray(np.stack([image, -2 * image], axis=-1)[None], jnp.float32)
    y = pooling.adaptive_avg_pool(x, size)
    assert y.shape == (1, size, size, 2)
    np.testing.assert_allclose(y[0], np.stack([pooled, -2 * pooled], axis=-1), rtol=1e-6)


def test_adaptive_pooling_keeps_height_and_width_apart():
  x = jnp.arange(24.0).reshape(1, 4, 6, 1)
  # Rows 0:2 and 2:4, columns 0:3 and 3:6; the middle of the first bin is (6 * 0.5 + 1) = 4.
  np.testing.assert_allclose(pooling.adaptive_avg_pool(x, 2)[0, :, :, 0], [[4, 7], [16, 19]])


def test_avg_pool_takes_means_over_windows_and_drops_what_is_left_over():
  x = normal(2, 5, 7, 3)
  expected = reference.pool(x, 2, 2, reduce=np.mean)
  np.testing.assert_allclose(pooling.avg_pool(jnp.asarray(x), 2), expected, rtol=1e-5, atol=1e-6)
