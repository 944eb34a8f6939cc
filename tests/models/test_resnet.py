import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from imgclf import models
from imgclf.models import resnet
from imgclf.models.resnet import Block, ResNet

RESNET18, RESNET50 = (2, 2, 2, 2), (3, 4, 6, 3)


@pytest.fixture
def narrow(monkeypatch):
  """The same network with few channels, so that it compiles and runs in no time."""
  monkeypatch.setattr(resnet, "WIDTHS", (4, 5, 6, 7))


@pytest.fixture
def shallow(monkeypatch):
  """Two stages of a few channels."""
  monkeypatch.setattr(resnet, "WIDTHS", (4, 5))


def features_of(model, size):
  images = jax.ShapeDtypeStruct((1, size, size, 3), "float32")
  _, updated = jax.eval_shape(
    lambda v, x: model.apply(v, x, mutable=["intermediates"]), models.shapes(model, size), images
  )
  return {name: x.shape[1:] for name, x in updated["intermediates"].items()}


def test_resnet18_for_cifar_counts_as_published():
  model = ResNet(RESNET18, False, 10, stem="cifar")
  assert models.parameter_count(models.shapes(model, 32)["params"]) == 11_173_962


def test_stages_have_the_sizes_of_the_paper():
  # He et al. 2015, table 1.
  assert features_of(ResNet(RESNET50, True, 10), 224) == {
    "stem": (56, 56, 64),
    "stage1": (56, 56, 256),
    "stage2": (28, 28, 512),
    "stage3": (14, 14, 1024),
    "stage4": (7, 7, 2048),
    "pre_logits": (2048,),
  }
  assert features_of(ResNet(RESNET18, False, 10, stem="cifar"), 32) == {
    "stem": (32, 32, 64),
    "stage1": (32, 32, 64),
    "stage2": (16, 16, 128),
    "stage3": (8, 8, 256),
    "stage4": (4, 4, 512),
    "pre_logits": (512,),
  }


# Blocks.


def numpy_block(x, params, statistics, stride, bottleneck):
  def unit(x, conv, norm, **options):
    y = reference.conv(x, params[conv], **options)
    return reference.batch_norm(y, params[norm], statistics[norm])

  if bottleneck:
    y = reference.relu(unit(x, "conv1", "norm1"))
    y = reference.relu(unit(y, "conv2", "norm2", stride=stride, padding=1))
    y = unit(y, "conv3", "norm3")
  else:
    y = reference.relu(unit(x, "conv1", "norm1", stride=stride, padding=1))
    y = unit(y, "conv2", "norm2", padding=1)
  if "shortcut_conv" in params:
    x = unit(x, "shortcut_conv", "shortcut_norm", stride=stride)
  return reference.relu(x + y)


@pytest.mark.parametrize(
  ("channels", "stride", "bottleneck", "shortcut"),
  [
    (6, 1, False, False),
    (4, 2, False, True),
    (24, 1, True, False),
    (6, 1, True, True),
    (24, 2, True, True),
  ],
)
def test_a_block_is_the_one_written_in_numpy(channels, stride, bottleneck, shortcut):
  with jax.enable_x64(True):
    block = Block(6, stride, bottleneck, "float64", None)
    x = np.random.default_rng(1).normal(size=(2, 7, 7, channels))
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, False))
    variables = reference.random_variables(shapes)
    params, statistics = variables["params"], variables["batch_stats"]
    assert ("shortcut_conv" in params) == shortcut
    y = jax.jit(block.apply, static_argnums=2)(variables, x, False)
    expected = numpy_block(x, params, statistics, stride, bottleneck)
    assert y.shape == (2, *((7, 7) if stride == 1 else (4, 4)), 24 if bottleneck else 6)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("bottleneck", "last"), [(False, "norm2"), (True, "norm3")])
def test_a_block_starts_as_the_identity(bottleneck, last):
  block = Block(2, 1, bottleneck, jnp.float32, None)
  x = np.random.default_rng(1).normal(size=(2, 5, 5, 8 if bottleneck else 2)).astype(np.float32)

  @jax.jit
  def initial_norms():
    params = block.init(jax.random.key(0), x, False)["params"]
    return {name: layer for name, layer in params.items() if name.startswith("norm")}

  norms = initial_norms()
  # Only the last is zero: were it another, gradients could not pass.
  for name, norm in norms.items():
    np.testing.assert_array_equal(norm["scale"], 0 if name == last else 1)
    np.testing.assert_array_equal(norm["bias"], 0)
  shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), x, False))
  variables = reference.random_variables(shapes)
  variables["params"].update(norms)
  y = jax.jit(block.apply, static_argnums=2)(variables, x, False)
  np.testing.assert_array_equal(y, np.maximum(x, 0))


# The whole network.


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
@pytest.mark.usefixtures("narrow")
def test_logits_are_those_of_the_network_written_in_numpy(stem):
  with jax.enable_x64(True):
    model = ResNet((1, 2, 1, 1), False, 5, dtype="float64", stem=stem)
    variables = reference.random_variables(models.shapes(model, 19))
    params, statistics = variables["params"], variables["batch_stats"]
    x = images = np.random.default_rng(1).normal(size=(2, 19, 19, 3))
    options = {"stride": 2, "padding": 3} if stem == "imagenet" else {"padding": 1}
    x = reference.conv(x, params["stem_conv"], **options)
    x = reference.relu(reference.batch_norm(x, params["stem_norm"], statistics["stem_norm"]))
    if stem == "imagenet":
      x = reference.pool(x, 3, 2, padding=1)
    for name, stride in (
      ("stage1_block1", 1),
      ("stage2_block1", 2),
      ("stage2_block2", 1),
      ("stage3_block1", 2),
      ("stage4_block1", 2),
    ):
      x = numpy_block(x, params[name], statistics[name], stride, False)
    expected = reference.dense(x.mean((1, 2)), params["head"])
    logits = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("shallow")
def test_the_gradient_with_respect_to_the_last_stage_is_the_heads():
  model = ResNet((1, 1), False, 5, stem="cifar")
  variables = reference.random_variables(models.shapes(model, 4))
  images = np.random.default_rng(1).normal(size=(1, 4, 4, 3))

  def score(perturbations):
    return model.apply({**variables, "perturbations": perturbations}, images)[0, 3]

  gradient = jax.jit(jax.grad(score))({"stage2": jnp.zeros((1, 2, 2, 5))})["stage2"]
  # The mean over 2x2 pixels, then the head: each pixel counts for a quarter of the class's weights.
  expected = np.broadcast_to(variables["params"]["head"]["kernel"][:, 3] / 4, (1, 2, 2, 5))
  np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.usefixtures("shallow")
def test_batch_norm_of_shards_is_that_of_the_batch_where_it_is_synchronised():
  with jax.enable_x64(True):
    images = np.random.default_rng(1).normal(size=(4, 8, 8, 3))

    def run(axis_name, shards):
      model = ResNet((1, 1), False, 5, dtype="float64", stem="cifar", axis_name=axis_name)
      variables = reference.random_variables(models.shapes(model, 8))
      apply = jax.vmap(
        lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"]), axis_name="batch"
      )
      logits, updated = jax.jit(apply)(images.reshape(shards, 4 // shards, 8, 8, 3))
      return np.asarray(logits).reshape(4, 5), updated["batch_stats"]

    whole, statistics = run(None, 1)
    synchronised, shared = run("batch", 2)
    np.testing.assert_allclose(synchronised, whole, rtol=1e-9, atol=1e-10)
    jax.tree.map(
      lambda s, w: np.testing.assert_allclose(s, [w[0]] * 2, rtol=1e-9), shared, statistics
    )
    local, own = run(None, 2)
    assert np.max(np.abs(local - whole)) > 0.01
    means = own["stage2_block1"]["norm1"]["mean"]
    assert np.max(np.abs(means[0] - means[1])) > 1e-3


@pytest.mark.usefixtures("shallow")
def test_the_mean_over_pixels_is_in_float32_where_the_rest_is_bfloat16():
  model = ResNet((1, 1), False, 5, dtype=jnp.bfloat16, stem="cifar")
  variables = reference.random_variables(models.shapes(model, 16))
  images = np.random.default_rng(1).normal(size=(2, 16, 16, 3))
  apply = jax.jit(lambda x: model.apply(variables, x, mutable=["intermediates"]))
  logits, updated = apply(images)
  features = updated["intermediates"]
  assert features["stage2"].dtype == jnp.bfloat16
  mean = np.asarray(features["stage2"], np.float64).mean((1, 2))
  assert features["pre_logits"].dtype == logits.dtype == jnp.float32
  np.testing.assert_allclose(features["pre_logits"], mean, rtol=1e-6)
  expected = reference.dense(mean, variables["params"]["head"])
  np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
