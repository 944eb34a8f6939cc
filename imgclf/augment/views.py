"""Test-time augmentation: what a network says of an image as the mean over views of it."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

# Of a view that is not shifted; each of the two shifted ones has half of what is left.
_UNSHIFTED = 0.5


def views(images: jax.Array, tta: str) -> list[tuple[float, jax.Array]]:
  """Returns views of images with their weights, which add up to 1.

  As Jordan 2024 (https://arxiv.org/abs/2404.00498) has them: `flip` is the image and its mirror
  image. `flip_translate` is those two, for half of the weight, and those two of the image shifted
  by a pixel up and to the left, and down and to the right, with what comes into view being its
  mirror image.

  Args:
    images: [batch, height, width, 3] of any type; 2 pixels or more each way to be shifted.
    tta: `none`, `flip` or `flip_translate`.

  Returns:
    (weight, images) of each view, of the shape and type of `images`.
  """
  if tta == "none":
    return [(1.0, images)]
  shown = [(1.0, images)]
  if tta == "flip_translate":
    height, width = images.shape[1:3]
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    shifted = [_window(padded, i, height, width) for i in (0, 2)]
    shown = [(_UNSHIFTED, images), *(((1 - _UNSHIFTED) / 2, view) for view in shifted)]
  return [(weight / 2, side) for weight, view in shown for side in (view, jnp.flip(view, 2))]


def _window(images: jax.Array, start: int, height: int, width: int) -> jax.Array:
  # Not by an index: with a batch of unknown size, as in an export, that is a gather.
  rows = jax.lax.slice_in_dim(images, start, start + height, axis=1)
  return jax.lax.slice_in_dim(rows, start, start + width, axis=2)


def over_views(function: Callable[[jax.Array], Any], images: jax.Array, tta: str) -> Any:
  """Returns the weighted mean of a function over the views of images, in one call of it.

  Args:
    function: [n, height, width, 3] to a tree of [n, ...] floats.
    images: [batch, height, width, 3].
    tta: as for `views`.

  Returns:
    The tree, of [batch, ...].
  """
  if tta == "none":
    return function(images)
  shown = views(images, tta)
  weights = [weight for weight, _ in shown]

  def mean(answers: jax.Array) -> jax.Array:
    answers = answers.reshape(len(shown), len(images), *answers.shape[1:])
    # Added up by hand: a product of matrices may be computed in bfloat16 on accelerators.
    return functools.reduce(jnp.add, [w * rows for w, rows in zip(weights, answers)])

  return jax.tree.map(mean, function(jnp.concatenate([view for _, view in shown])))
