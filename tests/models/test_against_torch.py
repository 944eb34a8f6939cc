"""The whole networks against torchvision's and timm's, with their random weights, where timm is installed.

By hand: CI has no torch. Few pixels, so that each takes seconds.
"""

import importlib.util

import jax
import numpy as np
import pytest
import torch_twins

from imgclf import config as config_lib
from imgclf import models

if importlib.util.find_spec("timm") is None:
  pytest.skip("timm is not installed", allow_module_level=True)

# Name here -> family of `torch_twins`, and timm's name; none: torchvision's, which is the same as ours.
NETWORKS = {
  **{name: ("resnet", name) for name in ("resnet18", "resnet50", "resnet50d")},
  **{name: ("resnet", name) for name in ("wide_resnet50_2", "resnext50_32x4d")},
  "densenet121": ("densenet", None),
  "mobilenet_v2": ("mobilenet_v2", None),
  "mobilenet_v3_small": ("mobilenet_v3", None),
  "mobilenet_v3_large": ("mobilenet_v3", None),
  **{f"efficientnet_b{i}": ("efficientnet_b", None) for i in range(5)},
  "efficientnet_v2_s": ("efficientnet_v2", None),
  "efficientnet_v2_m": ("efficientnet_v2", None),
  **{
    f"regnet_y_{size}": ("regnet", None)
    for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf")
  },
  **{
    f"convnext_{size}": ("convnext", f"convnext_{size}")
    for size in ("atto", "nano", "tiny", "small", "base", "large")
  },
  **{
    f"vit_{short}_16": ("vit", f"vit_{long}_patch16_224")
    for short, long in (("ti", "tiny"), ("s", "small"), ("b", "base"), ("l", "large"))
  },
}


def twin(name, size):
  _, torchvision, timm = torch_twins.import_torch()
  family, theirs = NETWORKS[name]
  if theirs is None:
    return torchvision.models.get_model(name, num_classes=torch_twins.CLASSES)
  more = {"img_size": size} if family == "vit" else {}
  return timm.create_model(theirs, num_classes=torch_twins.CLASSES, **more)


def from_torch(family, state, shapes):
  """Our variables, by name, from a state dict: the way back of `torch_twins.load`."""
  found = {}
  for name, target in torch_twins.torch_names(family, shapes).items():
    array, shape = state.pop(target).numpy(), shapes[name]
    if len(shape) > 1 and name.endswith("kernel"):
      array = (
        array.reshape(array.shape[: len(shape)]).T
        if len(shape) == 2
        else array.transpose(2, 3, 1, 0)
      )
    found[name] = array.reshape(shape)
  assert [name for name in state if not name.endswith("num_batches_tracked")] == []
  return found


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_theirs_for_the_same_weights(name):
  torch, _, _ = torch_twins.import_torch()
  torch.manual_seed(0)
  family, size = NETWORKS[name][0], 64
  network = twin(name, size)
  section = config_lib.default_config().model
  section.name = name
  model = models.create(section, torch_twins.CLASSES, axis_name=None)
  shapes = models.shapes(model, size)
  names = {
    path: "/".join(key.key for key in path[1:])
    for path, _ in jax.tree_util.tree_flatten_with_path(shapes)[0]
  }
  flat = {names[path]: leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]}
  found = from_torch(family, network.state_dict(), flat)
  variables = jax.tree_util.tree_map_with_path(lambda path, _: found[names[path]], shapes)
  pictures = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
  ours = np.asarray(jax.jit(model.apply)(variables, pictures))
  theirs = torch_twins.logits(network, pictures)
  print(f"{name}: {np.max(np.abs(ours - theirs)):.1e} of {np.max(np.abs(theirs)):.3f}")
  np.testing.assert_allclose(ours, theirs, atol=1e-4)
  assert np.max(np.abs(theirs)) > 1e-3  # else there was nothing to compare
