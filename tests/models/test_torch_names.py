import zlib

from filled import filled, images
import jax
import numpy as np
import pytest

from imgclf import config as configs
from imgclf import models
from imgclf.errors import UserError
from imgclf.models import alexnet, torch_names, vgg

# Of torchvision 0.28.0's and timm 1.0.31's `state_dict`: how many arrays, and the CRC-32 of the
# sorted lines `f"{name} {tuple(shape)}"`; the counters of batch norm among them.
STATE_DICTS = {
  "alexnet": [(16, 3622251255)],
  "vgg11": [(22, 1256024256), (22, 2497789740)],
  "vgg16_bn": [(97, 3169581159), (97, 2440341176)],
  "resnet34": [(218, 2960900726)],
  "resnet50": [(320, 3021298538)],
  "resnet50d": [(332, 890843997)],
  "wide_resnet50_2": [(320, 2501138884)],
  "resnext50_32x4d": [(320, 4147141815)],
  "densenet121": [(727, 3344429108)],
  "mobilenet_v2": [(314, 3563569232), (314, 539039727)],
  "mobilenet_v3_small": [(244, 1176667609), (244, 4200670033)],
  "mobilenet_v3_large": [(312, 2217349819), (312, 2389764416)],
  "efficientnet_b0": [(360, 2321614264), (360, 4163082860)],
  "efficientnet_b4": [(706, 4178952261), (706, 1961370367)],
  "efficientnet_v2_s": [(782, 3228767427), (782, 1917023078)],
  "regnet_y_400mf": [(384, 4220571036), (384, 2466576930)],
  "regnet_y_800mf": [(340, 3544758432), (340, 608921)],
  "convnext_atto": [(128, 4211467384)],
  "convnext_tiny": [(182, 4289081892), (182, 3765157871)],
  "vit_b_16": [(152, 2248261885), (152, 688375171)],
  "vit_ti_16": [(152, 2353109881), (152, 1481746790)],
}


def network(name, classes):
  section = configs.default_config().model
  section.name = name
  return models.create(section, classes, axis_name=None)


@pytest.mark.parametrize("name", STATE_DICTS)
def test_names_and_shapes_are_those_of_the_libraries(name):
  model = network(name, 1000)
  shapes = models.shapes(model, 224)
  found = []
  for layout in torch_names.layouts(model):
    tensors = torch_names.tensors(shapes, layout).values()
    lines = [f"{t.name} {t.shape}" for t in tensors]
    lines += [
      f"{t.name.replace('running_mean', torch_names.COUNTER)} ()"
      for t in tensors
      if t.name.endswith("running_mean")
    ]
    found.append((len(lines), zlib.crc32("\n".join(sorted(lines)).encode())))
  assert found == STATE_DICTS[name]


# From torchvision in float64, with `filled` weights for 7 classes; AlexNet with 16 units in its
# hidden dense layers.
LOGITS = {
  ("resnet18", 32): [
    [0.9579956, -0.7790213, -0.2468462, -0.0326785, 0.407819, 0.477488, -0.5713647],
    [0.9965292, -0.7340884, -0.2764189, -0.0842376, 0.4109299, 0.5323537, -0.5562476],
  ],
  # 2x2 pixels are left before the dense layers, so that a wrong order of the flattened map shows.
  ("alexnet", 95): [
    [-0.0635471, 0.0763613, -0.1256207, 0.0142877, 0.3541961, -0.1622076, -0.1311667],
    [-0.06638, 0.0940873, -0.140208, 0.0202592, 0.3807265, -0.1788511, -0.1480232],
  ],
}
FEATURES = {
  "resnet18": [[0.18358742, 0.07528516, 0.50954322], [0.15582438, 0.075231, 0.48835922]],
  "alexnet": [[0.10632889, 0.13747055, 0.0], [0.11550947, 0.14960699, 0.0]],
}


@pytest.mark.parametrize(("name", "size"), LOGITS)
def test_logits_and_features_are_torchvisions_for_the_same_weights(name, size, monkeypatch):
  monkeypatch.setattr(alexnet, "HIDDEN", 16)
  model = network(name, 7)
  shapes = models.shapes(model, size)
  (layout, *_) = torch_names.layouts(model)
  tensors = torch_names.tensors(shapes, layout)
  variables = jax.tree_util.tree_map_with_path(
    lambda keys, leaf: put(tensors[tuple(k.key for k in keys)]), shapes
  )
  logits, seen = jax.jit(lambda v, x: model.apply(v, x, mutable=["intermediates"]))(
    variables, images(size)
  )
  np.testing.assert_allclose(logits, LOGITS[name, size], atol=1e-4, rtol=0)
  features = seen["intermediates"]["pre_logits"][:, :3]
  np.testing.assert_allclose(features, FEATURES[name], atol=1e-4, rtol=0)


def put(tensor):
  theirs = filled(tensor.name, tensor.shape)
  ours = np.ascontiguousarray(tensor.here(theirs))
  assert ours.shape == tensor.own_shape
  # The way back is exact.
  np.testing.assert_array_equal(tensor.there(ours), theirs)
  return ours


def test_a_dense_layer_on_a_flattened_map_is_the_convolution_over_it_that_timm_has(monkeypatch):
  monkeypatch.setattr(vgg, "WIDTHS", (2, 2, 2, 2, 3))
  monkeypatch.setattr(vgg, "HIDDEN", 5)
  model = vgg.VGG((1, 1, 1, 1, 1), False, 4)
  shapes = models.shapes(model, 32)
  rng = np.random.default_rng(0)
  tile = rng.normal(size=(7, 7, 3))
  path = ("params", "dense1", "kernel")
  for layout in torch_names.layouts(model):
    tensor = torch_names.tensors(shapes, layout)[path]
    theirs = rng.normal(size=tensor.shape)
    if layout.library == "timm":
      assert tensor.shape == (5, 3, 7, 7)
      expected = np.einsum("ochw,hwc->o", theirs, tile)
    else:
      assert tensor.shape == (5, 147)
      expected = theirs @ tile.transpose(2, 0, 1).reshape(-1)
    np.testing.assert_allclose(tile.reshape(-1) @ tensor.here(theirs), expected)


def test_a_network_that_no_library_has_is_told():
  with pytest.raises(UserError, match=r"models/lenet\.py; there are files .* alexnet, .*, vit$"):
    torch_names.layouts(network("lenet5", 10))


def test_timm_calls_some_networks_otherwise_and_some_by_several_names():
  assert torch_names.timm_names("resnet50") == ("resnet50",)
  assert torch_names.timm_names("alexnet") == ()
  assert torch_names.timm_names("regnet_y_800mf") == ("regnety_008_tv",)
  assert "deit_tiny_patch16_224" in torch_names.timm_names("vit_ti_16")
  assert "deit_large_patch16_224" not in torch_names.timm_names("vit_l_16")


def test_whose_weights_there_are_is_known_without_making_a_network():
  assert torch_names.libraries("resnet50") == ("torchvision", "timm")
  assert torch_names.libraries("alexnet") == ("torchvision",)
  assert torch_names.libraries("vit_s_16") == ("timm",)
  assert torch_names.libraries("lenet5") == ()
