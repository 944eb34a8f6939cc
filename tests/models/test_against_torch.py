"""The whole networks against torchvision's and timm's for the same weights, where timm is
installed.

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

# Name here -> family of `torch_twins`, and timm's name; none: torchvision's, which is the same as
# ours.
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


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_theirs_for_the_same_weights(name):
  family, size = NETWORKS[name][0], 64
  section = config_lib.default_config().model
  section.name = name
  found = {}

  def fill(path, leaf):
    variable = "/".join(key.key for key in path[1:])
    found[variable] = torch_twins.filled(variable, leaf.shape).astype(np.float32)
    if family == "efficientnet_v2" and variable.endswith("project_norm/scale"):
      # With branches as large as what they are added to, so many blocks in a row are chaos: torch's
      # own logits in float32 were 4% off those in float64.
      found[variable] *= 0.3
    return found[variable]

  model = models.create(section, torch_twins.CLASSES, axis_name=None)
  variables = jax.tree_util.tree_map_with_path(fill, models.shapes(model, size))
  pictures = torch_twins.images(size).astype(np.float32)
  ours = np.asarray(jax.jit(model.apply)(variables, pictures))
  network = twin(name, size)
  torch_twins.load(network, family, found)
  theirs = torch_twins.logits(network, pictures)
  print(f"{name}: {np.max(np.abs(ours - theirs)):.1e} of {np.max(np.abs(theirs)):.3f}")
  # As 1e-4 is to logits of 10, which those of these weights are not always.
  largest = np.max(np.abs(theirs))
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * largest)
  assert largest > 0.01  # else there was nothing to compare
