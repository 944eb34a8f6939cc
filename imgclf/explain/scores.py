"""What a heat map is worth: does the model's answer go with the pixels that it names, does it
change with the weights.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import multilabel
from imgclf.errors import UserError
from imgclf.explain.network import (
  Network,
  baseline_of,
  filled,
  groups,
  of_class,
  stacked,
  variants,
)
from imgclf.run import Run


@dataclasses.dataclass(frozen=True)
class Areas:
  """Areas under the curve of the class's probability over the share of pixels, each [batch] float64
  in [0, 1].

  Attributes:
    deletion: the pixels of most heat go first; small where the map names what the answer rests on.
    insertion: the pixels of most heat come first; large where the map names what suffices.
    random_deletion: the same for pixels in a random order.
    random_insertion: likewise.
  """

  deletion: np.ndarray
  insertion: np.ndarray
  random_deletion: np.ndarray
  random_insertion: np.ndarray


def deletion_insertion(
  run: Run,
  images: np.ndarray,
  classes: np.ndarray,
  heatmaps: np.ndarray,
  steps: int = 32,
  *,
  deleted: Any = "mean",
  canvas: Any = "blur",
  seed: int = 0,
) -> Areas:
  """Takes the pixels of most heat away, and brings them in, a share at a time (Petsiuk et al.
  2018).

  https://arxiv.org/abs/1806.07421, section 4.1. Compare maps of one run with each other and with
  the random order, not runs with each other: an answer that falls at the first missing pixel has
  small areas of both kinds.

  Args:
    run: whose probabilities these are, temperature included.
    images: [batch, size, size, 3] uint8.
    classes: [batch] int.
    heatmaps: [batch, size, size] floats, as `imgclf.explain.heatmaps` gives them. Of equal pixels
      the one that is read first comes first.
    steps: points of the curve, but for the first.
    deleted: what takes the place of pixels; see `imgclf.explain.network.baseline_of`.
    canvas: what pixels are brought into; likewise.
    seed: of the random orders; an image's follows from this and its place.

  Raises:
    UserError: for an impossible option.
    ValueError: if there is not one map of an image's size for each image.
  """
  multilabel.refuse(run.config, "deletion_insertion", "look at the maps themselves")
  images, classes = np.asarray(images), np.asarray(classes, np.int32)
  batch, size = images.shape[:2]
  if np.shape(heatmaps) != images.shape[:3]:
    raise ValueError(
      f"heatmaps: got {list(np.shape(heatmaps))}, needs one for each image: {list(images.shape[:3])}"
    )
  if not 1 <= steps <= size * size:
    raise UserError(f"steps={steps}: needs 1 to {size * size}, the pixels of an image")
  network = Network.of(run)
  by_heat = np.argsort(-np.reshape(heatmaps, (batch, size * size)), axis=1, kind="stable")
  by_chance = np.zeros_like(by_heat)
  for place, order in enumerate(by_chance):
    order[:] = np.random.default_rng([seed, place]).permutation(size * size)
  mean = np.asarray(network.mean)
  without, blank = (baseline_of(images, baseline, mean) for baseline in (deleted, canvas))
  # argsort of an order is the place of each pixel in it.
  areas = [
    _area(network, *pair, np.argsort(order, axis=1).astype(np.int32), classes, steps)
    for order in (by_heat, by_chance)
    for pair in ((without, images), (images, blank))
  ]
  return Areas(*areas)


def _area(
  network: Network,
  new: np.ndarray,
  old: np.ndarray,
  places: np.ndarray,
  classes: np.ndarray,
  steps: int,
) -> np.ndarray:
  """The area, [batch], while the pixels of the old images become the new ones', by their places
  [batch, pixels].
  """
  batch, size = new.shape[:2]
  cuts = np.round(np.arange(steps + 1) * (size * size / steps)).astype(np.int32)
  area = np.zeros(batch)
  for group in groups(batch, size):
    arguments = (network, new[group], old[group], places[group], classes[group])
    parts = filled(cuts, variants(len(group), size))
    curve = np.concatenate([np.asarray(_mixed(*arguments, part), np.float64) for part in parts])
    area[group] = np.trapezoid(curve[: steps + 1], cuts / size**2, axis=0)
  return area


@jax.jit
def _mixed(network, new, old, places, classes, cuts):
  """The class's probability with the first so many pixels new, [cuts, batch]."""
  size = new.shape[1]
  taken = places.reshape(-1, size, size, 1) < cuts[:, None, None, None, None]
  levels = jnp.where(taken, new, old).astype(network.dtype)
  probabilities = jax.nn.softmax(network.logits(stacked(levels)) / network.temperature)
  return of_class(probabilities, jnp.tile(classes, len(cuts))).reshape(len(cuts), -1)


def redrawn(run: Run, seed: int = 0) -> Run:
  """Returns the run with the entries of each of its parameters in a random order.

  A map that says something of the model is another one then (Adebayo et al. 2018,
  https://arxiv.org/abs/1810.03292); one that stays shows the picture's edges, or the network's,
  whatever was learned. Each layer keeps the sizes of its weights and forgets what they had learned;
  networks here start with a head of zeros, from which no map can be made. Running statistics of
  batch norm stay.

  Args:
    run: as `imgclf.load` restores it.
    seed: of the orders.
  """
  draw = np.random.default_rng(seed)

  def shuffled(leaf: Any) -> np.ndarray:
    leaf = np.asarray(leaf)
    return draw.permutation(leaf.reshape(-1)).reshape(leaf.shape)

  params = jax.tree.map(shuffled, run.variables["params"])
  return dataclasses.replace(run, variables={**run.variables, "params": params})


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
  """Returns Spearman's rank correlation of each pair of maps.

  Args:
    first: [batch, size, size] floats.
    second: likewise.

  Returns:
    [batch] float64 from -1 to 1; NaN where one of the two is the same everywhere.
  """
  ranks = [np.stack([_ranks(heatmap) for heatmap in maps]) for maps in (first, second)]
  centred = [rank - rank.mean(axis=1, keepdims=True) for rank in ranks]
  norms = np.prod([np.linalg.norm(rank, axis=1) for rank in centred], axis=0)
  products = np.sum(centred[0] * centred[1], axis=1)
  return np.divide(products, norms, out=np.full(len(norms), np.nan), where=norms > 0)


def _ranks(heatmap: np.ndarray) -> np.ndarray:
  """Ranks from 1, equal values sharing the mean of theirs, [pixels]."""
  _, inverse, counts = np.unique(heatmap.reshape(-1), return_inverse=True, return_counts=True)
  return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
