"""The layouts of AlexNet, VGG, ResNet, DenseNet, RegNet, ConvNeXt and ViT in torchvision and timm.

Each function is given a network and returns one layout for each library whose names differ, timm's
last.
"""

import re
from typing import Any

from imgclf.models.torch_layout import Layout, Path, between, place


def alexnet(model: Any) -> tuple[Layout, ...]:
  """timm has none."""
  del model
  names = {f"conv{i}": f"features.{at}" for i, at in enumerate((0, 3, 6, 8, 10), 1)}
  names |= {"dense1": "classifier.1", "dense2": "classifier.4", "head": "classifier.6"}
  return (Layout("torchvision", lambda path: names[path[0]], {"dense1": 6}),)


def vgg(model: Any) -> tuple[Layout, ...]:
  """timm's first two dense layers are convolutions."""
  dense = {"dense1": "classifier.0", "dense2": "classifier.3", "head": "classifier.6"}
  dense_of_timm = {"dense1": "pre_logits.fc1", "dense2": "pre_logits.fc2", "head": "head.fc"}

  def features(path: Path) -> str:
    kind, stage, number = re.fullmatch(r"(conv|norm)(\d)_(\d)", path[0]).groups()  # type: ignore[union-attr]
    # A list of convolution, batch norm where there is one, and ReLU; a pooling ends each stage.
    before = sum(model.stage_sizes[: int(stage) - 1]) + int(number) - 1
    at = before * (3 if model.batch_norm else 2) + int(stage) - 1
    return f"features.{at + (kind == 'norm')}"

  return (
    Layout("torchvision", lambda path: dense.get(path[0]) or features(path), {"dense1": 7}),
    Layout(
      "timm",
      lambda path: dense_of_timm.get(path[0]) or features(path),
      {"dense1": 7},
      ("dense1", "dense2"),
    ),
  )


def resnet(model: Any) -> tuple[Layout, ...]:
  """One layout for both."""
  words = {"stem_conv": "conv1", "stem_norm": "bn1", "head": "fc"}
  words |= {"shortcut_conv": "downsample.0", "shortcut_norm": "downsample.1"}
  if model.deep:
    # A list of three convolutions with their norms and ReLUs; shortcuts begin with a pooling.
    words |= {"stem_conv1": "conv1.0", "stem_conv2": "conv1.3", "stem_conv3": "conv1.6"}
    words |= {"stem_norm1": "conv1.1", "stem_norm2": "conv1.4"}
    words |= {"shortcut_conv": "downsample.1", "shortcut_norm": "downsample.2"}

  def module(path: Path) -> str:
    name = words.get(path[-1], path[-1].replace("norm", "bn"))
    if len(path) == 1:
      return name
    stage, number = place(path[0])
    return f"layer{stage}.{number - 1}.{name}"

  return (Layout("torchvision and timm", module),)


def densenet(model: Any) -> tuple[Layout, ...]:
  """One layout for both."""
  del model
  ends = {"stem_conv": "features.conv0", "stem_norm": "features.norm0"}
  ends |= {"norm": "features.norm5", "head": "classifier"}

  def module(path: Path) -> str:
    if path[0] in ends:
      return ends[path[0]]
    if len(path) == 1:
      stage, kind = between(path[0])
      return f"features.transition{stage - 1}.{kind}"
    stage, number = place(path[0])
    return f"features.denseblock{stage}.denselayer{number}.{path[1]}"

  return (Layout("torchvision and timm", module),)


def regnet(model: Any) -> tuple[Layout, ...]:
  """A block is `trunk_output.block2.block2-0` in torchvision, `s2.b1` in timm."""
  del model
  ends = {"stem_conv": "stem.0", "stem_norm": "stem.1", "head": "fc"}
  ends_of_timm = {"stem_conv": "stem.conv", "stem_norm": "stem.bn", "head": "head.fc"}
  squeeze = {"squeeze": "se.fc1", "excite": "se.fc2"}

  def torchvision(path: Path) -> str:
    if len(path) == 1:
      return ends[path[0]]
    stage, number = place(path[0])
    if path[1] == "squeeze_excite":
      part = f"f.{squeeze[path[2]]}"
    elif path[1].startswith("shortcut"):
      part = f"proj.{int(path[1] == 'shortcut_norm')}"
    else:
      part = f"f.{'abc'[int(path[1][-1]) - 1]}.{int(path[1].startswith('norm'))}"
    return f"trunk_output.block{stage}.block{stage}-{number - 1}.{part}"

  def timm(path: Path) -> str:
    if len(path) == 1:
      return ends_of_timm[path[0]]
    stage, number = place(path[0])
    if path[1] == "squeeze_excite":
      part = squeeze[path[2]]
    elif path[1].startswith("shortcut"):
      part = f"downsample.{'bn' if path[1] == 'shortcut_norm' else 'conv'}"
    else:
      part = f"conv{path[1][-1]}.{'bn' if path[1].startswith('norm') else 'conv'}"
    return f"s{stage}.b{number}.{part}"

  convolutions = tuple(squeeze)
  return (
    Layout("torchvision", torchvision, convolutions=convolutions),
    Layout("timm", timm, convolutions=convolutions),
  )


# timm's ConvNeXts below this width, which are its own, have convolutions of a pixel in their
# blocks.
_CONVNEXT_TINY = 96


def convnext(model: Any) -> tuple[Layout, ...]:
  """torchvision has the networks of the paper, timm smaller ones besides."""
  ends = {"stem_conv": "features.0.0", "stem_norm": "features.0.1"}
  ends |= {"norm": "classifier.0", "head": "classifier.2"}
  parts = {"conv": "block.0", "norm": "block.2", "dense1": "block.3", "dense2": "block.5"}
  ends_of_timm = {"stem_conv": "stem.0", "stem_norm": "stem.1"}
  ends_of_timm |= {"norm": "head.norm", "head": "head.fc"}
  parts_of_timm = {"conv": "conv_dw", "norm": "norm", "dense1": "mlp.fc1", "dense2": "mlp.fc2"}

  def torchvision(path: Path) -> str:
    if path[0] in ends:
      return ends[path[0]]
    if len(path) == 1:
      stage, kind = between(path[0])
      return f"features.{2 * stage - 2}.{int(kind == 'conv')}"
    stage, number = place(path[0])
    return f"features.{2 * stage - 1}.{number - 1}.{parts.get(path[1], 'layer_scale')}"

  def timm(path: Path) -> str:
    if path[0] in ends_of_timm:
      return ends_of_timm[path[0]]
    if len(path) == 1:
      stage, kind = between(path[0])
      return f"stages.{stage - 1}.downsample.{int(kind == 'conv')}"
    stage, number = place(path[0])
    return f"stages.{stage - 1}.blocks.{number - 1}.{parts_of_timm.get(path[1], 'gamma')}"

  own = model.widths[0] < _CONVNEXT_TINY
  of_timm = Layout("timm", timm, convolutions=("dense1", "dense2") if own else ())
  if own:
    return (of_timm,)
  return (Layout("torchvision", torchvision, ones={"gamma": (0, 2)}), of_timm)


def vit(model: Any) -> tuple[Layout, ...]:
  """torchvision has B and L."""
  del model
  ends = {"patch_conv": "conv_proj", "class_token": "class_token"}
  ends |= {"position": "encoder.pos_embedding", "norm": "encoder.ln", "head": "heads.head"}
  parts = {"norm1": "ln_1", "qkv": "self_attention.in_proj_", "norm2": "ln_2"}
  parts |= {"projection": "self_attention.out_proj", "dense1": "mlp.0", "dense2": "mlp.3"}
  ends_of_timm = {"patch_conv": "patch_embed.proj", "class_token": "cls_token"}
  ends_of_timm |= {"position": "pos_embed", "norm": "norm", "head": "head"}
  parts_of_timm = {"norm1": "norm1", "qkv": "attn.qkv", "norm2": "norm2"}
  parts_of_timm |= {"projection": "attn.proj", "dense1": "mlp.fc1", "dense2": "mlp.fc2"}

  def number(path: Path) -> int:
    return int(path[0].removeprefix("block").removesuffix("_tokens")) - 1

  def torchvision(path: Path) -> str:
    if len(path) == 1:
      return ends[path[0]]
    return f"encoder.layers.encoder_layer_{number(path)}.{parts[path[1]]}"

  def timm(path: Path) -> str:
    if len(path) == 1:
      return ends_of_timm[path[0]]
    return f"blocks.{number(path)}.{parts_of_timm[path[1]]}"

  ones = {"class_token": (2, 0), "position": (1, 0)}
  return (Layout("torchvision", torchvision, ones=ones), Layout("timm", timm, ones=ones))
