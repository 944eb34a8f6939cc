"""train_step and eval_step: pure functions of one device's share of a batch.

The only place that knows loss and gradients. Meant for `imgclf.parallel.pmap`: means over the
global batch are taken over the axis `imgclf.parallel.AXIS`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imgclf import augment, losses, multilabel, optim, rates
from imgclf.losses import Partner, Targets
from imgclf.models import frozen
from imgclf.parallel import AXIS
from imgclf.state import TrainState

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


def example_keys(seed: int, step: jax.Array, positions: jax.Array) -> jax.Array:
  """Returns one PRNG key an example, from (seed, step, position in the global batch) alone.

  So what is drawn for an example does not depend on the device or process that it came to.

  Args:
    seed: the run's seed.
    step: scalar int32.
    positions: [batch] int32, places in the global batch.
  """
  key = _step_key(seed, step)
  return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def _step_key(seed: int, step: jax.Array) -> jax.Array:
  # By name: of JAX's generators only this one draws from each key by itself under vmap.
  return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)


def augmented(
  batch: Batch, seed: int, step: jax.Array, augment_config: Mapping[str, Any], dtype: jnp.dtype
) -> tuple[jax.Array, Targets, jax.Array]:
  """Returns a training batch as the network gets it.

  Args:
    batch: as `make_train_step` takes it.
    seed: the run's seed.
    step: scalar int32.
    augment_config: the section `augment` of a validated config.
    dtype: type of the images.

  Returns:
    Images, [batch, size, size, 3] of `dtype`, normalised; their labels; keys of dropout, [batch].
  """
  keys = example_keys(seed, step, batch["position"])
  # Augmentation and dropout get branches of each example's key that never meet.
  pairs = jax.vmap(jax.random.split)(keys)
  mask, (height, width) = batch.get("mask"), batch["image"].shape[1:3]
  batch_key = jax.random.fold_in(_step_key(seed, step), augment.BATCH_STREAM)
  mix = augment.draw_mix(batch_key, pairs[:, 0], (height, width), augment_config, mask)
  images = augment.train_transform(
    batch["image"], pairs[:, 0], augment_config, dtype, mix, batch.get("mirror")
  )
  if mask is not None:
    images = jnp.where(mask[:, None, None, None], images, 0)
  targets = Targets(batch["label"])
  if mix is not None:
    targets = Targets(batch["label"], Partner(augment.partners(batch["label"]), 1 - mix.weight))
  return images, targets, pairs[:, 1]


def example_weights(batch: Batch, dtype: jnp.dtype) -> jax.Array | None:
  """Returns what each example of this device counts, so that a mean over all examples leaves the
  masked out.

  Args:
    batch: with `mask` [batch] bool, False for an example that is not to count; without it, all do.

    dtype: type of the computation.

  Returns:
    [batch] float32 (float64 with that dtype), 0 or all examples / examples that count, over all
    devices; None where all count.
  """
  if "mask" not in batch:
    return None
  mask = batch["mask"].astype(jnp.promote_types(dtype, jnp.float32))
  return mask / jnp.maximum(jax.lax.pmean(jnp.mean(mask), AXIS), 1e-30)


def make_train_step(
  model: Any,
  config: Mapping[str, Any],
  optimizer: optax.GradientTransformation,
  learning_rate: optax.Schedule,
  class_weights: np.ndarray | None = None,
  teacher: Callable[[Any, jax.Array], jax.Array] | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Returns the function of one update.

  It takes the state and a batch of `image` [batch, size, size, 3] uint8, `label` [batch] int32 (of
  several classes an image [batch, classes] uint8), `position` [batch] int32 (the example's place in
  the global batch), `stop` [batch] int32, with `augment.flip_alternate` `mirror` [batch] bool
  (which images are mirrored) and, where examples may be bad, `mask` [batch] bool (False: the image
  is blank and counts for nothing but the batch norm, which sees a picture of the mean colour). It
  returns the next state and scalar metrics over the global batch: `loss` (with smoothing, class
  weights, teacher and penalties), `accuracy` (of the label of larger weight; of several classes an
  image it is `exact_match`), `gradient_norm` (of the update, before clipping), `learning_rate`, and
  `stop`, more than 0 where any `stop` of any device was.

  With a teacher, see `imgclf.teacher`, a function of its variables and normalised images that
  returns its logits, it takes the teacher's variables as a third argument, and there is the metric
  `distillation_loss`.

  A step that any device wants to stop before is not made: the state is returned as it was. With
  `train.max_bad_steps` one whose loss or gradient is NaN or infinite changes `step` and `bad_steps`
  alone.
  """
  parts = config["optimizer"]["accumulate_steps"]
  ema_decay, sam_rho = config["optimizer"]["ema_decay"], config["optimizer"]["sam_rho"]
  leave_out_bad = config["train"]["max_bad_steps"] > 0
  dtype = jnp.dtype(config["model"]["dtype"])
  share, temperature = config["distill"]["weight"], config["distill"]["temperature"]
  share_right = "exact_match" if multilabel.is_on(config) else "accuracy"

  def loss_and_aux(params, batch_stats, images, targets, keys, weights, taught):
    kept = frozen.statistics_kept(rates.frozen_norms(params, batch_stats, config))
    params = rates.without_frozen(params, config)
    variables = {"params": params, "batch_stats": batch_stats}
    with kept:
      logits, updates = model.apply(
        variables, images, train=True, keys=keys, mutable=["batch_stats"]
      )
    each = losses.training_loss(logits, targets, config["train"], class_weights)
    told = {share_right: losses.are_right(logits, targets)}
    if taught is not None:
      told["distillation_loss"] = losses.distillation(logits, taught, temperature)
      each = (1 - share) * each + share * told["distillation_loss"]
    if weights is not None:
      each, told = each * weights, {name: value * weights for name, value in told.items()}
    loss = jnp.mean(each) + optim.penalty(params, config)
    means = {name: jnp.mean(value) for name, value in told.items()}
    return loss, (means, updates.get("batch_stats", {}))

  if config["model"]["remat"] == "elementwise":
    # What batch norm, activations and casts make of a convolution's result can be made again from
    # it: of a resnet50 in bfloat16 at 224 px 23 MB an image are kept for the gradient, in place of
    # 41.
    loss_and_aux = jax.checkpoint(loss_and_aux, policy=jax.checkpoint_policies.dots_saveable)

  def in_parts(examples: Any) -> Any:
    return jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), examples)

  def answers(taught_by: Any, images: jax.Array) -> jax.Array | None:
    """What the teacher says of this device's examples, [batch, classes], in as many parts as the
    gradient comes in.
    """
    if teacher is None:
      return None
    _, logits = jax.lax.scan(
      lambda carry, part: (carry, teacher(taught_by, part)),
      None,
      in_parts(images),
      unroll=jax.default_backend() == "cpu",
    )
    return logits.reshape(len(images), -1)

  def gradients(params: Any, batch_stats: Any, *examples):
    """Means over this device's examples, computed in `parts` parts one after the other."""

    def of_part(batch_stats, examples):
      gradient = jax.value_and_grad(loss_and_aux, has_aux=True)
      (loss, (means, batch_stats)), grads = gradient(params, batch_stats, *examples)
      return batch_stats, (loss, means, grads)

    def add_part(carry, examples):
      batch_stats, total = carry
      batch_stats, means = of_part(batch_stats, examples)
      return (batch_stats, jax.tree.map(jnp.add, total, means)), None

    examples = in_parts(examples)
    first = of_part(batch_stats, jax.tree.map(lambda x: x[0], examples))
    if parts == 1:
      return first
    # XLA runs convolutions in loops on an unoptimised path on CPUs, so there the loop is unrolled.
    (batch_stats, total), _ = jax.lax.scan(
      add_part,
      first,
      jax.tree.map(lambda x: x[1:], examples),
      unroll=jax.default_backend() == "cpu",
    )
    return batch_stats, jax.tree.map(lambda x: x / parts, total)

  def train_step(
    state: TrainState, batch: Batch, taught_by: Any = None
  ) -> tuple[TrainState, Metrics]:
    images, targets, keys = augmented(batch, config["seed"], state.step, config["augment"], dtype)
    weights = example_weights(batch, dtype)
    if teacher is not None:
      # Two networks read them, for each of which XLA might make them anew.
      images = jax.lax.optimization_barrier(images)
    # Once, and outside of what is differentiated: for both gradients of `sam_rho`, and not again
    # with `remat`.
    examples = (images, targets, keys, weights, answers(taught_by, images))
    batch_stats, means = gradients(state.params, state.batch_stats, *examples)
    # Local statistics differ by device: their mean keeps the copies of the state the same.
    batch_stats, (loss, told, grads) = jax.lax.pmean((batch_stats, means), AXIS)
    # A mean over devices of what stays may be off in the last bit.
    batch_stats = rates.with_frozen(batch_stats, state.batch_stats, state.params, config)
    if sam_rho is not None:
      # Foret et al. 2021, https://arxiv.org/abs/2010.01412, algorithm 1. By the gradient of the
      # whole batch, where the authors took a device's own, so that it does not matter how many
      # there are. The statistics, as the figures that are told, are of the weights as they are.
      above = optim.ascended(state.params, grads, sam_rho)
      grads = jax.lax.pmean(gradients(above, state.batch_stats, *examples)[1][2], AXIS)
    metrics = {
      "loss": loss,
      **told,
      "gradient_norm": optax.tree.norm(grads),
      # The optimizer counts the updates that were made.
      "learning_rate": jnp.asarray(learning_rate(state.step - state.bad_steps)),
      "stop": jax.lax.psum(jnp.max(batch["stop"]), AXIS),
    }
    made = metrics["stop"] == 0
    good = made
    if leave_out_bad:
      good &= jnp.isfinite(loss) & jnp.isfinite(metrics["gradient_norm"])
    old = (state.params, state.batch_stats, state.opt_state, state.ema)

    def updated():
      updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
      params = optax.apply_updates(state.params, updates)
      ema = state.ema
      if ema_decay is not None:
        new = {"params": params, "batch_stats": batch_stats}
        ema = optim.update_ema(state.ema, new, state.step, ema_decay)
      return params, batch_stats, opt_state, ema

    if jax.default_backend() == "cpu":
      # A choice element by element makes XLA copy the old state first: AdamW on 22 million
      # parameters took 100 ms of CPU time so, and takes 67 (JAX 0.12: 147 and 64).
      new = jax.lax.cond(good, updated, lambda: old)
    else:
      # A GPU would wait for the host to read a condition.
      new = jax.tree.map(lambda new, old: jnp.where(good, new, old), updated(), old)
    state = TrainState(state.step + made, state.bad_steps + (made & ~good), *new)
    return state, metrics

  return train_step


def make_eval_step(
  model: Any, config: Mapping[str, Any], temperature: float = 1.0, *, features: bool = False
) -> Callable[[Mapping[str, Any], Batch], dict[str, jax.Array]]:
  """Returns the function that judges one batch, used by evaluation and prediction alike.

  Logits are divided by `temperature` (Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation
  9), which moves probabilities and the loss but no class's rank. With `eval.tta` they are means
  over views of an image, see `imgclf.augment.views`.

  It takes the variables (see `TrainState.variables`) and a batch of `image` [batch, size, size, 3]
  uint8 and `label` [batch] int32, and returns, example by example: `loss` [batch] float32 in nats
  without smoothing, `predicted` [batch] int32, `in_top5` [batch] bool, `confidence` [batch] float32
  (the predicted class's probability), `probabilities` and `logits` [batch, classes] float32. With
  `features` also that: [batch, n] float32, what the head is given (the model's feature
  `pre_logits`).

  Of several classes an image `label` is [batch, classes] uint8, probabilities are sigmoids, `loss`
  is the binary cross-entropy, the mean over classes, and there is no `predicted`, `in_top5` and
  `confidence`.
  """
  dtype = jnp.dtype(config["model"]["dtype"])
  several = multilabel.is_on(config)

  def eval_step(variables, batch: Batch) -> dict[str, jax.Array]:
    def apply(pixels: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
      images = augment.eval_transform(pixels, config["augment"], dtype)
      if not features:
        return model.apply(variables, images, train=False), {}
      logits, state = model.apply(variables, images, train=False, mutable=["intermediates"])
      return logits, {"features": state["intermediates"]["pre_logits"].astype(jnp.float32)}

    logits, handed = augment.over_views(apply, batch["image"], config["eval"]["tta"])
    logits = logits / temperature
    if several:
      return {
        "loss": losses.binary_cross_entropy(logits, batch["label"]).astype(jnp.float32),
        "probabilities": jax.nn.sigmoid(logits).astype(jnp.float32),
        "logits": logits.astype(jnp.float32),
        **handed,
      }
    probabilities = jax.nn.softmax(logits).astype(jnp.float32)
    _, best = jax.lax.top_k(logits, min(5, logits.shape[1]))
    return {
      "loss": losses.cross_entropy(logits, batch["label"]).astype(jnp.float32),
      "predicted": best[:, 0].astype(jnp.int32),
      "in_top5": jnp.any(best == batch["label"][:, None], axis=1),
      "confidence": jnp.max(probabilities, axis=1),
      "probabilities": probabilities,
      "logits": logits.astype(jnp.float32),
      **handed,
    }

  return eval_step
