"""A run's network as a function of an image's levels, for whatever explains it; and work cut into
parts.

Knows no method of explanation.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import augment
from imgclf.errors import UserError
from imgclf.models import layers
from imgclf.run import Run

# Pixels that the network sees at once: 8 images of 224 px, for whose gradient the program of a
# ResNet-50 takes 0.5 GB beside the weights, compiled for a CPU, and that of a VGG-16 0.6. Of small
# images there are at most 256, in groups of at most 32 with 8 variants of each.
PIXELS = 8 * 224 * 224
ROWS, GROUP, VARIANTS = 256, 32, 8

BASELINES = ("black", "white", "mean", "blur")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
  """A network with its weights, as a pytree whose structure holds the network.

  So that a function compiled for one is compiled once for all runs of the same network.

  Attributes:
    variables: what the network is applied with.
    mean: [3], of red, green and blue, for values from 0 to 1.
    std: [3], likewise.
    temperature: scalar, what logits are divided by before the softmax.
    model: computes in float32, or in float64 where the run does.
  """

  variables: Any
  mean: jax.Array
  std: jax.Array
  temperature: jax.Array
  model: Any = dataclasses.field(metadata={"static": True})

  @classmethod
  def of(cls, run: Run) -> "Network":
    """Takes it out of a run, its arrays to the first device."""
    dtype = layers.param_dtype(run.model.dtype)
    arrays = (
      run.variables,
      *(np.asarray(run.config["augment"][name], dtype) for name in ("mean", "std")),
      np.asarray(run.temperature, dtype),
    )
    variables, mean, std, temperature = jax.device_put(arrays, jax.local_devices()[0])
    return cls(variables, mean, std, temperature, run.model.clone(dtype=dtype))

  @property
  def dtype(self) -> jnp.dtype:
    """Type of the computation."""
    return self.mean.dtype

  def normalized(self, levels: jax.Array) -> jax.Array:
    """Returns the network's input for [batch, size, size, 3] floats from 0 to 255."""
    return augment.normalize(levels, self.mean, self.std, self.dtype)

  def logits(self, levels: jax.Array) -> jax.Array:
    """Returns [batch, classes] for [batch, size, size, 3] floats from 0 to 255."""
    # GPUs would multiply float32 with 10 bits, which differences of logits do not bear.
    with jax.default_matmul_precision("highest"):
      return self.model.apply(self.variables, self.normalized(levels))

  def logit(self, levels: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns the logit of each image's class, [batch]."""
    return of_class(self.logits(levels), classes)


def of_class(rows: jax.Array, classes: jax.Array) -> jax.Array:
  """Returns the entry of [batch, classes] that belongs to each row's class, [batch]."""
  return jnp.take_along_axis(rows, classes[:, None], axis=1)[:, 0]


def groups(count: int, size: int) -> Iterator[np.ndarray]:
  """Yields the places of `count` images in groups of one length, the last filled up with its last
  place.

  Lengths are powers of two, so that there are few of them to compile for.

  Args:
    count: of images; none of them makes no group.
    size: height and width of an image, in pixels.
  """
  length = min(_rows(size), GROUP, 1 << (count - 1).bit_length())
  for begin in range(0, count, length):
    yield np.minimum(np.arange(begin, begin + length), count - 1)


def variants(group: int, size: int) -> int:
  """Returns how many variants of each image of a group the network sees at once.

  Args:
    group: number of images.
    size: height and width of an image, in pixels.
  """
  return max(1, min(VARIANTS, _rows(size) // group))


def _rows(size: int) -> int:
  return min(ROWS, 1 << max(0, (PIXELS // size**2).bit_length() - 1))


def filled(values: np.ndarray, length: int, fill: Any = 0) -> Iterator[np.ndarray]:
  """Yields the values, [count, ...], in parts of one length, the last filled up."""
  for begin in range(0, len(values), length):
    part = values[begin : begin + length]
    gap = np.full((length - len(part), *values.shape[1:]), fill, values.dtype)
    yield np.concatenate([part, gap])


def stacked(levels: jax.Array) -> jax.Array:
  """Makes one batch, [variants * batch, ...], of the variants of a batch, [variants, batch,
  ...].
  """
  return levels.reshape(-1, *levels.shape[2:])


def baseline_of(images: np.ndarray, baseline: Any, mean: Any) -> np.ndarray:
  """Returns what an image is when nothing of it is there.

  Args:
    images: [batch, size, size, 3] levels.
    baseline: `black`, `white`, `mean` (the mean colour of the training data, as config.augment.mean
      has it), `blur` (the image, through a Gaussian with a standard deviation of an eighth of its
      size), or levels that broadcast to the images: [3], [size, size, 3] or [batch, size, size, 3],
      from 0 to 255.
    mean: [3], for values from 0 to 1.

  Returns:
    [batch, size, size, 3] float32, levels.

  Raises:
    UserError: for another name, shape or range.
  """
  if isinstance(baseline, str):
    if baseline not in BASELINES:
      raise UserError(f"baseline={baseline}: no such baseline; there are {', '.join(BASELINES)}")
    if baseline == "blur":
      return _blurred(images)
    named = {"black": 0.0, "white": 255.0, "mean": 255 * np.asarray(mean)}
    levels = np.asarray(named[baseline], np.float32)
  else:
    levels = np.asarray(baseline, np.float32)
    if not levels.size or not (levels.min() >= 0 and levels.max() <= 255):
      raise UserError("baseline: its levels must be from 0 to 255")
  try:
    return np.broadcast_to(levels, images.shape)
  except ValueError:
    raise UserError(
      f"baseline: got {list(levels.shape)}, which does not fit images of {list(images.shape)}"
    ) from None


def _blurred(images: np.ndarray) -> np.ndarray:
  """Each pixel is a mean of those in the picture: at its edge the weights of those there are sum to
  1.
  """
  size = images.shape[1]
  places = np.arange(size)
  kernel = np.exp(-(((places[:, None] - places) / (size / 8)) ** 2) / 2)
  kernel /= kernel.sum(axis=1, keepdims=True)
  return np.einsum(
    "ik,jl,bklc->bijc", kernel, kernel, images, optimize=True, dtype=np.float64
  ).astype(np.float32)
