"""The networks of torchvision and timm, their names for our variables, and small members of each
family.

    python tests/models/torch_twins.py

prints the logits that `test_families.py` expects, computed by torch in float64. Needs timm.
"""

import re
import sys
import types
import zlib

import numpy as np

# The small members: family -> what makes the class of `imgclf.models`, and the height and width of
# the images.
SMALL = {
  "convnext": ("ConvNeXt", {"stage_sizes": (1, 1, 2, 1), "widths": (8, 12, 16, 24)}, 37),
  "vit": ("ViT", {"width": 24, "depth": 2, "heads": 3, "patch": 8}, 27),
  # Odd sizes, so that means over 2x2 pixels meet an edge.
  "resnet": (
    "ResNet",
    {"stage_sizes": (1, 2, 1, 1), "bottleneck": True, "inner": 2, "groups": 32, "deep": True},
    37,
  ),
  "densenet": ("DenseNet", {"stage_sizes": (1, 2, 1, 1), "growth": 8}, 37),
  "mobilenet_v2": ("MobileNetV2", {}, 33),
  "mobilenet_v3": ("MobileNetV3", {"variant": "small"}, 33),
  "efficientnet_b": ("EfficientNet", {"variant": "b", "width_factor": 0.6}, 33),
  "efficientnet_v2": ("EfficientNet", {"variant": "v2_s", "batch_norm_epsilon": 1e-3}, 33),
  "regnet": ("RegNetY", {"stage_sizes": (1, 2), "widths": (16, 24), "group_width": 8}, 33),
}
# In place of the tables of the same name in the modules.
TABLES = {
  "resnet": {"WIDTHS": (16, 16, 32, 32)},
  "mobilenet_v2": {"V2_STAGES": ((1, 16, 1, 1), (6, 24, 2, 2)), "V2_WIDTHS": (32, 1280)},
  "mobilenet_v3": {
    "V3_STAGES": {
      "small": (
        ((3, 16, 16, True, False, 1),),
        ((5, 40, 24, False, True, 2), (3, 72, 24, True, True, 1)),
      )
    },
    "V3_HIDDEN": {"small": 20},
  },
  "efficientnet_b": {"VARIANTS": {"b": ((False, 1, 3, 1, 16, 1), (False, 6, 5, 2, 24, 2))}},
  "efficientnet_v2": {
    "VARIANTS": {"v2_s": ((True, 1, 3, 1, 24, 1), (True, 4, 3, 2, 40, 2), (False, 4, 3, 2, 48, 2))}
  },
}
MODULE = {"mobilenet_v2": "mobilenet", "mobilenet_v3": "mobilenet"}
MODULE |= {"efficientnet_b": "efficientnet", "efficientnet_v2": "efficientnet"}
CLASSES = 5


def filled(name, shape):
  """Values of a variable by a formula: scales and variances around 1, the rest around 0."""
  wave = np.sin(0.37 * np.arange(1, 1 + np.prod(shape)) ** 2 + zlib.crc32(name.encode()) % 1000)
  wave = wave.reshape(shape)
  match name.rpartition("/")[2]:
    case "scale" | "var":
      return 1 + 0.3 * wave
    case "kernel":
      return wave * np.sqrt(3 / np.prod(shape[:-1]))
    case "gamma":
      return 0.5 * wave
  return 0.2 * wave


def images(size):
  """[2, size, size, 3] float64 between -2 and 2."""
  return 2 * np.sin(0.11 * np.arange(2 * size * size * 3) ** 1.5).reshape(2, size, size, 3)


# Names.

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_LEAVES |= {"mean": "running_mean", "var": "running_var", "gamma": "gamma"}
_LIKE_A_TRANSFORMER = {"dense1": "mlp.fc1", "dense2": "mlp.fc2"}


def torch_names(family, names):
  """Maps names such as `stage1_block1/conv1/kernel` to those in torch's state dict."""
  modules = {name.rpartition("/")[0] for name in names}
  rename = {
    **{"convnext": _convnext, "vit": _vit, "resnet": _resnet, "densenet": _densenet},
    **{"mobilenet_v2": _mobilenet_v2, "mobilenet_v3": _mobilenet_v3, "regnet": _regnet},
    **{"efficientnet_b": _efficientnet, "efficientnet_v2": _efficientnet},
  }[family]
  found = {}
  for name in names:
    module, _, leaf = name.rpartition("/")
    if not module:
      found[name] = {"class_token": "cls_token", "position": "pos_embed"}[leaf]
    else:
      target = rename(module, modules)
      found[name] = f"{target}.{_LEAVES[leaf]}"
  return found


def _convnext(module, _):
  fixed = {"stem_conv": "stem.0", "stem_norm": "stem.1", "norm": "head.norm", "head": "head.fc"}
  if module in fixed:
    return fixed[module]
  if match := re.fullmatch(r"stage(\d)_(norm|conv)", module):
    return f"stages.{int(match[1]) - 1}.downsample.{int(match[2] == 'conv')}"
  stage, block, part = re.fullmatch(r"stage(\d)_block(\d+)/?(.*)", module).groups()
  part = {"conv": "conv_dw", **_LIKE_A_TRANSFORMER}.get(part, part)
  return f"stages.{int(stage) - 1}.blocks.{int(block) - 1}.{part}".rstrip(".")


def _vit(module, _):
  if match := re.fullmatch(r"block(\d+)_tokens/(.*)", module):
    renamed = {"qkv": "attn.qkv", "projection": "attn.proj", **_LIKE_A_TRANSFORMER}
    return f"blocks.{int(match[1]) - 1}.{renamed.get(match[2], match[2])}"
  return {"patch_conv": "patch_embed.proj"}.get(module, module)


def _resnet(module, modules):
  deep = "stem_conv3" in modules
  if match := re.fullmatch(r"stage(\d)_block(\d+)/(.*)", module):
    part = match[3].replace("norm", "bn")
    part = {
      "shortcut_conv": f"downsample.{0 + deep}",
      "shortcut_bn": f"downsample.{1 + deep}",
    }.get(part, part)
    return f"layer{match[1]}.{int(match[2]) - 1}.{part}"
  stem = {"stem_conv": "conv1", "stem_norm": "bn1", "head": "fc"}
  stem |= {"stem_conv1": "conv1.0", "stem_norm1": "conv1.1", "stem_conv2": "conv1.3"}
  stem |= {"stem_norm2": "conv1.4", "stem_conv3": "conv1.6"}
  return stem[module]


def _densenet(module, _):
  if match := re.fullmatch(r"stage(\d)_layer(\d+)/(.*)", module):
    return f"features.denseblock{match[1]}.denselayer{match[2]}.{match[3]}"
  if match := re.fullmatch(r"stage(\d)_(norm|conv)", module):
    return f"features.transition{int(match[1]) - 1}.{match[2]}"
  fixed = {"stem_conv": "features.conv0", "stem_norm": "features.norm0"}
  return {**fixed, "norm": "features.norm5", "head": "classifier"}[module]


def _places(module, modules):
  """The number of the block in the network, from 0, of its part in the block, and the part."""
  block, _, part = module.partition("/")
  blocks = {name.partition("/")[0] for name in modules if "_block" in name}
  blocks = sorted(blocks, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
  order = ("expand", "fused", "depthwise", "squeeze", "project")
  there = {name.partition("/")[2].partition("_")[0] for name in modules if f"{block}/" in name}
  parts = [name for name in order if name in there]
  return blocks.index(block), parts.index(part.partition("_")[0]), part


def _unit(part):
  """What a convolution, its norm and squeeze-and-excitation are called."""
  if part.startswith("squeeze_excite/"):
    return {"squeeze": "fc1", "excite": "fc2"}[part.rpartition("/")[2]]
  return str(int(part.endswith("_norm")))


def _mobilenet_v2(module, modules):
  if "_block" in module:
    number, place, part = _places(module, modules)
    if part.startswith("project"):  # torchvision leaves it out of the unit of convolution and norm
      return f"features.{number + 1}.conv.{place + int(part.endswith('_norm'))}"
    return f"features.{number + 1}.conv.{place}.{_unit(part)}"
  last = 1 + len({name.partition("/")[0] for name in modules if "_block" in name})
  return _around(module, last, {"head": "classifier.1"})


def _mobilenet_v3(module, modules):
  if "_block" in module:
    number, place, part = _places(module, modules)
    return f"features.{number + 1}.block.{place}.{_unit(part)}"
  last = 1 + len({name.partition("/")[0] for name in modules if "_block" in name})
  return _around(module, last, {"dense": "classifier.0", "head": "classifier.3"})


def _efficientnet(module, modules):
  if match := re.match(r"stage(\d)_block(\d+)", module):
    _, place, part = _places(module, modules)
    return f"features.{match[1]}.{int(match[2]) - 1}.block.{place}.{_unit(part)}"
  last = 1 + max(int(name[5]) for name in modules if "_block" in name)
  return _around(module, last, {"head": "classifier.1"})


def _around(module, last, others):
  stem, _, part = module.partition("_")
  if stem in ("stem", "last"):
    return f"features.{0 if stem == 'stem' else last}.{int(part == 'norm')}"
  return others[module]


def _regnet(module, _):
  if match := re.fullmatch(r"stage(\d)_block(\d+)/(.*)", module):
    part = match[3]
    if part.startswith("squeeze_excite"):
      part = f"f.se.{_unit(part)}"
    elif part.startswith("shortcut"):
      part = f"proj.{_unit(part)}"
    else:
      part = f"f.{'abc'[int(part[-1]) - 1]}.{int(part.startswith('norm'))}"
    return f"trunk_output.block{match[1]}.block{match[1]}-{int(match[2]) - 1}.{part}"
  return {"stem_conv": "stem.0", "stem_norm": "stem.1", "head": "fc"}[module]


# torch's side.


def import_torch():
  """Imports torch, torchvision and timm; PyTorch's CPU build lacks an operator that torchvision
  registers."""
  sys.modules.setdefault(
    "torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations")
  )
  import timm
  import torch
  import torchvision

  return torch, torchvision, timm


def small(family):
  """The small member of a family as torchvision or timm has it."""
  _, torchvision, timm = import_torch()
  _, fields, size = SMALL[family]
  match family:
    case "convnext":
      return timm.models.convnext.ConvNeXt(
        depths=fields["stage_sizes"], dims=fields["widths"], num_classes=CLASSES
      )
    case "vit":
      return timm.models.vision_transformer.VisionTransformer(
        img_size=size // 8 * 8,
        patch_size=fields["patch"],
        embed_dim=fields["width"],
        depth=fields["depth"],
        num_heads=fields["heads"],
        num_classes=CLASSES,
      )
    case "resnet":
      return timm.models.resnet.ResNet(
        timm.models.resnet.Bottleneck,
        fields["stage_sizes"],
        num_classes=CLASSES,
        stem_type="deep",
        stem_width=32,
        avg_down=True,
        cardinality=32,
        base_width=4,
        channels=TABLES[family]["WIDTHS"],
      )
    case "densenet":
      return torchvision.models.DenseNet(
        fields["growth"], fields["stage_sizes"], 2 * fields["growth"], num_classes=CLASSES
      )
    case "mobilenet_v2":
      stages = [
        [factor, width, count, stride]
        for factor, width, count, stride in TABLES[family]["V2_STAGES"]
      ]
      return torchvision.models.MobileNetV2(CLASSES, inverted_residual_setting=stages)
    case "mobilenet_v3":
      from torchvision.models import mobilenetv3

      width, blocks = 16, []
      for stage in TABLES[family]["V3_STAGES"]["small"]:
        for size, expanded, out, squeezes, swish, stride in stage:
          activation = "HS" if swish else "RE"
          block = mobilenetv3.InvertedResidualConfig(
            width, size, expanded, out, squeezes, activation, stride, 1, 1.0
          )
          blocks.append(block)
          width = out
      return mobilenetv3.MobileNetV3(blocks, 20, CLASSES)
    case "efficientnet_b" | "efficientnet_v2":
      return _small_efficientnet(family)
    case "regnet":
      from torchvision.models import regnet

      parameters = regnet.BlockParams(
        depths=list(fields["stage_sizes"]),
        widths=list(fields["widths"]),
        group_widths=[fields["group_width"]] * 2,
        bottleneck_multipliers=[1.0] * 2,
        strides=[2, 2],
        se_ratio=0.25,
      )
      return regnet.RegNet(parameters, CLASSES)


def _small_efficientnet(family):
  import functools

  from torch import nn
  from torchvision.models import efficientnet

  ((variant, stages),) = TABLES[family]["VARIANTS"].items()
  factor = SMALL[family][1].get("width_factor", 1.0)
  width, settings = 24 if variant == "v2_s" else 32, []
  for fused, expand, size, stride, out, count in stages:
    if fused:
      stage = efficientnet.FusedMBConvConfig(expand, size, stride, width, out, count)
    else:
      stage = efficientnet.MBConvConfig(
        expand, size, stride, width, out, count, width_mult=factor, depth_mult=1.0
      )
    settings.append(stage)
    width = out
  norm, last = (
    (functools.partial(nn.BatchNorm2d, eps=1e-3), 1280) if factor == 1.0 else (None, None)
  )
  return efficientnet.EfficientNet(
    settings, 0.2, num_classes=CLASSES, norm_layer=norm, last_channel=last
  )


def load(network, family, variables):
  """Gives a network of torch, in place, our variables by their names; refuses what is left over on
  either side."""
  torch, _, _ = import_torch()
  state = network.state_dict()
  left = {name for name in state if not name.endswith("num_batches_tracked")}
  for name, target in torch_names(family, variables).items():
    array = np.asarray(variables[name])
    if array.ndim > 1 and name.endswith("kernel"):
      array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    # Dense layers are 1x1 convolutions there, and embeddings have an axis for the batch.
    state[target] = torch.tensor(array.reshape(tuple(state[target].shape)))
    left.remove(target)
  assert not left, left
  network.load_state_dict(state)


def logits(network, pictures):
  """What a network of torch, in evaluation, says of [batch, height, width, 3]."""
  torch, _, _ = import_torch()
  with torch.no_grad():
    pictures = torch.tensor(np.asarray(pictures).transpose(0, 3, 1, 2).copy())
    return network.eval()(pictures).numpy()


def main():
  import test_families

  for family, (_, _, size) in SMALL.items():
    network = small(family).double()
    shapes = test_families.shapes_of(family)
    load(network, family, {name: filled(name, shape) for name, shape in shapes.items()})
    cut = size // 8 * 8 if family == "vit" else size  # timm wants the size that it was made for
    print(f'  "{family}": {np.round(logits(network, images(size)[:, :cut, :cut]), 9).tolist()},')


if __name__ == "__main__":
  main()
