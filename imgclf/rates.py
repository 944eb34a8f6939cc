"""The learning rate of each parameter: the run's, times what rules by name and its layer's depth
make of it.

Works on trees of parameters. Knows no network, optimizer or device: how deep a layer lies it is
told.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imgclf import rules

# Layers between a part of a network, by the first word of its parameters' names, and the logits.
Depths = Mapping[str, int]


def check_rules(params: Any, config: Mapping) -> None:
  """Holds `optimizer.rules` against the parameters of a network.

  Args:
    params: a tree of arrays or of jax.ShapeDtypeStruct.
    config: a validated config.

  Raises:
    UserError: for a rule that decides about none of them.
  """
  names = [name_of(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
  rules.refuse_idle(known(config), names)


def known(config: Mapping) -> tuple[rules.Rule, ...]:
  """Returns the rules of a config."""
  return rules.parse(config["optimizer"]["rules"])


def name_of(path: tuple) -> str:
  """Returns the name of a parameter by its path in a tree, such as `block1/conv1/kernel`."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def map_by_rule(config: Mapping, function: Callable, tree: Any, *others: Any) -> Any:
  """Maps `function(rule, leaf, *leaves of the others)` over trees of parameters."""
  decided = known(config)
  return jax.tree_util.tree_map_with_path(
    lambda path, *leaves: function(rules.of_name(decided, name_of(path)), *leaves), tree, *others
  )


def without_frozen(params: Any, config: Mapping) -> Any:
  """Returns the parameters such that no gradient goes to those that a rule keeps as they are."""
  if not known(config):
    return params
  return map_by_rule(
    config, lambda rule, leaf: leaf if rule.lr else jax.lax.stop_gradient(leaf), params
  )


def frozen_norms(params: Any, batch_stats: Any, config: Mapping) -> frozenset[tuple[str, ...]]:
  """Returns the paths of the batch norms whose statistics stay, by `model.frozen_batch_norm`.

  Args:
    params: a tree of arrays or of jax.ShapeDtypeStruct.
    batch_stats: likewise.
    config: a validated config.
  """
  which = config["model"]["frozen_batch_norm"]
  if which == "none":
    return frozenset()
  return all_norms(batch_stats) if which == "all" else ruled_norms(params, batch_stats, config)


def with_frozen(new: Any, old: Any, params: Any, config: Mapping) -> Any:
  """Returns new statistics of batch norms, but the old ones where they stay.

  Args:
    new: a tree of arrays.
    old: likewise, `batch_stats` before the update.
    params: of the same network.
    config: a validated config.
  """
  paths = frozen_norms(params, old, config)
  if not paths:
    return new
  return jax.tree_util.tree_map_with_path(
    lambda path, n, o: o if tuple(key.key for key in path[:-1]) in paths else n, new, old
  )


def all_norms(batch_stats: Any) -> frozenset[tuple[str, ...]]:
  """Returns the paths of all batch norms, such as `("stage1_block1", "norm2")`."""
  leaves = jax.tree_util.tree_flatten_with_path(batch_stats)[0]
  return frozenset(tuple(key.key for key in path[:-1]) for path, _ in leaves)


def ruled_norms(params: Any, batch_stats: Any, config: Mapping) -> frozenset[tuple[str, ...]]:
  """Returns the paths of the batch norms all of whose parameters a rule freezes."""
  decided = known(config)

  def frozen(path: tuple[str, ...]) -> bool:
    part = params
    for name in path:
      part = part[name]
    return not any(rules.of_name(decided, "/".join((*path, name))).lr for name in part)

  return frozenset(filter(frozen, all_norms(batch_stats)))


def scale_by_rates(
  config: Mapping,
  learning_rate: optax.Schedule,
  *,
  total_steps: int | None = None,
  depths: Depths | None = None,
) -> optax.GradientTransformation:
  """Multiplies each update by minus the learning rate of its parameter.

  Args:
    config: a validated config.
    learning_rate: of the run, by the number of updates before.
    total_steps: length of the run; needed where a rule has `from`.
    depths: of the parts of the network; needed where there is `optimizer.layer_decay`.

  Raises:
    ValueError: without what is needed.
  """
  decided, layer_decay = known(config), config["optimizer"]["layer_decay"]
  if not decided and layer_decay is None:
    return optax.scale_by_learning_rate(learning_rate)
  if total_steps is None and any(rule.start for rule in decided):
    raise ValueError("a rule's `from` is a share of the run, whose length is needed")
  if layer_decay is not None and depths is None:
    raise ValueError("optimizer.layer_decay needs the depths of the network's layers")

  def rule_of(path) -> rules.Rule:
    rule = rules.of_name(decided, name_of(path))
    if layer_decay is None or depths is None:
      return rule
    depth = depths[name_of(path).partition("/")[0]]
    return dataclasses.replace(rule, lr=rule.lr * layer_decay**depth)

  def update(updates, state, params=None):
    del params

    def scaled(path, leaf):
      rule = rule_of(path)
      rate = rule.lr * learning_rate(state.count / rule.until if rule.until < 1 else state.count)
      if rule.start:
        # The small number keeps a rounding error, as in 0.07 * 100, from becoming a step.
        first = math.ceil(rule.start * (total_steps or 0) - 1e-9)
        rate = jnp.where(state.count >= first, rate, 0)
      return jnp.asarray(-rate, leaf.dtype) * leaf

    counted = optax.ScaleByScheduleState(count=optax.safe_increment(state.count))
    return jax.tree_util.tree_map_with_path(scaled, updates), counted

  return optax.GradientTransformation(
    lambda params: optax.ScaleByScheduleState(count=jnp.zeros((), jnp.int32)), update
  )
