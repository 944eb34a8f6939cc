"""The layers written down once more in NumPy, for float64 comparisons; and random weights to
compare with."""

import jax
import numpy as np


def conv(x, layer, stride=1, padding=0):
  x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, layer["kernel"].shape[:2], axis=(1, 2))
  y = np.einsum("bhwcij,ijco->bhwo", windows[:, ::stride, ::stride], layer["kernel"])
  return y + layer.get("bias", 0)


def dense(x, layer):
  return x @ layer["kernel"] + layer["bias"]


def relu(x):
  return np.maximum(x, 0)


def pool(x, size, stride, padding=0, reduce=np.max):
  pad = ((0, 0), (padding, padding), (padding, padding), (0, 0))
  x = np.pad(x, pad, constant_values=-np.inf)
  windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
  return reduce(windows[:, ::stride, ::stride], axis=(-2, -1))


def batch_norm(x, layer, statistics):
  x = (x - statistics["mean"]) / np.sqrt(statistics["var"] + 1e-5)
  return x * layer["scale"] + layer["bias"]


def random_variables(shapes, seed=0):
  """Float64 arrays of the given shapes: scales and variances around 1, the rest around 0."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    if path[-1].key in ("scale", "var"):
      return rng.uniform(0.5, 1.5, leaf.shape)
    return rng.normal(size=leaf.shape) / np.sqrt(max(np.prod(leaf.shape[:-1]), 1))

  return jax.tree_util.tree_map_with_path(draw, shapes)
