from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import linear_run, pixels, run_of

from imgclf import config as configs
from imgclf import explain, models
from imgclf.errors import UserError
from imgclf.explain.gradcam import cell_centres
from imgclf.explain.network import Network
from imgclf.models import alexnet, convnext, densenet, layers, mobilenet, resnet, vgg, vit


class OneConv(nn.Module):
  """A 1x1 convolution with ReLU, its mean over pixels, and a head."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images, train=False):
    x = nn.relu(layers.conv(2, 1, dtype=self.dtype, name="conv")(images))
    x = layers.feature(self, "cells", x)
    return layers.head(2, dtype=self.dtype)(jnp.mean(x, axis=(1, 2)))


def test_gradcam_of_one_convolution_is_the_one_by_hand():
  red_and_green = np.array([[1, 0], [0, 1], [0, 0]], np.float32).reshape(1, 1, 3, 2)
  params = {
    "conv": {"kernel": red_and_green, "bias": np.zeros(2, np.float32)},
    "head": {"kernel": np.array([[2, 0], [-1, 0]], np.float32), "bias": np.zeros(2, np.float32)},
  }
  run = run_of(OneConv(), {"params": params}, size=2)
  images = np.array([[[[255, 0, 0], [255, 255, 0]], [[0, 255, 0], [191, 0, 0]]]], np.uint8)
  maps = explain.heatmaps(run, images, np.array([0]))
  # Channels after ReLU: red (1 - 0.5) / 0.5 = 1, green (1 - 0.25) / 0.25 = 3. The mean gradients
  # are 2/4 and -1/4: cells of 0.5, 0.5 - 0.75 < 0, -0.75 < 0 and 0.5 * (191/255 - 0.5) / 0.5 =
  # 0.249.
  np.testing.assert_allclose(maps[0], [[1, 0], [0, 2 * (191 / 255 - 0.5)]], atol=1e-6)
  # Nothing speaks for the other class.
  assert not explain.heatmaps(run, images, np.array([1])).any()


# The middles of cells by the sizes and strides before them. Without padding a convolution of size k
# moves the first cell by (k - 1) / 2 of the pixels that it sees, a pooling of size 2 by half of
# one.
CENTRES = {
  # 1; pooled 1.5 by 2; 3.5; pooled 4.5 by 4; 8.5.
  "cnn": (32, "stage3", 8.5 + 4 * np.arange(4)),
  # 2; pooled 2.5 by 2; 6.5.
  "lenet5": (32, "stage2", 6.5 + 2 * np.arange(10)),
  # 11 by 4 with 2 zeros: 3; windows of 3 by 2: 3 + 4 by 8, 7 + 8 by 16.
  "alexnet": (95, "stage3", 15 + 16 * np.arange(5)),
  # Four times pooled: 0.5, 1.5, 3.5, 7.5 by 16.
  "vgg11_bn": (64, "stage5", 7.5 + 16 * np.arange(4)),
  # Strides of 2 begin at the first pixel; three of them.
  "resnet18": (32, "stage4", 8.0 * np.arange(4)),
}


@pytest.fixture
def drawn(monkeypatch):
  """Makes runs of all families, of few channels, with drawn weights and a head that is not zero."""
  for family in (alexnet, vgg, resnet):
    monkeypatch.setattr(family, "WIDTHS", (4, 5, 6, 7, 8)[: len(family.WIDTHS)])
  for family in (alexnet, vgg):
    monkeypatch.setattr(family, "HIDDEN", 9)

  def make(model, size, **fields):
    if isinstance(model, str):
      section = configs.default_config().model
      section.update({"name": model, **fields})
      model = models.create(section, 3, axis_name=None)
    draw = np.random.default_rng(0)

    def values(path, leaf):
      if path[-1].key == "kernel":
        spread = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return (spread * draw.normal(size=leaf.shape)).astype(np.float32)
      return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

    variables = jax.tree_util.tree_map_with_path(values, models.shapes(model, size))
    return run_of(model, variables, size=size, classes=3)

  return make


@pytest.mark.parametrize("name", CENTRES)
def test_every_family_has_gradcam_of_its_last_feature_where_its_cells_lie(drawn, name):
  size, layer, centres = CENTRES[name]
  run = drawn(name, size, **({"stem": "cifar"} if name == "resnet18" else {}))
  network = Network.of(run)
  for found in cell_centres(network, size, layer):
    np.testing.assert_allclose(found, centres, atol=1e-3)
  images, label = pixels(1, size), 1
  maps = explain.heatmaps(run, images, np.array([label]))
  assert maps.shape == (1, size, size) and maps.dtype == np.float32
  assert maps.min() >= 0 and maps.max() == 1

  # By the definition, in another order: all channels' gradients, their means, the sum, ReLU,
  # interpolation.
  inputs = network.normalized(jnp.asarray(images, jnp.float32))

  def apply(perturbations):
    variables = {**run.variables, "perturbations": perturbations}
    return run.model.apply(variables, inputs, mutable=["intermediates"])

  @jax.jit
  def told():
    feature = apply({})[1]["intermediates"][layer]
    change = jnp.zeros_like(feature)
    return feature, jax.grad(lambda change: apply({layer: change})[0][0, label])(change)

  feature, gradient = (np.asarray(x[0], np.float64) for x in told())
  cells = np.maximum(0, feature @ gradient.mean(axis=(0, 1)))
  across = [np.interp(np.arange(size), centres, row) for row in cells]
  expected = np.stack([np.interp(np.arange(size), centres, x) for x in np.transpose(across)], 1)
  assert expected.max() > 0
  np.testing.assert_allclose(maps[0], expected / expected.max(), atol=1e-3)


# Gates, layer norm, even windows and means: what small members of the other families have besides.
SMALL = {
  # Patches of 4, then 2 by 2 of those, of these, and again: 1.5, 3.5, 7.5, 15.5 by 32.
  "convnext": (
    lambda: convnext.ConvNeXt((1, 1, 1, 1), (4, 5, 6, 7), 3),
    *(64, "stage4", [15.5, 47.5]),
  ),
  # Patches of 8 pixels; those of the last block are not read.
  "vit": (lambda: vit.ViT(6, 2, 2, 3, patch=8), 27, "block1", [3.5, 11.5, 19.5]),
  # The stem and its pooling begin at the first pixel, by 4; then three means over two: 2 by 8, 6 by
  # 16, 14 by 32. The first window of the pooling has two cells of the stem instead of three, whose
  # middle is a pixel further on; it is one of the eight that a last cell sees.
  "densenet": (lambda: densenet.DenseNet((1, 1, 1, 1), 3, 3), 64, "stage4", [14.125, 46]),
  # Three strides of 2 begin at the first pixel.
  "mobilenet_v3": (lambda: mobilenet.MobileNetV3("small", 3), 33, "last", 8.0 * np.arange(5)),
}


@pytest.mark.parametrize("family", SMALL)
def test_cells_lie_in_the_middle_of_what_they_see(drawn, family, monkeypatch):
  blocks = ((3, 8, 4, True, True, 2),), ((5, 12, 6, True, False, 2), (3, 12, 6, True, True, 1))
  monkeypatch.setitem(mobilenet.V3_STAGES, "small", blocks)
  make, size, layer, centres = SMALL[family]
  network = Network.of(drawn(make(), size))
  for found in cell_centres(network, size, layer):
    np.testing.assert_allclose(found, centres, atol=1e-3)
  with pytest.raises(UserError, match=f"there are .*{layer}$"):  # it is the last
    explain.heatmaps(drawn(make(), size), pixels(1, size), np.array([1]), layer="zzz")


def test_the_last_feature_is_the_last_that_has_places(drawn, monkeypatch):
  monkeypatch.setattr(resnet, "WIDTHS", (4, 5))
  # The stem leaves 2x2 of 8 pixels, and the second stage halves that to a single cell.
  run, images, classes = drawn(resnet.ResNet((1, 1), False, 3), 8), pixels(3), np.arange(3)
  head = run.variables["params"]["head"]
  head["kernel"] = np.abs(head["kernel"])  # so that something speaks for every class
  one, four = (explain.heatmaps(run, images, classes, layer=name) for name in ("stage2", "stage1"))
  assert not np.ptp(one, axis=(1, 2)).any() and np.ptp(four, axis=(1, 2)).all()
  np.testing.assert_array_equal(explain.heatmaps(run, images, classes), four)


def test_a_feature_that_has_no_places_is_refused(drawn):
  run, images, classes = drawn("lenet5", 32), pixels(1, 32), np.array([1])
  with pytest.raises(UserError, match=r"layer=stgae2: no feature .* did you mean stage2\?"):
    explain.heatmaps(run, images, classes, layer="stgae2")
  with pytest.raises(UserError, match=r"layer=pre_logits: no feature .* there are stage1, stage2"):
    explain.heatmaps(run, images, classes, layer="pre_logits")
  with pytest.raises(UserError, match="has no feature with places; take occlusion"):
    explain.heatmaps(linear_run(), pixels(1), classes)
