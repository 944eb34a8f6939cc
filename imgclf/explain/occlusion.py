"""Maps from covering a part of the image at a time. Needs no gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf.errors import UserError
from imgclf.explain.network import Network, baseline_of, filled, groups, stacked, variants


def occlusion(
  network: Network,
  images: np.ndarray,
  classes: np.ndarray,
  *,
  patch: int | None = None,
  stride: int | None = None,
  baseline: Any = "mean",
) -> np.ndarray:
  """How far the logit falls when a square of the image is covered (Zeiler & Fergus 2013).

  https://arxiv.org/abs/1311.2901, section 4.2. A pixel has the mean of all squares that cover it.

  Args:
    network: whose logits to explain.
    images: [batch, size, size, 3] uint8.
    classes: [batch] int32.
    patch: side of the square in pixels; left out: an eighth of the image's.
    stride: pixels from one square to the next, at most `patch`; left out: half of `patch`. The last
      square of a row ends with the image.
    baseline: what the square shows; see `imgclf.explain.network.baseline_of`.

  Returns:
    [batch, size, size] float32, in units of the logit, negative where it rises.

  Raises:
    UserError: for an impossible option.
  """
  batch, size = images.shape[:2]
  patch = max(1, size // 8) if patch is None else patch
  stride = max(1, patch // 2) if stride is None else stride
  if not 1 <= stride <= patch <= size:
    raise UserError(
      f"patch={patch}, stride={stride}: needs 1 <= stride <= patch <= {size}, the image's side"
    )
  corners = np.append(np.arange(0, size - patch, stride), size - patch).astype(np.int32)
  # [size, corners]: whether a row (or column) of pixels lies in the squares that begin at a corner.
  inside = np.subtract.outer(np.arange(size), corners)
  inside = ((inside >= 0) & (inside < patch)).astype(np.float64)
  times = inside.sum(axis=1)
  squares = np.stack(np.meshgrid(corners, corners, indexing="ij"), axis=-1).reshape(-1, 2)
  covers = baseline_of(images, baseline, np.asarray(network.mean))
  heat = np.zeros((batch, size, size), np.float32)
  for group in groups(batch, size):
    arguments = (network, images[group], covers[group], classes[group])
    # A square that lies outside covers nothing.
    outside = np.full((1, 2), size, np.int32)
    parts = filled(np.concatenate([squares, outside]), variants(len(group), size), size)
    logits = np.concatenate(
      [np.asarray(_covered(*arguments, part, patch), np.float64) for part in parts]
    )
    falls = (logits[len(squares)] - logits[: len(squares)]).reshape(len(corners), len(corners), -1)
    heat[group] = np.einsum("ik,jl,klb->bij", inside, inside, falls, optimize=True)
  return heat / np.outer(times, times).astype(np.float32)


@jax.jit
def _covered(network, images, covers, classes, corners, patch):
  """The logits with a square covered, [squares, batch]."""
  places = jnp.arange(images.shape[1])
  inside = (places >= corners[..., None]) & (places < corners[..., None] + patch)
  covered = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None, ..., None]
  levels = jnp.where(covered, covers, images).astype(network.dtype)
  logits = network.logit(stacked(levels), jnp.tile(classes, len(corners)))
  return logits.reshape(len(corners), -1)
