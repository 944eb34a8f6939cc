"""The layouts of MobileNet and EfficientNet, which are made of inverted residuals, in torchvision
and timm.

Each function is given a network and returns torchvision's layout and timm's. In all of these
networks the blocks of the first stage, and no others, widen by nothing and lack the layer that
would.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from imgclf.models import efficientnet as efficientnets
from imgclf.models import layers
from imgclf.models import mobilenet as mobilenets
from imgclf.models.torch_layout import Layout, Path, place

# What batch norm adds to the variance of EfficientNet B, in both, and of timm's V2 and MobileNetV3;
# torchvision's add what they were published with.
_SMALL, _PUBLISHED = layers.EPSILON, 1e-3
# Dense layers that are convolutions of a pixel in both.
_SQUEEZE = ("squeeze", "excite")


def mobilenet(model: Any) -> tuple[Layout, ...]:
  """torchvision numbers blocks through the network, timm by stages."""
  if isinstance(model, mobilenets.MobileNetV2):
    return _mobilenet_v2()
  stages = mobilenets.V3_STAGES[model.variant]
  count = sum(map(len, stages))
  # timm's stages end where the number of channels changes as well: what is one here may be two
  # there.
  places, at = {}, (-1, -1)
  width = None
  for i, blocks in enumerate(stages, 1):
    for j, (_, _, channels, *_) in enumerate(blocks, 1):
      at = (at[0], at[1] + 1) if channels == width else (at[0] + 1, 0)
      places[i, j], width = at, channels

  def torchvision(path: Path) -> str:
    stage, number = place(path[0])
    before = sum(map(len, stages[: stage - 1]))
    squeezes = stages[stage - 1][number - 1][3]
    units = [*(["expand"] if stage > 1 else []), "depthwise", *(["squeeze"] if squeezes else [])]
    return f"features.{before + number}.block.{_unit([*units, 'project'], path)}"

  last = f"blocks.{at[0] + 1}.0"
  ends = {"last_conv": f"{last}.conv", "last_norm": f"{last}.bn1", "dense": "conv_head"}
  return (
    Layout(
      "torchvision",
      _torchvision(torchvision, count + 1, {"dense": "classifier.0", "head": "classifier.3"}),
      convolutions=_SQUEEZE,
      epsilon=_PUBLISHED,
    ),
    Layout(
      "timm",
      _timm(places.__getitem__, ends),
      convolutions=(*_SQUEEZE, "dense"),
      epsilon=_SMALL,
    ),
  )


def _mobilenet_v2() -> tuple[Layout, ...]:
  sizes = [row[2] for row in mobilenets.V2_STAGES]

  def torchvision(path: Path) -> str:
    stage, number = place(path[0])
    units = [*(["expand"] if stage > 1 else []), "depthwise"]
    kind, _, leaf = path[1].partition("_")
    # Not a unit there, but two layers in the list of units.
    part = str(len(units) + (leaf == "norm")) if kind == "project" else _unit(units, path)
    return f"features.{sum(sizes[: stage - 1]) + number}.conv.{part}"

  return (
    Layout("torchvision", _torchvision(torchvision, sum(sizes) + 1, {"head": "classifier.1"})),
    Layout("timm", _timm(_from_0, {"last_conv": "conv_head", "last_norm": "bn2"})),
  )


def efficientnet(model: Any) -> tuple[Layout, ...]:
  """Both number blocks by stages."""
  stages = efficientnets.VARIANTS[model.variant]
  fused = [stage[0] for stage in stages]

  def torchvision(path: Path) -> str:
    stage, number = place(path[0])
    if fused[stage - 1]:
      units = ["fused", "project"]
    else:
      units = [*(["expand"] if stage > 1 else []), "depthwise", "squeeze", "project"]
    return f"features.{stage}.{number - 1}.block.{_unit(units, path)}"

  ends = {"last_conv": "conv_head", "last_norm": "bn2"}
  return (
    Layout(
      "torchvision",
      _torchvision(torchvision, len(stages) + 1, {"head": "classifier.1"}),
      convolutions=_SQUEEZE,
      epsilon=_SMALL if model.variant == "b" else _PUBLISHED,
    ),
    Layout("timm", _timm(_from_0, ends, fused), convolutions=_SQUEEZE, epsilon=_SMALL),
  )


def _unit(units: Sequence[str], path: Path) -> str:
  """Returns torchvision's name of a layer in a block that is a list of units."""
  kind, _, leaf = path[1].partition("_")
  layer = path[2] if len(path) > 2 else leaf
  names = {"conv": "0", "norm": "1", "squeeze": "fc1", "excite": "fc2"}
  return f"{units.index(kind)}.{names[layer]}"


def _torchvision(
  block: Callable[[Path], str], last: int, heads: Mapping[str, str]
) -> Callable[[Path], str]:
  """Returns torchvision's names, given those of layers in blocks and the place of the last
  convolution.
  """
  ends = {"stem_conv": "features.0.0", "stem_norm": "features.0.1", **heads}
  ends |= {"last_conv": f"features.{last}.0", "last_norm": f"features.{last}.1"}
  return lambda path: block(path) if len(path) > 1 else ends[path[0]]


def _from_0(at: tuple[int, int]) -> tuple[int, int]:
  return at[0] - 1, at[1] - 1


def _timm(
  there: Callable[[tuple[int, int]], tuple[int, int]],
  ends: Mapping[str, str],
  fused: Sequence[bool] = (),
) -> Callable[[Path], str]:
  """Returns timm's names.

  Args:
    there: stage and number of a block here, from 1 -> there, from 0.
    ends: the names of the last layers, by ours.
    fused: by stage, whether its blocks are fused; none are where it is empty.
  """
  ends = {"stem_conv": "conv_stem", "stem_norm": "bn1", "head": "classifier", **ends}

  def module(path: Path) -> str:
    if len(path) == 1:
      return ends[path[0]]
    stage, number = place(path[0])
    block = "blocks.{}.{}".format(*there((stage, number)))
    if path[1] == "squeeze_excite":
      return f"{block}.se.conv_{'reduce' if path[2] == 'squeeze' else 'expand'}"
    # The convolutions of a block in their order, whose norms are numbered.
    if fused and fused[stage - 1]:
      convolutions = {"fused": "conv_exp" if stage > 1 else "conv", "project": "conv_pwl"}
    elif stage > 1:
      convolutions = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
    else:
      convolutions = {"depthwise": "conv_dw", "project": "conv_pw"}
    kind, _, leaf = path[1].partition("_")
    return (
      f"{block}.{convolutions[kind] if leaf == 'conv' else f'bn{[*convolutions].index(kind) + 1}'}"
    )

  return module
