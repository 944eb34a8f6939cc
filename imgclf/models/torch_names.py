"""Where the arrays of a network stand in the files of torchvision and timm: a function a family, and one table.

A family's function turns the path of a layer, such as `("stage1_block1", "conv1")`, into the name of the module
there, `layer1.0.conv1`. The rest follows: a convolution's kernel [height, width, in, out] is [out, in, height,
width] there, a dense layer's [in, out] is [out, in], and the names of leaves are the same in every network.
Knows names and shapes, no file and no weights.
"""

from collections.abc import Callable, Mapping
import dataclasses
import re
from typing import Any

import jax
import numpy as np

from imgclf import named
from imgclf.errors import UserError

# What a leaf is called there, after the module's name and a dot.
_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}

# A counter that torch's batch norm keeps and nothing of evaluation reads.
COUNTER = "num_batches_tracked"

# What timm calls a network where that is not our name; none where it has no such network.
_TIMM_NAMES: dict[str, str | None] = {"alexnet": None}


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a library lays a family out.

  Attributes:
    library: `torchvision` or `timm`.
    module: network, path of a layer -> name of the module.
    sides: dense layers that are given a flattened map, and its height and width. It is flattened as [height,
      width, channels] here, as [channels, height, width] there.
    convolutions: dense layers that are convolutions there, over the whole map or a single pixel.
  """

  library: str
  module: Callable[[Any, tuple[str, ...]], str]
  sides: Mapping[str, int] = dataclasses.field(default_factory=dict)
  convolutions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Tensor:
  """An array of a network, as a library has it.

  Attributes:
    name: its key there.
    shape: there.
    own_shape: here.
    outputs_first: a kernel as (out, in, height, width), whatever its rank; none for other arrays, which are the same.
    head: whether it belongs to the classifier.
  """

  name: str
  shape: tuple[int, ...]
  own_shape: tuple[int, ...]
  outputs_first: tuple[int, int, int, int] | None
  head: bool

  def here(self, theirs: np.ndarray) -> np.ndarray:
    """Returns the array as this project's network takes it; `theirs` has `shape`."""
    if self.outputs_first is None:
      return theirs
    return theirs.reshape(self.outputs_first).transpose(2, 3, 1, 0).reshape(self.own_shape)

  def there(self, ours: np.ndarray) -> np.ndarray:
    """Returns the array as the library takes it; `ours` has `own_shape`."""
    if self.outputs_first is None:
      return ours
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
  return _LAYOUTS[family]


def timm_name(name: str) -> str | None:
  """Returns what timm calls a network of `imgclf.models.names()`; None where it has none."""
  return _TIMM_NAMES.get(name, name)


def tensors(model: Any, shapes: Any, layout: Layout) -> dict[tuple[str, ...], Tensor]:
  """Returns what each array of a network is in a library's layout, by its path here.

  Args:
    model: as made by `imgclf.models.create`.
    shapes: its `params` and `batch_stats`, as `imgclf.models.shapes` has them, or the arrays.
    layout: one of `layouts(model)`.
  """
  found = {}
  for keys, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
    path = named.names(keys)
    layer, kind = path[1:-1], path[-1]
    if kind in _LEAVES:
      name = f"{layout.module(model, layer)}.{_LEAVES[kind]}"
    else:
      name = layout.module(model, (*layer, kind))
    own = tuple(leaf.shape)
    shape, outputs_first = own, None
    if kind == "kernel":
      shape, outputs_first = _kernel(own, layer[-1], layout)
    found[path] = Tensor(name, shape, own, outputs_first, layer[:1] == ("head",))
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


def _alexnet(model: Any, layer: tuple[str, ...]) -> str:
  convolutions = {f"conv{i}": f"features.{at}" for i, at in enumerate((0, 3, 6, 8, 10), 1)}
  dense = {"dense1": "classifier.1", "dense2": "classifier.4", "head": "classifier.6"}
  return (convolutions | dense)[layer[0]]


def _vgg(model: Any, layer: tuple[str, ...]) -> str:
  dense = {"dense1": "classifier.0", "dense2": "classifier.3", "head": "classifier.6"}
  if layer[0] in dense:
    return dense[layer[0]]
  kind, stage, number = re.fullmatch(r"(conv|norm)(\d)_(\d)", layer[0]).groups()  # type: ignore[union-attr]
  # A list of convolution, batch norm where there is one, and ReLU; a pooling ends each stage.
  before = sum(model.stage_sizes[: int(stage) - 1]) + int(number) - 1
  at = before * (3 if model.batch_norm else 2) + int(stage) - 1
  return f"features.{at + (kind == 'norm')}"


def _vgg_of_timm(model: Any, layer: tuple[str, ...]) -> str:
  dense = {"dense1": "pre_logits.fc1", "dense2": "pre_logits.fc2", "head": "head.fc"}
  return dense.get(layer[0]) or _vgg(model, layer)


def _resnet(model: Any, layer: tuple[str, ...]) -> str:
  *block, name = layer
  words = {
    "stem_conv": "conv1",
    "stem_norm": "bn1",
    "shortcut_conv": "downsample.0",
    "shortcut_norm": "downsample.1",
    "head": "fc",
  }
  if (
    model.deep
  ):  # a list of three convolutions with their norms and ReLUs; shortcuts begin with a pooling
    words |= {"stem_conv1": "conv1.0", "stem_conv2": "conv1.3", "stem_conv3": "conv1.6"}
    words |= {"stem_norm1": "conv1.1", "stem_norm2": "conv1.4"}
    words |= {"shortcut_conv": "downsample.1", "shortcut_norm": "downsample.2"}
  name = words.get(name, name.replace("norm", "bn"))
  if not block:
    return name
  stage, number = re.fullmatch(r"stage(\d)_block(\d+)", block[0]).groups()  # type: ignore[union-attr]
  return f"layer{stage}.{int(number) - 1}.{name}"


# By the file of the family under imgclf/models/.
_LAYOUTS: dict[str, tuple[Layout, ...]] = {
  "alexnet": (Layout("torchvision", _alexnet, {"dense1": 6}),),
  "vgg": (
    Layout("torchvision", _vgg, {"dense1": 7}),
    Layout("timm", _vgg_of_timm, {"dense1": 7}, ("dense1", "dense2")),
  ),
  "resnet": (Layout("torchvision and timm", _resnet),),
}
