"""The networks by name: which there are, what each accepts, and how one is made from a config.

Light: a network's module, and with it flax, is imported when the network is made. This file knows
no layer; the networks know neither this file nor the config.

A model is applied as `model.apply(variables, images, train=False, keys=None)` and returns logits:

  images: [batch, height, width, channels] of any float type, normalised. Channels are 3 in
  training,
    but a network takes what it was initialised with.
  train: batch norm uses the batch's statistics and dropout is on; False by default.
  keys: [batch] typed PRNG keys, one for each example; needed only where dropout or drop-path is on.
  logits: [batch, classes], float32, or float64 where the dtype is float64.

`model.init(key, images)` returns `params` and, where there is batch norm, `batch_stats`, both
float32 (float64 with dtype float64). The head starts at zero, so that the loss of an untrained
network is ln(classes); `airbench94` alone differs. A network whose first weights come from training
images has `fitted_to`, how many, and `fitted(params, images)`, which returns them. With
`mutable=["intermediates"]` apply also returns features by name; see `imgclf.models.layers.feature`.
"""

from collections.abc import Mapping
import dataclasses
import difflib
import importlib
import math
from typing import TYPE_CHECKING, Any

from imgclf.errors import UserError

if TYPE_CHECKING:
  from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class _Entry:
  """One name of the table.

  Attributes:
    module: file of the family, under imgclf.models.
    network: class of the family.
    smallest: least height and width in pixels of an image that the network can take.
    image_size: height and width that the network is usually trained at, which its costs are told
      for.
    num_classes: of the set that it is usually trained on, likewise.
    fields: what makes this network of the class.
    options: optional fields of config.model that the class takes under the same name.
    batch_norm: whether there are statistics to synchronise.
    blocks: whether it consists of blocks that can be computed anew for the gradient.
  """

  module: str
  network: str
  smallest: int
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  options: tuple[str, ...] = ()
  batch_norm: bool = False
  blocks: bool = False
  image_size: int = 224
  num_classes: int = 1000


def _vgg(batch_norm: bool, *stage_sizes: int) -> _Entry:
  fields = {"stage_sizes": stage_sizes, "batch_norm": batch_norm}
  return _Entry("vgg", "VGG", 32, fields, ("dropout_rate",), batch_norm)


def _resnet(bottleneck: bool, *stage_sizes: int, **more: Any) -> _Entry:
  fields = {"stage_sizes": stage_sizes, "bottleneck": bottleneck, **more}
  return _Entry("resnet", "ResNet", 1, fields, ("stem", "drop_path_rate"), True, True)


_DROPS = ("dropout_rate", "drop_path_rate")
_EPSILON = "batch_norm_epsilon"


def _convnext(widths: tuple[int, ...], *stage_sizes: int) -> _Entry:
  fields = {"stage_sizes": stage_sizes, "widths": widths}
  return _Entry("convnext", "ConvNeXt", 32, fields, _DROPS, blocks=True)


def _mobilenet(network: str, options: tuple[str, ...] = (), **fields: Any) -> _Entry:
  return _Entry("mobilenet", network, 1, fields, (*_DROPS, *options), True, True)


def _efficientnet(variant: str, image_size: int, dropout_rate: float, **more: float) -> _Entry:
  fields = {"variant": variant, "dropout_rate": dropout_rate, **more}
  options = (*_DROPS, _EPSILON)
  return _Entry("efficientnet", "EfficientNet", 1, fields, options, True, True, image_size)


def _regnety(group_width: int, widths: tuple[int, ...], *stage_sizes: int) -> _Entry:
  fields = {"group_width": group_width, "widths": widths, "stage_sizes": stage_sizes}
  return _Entry("regnet", "RegNetY", 1, fields, _DROPS, True, True)


def _vit(width: int, depth: int, heads: int) -> _Entry:
  fields = {"width": width, "depth": depth, "heads": heads}
  return _Entry("vit", "ViT", 16, fields, _DROPS, blocks=True)


_MODELS = {
  "cnn": _Entry("cnn", "CNN", 22, options=("dropout_rate",), num_classes=10),
  "lenet5": _Entry("lenet", "LeNet5", 16, image_size=32, num_classes=10),
  "alexnet": _Entry("alexnet", "AlexNet", 63, options=("dropout_rate",)),
  "vgg11": _vgg(False, 1, 1, 2, 2, 2),
  "vgg11_bn": _vgg(True, 1, 1, 2, 2, 2),
  "vgg13": _vgg(False, 2, 2, 2, 2, 2),
  "vgg13_bn": _vgg(True, 2, 2, 2, 2, 2),
  "vgg16": _vgg(False, 2, 2, 3, 3, 3),
  "vgg16_bn": _vgg(True, 2, 2, 3, 3, 3),
  "vgg19": _vgg(False, 2, 2, 4, 4, 4),
  "vgg19_bn": _vgg(True, 2, 2, 4, 4, 4),
  "resnet18": _resnet(False, 2, 2, 2, 2),
  "resnet34": _resnet(False, 3, 4, 6, 3),
  "resnet50": _resnet(True, 3, 4, 6, 3),
  "resnet101": _resnet(True, 3, 4, 23, 3),
  "resnet152": _resnet(True, 3, 8, 36, 3),
  "resnet50d": _resnet(True, 3, 4, 6, 3, deep=True),
  "wide_resnet50_2": _resnet(True, 3, 4, 6, 3, inner=2),
  "resnext50_32x4d": _resnet(True, 3, 4, 6, 3, inner=2, groups=32),
  "densenet121": _Entry(
    *("densenet", "DenseNet", 29, {"stage_sizes": (6, 12, 24, 16), "growth": 32}),
    *(("dropout_rate",), True, True),
  ),
  "mobilenet_v2": _mobilenet("MobileNetV2"),
  "mobilenet_v3_small": _mobilenet("MobileNetV3", (_EPSILON,), variant="small"),
  "mobilenet_v3_large": _mobilenet("MobileNetV3", (_EPSILON,), variant="large"),
  "efficientnet_b0": _efficientnet("b", 224, 0.2),
  "efficientnet_b1": _efficientnet("b", 240, 0.2, width_factor=1.0, depth_factor=1.1),
  "efficientnet_b2": _efficientnet("b", 260, 0.3, width_factor=1.1, depth_factor=1.2),
  "efficientnet_b3": _efficientnet("b", 300, 0.3, width_factor=1.2, depth_factor=1.4),
  "efficientnet_b4": _efficientnet("b", 380, 0.4, width_factor=1.4, depth_factor=1.8),
  "efficientnet_v2_s": _efficientnet("v2_s", 384, 0.2, batch_norm_epsilon=1e-3),
  "efficientnet_v2_m": _efficientnet("v2_m", 480, 0.3, batch_norm_epsilon=1e-3),
  "regnet_y_400mf": _regnety(8, (48, 104, 208, 440), 1, 3, 6, 6),
  "regnet_y_800mf": _regnety(16, (64, 144, 320, 784), 1, 3, 8, 2),
  "regnet_y_1_6gf": _regnety(24, (48, 120, 336, 888), 2, 6, 17, 2),
  "regnet_y_3_2gf": _regnety(24, (72, 216, 576, 1512), 2, 5, 13, 1),
  "regnet_y_8gf": _regnety(56, (224, 448, 896, 2016), 2, 4, 10, 1),
  "regnet_y_16gf": _regnety(112, (224, 448, 1232, 3024), 2, 4, 11, 1),
  "convnext_atto": _convnext((40, 80, 160, 320), 2, 2, 6, 2),
  "convnext_nano": _convnext((80, 160, 320, 640), 2, 2, 8, 2),
  "convnext_tiny": _convnext((96, 192, 384, 768), 3, 3, 9, 3),
  "convnext_small": _convnext((96, 192, 384, 768), 3, 3, 27, 3),
  "convnext_base": _convnext((128, 256, 512, 1024), 3, 3, 27, 3),
  "convnext_large": _convnext((192, 384, 768, 1536), 3, 3, 27, 3),
  "vit_ti_16": _vit(192, 12, 3),
  "vit_s_16": _vit(384, 12, 6),
  "vit_b_16": _vit(768, 12, 12),
  "vit_l_16": _vit(1024, 24, 16),
  "airbench94": _Entry("airbench", "Airbench", 9, batch_norm=True, image_size=32, num_classes=10),
}
_OPTIONS = ("dropout_rate", "drop_path_rate", "stem", "batch_norm_epsilon")


def names() -> list[str]:
  """Returns the names that `config.model.name` may have."""
  return list(_MODELS)


def _entry(name: str) -> _Entry:
  if name in _MODELS:
    return _MODELS[name]
  near = difflib.get_close_matches(name, _MODELS, 1)
  hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_MODELS)}"
  raise UserError(f"config.model.name: got {name!r}, which is no network; {hint}")


def check(model_config: Mapping[str, Any], image_size: int) -> None:
  """Checks what depends on the network, without making it.

  Args:
    model_config: the section `model` of a config.
    image_size: height and width of the images, in pixels.

  Raises:
    UserError: if there is no such network, if it does not have an option that is set, or if the
      images are so small that nothing is left of them before its head.
  """
  name = model_config["name"]
  entry = _entry(name)
  for option in _OPTIONS:
    if model_config[option] is not None and option not in entry.options:
      takers = ", ".join(n for n, e in _MODELS.items() if option in e.options)
      raise UserError(
        f"config.model.{option}: got {model_config[option]!r}, but {name} has none; "
        f"set it to none or take one of {takers}"
      )
  if model_config["remat"] == "blocks" and not entry.blocks:
    raise UserError(
      f"config.model.remat: got 'blocks', but {name} has none; set it to elementwise or none"
    )
  if image_size < entry.smallest:
    raise UserError(
      f"config.dataset.image_size: got {image_size}, {name} needs at least {entry.smallest}"
    )


def create(
  model_config: Mapping[str, Any], num_classes: int, *, axis_name: str | None
) -> "nn.Module":
  """Makes the network of a config.

  Args:
    model_config: the section `model` of a config that `check` accepts.
    num_classes: length of the logits.
    axis_name: the pmap axis that training runs over, for `sync_batch_norm`; none outside of pmap.

  Raises:
    UserError: if there is no such network.
  """
  import jax.numpy as jnp

  entry = _entry(model_config["name"])
  fields = dict(entry.fields)
  for option in entry.options:
    if model_config[option] is not None:
      fields[option] = model_config[option]
  if entry.batch_norm and model_config["sync_batch_norm"]:
    fields["axis_name"] = axis_name
  if model_config["remat"] == "blocks":
    fields["remat"] = True
  return _network(entry)(num_classes=num_classes, dtype=jnp.dtype(model_config["dtype"]), **fields)


def _network(entry: _Entry) -> Any:
  return getattr(importlib.import_module(f"imgclf.models.{entry.module}"), entry.network)


def family(name: str) -> str:
  """Returns the name of the file that has a network: `resnet` for `resnet50`.

  Raises:
    UserError: if there is no such network.
  """
  return _entry(name).module


def is_fitted(model: "nn.Module") -> bool:
  """Whether a network takes some of its first weights from training images."""
  return hasattr(model, "fitted_to")


def shapes(model: "nn.Module", image_size: int) -> dict[str, Any]:
  """Works out what `model.init` would return, without computing any of it.

  Args:
    model: as made by `create`.
    image_size: height and width of the images, in pixels.

  Returns:
    `params` and `batch_stats` (empty where there is no batch norm), trees of jax.ShapeDtypeStruct.
  """
  import jax
  import jax.numpy as jnp

  images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), images)
  return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def depths(model: "nn.Module", image_size: int) -> dict[str, int]:
  """Returns how many layers lie between each part of a network and its logits: 0 for the head.

  A part is what the first word of its parameters' names stands for, such as `stage1_block2`. Each
  that holds a filter or matrix is a layer, in the order of the forward pass; what holds none, such
  as a norm or a class token, belongs to the layer before it.

  Args:
    model: as made by `create`.
    image_size: height and width of the images, in pixels.
  """
  import jax
  import jax.numpy as jnp

  number: dict[str, int] = {}

  def init(key, images):
    params = model.init(key, images)["params"]
    layers = 0
    # In the order in which they were made, which a result that JAX hands over has lost.
    for name, part in params.items():
      filters = isinstance(part, Mapping) and any(x.ndim > 1 for x in jax.tree.leaves(part))
      number[name] = layers = layers + filters
    return ()

  images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  jax.eval_shape(init, jax.random.key(0), images)
  last = max(number.values())
  return {name: min(last - layer, last - 1) for name, layer in number.items()}


def parameter_count(params: Any) -> int:
  """Returns the number of parameters in a tree of arrays or of jax.ShapeDtypeStruct."""
  import jax

  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a network of the table takes.

  Attributes:
    parameters: number of them.
    multiply_adds: of one image, see `multiply_adds`.
    image_size: height and width of that image, in pixels.
    num_classes: length of the logits.
    smallest: least height and width of an image that it can take, in pixels.
  """

  parameters: int
  multiply_adds: int
  image_size: int
  num_classes: int
  smallest: int


def cost(name: str) -> Cost:
  """Works out what a network takes at the image size and with the classes that it is usually
  trained at.

  Raises:
    UserError: if there is no such network.
  """
  entry = _entry(name)
  model = _network(entry)(num_classes=entry.num_classes, **entry.fields)
  (_, variables), products = _traced(model, entry.image_size)
  parameters = parameter_count(variables["params"])
  return Cost(parameters, products, entry.image_size, entry.num_classes, entry.smallest)


def multiply_adds(model: "nn.Module", image_size: int) -> int:
  """Returns the multiply-adds of one image, as `imgclf.models.counting` counts them.

  Args:
    model: as made by `create`.
    image_size: height and width of the image, in pixels.
  """
  return _traced(model, image_size)[1]


def _traced(model: "nn.Module", image_size: int) -> tuple[Any, int]:
  """The logits and variables of one image, as shapes, and the multiply-adds: initial values need
  none.
  """
  import jax
  import jax.numpy as jnp

  from imgclf.models import counting

  images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  return counting.traced(model.init_with_output, jax.random.key(0), images)
