"""Grad-CAM: which cells of a network's last feature map speak for a class, laid over the pixels.

Where a cell lies in the picture is worked out from the network, not from its place among the cells:
without padding, the 4x4 cells that the plain CNN has of 32 pixels have their centres in the middle
half of the picture, and a strided convolution of a ResNet has the first of its cells at the edge.
"""

import difflib
import functools
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from imgclf.errors import UserError
from imgclf.explain.network import Network, groups, of_class


def gradcam(
  network: Network, images: np.ndarray, classes: np.ndarray, *, layer: str | None = None
) -> np.ndarray:
  """Weights a feature's channels by their mean gradient and keeps what is positive (Selvaraju et
  al. 2017).

  https://arxiv.org/abs/1610.02391, equations 1 and 2. Between the centres of cells it is
  interpolated linearly.

  Args:
    network: whose logits to explain.
    images: [batch, size, size, 3] uint8.
    classes: [batch] int32.
    layer: name of the feature, such as `stage3`; left out: the last one of more than a single cell.

  Returns:
    [batch, size, size] float32 from 0 to 1, which is each image's largest; 0 where nothing speaks
    for the class.

  Raises:
    UserError: if there is no such feature, or none that has places.
  """
  batch, size = images.shape[:2]
  layer = _checked_layer(network, size, layer)
  places = [_between(centres, size) for centres in cell_centres(network, size, layer)]
  heat = np.zeros((batch, size, size), np.float32)
  for group in groups(batch, size):
    cells = np.asarray(_cells(network, images[group], classes[group], layer), np.float64)
    heat[group] = np.einsum("ik,jl,bkl->bij", *places, cells, optimize=True)
  largest = heat.max(axis=(1, 2), keepdims=True)
  return np.divide(heat, largest, out=np.zeros_like(heat), where=largest > 0)


@functools.partial(jax.jit, static_argnames="layer")
def _cells(network: Network, images: jax.Array, classes: jax.Array, layer: str) -> jax.Array:
  """[batch, rows, columns] of the feature, not negative."""
  pixels = network.normalized(images.astype(network.dtype))

  def score(perturbation):
    variables = {**network.variables, "perturbations": {layer: perturbation}}
    with jax.default_matmul_precision("highest"):
      logits, updated = network.model.apply(variables, pixels, mutable=["intermediates"])
    return jnp.sum(of_class(logits, classes)), updated["intermediates"][layer]

  shape = _features(network, images.shape[1], len(images))[layer]
  gradient, feature = jax.grad(score, has_aux=True)(jnp.zeros(shape, network.dtype))
  weights = jnp.mean(gradient, axis=(1, 2))
  return jnp.maximum(0, jnp.einsum("bijc,bc->bij", feature, weights, precision="highest"))


def _features(network: Network, size: int, batch: int = 1) -> dict[str, tuple[int, ...]]:
  """Shapes of the network's features by name, in the order that it hands them out in."""
  found: dict[str, tuple[int, ...]] = {}

  def apply(variables, pixels):
    _, updated = network.model.apply(variables, pixels, mutable=["intermediates"])
    # Within the trace: what a transformation returns has its names sorted.
    found.update({name: x.shape for name, x in updated.get("intermediates", {}).items()})

  pixels = jax.ShapeDtypeStruct((batch, size, size, 3), network.dtype)
  jax.eval_shape(apply, network.variables, pixels)
  return found


def _checked_layer(network: Network, size: int, layer: str | None) -> str:
  shapes = _features(network, size)
  spatial = [name for name, shape in shapes.items() if len(shape) == 4]
  if layer is None:
    wide = [name for name in spatial if max(shapes[name][1:3]) > 1]
    if not wide:
      raise UserError("method=gradcam: the network has no feature with places; take occlusion")
    return wide[-1]
  if layer not in spatial:
    near = difflib.get_close_matches(layer, spatial, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(spatial)}"
    raise UserError(f"layer={layer}: no feature with places has this name; {hint}")
  return layer


def cell_centres(network: Network, size: int, layer: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the pixel, counted from 0, that each cell of a feature has in the middle of what it
  sees.

  A network whose convolutions hand their middle pixel on, and nothing else, is shown a picture of
  each pixel's own number. A maximum hands the largest number of its window on; with the numbers
  counted from the other end it is the smallest, so the mean of both is the middle.

  Args:
    network: with the network.
    size: height and width of the image, in pixels.
    layer: name of the feature.

  Returns:
    [rows] and [columns] float64.
  """
  # Small numbers, for which tanh is the identity, and SiLU, its hard form and GELU are a half of
  # it; not negative, for which ReLU is.
  unit = 1e-6 / size
  rows = np.broadcast_to(np.arange(size)[:, None] * unit, (size, size))
  pictures = np.stack([rows, rows[::-1], rows.T, rows.T[:, ::-1], np.full((size, size), unit)])
  pixels = np.repeat(pictures[..., None], 3, axis=-1).astype(network.dtype)
  variables = jax.tree_util.tree_map_with_path(_handing_on, network.variables)
  told = np.asarray(_handed_on(network.model, variables, pixels, layer), np.float64)
  # Sums of a residual block count what they hand on twice, and so they do a one.
  down, up, right, left = told[:4] / told[4]
  far = size - 1
  return (down[:, 0] + far - up[:, 0]) / 2, (right[0] + far - left[0]) / 2


# The variables are arguments: as constants of the program, XLA on CPUs (JAX 0.10.2) takes such
# kernels for zero.
@functools.partial(jax.jit, static_argnums=(0, 3))
def _handed_on(model: Any, variables: Any, pixels: jax.Array, layer: str) -> jax.Array:
  with nn.intercept_methods(_without_layer_norm):
    _, updated = model.apply(variables, pixels, mutable=["intermediates"])
  return jnp.mean(updated["intermediates"][layer], axis=-1)


def _without_layer_norm(call: Any, arguments: Any, options: Any, context: Any) -> Any:
  """Hands a layer norm's input on: channels that are all alike would become zero."""
  if isinstance(context.module, nn.LayerNorm) and context.method_name == "__call__":
    return arguments[0]
  return call(*arguments, **options)


def _handing_on(path: tuple[Any, ...], leaf: jax.Array) -> np.ndarray:
  """What a variable is in a network that hands the middle pixel of every window on."""
  name = path[-1].key
  if name == "kernel" and leaf.ndim == 4:
    kernel = np.zeros(leaf.shape, leaf.dtype)
    # A window of an even size has two middles each way.
    rows, columns = (slice((length - 1) // 2, length // 2 + 1) for length in leaf.shape[:2])
    middle = kernel[rows, columns]
    middle[:] = 1 / math.prod(middle.shape[:3])
    return kernel
  return np.full(leaf.shape, 1 if name in ("scale", "var") else 0, leaf.dtype)


def _between(centres: np.ndarray, size: int) -> np.ndarray:
  """The weights of cells in pixels, [size, cells]: linear between centres, the outermost cell's
  beyond.
  """
  return np.stack([np.interp(np.arange(size), centres, row) for row in np.eye(len(centres))], 1)
