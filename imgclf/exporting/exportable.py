"""A trained network as one pure function of weights by name and pixels: what every format carries.

Knows neither a format nor a run folder.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import augment, models, multilabel, named
from imgclf.models import convolution

Weights = dict[str, Any]

# An export computes in this type, whatever the run trained in. Parameters are float32 in any case;
# results in bfloat16 depend on where a compiler rounds, to 1e-2 of a probability, so no two
# runtimes would agree on them.
DTYPE = "float32"

# What programs of XLA are exported for, all in one.
PLATFORMS = ("cpu", "cuda", "tpu")


@dataclasses.dataclass(frozen=True)
class Exportable:
  """What is exported.

  Attributes:
    probabilities: weights, pixels [batch, size, size, 3] uint8 -> [batch, classes] float32.
      Normalisation and the temperature are inside; the crop is made before.
    weights: float32 arrays by name, such as `params/conv1/kernel`.
    size: height and width of the images, in pixels.
    classes: names by label.
    parameters: how many the network has, running statistics not counted.
  """

  probabilities: Callable[[Weights, jax.Array], jax.Array]
  weights: dict[str, np.ndarray]
  size: int
  classes: tuple[str, ...]
  parameters: int

  def specs(self, batch: Any) -> tuple[dict[str, jax.ShapeDtypeStruct], jax.ShapeDtypeStruct]:
    """Returns the shapes of the function's two arguments, for a batch of this size, which may be
    symbolic.
    """
    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in self.weights.items()}
    return weights, jax.ShapeDtypeStruct((batch, self.size, self.size, 3), jnp.uint8)


def exportable(
  config: Mapping[str, Any],
  classes: Sequence[str],
  variables: Mapping[str, Any],
  temperature: float,
) -> Exportable:
  """Makes the function of a network, in float32 and with products of full precision.

  Full precision is written into the program: accelerators would round the operands of products to 8
  or 10 bits by default, and answer otherwise than a CPU.

  Args:
    config: a run's resolved config.
    classes: names by label.
    variables: the network's parameters and, where it has them, running statistics.
    temperature: what logits are divided by before the softmax or, of several classes an image, the
      sigmoid.
  """
  model: Any = models.create({**config["model"], "dtype": DTYPE}, len(classes), axis_name=None)
  options = config["augment"]
  activation = jax.nn.sigmoid if multilabel.is_on(config) else jax.nn.softmax
  leaves = jax.tree_util.tree_flatten_with_path(dict(variables))[0]
  paths = {"/".join(named.names(path)): named.names(path) for path, _ in leaves}

  def probabilities(weights: Weights, pixels: jax.Array) -> jax.Array:
    tree = named.nested({paths[name]: value for name, value in weights.items()})
    with jax.default_matmul_precision("highest"), convolution.as_written():
      logits = 0.0
      # One after the other: a batch of all of them would be of a size that formats can't state.
      for weight, view in augment.views(pixels, config["eval"]["tta"]):
        images = augment.eval_transform(view, options, jnp.dtype(DTYPE))
        logits = logits + weight * model.apply(tree, images, train=False)
      return activation(logits / temperature).astype(jnp.float32)

  return Exportable(
    probabilities=probabilities,
    weights={name: np.asarray(x, DTYPE) for name, (_, x) in zip(paths, leaves)},
    size=config["dataset"]["image_size"],
    classes=tuple(classes),
    parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"])),
  )
