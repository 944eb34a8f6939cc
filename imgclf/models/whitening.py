"""The whitening of small patches: filters whose answers to the training images are uncorrelated and
of one size.

A first convolution that starts so, and stays, spares a network the epochs in which it would find
out how neighbouring pixels and colours go together (Jordan 2024, https://arxiv.org/abs/2404.00498).
Knows no network.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Added to the variance of a direction: what hardly ever varies is noise, and is not to be made as
# loud as the rest.
EPSILON = 5e-4


def patch_covariance(images: jax.Array, size: int) -> jax.Array:
  """Returns the mean product of any two values of a patch, over all patches of all images.

  Means are not subtracted, as in the paper's code: normalised images have hardly any.

  Args:
    images: [n, height, width, channels] floats, normalised.
    size: height and width of a patch in pixels, at most those of an image.

  Returns:
    [size * size * channels] squared, float32 (float64 of such images); a patch counts by row,
    column, channel.
  """
  return _patch_covariance(jnp.asarray(images), size)


@functools.partial(jax.jit, static_argnums=1)
def _patch_covariance(images: jax.Array, size: int) -> jax.Array:
  height, width = (side - size + 1 for side in images.shape[1:3])
  # Each place of the patch as an image of its own, so that no patch is written out.
  shifted = [
    images[:, row : row + height, column : column + width]
    for row in range(size)
    for column in range(size)
  ]

  def products(one: jax.Array, other: jax.Array) -> jax.Array:
    return jnp.einsum("nhwc,nhwd->cd", one, other, precision=jax.lax.Precision.HIGHEST)

  rows = [jnp.concatenate([products(a, b) for b in shifted], axis=1) for a in shifted]
  return jnp.concatenate(rows) / (len(images) * height * width)


def whitening_filters(covariance: np.ndarray, size: int, epsilon: float = EPSILON) -> np.ndarray:
  """Returns the filters of a convolution that whitens patches of this covariance, and their
  negatives.

  A filter is an eigenvector divided by the root of its eigenvalue, smallest first. Of the two signs
  that an eigenvector has, the first half gets the one that makes its largest entry positive,
  whatever LAPACK says.

  Args:
    covariance: as from `patch_covariance`; eigenvalues are worked out in float64.
    size: as there.
    epsilon: added to each eigenvalue.

  Returns:
    [size, size, channels, 2 * size * size * channels] float64.
  """
  values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
  largest = np.take_along_axis(vectors, np.abs(vectors).argmax(axis=0)[None], axis=0)
  filters = vectors * np.sign(largest) / np.sqrt(values + epsilon)
  filters = np.concatenate([filters, -filters], axis=1)
  return filters.reshape(size, size, -1, filters.shape[1])
