"""Where the arrays of a network stand in the files of torchvision and timm.

A family's layout turns the path of a layer, such as `("stage1_block1", "conv1")`, into the name of
the module there, `layer1.0.conv1`. The rest follows: a convolution's kernel [height, width, in,
out] is [out, in, height, width] there, a dense layer's [in, out] is [out, in], and the names of
leaves are the same in every network. Knows names and shapes, no file and no weights.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import numpy as np

from imgclf import models, named
from imgclf.errors import UserError
from imgclf.models import torch_families, torch_inverted
from imgclf.models.torch_layout import Layout

# What a leaf is called there, after the module's name and a dot.
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}

# What a network here calls what it has learnt of the places of patches.
POSITIONS = "position"

# A counter that torch's batch norm keeps and nothing of evaluation reads.
COUNTER = "num_batches_tracked"

# By the file of the family under imgclf/models/.
_LAYOUTS: dict[str, Callable[[Any], tuple[Layout, ...]]] = {
  "alexnet": torch_families.alexnet,
  "vgg": torch_families.vgg,
  "resnet": torch_families.resnet,
  "densenet": torch_families.densenet,
  "mobilenet": torch_inverted.mobilenet,
  "efficientnet": torch_inverted.efficientnet,
  "regnet": torch_families.regnet,
  "convnext": torch_families.convnext,
  "vit": torch_families.vit,
}


def _vit(size: str, *deit: int) -> tuple[str, ...]:
  # DeiT is the same network. It is one for each image size, for the learnt positions.
  names = [f"vit_{size}_patch16_{pixels}" for pixels in (224, 384)]
  return (*names, *(f"deit_{size}_patch16_{pixels}" for pixels in deit))


# What timm calls a network where that is not our name, first what it makes ours by; empty where it
# has none.
_TIMM_NAMES: dict[str, tuple[str, ...]] = {
  "alexnet": (),
  "mobilenet_v2": ("mobilenetv2_100",),
  "mobilenet_v3_small": ("mobilenetv3_small_100",),
  "mobilenet_v3_large": ("mobilenetv3_large_100",),
  "efficientnet_v2_s": ("efficientnetv2_s",),
  "efficientnet_v2_m": ("efficientnetv2_m",),
  "regnet_y_400mf": ("regnety_004",),
  "regnet_y_800mf": ("regnety_008_tv",),
  "regnet_y_1_6gf": ("regnety_016",),
  "regnet_y_3_2gf": ("regnety_032",),
  "regnet_y_8gf": ("regnety_080_tv",),
  "regnet_y_16gf": ("regnety_160",),
  "vit_ti_16": _vit("tiny", 224),
  "vit_s_16": _vit("small", 224),
  "vit_b_16": _vit("base", 224, 384),
  "vit_l_16": _vit("large"),
}


# What torchvision does not have.
_TIMMS_OWN = ("resnet50d", "convnext_atto", "convnext_nano", "vit_ti_16", "vit_s_16")


@dataclasses.dataclass(frozen=True)
class Tensor:
  """An array of a network, as a library has it.

  Attributes:
    name: its key there.
    shape: there.
    own_shape: here.
    outputs_first: a kernel as (out, in, height, width), whatever its rank; none for other arrays,
      which are the same but for axes of length 1.
    head: whether it belongs to the classifier.
    positions: whether it is [tokens, width], one for the class and then one for each patch of a
      square picture, row by row; see `imgclf.pretrained.positions`.
  """

  name: str
  shape: tuple[int, ...]
  own_shape: tuple[int, ...]
  outputs_first: tuple[int, int, int, int] | None
  head: bool
  positions: bool = False

  def here(self, theirs: np.ndarray) -> np.ndarray:
    """Returns the array as this project's network takes it; `theirs` has `shape`."""
    if self.outputs_first is None:
      return theirs.reshape(self.own_shape)
    return theirs.reshape(self.outputs_first).transpose(2, 3, 1, 0).reshape(self.own_shape)

  def there(self, ours: np.ndarray) -> np.ndarray:
    """Returns the array as the library takes it; `ours` has `own_shape`."""
    if self.outputs_first is None:
      return ours.reshape(self.shape)
    out, inputs, height, width = self.outputs_first
    return ours.reshape(height, width, inputs, out).transpose(3, 2, 0, 1).reshape(self.shape)


def layouts(model: Any) -> tuple[Layout, ...]:
  """Returns how the libraries lay a network out: timm's is the last, where the two differ.

  Args:
    model: as made by `imgclf.models.create`.

  Raises:
    UserError: if neither library has the family.
  """
  family = type(model).__module__.rpartition(".")[2]
  if family not in _LAYOUTS:
    raise UserError(
      f"neither torchvision nor timm has the network of imgclf/models/{family}.py; there are files of weights for "
      f"{', '.join(_LAYOUTS)}"
    )
  return _LAYOUTS[family](model)


def timm_names(name: str) -> tuple[str, ...]:
  """Returns what timm calls a network of `imgclf.models.names()`, first what it makes ours by;
  empty if it has none.
  """
  return _TIMM_NAMES.get(name, (name,))


def libraries(name: str) -> tuple[str, ...]:
  """Returns which of torchvision and timm have a network of `imgclf.models.names()`, and so weights
  for it.
  """
  if models.family(name) not in _LAYOUTS:
    return ()
  both = ("torchvision", name not in _TIMMS_OWN), ("timm", bool(timm_names(name)))
  return tuple(library for library, has in both if has)


def tensors(shapes: Any, layout: Layout) -> dict[tuple[str, ...], Tensor]:
  """Returns what each array of a network is in a library's layout, by its path here.

  Args:
    shapes: the network's `params` and `batch_stats`, as `imgclf.models.shapes` has them, or the
      arrays.
    layout: one of those that `layouts` returns.
  """
  found = {}
  for keys, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
    path = named.names(keys)
    layer, kind = path[1:-1], path[-1]
    if kind in _LEAVES:
      module = layout.module(layer)
      name = module + "." * (not module.endswith("_")) + _LEAVES[kind]
    else:
      name = layout.module((*layer, kind))
    own = tuple(leaf.shape)
    before, after = layout.ones.get(kind, (0, 0))
    shape, outputs_first = (1,) * before + own + (1,) * after, None
    if kind == "kernel":
      shape, outputs_first = _kernel(own, layer[-1], layout)
    head, positions = layer[:1] == ("head",), kind == POSITIONS
    found[path] = Tensor(name, shape, own, outputs_first, head, positions)
  return found


def _kernel(
  own: tuple[int, ...], layer: str, layout: Layout
) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
  """Returns the shape of a kernel there, and as (out, in, height, width)."""
  if len(own) == 4:
    height, width, inputs, out = own
    return (out, inputs, height, width), (out, inputs, height, width)
  inputs, out = own
  side = layout.sides.get(layer, 1)
  four = (out, inputs // side**2, side, side)
  return (four if layer in layout.convolutions else (out, inputs)), four
