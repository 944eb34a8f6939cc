import numpy as np
import pytest

from imgclf.models import whitening


def correlated_images(count=6, side=9, channels=3):
  """Noise whose neighbours and channels go together, as in pictures."""
  rng = np.random.default_rng(0)
  images = rng.normal(size=(count, side + 1, side, channels)) @ rng.normal(size=(channels,) * 2)
  return (images[:, 1:] + 0.7 * images[:, :-1]).astype(np.float32)


def patches(images, size):
  windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
  # [n, rows, columns, channels, size, size] to [patches, size * size * channels].
  return np.moveaxis(windows, 3, 5).reshape(-1, size * size * images.shape[3]).astype(np.float64)


@pytest.mark.parametrize("size", [2, 3])
def test_the_covariance_is_that_of_all_patches_written_out(size):
  images = correlated_images()
  flat = patches(images, size)
  expected = flat.T @ flat / len(flat)
  np.testing.assert_allclose(
    whitening.patch_covariance(images, size), expected, rtol=1e-5, atol=1e-5
  )


def test_answers_to_the_patches_are_uncorrelated_and_of_variance_one():
  flat = patches(correlated_images(), 2)
  filters = whitening.whitening_filters(flat.T @ flat / len(flat), 2, epsilon=0.0)
  assert filters.shape == (2, 2, 3, 24)
  answers = flat @ filters.reshape(12, 24)
  np.testing.assert_allclose(
    answers[:, :12].T @ answers[:, :12] / len(flat), np.eye(12), atol=1e-10
  )
  np.testing.assert_array_equal(answers[:, 12:], -answers[:, :12])


def test_a_direction_that_never_varies_is_not_made_loud():
  # Eigenvalues 0 and 4 - epsilon: filters of norm 1 / sqrt(epsilon) and 1 / sqrt(4).
  filters = whitening.whitening_filters(np.diag([0.0, 4 - 0.01]), 1, epsilon=0.01)
  np.testing.assert_allclose(filters[0, 0, :, :2], [[10, 0], [0, 0.5]], atol=1e-12)


def test_signs_do_not_depend_on_lapack(monkeypatch):
  covariance = patches(correlated_images(), 2)
  covariance = covariance.T @ covariance
  eigh = np.linalg.eigh
  expected = whitening.whitening_filters(covariance, 2)

  def other_signs(matrix):
    values, vectors = eigh(matrix)
    return values, vectors * np.where(np.arange(12) % 2, -1, 1)

  monkeypatch.setattr(np.linalg, "eigh", other_signs)
  np.testing.assert_array_equal(whitening.whitening_filters(covariance, 2), expected)
