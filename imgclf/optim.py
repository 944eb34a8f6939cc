"""The optimizer of a run: schedules, weight-decay rule, penalties, optimizer and EMA, all from
optax.

Everything here works on trees of parameters and takes its numbers from the config. It knows no
model, loss or device; gradients arrive already averaged over devices and accumulated.
"""

from collections.abc import Mapping
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imgclf import muon, rates, rules
from imgclf.durations import UNITS
from imgclf.errors import UserError


def peak_learning_rate(config: Mapping) -> float:
  """Returns the learning rate at the end of warm-up.

  Where `optimizer.reference_batch_size` is set, `optimizer.learning_rate` is scaled linearly with
  the batch size (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).
  """
  optimizer = config["optimizer"]
  reference = optimizer["reference_batch_size"]
  scale = config["train"]["batch_size"] / reference if reference else 1.0
  return optimizer["learning_rate"] * scale


def schedule(config: Mapping, *, total_steps: int, warmup_steps: int) -> optax.Schedule:
  """Returns the learning rate as a function of the step.

  The value at step t is what the update uses that t updates went before, so a run of `total_steps`
  uses the values at 0 to total_steps - 1, and logging evaluates it at the step. Warm-up is a line
  from 0 at step 0 to the peak at step `warmup_steps`. From there `cosine` and `linear` fall to
  `end_factor` times the peak at `total_steps` and stay there. The boundaries of `step` are counted
  from step 0, warm-up included (Goyal et al. 2017); a share of the run that is no whole step is
  rounded up, and a boundary within the warm-up takes effect at its end.

  Args:
    config: a validated config.
    total_steps: length of the run in steps, at least 1.
    warmup_steps: length of the warm-up in steps, 0 for none.

  Returns:
    A function of an integer step, traced or not, to a float scalar.

  Raises:
    UserError: if the warm-up is longer than the run.
  """
  options = config["schedule"]
  if warmup_steps > total_steps:
    unit = next((u for u in UNITS if options[f"warmup_{u}"] is not None), "steps")
    raise UserError(
      f"config.schedule.warmup_{unit}: the warm-up of {warmup_steps} steps is longer than the run "
      f"of {total_steps}; shorten it or lengthen config.train.total_{unit}"
    )
  peak = peak_learning_rate(config)
  # Where the warm-up is the whole run, the rest is never reached, but optax wants it to exist.
  rest = max(total_steps - warmup_steps, 1)
  end = options["end_factor"]
  match options["name"]:
    case "cosine":
      main = optax.cosine_decay_schedule(peak, rest, alpha=end)
    case "linear":
      main = optax.linear_schedule(peak, end * peak, rest)
    case "step":
      scales: dict[int, float] = {}
      for share in options["step_boundaries"]:
        # The small number keeps a rounding error, as in 0.07 * 100, from becoming a step.
        boundary = max(math.ceil(share * total_steps - 1e-9) - warmup_steps, 0)
        # In a short run two boundaries may fall on one step.
        scales[boundary] = scales.get(boundary, 1.0) * options["step_factor"]
      main = optax.piecewise_constant_schedule(peak, scales)
    case "constant":
      main = optax.constant_schedule(peak)
    case name:
      raise ValueError(f"no schedule is named {name!r}")
  if not warmup_steps:
    return main
  return optax.join_schedules(
    [optax.linear_schedule(0.0, peak, warmup_steps), main], [warmup_steps]
  )


def decay_mask(params: Any, config: Mapping) -> Any:
  """Returns a tree of bools like `params`: which parameters are decayed.

  Those of two or more axes (kernels, embeddings) are; biases and norm scales, which have one axis,
  are only with `optimizer.decay_bias_and_norm`. `params` are one device's, without a device axis.
  """
  everything = config["optimizer"]["decay_bias_and_norm"]
  return jax.tree.map(lambda leaf: everything or leaf.ndim >= 2, params)


def create(
  config: Mapping,
  learning_rate: optax.Schedule,
  *,
  total_steps: int | None = None,
  depths: rates.Depths | None = None,
) -> optax.GradientTransformation:
  """Returns the optimizer of the config.

  - `adam`: Adam with decoupled weight decay, i.e. AdamW. The decay is multiplied by the learning
    rate (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101).
  - `sgd`: the decay is added to the gradient, and momentum accumulates the sum: v <- m v + g + d w,
    w <- w - lr v (He et al. 2015, https://arxiv.org/abs/1512.03385).
  - `lamb`: Adam's direction plus decay, rescaled in each tensor to the norm of its weights (You et
    al. 2020, https://arxiv.org/abs/1904.00962). As in the authors' code, what is not decayed is not
    rescaled either.
  - `lars`: the gradient plus decay, rescaled in each decayed tensor to `trust_coefficient` times
    the norm of its weights; momentum accumulates that times the learning rate (You et al. 2017,
    https://arxiv.org/abs/1708.03888, algorithm 1).
  - `lion`: the sign of b1 m + (1 - b1) g, where m <- b2 m + (1 - b2) g follows it, and decoupled
    decay (Chen et al. 2023, https://arxiv.org/abs/2302.06675, algorithm 2).
  - `muon`: see `_muon`.

  With `clip_norm` the gradient is first scaled down to that norm over all parameters (Pascanu et
  al. 2013, https://arxiv.org/abs/1211.5063). `rules` multiply the learning rate and the decay of
  single parameters, see `imgclf.rules`, and `layer_decay` the learning rate of each layer by its
  depth.

  Args:
    config: a validated config.
    learning_rate: what `schedule` returned; the optimizer counts its own updates, from 0.
    total_steps: length of the run; needed where a rule has `from`.
    depths: as from `imgclf.models.depths`; needed where there is `layer_decay`.
  """
  options = config["optimizer"]

  def mask(params):
    return decay_mask(params, config)

  decay = _decay(config)
  adam = optax.scale_by_adam(options["b1"], options["b2"], options["epsilon"])
  match options["name"]:
    case "adam":
      parts = [adam, decay]
    case "sgd":
      parts = [decay, _momentum(options)]
    case "lamb":
      parts = [adam, decay, optax.masked(optax.scale_by_trust_ratio(), mask)]
    case "lars":
      ratio = optax.scale_by_trust_ratio(trust_coefficient=options["trust_coefficient"])
      parts = [decay, optax.masked(ratio, mask)]
    case "lion":
      parts = [optax.scale_by_lion(options["b1"], options["b2"]), decay]
    case "muon":
      parts = [_muon(config)]
    case name:
      raise ValueError(f"no optimizer is named {name!r}")
  if options["clip_norm"] is not None:
    parts.insert(0, optax.clip_by_global_norm(options["clip_norm"]))
  parts.append(rates.scale_by_rates(config, learning_rate, total_steps=total_steps, depths=depths))
  if options["name"] == "lars":
    # After the learning rate, so that one that falls does not scale down the steps before it once
    # more.
    parts.append(_momentum(options))
  if options["muon_unit_filters"]:
    parts.append(muon.unit_filters(lambda params: _muon_mask(params, config)))
  return optax.chain(*parts)


def _momentum(options: Mapping) -> optax.GradientTransformation:
  # Without momentum there is nothing to remember, and no memory is spent on it.
  momentum = options["momentum"]
  return optax.trace(momentum, options["nesterov"]) if momentum else optax.identity()


def _decay(config: Mapping) -> optax.GradientTransformation:
  """Adds to each gradient the weight decay of its parameter times the parameter."""
  strength = config["optimizer"]["weight_decay"]

  def add(updates, params):
    counts = decay_mask(params, config)
    return rates.map_by_rule(
      config,
      lambda rule, u, p, c: u + strength * rule.decay * p if c and rule.decay else u,
      updates,
      params,
      counts,
    )

  return optax.stateless(add)


def _muon(config: Mapping) -> optax.GradientTransformation:
  """Muon for the hidden layers' filters and matrices, with decoupled decay; `muon_rest` for biases,
  norms and the head.

  What a rule keeps as it is costs nothing.
  """
  options = config["optimizer"]
  adam = optax.scale_by_adam(options["b1"], options["b2"], options["epsilon"])
  rest = {"adam": [adam, _decay(config)], "sgd": [_decay(config), _momentum(options)]}
  orthogonal = muon.orthogonal_updates(
    momentum=options["muon_momentum"],
    steps=options["muon_steps"],
    dtype=jnp.dtype(config["model"]["dtype"]),
  )
  return optax.partition(
    {
      "muon": optax.chain(orthogonal, _decay(config)),
      "rest": optax.chain(*rest[options["muon_rest"]]),
      "frozen": optax.set_to_zero(),
    },
    lambda params: _muon_labels(params, config),
  )


def _muon_labels(params: Any, config: Mapping) -> Any:
  def label(path, leaf):
    name = rates.name_of(path)
    if not rules.of_name(known, name).lr:
      return "frozen"
    return "rest" if leaf.ndim < 2 or name.startswith("head/") else "muon"

  known = rates.known(config)
  return jax.tree_util.tree_map_with_path(label, params)


def _muon_mask(params: Any, config: Mapping) -> Any:
  return jax.tree.map(lambda label: label == "muon", _muon_labels(params, config))


def penalty(params: Any, config: Mapping) -> jax.Array:
  """Returns what is added to the loss: l1 * sum |w| + l2 / 2 * sum w^2 over decayed parameters.

  A float32 scalar, computed in float32 whatever narrower type the parameters have; float64 where
  parameters are. Unlike weight decay it goes through the gradient, and so through Adam's scaling.
  """
  l1, l2 = config["optimizer"]["l1"], config["optimizer"]["l2"]
  total = jnp.zeros((), jnp.float32)
  if not l1 and not l2:
    return total
  decayed = jax.tree.leaves(decay_mask(params, config))
  for leaf, counts in zip(jax.tree.leaves(params), decayed, strict=True):
    if counts:
      leaf = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
      if l1:
        # JAX gives |w| the slope 1 at w = 0, which would push a head that starts at zero one way.
        total += l1 * jnp.sum(leaf * jax.lax.stop_gradient(jnp.sign(leaf)))
      if l2:
        total += l2 / 2 * jnp.sum(jnp.square(leaf))
  return total


def ascended(params: Any, gradient: Any, rho: float) -> Any:
  """Returns the parameters moved by `rho` along the gradient, which is where sharpness-aware
  minimisation looks next.

  Foret et al. 2021, https://arxiv.org/abs/2010.01412, equation 2 with p = 2.

  Args:
    params: tree of float arrays.
    gradient: of the same shapes, over the whole batch.
    rho: distance over all parameters.
  """
  # At a gradient of nothing there is no way up.
  scale = rho / jnp.maximum(optax.tree.norm(gradient), 1e-12)
  return jax.tree.map(lambda p, g: p + (scale * g).astype(p.dtype), params, gradient)


def update_ema(average: Any, new: Any, step: jax.typing.ArrayLike, decay: float) -> Any:
  """Returns the moving average after one more update: d * average + (1 - d) * new.

  Its decay d = min(decay, (1 + step) / (10 + step)) starts at 0.1, so that a short run does not
  carry its initial weights along (as tf.train.ExponentialMovingAverage with `num_updates`).

  Args:
    average: tree of float arrays, at the start a copy of the initial values.
    new: the values after the update, a tree of the same shapes.
    step: how many updates went before this one, 0 at the first.
    decay: the decay that d tends to, in [0, 1).
  """
  # The weight of `new` is written out: in float32, 1 - 0.9999 would be off by 0.04%.
  weight = jnp.maximum(1 - decay, 9 / (10 + jnp.asarray(step, jnp.float32)))
  return jax.tree.map(lambda a, n: a + weight.astype(a.dtype) * (n - a), average, new)
