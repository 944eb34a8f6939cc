"""Learning rates by name and depth, worked out by hand."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import imgclf
from imgclf import models, optim, rates


def sgd(**fields):
  config = imgclf.default_config()
  config.optimizer.update(name="sgd", momentum=0.0, weight_decay=0.0, **fields)
  return config


def moves(config, params, steps, learning_rate=lambda step: 0.5 ** (step + 1), **options):
  """What each parameter moves by in each step, where every gradient is -1."""
  optimizer = optim.create(config, learning_rate, **options)
  state, told = optimizer.init(params), []
  for _ in range(steps):
    updates, state = optimizer.update(
      jax.tree.map(lambda p: -jnp.ones_like(p), params), state, params
    )
    told.append(jax.tree.map(lambda u: float(u.ravel()[0]), updates))
  return told


def test_what_is_unfrozen_later_has_the_learning_rate_of_the_run_from_then_on():
  params = {"stem": {"kernel": jnp.ones((1, 1))}, "head": {"kernel": jnp.ones((1, 1))}}
  told = moves(sgd(rules="stem/*: lr=2 from=0.25"), params, 5, total_steps=10)
  assert [step["head"]["kernel"] for step in told] == [0.5, 0.25, 0.125, 0.0625, 0.03125]
  # A quarter of ten steps is rounded up: three updates go before.
  assert [step["stem"]["kernel"] for step in told] == [0, 0, 0, 0.125, 0.0625]


def test_a_share_of_the_run_that_is_whole_is_not_rounded_up():
  params = {"w": jnp.ones((1, 1))}
  told = moves(sgd(rules="w: from=0.07"), params, 9, lambda step: 1.0, total_steps=100)
  assert [step["w"] for step in told] == [0] * 7 + [1, 1]  # 0.07 * 100 is a little more than 7


def test_layer_decay_is_a_power_for_each_layer_and_comes_on_top_of_rules():
  params = {name: {"kernel": jnp.ones((1, 1))} for name in ("stem", "block", "head")}
  config = sgd(layer_decay=0.5, rules="stem/*: lr=3")
  depths = {"stem": 2, "block": 1, "head": 0}
  (told,) = moves(config, params, 1, lambda step: 8.0, depths=depths)
  assert {name: part["kernel"] for name, part in told.items()} == {
    "stem": 3 * 8 / 4,
    "block": 4,
    "head": 8,
  }


def test_what_the_config_needs_to_know_of_the_run_is_asked_for():
  with pytest.raises(ValueError, match="length"):
    optim.create(sgd(rules="*: from=0.5"), lambda step: 1.0)
  with pytest.raises(ValueError, match="depths"):
    optim.create(sgd(layer_decay=0.5), lambda step: 1.0)


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("lenet5", {"conv1": 4, "conv2": 3, "dense1": 2, "dense2": 1, "head": 0}),
    (
      "resnet18",
      {
        **{"stem_conv": 9, "stem_norm": 9, "stage1_block1": 8, "stage1_block2": 7},
        **{"stage2_block1": 6, "stage2_block2": 5, "stage3_block1": 4, "stage3_block2": 3},
        **{"stage4_block1": 2, "stage4_block2": 1, "head": 0},
      },
    ),
    (
      "vgg11_bn",
      {
        **{f"{kind}1_1": 10 for kind in ("conv", "norm")},
        **{f"{kind}2_1": 9 for kind in ("conv", "norm")},
        **{f"{kind}3_{i}": 9 - i for kind in ("conv", "norm") for i in (1, 2)},
        **{f"{kind}4_{i}": 7 - i for kind in ("conv", "norm") for i in (1, 2)},
        **{f"{kind}5_{i}": 5 - i for kind in ("conv", "norm") for i in (1, 2)},
        **{"dense1": 2, "dense2": 1, "head": 0},
      },
    ),
  ],
)
def test_depth_is_counted_in_the_order_of_the_forward_pass(name, expected):
  section = imgclf.default_config().model
  section.name = name
  assert models.depths(models.create(section, 10, axis_name=None), 32) == expected


class Tokens(nn.Module):
  """Parts with and without filters, as those of a vision transformer."""

  @nn.compact
  def __call__(self, images, train=False, keys=None):
    scale = self.param("a_scale", nn.initializers.ones, (3,))
    x = nn.Dense(4, name="z_patches")(images.mean(axis=1) * scale)
    x = x + self.param("b_position", nn.initializers.zeros, (1, x.shape[1], 4))
    x = nn.Dense(4, name="c_block")(x)
    return nn.Dense(2, name="d_head")(nn.LayerNorm(name="a_norm")(x))


def test_what_has_no_filter_belongs_to_the_layer_before_it():
  assert models.depths(Tokens(), 8) == {
    **{"a_scale": 2, "z_patches": 2, "b_position": 2},
    **{"c_block": 1, "a_norm": 1, "d_head": 0},
  }


def test_a_norm_is_frozen_where_rules_freeze_all_of_it():
  params = {
    "block": {
      "norm1": {"scale": np.ones(2), "bias": np.ones(2)},
      "norm2": {"scale": np.ones(2), "bias": np.ones(2)},
    },
    "norm": {"bias": np.ones(2)},
  }
  stats = jax.tree.map(np.zeros_like, {"block": params["block"], "norm": {"mean": np.ones(2)}})
  config = imgclf.default_config()
  config.optimizer.rules = "block/norm1/*: lr=0; */bias: lr=0"
  found = {}
  for which in ("none", "rules", "all"):
    config.model.frozen_batch_norm = which
    found[which] = rates.frozen_norms(params, stats, config)
  assert found["none"] == set()
  # `*` stands for slashes too: of block/norm2 the bias alone is frozen, and norm has nothing else.
  assert found["rules"] == {("block", "norm1"), ("norm",)}
  assert found["all"] == {("block", "norm1"), ("block", "norm2"), ("norm",)}
