"""Maps from gradients of a logit by the pixels: integrated gradients and SmoothGrad."""

import dataclasses
from typing import Any
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from imgclf.errors import UserError
from imgclf.explain.network import (
  Network,
  baseline_of,
  filled,
  groups,
  stacked,
  variants,
)

# Of the difference of the logits; integrated gradients that are further off are not told as
# complete.
TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True)
class Integrated:
  """Integrated gradients, and how nearly they are complete.

  Attributes:
    heatmaps: [batch, size, size] float32; the sum of each is the difference, but for the gap.
    differences: [batch] float64, the logit of the image less that of the baseline.
    gaps: [batch] float64, how far the sum is off the difference, as a share of it.
    steps: [batch] int, into how many the path was cut.
  """

  heatmaps: np.ndarray
  differences: np.ndarray
  gaps: np.ndarray
  steps: np.ndarray


def integrated_gradients(
  network: Network,
  images: np.ndarray,
  classes: np.ndarray,
  *,
  tolerance: float = TOLERANCE,
  **options: Any,
) -> np.ndarray:
  """The maps of `integrate`. Warns of images whose gap is larger than the tolerance.

  Args:
    network: whose logits to explain.
    images: [batch, size, size, 3] uint8.
    classes: [batch] int32.
    tolerance: see `integrate`.
    **options: of `integrate`.

  Returns:
    [batch, size, size] float32, in units of the logit.
  """
  found = integrate(network, images, classes, tolerance=tolerance, **options)
  off = int(np.sum(~(found.gaps <= tolerance)))
  if off:
    warnings.warn(
      f"integrated gradients of {off} of {len(images)} images do not sum to the difference of the logits "
      f"within {tolerance:.0%}: off by up to {np.max(found.gaps):.1%} after {np.max(found.steps)} steps; "
      "raise max_steps or take another baseline",
      stacklevel=3,
    )
  return found.heatmaps


def integrate(
  network: Network,
  images: np.ndarray,
  classes: np.ndarray,
  *,
  baseline: Any = "mean",
  steps: int = 16,
  max_steps: int = 512,
  tolerance: float = TOLERANCE,
) -> Integrated:
  """Sums the gradients on the straight way from a baseline to each image (Sundararajan et al.
  2017).

  https://arxiv.org/abs/1703.01365, equation 1, channels added up, by the trapezoidal rule. The
  number of steps is doubled until the map sums to the difference of the two logits (completeness,
  proposition 1).

  Args:
    network: whose logits to explain.
    images: [batch, size, size, 3] uint8.
    classes: [batch] int32.
    baseline: where the way begins; see `imgclf.explain.network.baseline_of`.
    steps: into how many the way is cut at first.
    max_steps: and at most.
    tolerance: largest gap between the sum and the difference, as a share of the difference.

  Raises:
    UserError: for an impossible option.
  """
  if not 1 <= steps <= max_steps:
    raise UserError(f"steps={steps}, max_steps={max_steps}: needs 1 <= steps <= max_steps")
  batch, size = images.shape[:2]
  found = Integrated(
    np.zeros((batch, size, size), np.float32),
    np.zeros(batch),
    np.zeros(batch),
    np.zeros(batch, int),
  )
  start = baseline_of(images, baseline, np.asarray(network.mean))
  for group in groups(batch, size):
    way = (network, start[group], images[group], classes[group])
    difference, cut = _difference(*way), steps
    edges = np.arange(steps + 1) / steps
    total = _sum_along(way, edges, np.where((edges == 0) | (edges == 1), 0.5, 1) / steps)
    unfinished = np.ones(len(group), bool)
    while True:
      gap = _gap(total.sum(axis=(1, 2)), difference)
      # Each image keeps what it had when it was good enough, whatever its neighbours still need.
      for found_array, value in (
        (found.heatmaps, total),
        (found.differences, difference),
        (found.gaps, gap),
        (found.steps, np.full(len(group), cut)),
      ):
        found_array[group[unfinished]] = value[unfinished]
      unfinished &= ~(gap <= tolerance)
      if not unfinished.any() or 2 * cut > max_steps:
        break
      # The points between are all that a path of twice the steps has not seen.
      between = _sum_along(way, (np.arange(cut) + 0.5) / cut, np.full(cut, 1 / cut))
      total = (total + between) / 2
      cut *= 2
  return found


def _gap(total: np.ndarray, difference: np.ndarray) -> np.ndarray:
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.where(total == difference, 0, np.abs(total - difference) / np.abs(difference))


def _difference(
  network: Network, start: np.ndarray, stop: np.ndarray, classes: np.ndarray
) -> np.ndarray:
  """Logits of the images less those of the baselines, [batch] float64."""
  before, after = (
    np.asarray(_logit(network, levels.astype(network.dtype), classes), np.float64)
    for levels in (start, stop)
  )
  return after - before


def _sum_along(way: tuple, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Weighted gradients at places from 0 to 1 of a way, times its length, [batch, size, size]
  float64.
  """
  network, _, images, _ = way
  length = variants(len(images), images.shape[1])
  parts = zip(*(filled(values.astype(network.dtype), length) for values in (places, weights)))
  return np.sum([np.asarray(_along(*way, *part), np.float64) for part in parts], axis=0)


@jax.jit
def _logit(network, levels, classes):
  return network.logit(levels, classes)


def _gradient(network, levels, classes):
  return jax.grad(lambda levels: jnp.sum(network.logit(levels, classes)))(levels)


@jax.jit
def _along(network, start, stop, classes, places, weights):
  start, stop = start.astype(network.dtype), stop.astype(network.dtype)
  way = stop - start
  points = start + places[:, None, None, None, None] * way
  gradients = _gradient(network, stacked(points), jnp.tile(classes, len(places)))
  return jnp.sum(jnp.tensordot(weights, gradients.reshape(points.shape), 1) * way, axis=-1)


def smoothgrad(
  network: Network,
  images: np.ndarray,
  classes: np.ndarray,
  *,
  samples: int = 32,
  noise: float = 0.15,
  seed: int = 0,
) -> np.ndarray:
  """How steeply the logit changes with each pixel, averaged over noise (Smilkov et al. 2017).

  https://arxiv.org/abs/1706.03825, section 2.2. The size of the mean gradient, channels added up:
  it tells where the logit is sensitive, not whether light or dark speaks for the class.

  Args:
    network: whose logits to explain.
    images: [batch, size, size, 3] uint8.
    classes: [batch] int32.
    samples: noisy copies of an image; all images get the same noise.
    noise: its standard deviation, as a share of the image's range of levels; the paper takes 0.1 to
      0.2.
    seed: of the noise.

  Returns:
    [batch, size, size] float32, 0 and more: change of the logit from a level of 0 to 255.

  Raises:
    UserError: for an impossible option.
  """
  if samples < 1 or not noise >= 0:
    raise UserError(f"samples={samples}, noise={noise}: needs samples >= 1 and noise >= 0")
  batch, size = images.shape[:2]
  heat = np.zeros((batch, size, size), np.float32)
  numbers = np.arange(samples, dtype=np.int32)
  for group in groups(batch, size):
    length = variants(len(group), size)
    parts = [
      np.asarray(_noisy(network, images[group], classes[group], noise, seed, part), np.float64)
      for part in filled(numbers, length, -1)
    ]
    total = np.sum(parts, axis=0)
    heat[group] = np.sum(np.abs(total / samples), axis=-1)
  return heat


@jax.jit
def _noisy(network, images, classes, noise, seed, numbers):
  """The sum of the gradients over the samples of these numbers, without those of -1."""
  levels = images.astype(network.dtype)
  axes = (1, 2, 3)
  spread = noise * (levels.max(axes, keepdims=True) - levels.min(axes, keepdims=True))

  def drawn(number):
    key = jax.random.fold_in(jax.random.key(seed), number)
    return jax.random.normal(key, levels.shape[1:], network.dtype)

  points = levels + spread * jax.vmap(drawn)(numbers)[:, None]
  gradients = _gradient(network, stacked(points), jnp.tile(classes, len(numbers)))
  weights = jnp.where(numbers >= 0, 255.0, 0.0).astype(network.dtype)
  return jnp.tensordot(weights, gradients.reshape(points.shape), 1)
