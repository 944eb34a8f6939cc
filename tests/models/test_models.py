import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import config as config_lib
from imgclf import models
from imgclf.errors import UserError
from imgclf.models import layers

# Parameters, and multiply-adds of an image in billions: torchvision's tables (`num_params` and
# `_ops` of its weights).
PUBLISHED = {
  "alexnet": (61_100_840, 0.714),
  "vgg11": (132_863_336, 7.609),
  "vgg11_bn": (132_868_840, 7.609),
  "vgg13": (133_047_848, 11.308),
  "vgg13_bn": (133_053_736, 11.308),
  "vgg16": (138_357_544, 15.47),
  "vgg16_bn": (138_365_992, 15.47),
  "vgg19": (143_667_240, 19.632),
  "vgg19_bn": (143_678_248, 19.632),
  "resnet18": (11_689_512, 1.814),
  "resnet34": (21_797_672, 3.664),
  "resnet50": (25_557_032, 4.089),
  "resnet101": (44_549_160, 7.801),
  "resnet152": (60_192_808, 11.514),
  "wide_resnet50_2": (68_883_240, 11.398),
  "resnext50_32x4d": (25_028_904, 4.23),
  "densenet121": (7_978_856, 2.834),
  "mobilenet_v2": (3_504_872, 0.301),
  "mobilenet_v3_small": (2_542_856, 0.057),
  "mobilenet_v3_large": (5_483_032, 0.217),
  "efficientnet_b0": (5_288_548, 0.386),
  "efficientnet_b1": (7_794_184, 0.687),
  # At 260 px, as in the paper, Tan & Le 2019, table 2; torchvision tells 1.088 at 288.
  "efficientnet_b2": (9_109_994, 1.0),
  "efficientnet_b3": (12_233_232, 1.827),
  "efficientnet_b4": (19_341_616, 4.394),
  "efficientnet_v2_s": (21_458_488, 8.366),
  "efficientnet_v2_m": (54_139_356, 24.582),
  "regnet_y_400mf": (4_344_144, 0.402),
  "regnet_y_800mf": (6_432_512, 0.834),
  "regnet_y_1_6gf": (11_202_430, 1.612),
  "regnet_y_3_2gf": (19_436_338, 3.176),
  "regnet_y_8gf": (39_381_472, 8.473),
  "regnet_y_16gf": (83_590_140, 15.912),
  "convnext_tiny": (28_589_128, 4.456),
  "convnext_small": (50_223_688, 8.684),
  "convnext_base": (88_591_464, 15.355),
  "convnext_large": (197_767_336, 34.361),
  "vit_b_16": (86_567_656, 17.564),
  "vit_l_16": (304_326_632, 61.555),
}
# timm's results/benchmark-infer-amp-nhwc-pt240-cu124-rtx4090.csv, in millions and billions.
PUBLISHED_BY_TIMM = {
  "resnet50d": (25.58, 4.35),
  "convnext_atto": (3.7, 0.55),
  "convnext_nano": (15.59, 2.46),
  "vit_ti_16": (5.72, 1.26),
  "vit_s_16": (22.05, 4.61),
}
FEATURES = {
  "cnn": 3,
  "lenet5": 2,
  "alexnet": 3,
  "vgg11": 5,
  "vgg13_bn": 5,
  "resnet18": 4,
  "resnet50": 4,
}


def make_config(name, **fields):
  config = config_lib.default_config().model
  config.name = name
  for field, value in fields.items():
    config[field] = value
  return config


def make_model(name, num_classes=10, axis_name=None, **fields):
  return models.create(make_config(name, **fields), num_classes, axis_name=axis_name)


def result(model, *, size=64, batch=2, keys=None, dtype="float32", **options):
  """What applying the model would return, as shapes."""
  images = jax.ShapeDtypeStruct((batch, size, size, 3), dtype)

  def apply(variables, images):
    return model.apply(variables, images, keys=keys, **options)

  return jax.eval_shape(apply, models.shapes(model, size), images)


def refusal(call, *args):
  with pytest.raises(UserError) as caught:
    call(*args)
  return str(caught.value)


# The table.


def test_names_are_those_of_the_issue():
  others = {"cnn", "lenet5", "airbench94"}
  assert set(models.names()) == {*others, *PUBLISHED, *PUBLISHED_BY_TIMM}


def test_naming_and_checking_models_imports_neither_flax_nor_jax(run_python):
  code = """
import sys
from imgclf import models
model = {"name": models.names()[0], "remat": "none"}
model |= dict.fromkeys(("dropout_rate", "drop_path_rate", "stem", "batch_norm_epsilon"))
models.check(model, 224)
print(sorted({"flax", "jax", "numpy"} & set(sys.modules)))
"""
  assert run_python(code) == "[]\n"


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_adds_are_as_published(name):
  parameters, billions = PUBLISHED[name]
  cost = models.cost(name)
  assert cost.parameters == parameters
  # The smallest of them are told with two digits.
  assert cost.multiply_adds / 1e9 == pytest.approx(
    billions, rel=0.01 if name == "efficientnet_b2" else 1e-3, abs=5.1e-4
  )


@pytest.mark.parametrize("name", PUBLISHED_BY_TIMM)
def test_parameters_and_multiply_adds_are_those_of_timms_table(name):
  millions, billions = PUBLISHED_BY_TIMM[name]
  cost = models.cost(name)
  assert round(cost.parameters / 1e6, 2) == millions
  # timm's profiler adds norms and pooling, and there are but two digits.
  assert cost.multiply_adds / 1e9 == pytest.approx(billions, rel=0.01)


def test_parameters_are_counted_in_arrays_too():
  assert models.parameter_count({"a": np.zeros((2, 3)), "b": {"c": jnp.zeros(5)}}) == 11


# What every network keeps to.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("name", ["cnn", "lenet5", "alexnet", "vgg13_bn", "resnet18", "airbench94"])
def test_types_of_parameters_statistics_and_logits(name, dtype):
  exact = "float64" if dtype == "float64" else "float32"
  with jax.enable_x64(True):
    model = make_model(name, 7, dtype=dtype)
    shapes = models.shapes(model, 64)
    assert set(shapes) == {"params", "batch_stats"}
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(exact)}
    keys = jax.random.split(jax.random.key(0), 2)
    logits, updated = result(
      model, dtype=dtype, keys=keys, train=True, mutable=["batch_stats", "intermediates"]
    )
    assert logits.shape == (2, 7)
    assert logits.dtype == exact
    # The step's new statistics take the place of the old ones.
    assert jax.tree.map(lambda x: (x.shape, x.dtype), updated.get("batch_stats", {})) == (
      jax.tree.map(lambda x: (x.shape, x.dtype), shapes["batch_stats"])
    )
    normed = name.startswith(("resnet", "airbench")) or name.endswith("_bn")
    assert bool(shapes["batch_stats"]) == normed
    assert updated["intermediates"]["stage1"].dtype == dtype


def test_init_returns_no_more_than_parameters_and_statistics():
  images = jnp.zeros((1, 16, 16, 3))
  for name, collections in (("lenet5", {"params"}), ("resnet18", {"params", "batch_stats"})):
    init = jax.eval_shape(make_model(name).init, jax.random.key(0), images)
    assert set(init) == collections


@pytest.mark.parametrize("name", [*FEATURES, "airbench94"])
def test_features_are_handed_out_by_name(name):
  logits, updated = result(make_model(name), mutable=["intermediates"])
  features = updated["intermediates"]
  stages = {f"stage{i}" for i in range(1, FEATURES.get(name, 3) + 1)}
  stem = {"stem"} if name.startswith(("resnet", "airbench")) else set()
  assert set(features) == {*stages, *stem, "pre_logits"}
  assert all(len(features[stage].shape) == 4 for stage in stages)
  head = models.shapes(make_model(name), 64)["params"]["head"]["kernel"]
  assert features["pre_logits"].shape == (2, head.shape[0])
  assert logits.shape == (2, 10)


@pytest.mark.parametrize("name", FEATURES)
def test_every_head_starts_at_zero(name):
  model = make_model(name)
  # Compiled, all that is not asked for falls away, and 130 million parameters are never drawn.
  head = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]["head"])
  assert set(head()) == {"kernel", "bias"}
  assert not any(np.any(leaf) for leaf in head().values())


def test_the_loss_before_training_is_the_log_of_the_number_of_classes():
  model = make_model("lenet5", 7)
  images = np.random.default_rng(1).normal(size=(3, 28, 28, 3))
  logits, _ = jax.jit(model.init_with_output)(jax.random.key(0), images)
  np.testing.assert_allclose(-jax.nn.log_softmax(logits), np.full((3, 7), math.log(7)), rtol=1e-7)


# Options.


def test_dropout_rate_is_the_networks_own_unless_set():
  assert [make_model(n).dropout_rate for n in ("cnn", "alexnet", "vgg16")] == [0.0, 0.5, 0.5]
  assert make_model("vgg16", dropout_rate=0.2).dropout_rate == 0.2


@pytest.mark.parametrize(
  ("name", "places"), [("cnn", 1), ("alexnet", 2), ("vgg11", 2), ("vgg11_bn", 2)]
)
def test_dropout_is_in_training_alone_and_each_place_has_its_own_stream(name, places, monkeypatch):
  streams = []

  def record(x, rate, keys, *, stream):
    assert rate == 0.25
    assert x.ndim == 2
    streams.append(stream)
    return x

  monkeypatch.setattr(layers, "dropout", record)
  model = make_model(name, dropout_rate=0.25)
  result(model)
  assert streams == []
  result(model, train=True, mutable=["batch_stats"])
  assert len(streams) == len(set(streams)) == places


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "cnn"])
def test_training_with_dropout_needs_keys(name):
  with pytest.raises(ValueError, match="one PRNG key for each example"):
    result(make_model(name, dropout_rate=0.5), train=True)
  result(make_model(name, dropout_rate=0.0), train=True)


def test_batch_norm_is_synchronised_by_config():
  keys = jax.random.split(jax.random.key(0), 2)
  for name in ("resnet18", "vgg11_bn", "airbench94"):
    assert make_model(name, axis_name="batch").axis_name == "batch"
    assert make_model(name, axis_name="batch", sync_batch_norm=False).axis_name is None
    # Unknown axes raise, so training outside of pmap shows which layers ask for the axis.
    with pytest.raises(NameError, match="batch"):
      result(make_model(name, axis_name="batch"), train=True, keys=keys, mutable=["batch_stats"])
  # Nothing to synchronise, and evaluation never does.
  result(make_model("vgg11", axis_name="batch"), train=True, keys=keys)
  result(make_model("resnet18", axis_name="batch"))


# Refusals.


def test_an_unknown_name_is_answered_with_the_nearest():
  expected = "config.model.name: got 'resnet51', which is no network; did you mean resnet50?"
  assert refusal(models.check, make_config("resnet51"), 224) == expected
  assert refusal(make_model, "resnet51") == expected
  message = refusal(models.check, make_config("zzz"), 224)
  assert message.startswith(
    "config.model.name: got 'zzz', which is no network; there are cnn, lenet5"
  )
  assert message.endswith("vit_l_16, airbench94")


def test_options_that_a_network_does_not_have_are_refused():
  assert refusal(models.check, make_config("cnn", stem="cifar"), 32) == (
    "config.model.stem: got 'cifar', but cnn has none; set it to none or take one of "
    "resnet18, resnet34, resnet50, resnet101, resnet152, resnet50d, wide_resnet50_2, "
    "resnext50_32x4d"
  )
  for name in ("lenet5", "resnet50"):
    message = refusal(models.check, make_config(name, dropout_rate=0.0), 224)
    assert message.startswith(f"config.model.dropout_rate: got 0.0, but {name} has none; ")
    assert "cnn, alexnet, vgg11" in message
    assert "resnet18" not in message
  models.check(make_config("resnet18", stem="cifar"), 32)
  models.check(make_config("vgg11", dropout_rate=0.3), 32)
  message = refusal(models.check, make_config("densenet121", drop_path_rate=0.1), 224)
  assert message.startswith("config.model.drop_path_rate: got 0.1, but densenet121 has none; ")


# 22 -> 20 -> 10 -> 8 -> 4 -> 2 -> 1; 16 -> 12 -> 6 -> 2 -> 1; 63 -> 15 -> 7 -> 3 -> 1; 32 = 2 ** 5;
# 9 -> 8 -> 4 -> 2 -> 1. 29 -> 15 -> 8 -> 4 -> 2 -> 1.
@pytest.mark.parametrize(
  ("name", "smallest"),
  [
    ("cnn", 22),
    ("lenet5", 16),
    ("alexnet", 63),
    ("vgg11", 32),
    ("airbench94", 9),
    ("densenet121", 29),
  ],
)
def test_images_too_small_for_the_network_are_refused(name, smallest):
  models.check(make_config(name), smallest)
  assert refusal(models.check, make_config(name), smallest - 1) == (
    f"config.dataset.image_size: got {smallest - 1}, {name} needs at least {smallest}"
  )


def test_a_resnet_takes_a_single_pixel():
  for stem in ("imagenet", "cifar"):
    models.check(make_config("resnet18", stem=stem), 1)
    _, updated = result(make_model("resnet18", stem=stem), size=1, mutable=["intermediates"])
    assert updated["intermediates"]["stage4"].shape == (2, 1, 1, 512)


def test_blocks_are_computed_anew_only_where_there_are_blocks():
  models.check(make_config("resnet50", remat="blocks"), 224)
  models.check(make_config("vgg16", remat="elementwise"), 224)
  with pytest.raises(UserError, match=r"^config.model.remat: got 'blocks', but vgg16 has none"):
    models.check(make_config("vgg16", remat="blocks"), 224)
