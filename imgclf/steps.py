"""train_step and eval_step: pure functions of one device's share of a batch.

The only place that knows loss and gradients. Meant for `imgclf.parallel.pmap`: means over the global
batch are taken over the axis `imgclf.parallel.AXIS`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imgclf import augment, optim
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
  # By name: of JAX's generators only this one draws from each key by itself under vmap.
  key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)
  return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
  """Returns the loss of each example in nats, [batch].

  Args:
    logits: [batch, classes] float.
    labels: [batch] int32.
    smoothing: share of the target spread evenly over all classes (Szegedy et al. 2016).
  """
  log_p = jax.nn.log_softmax(logits)
  loss = -jnp.take_along_axis(log_p, labels[:, None], axis=1)[:, 0]
  if smoothing:
    loss = (1 - smoothing) * loss - smoothing * jnp.mean(log_p, axis=1)
  return loss


def example_weights(batch: Batch, dtype: jnp.dtype) -> jax.Array | None:
  """Returns what each example of this device counts, so that a mean over all examples leaves the masked out.

  Args:
    batch: with `mask` [batch] bool, False for an example that is not to count; without it, all do.

    dtype: type of the computation.

  Returns:
    [batch] float32 (float64 with that dtype), 0 or all examples / examples that count, over all devices; None where all count.
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
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Returns the function of one update.

  It takes the state and a batch of `image` [batch, size, size, 3] uint8, `label` [batch] int32,
  `position` [batch] int32 (the example's place in the global batch), `stop` [batch] int32 and, where
  examples may be bad, `mask` [batch] bool (False: the image is blank and counts for nothing but the batch norm,
  which sees a picture of the mean colour). It returns the next state and scalar metrics over the global
  batch: `loss` (with smoothing and penalties), `accuracy`, `gradient_norm` (before clipping),
  `learning_rate`, and `stop`, more than 0 where any `stop` of any device was.

  A step that any device wants to stop before is not made: the state is returned as it was. With
  `train.max_bad_steps` one whose loss or gradient is NaN or infinite changes `step` and `bad_steps` alone.
  """
  smoothing = config["train"]["label_smoothing"]
  parts = config["optimizer"]["accumulate_steps"]
  ema_decay = config["optimizer"]["ema_decay"]
  leave_out_bad = config["train"]["max_bad_steps"] > 0
  dtype = jnp.dtype(config["model"]["dtype"])

  def loss_and_aux(params, batch_stats, images, labels, keys, weights):
    variables = {"params": params, "batch_stats": batch_stats}
    logits, updates = model.apply(variables, images, train=True, keys=keys, mutable=["batch_stats"])
    losses = cross_entropy(logits, labels, smoothing)
    right = jnp.argmax(logits, axis=1) == labels
    if weights is not None:
      losses, right = losses * weights, right * weights
    loss = jnp.mean(losses) + optim.penalty(params, config)
    return loss, (jnp.mean(right), updates.get("batch_stats", {}))

  def gradients(state: TrainState, *examples):
    """Means over this device's examples, computed in `parts` parts one after the other."""

    def of_part(batch_stats, examples):
      gradient = jax.value_and_grad(loss_and_aux, has_aux=True)
      (loss, (accuracy, batch_stats)), grads = gradient(state.params, batch_stats, *examples)
      return batch_stats, (loss, accuracy, grads)

    def add_part(carry, examples):
      batch_stats, total = carry
      batch_stats, means = of_part(batch_stats, examples)
      return (batch_stats, jax.tree.map(jnp.add, total, means)), None

    examples = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), examples)
    first = of_part(state.batch_stats, jax.tree.map(lambda x: x[0], examples))
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

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    keys = example_keys(config["seed"], state.step, batch["position"])
    # Augmentation and dropout get branches of each example's key that never meet.
    pairs = jax.vmap(jax.random.split)(keys)
    images = augment.train_transform(batch["image"], pairs[:, 0], config["augment"], dtype)
    weights = example_weights(batch, dtype)
    if weights is not None:
      images = jnp.where(batch["mask"][:, None, None, None], images, 0)
    batch_stats, means = gradients(state, images, batch["label"], pairs[:, 1], weights)
    # Local statistics differ by device: their mean keeps the copies of the state the same.
    batch_stats, (loss, accuracy, grads) = jax.lax.pmean((batch_stats, means), AXIS)
    metrics = {
      "loss": loss,
      "accuracy": accuracy,
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
      # A choice element by element makes XLA copy the old state first: AdamW on 22 million parameters
      # took 100 ms of CPU time so, and takes 67 (JAX 0.12: 147 and 64).
      new = jax.lax.cond(good, updated, lambda: old)
    else:
      # A GPU would wait for the host to read a condition.
      new = jax.tree.map(lambda new, old: jnp.where(good, new, old), updated(), old)
    state = TrainState(state.step + made, state.bad_steps + (made & ~good), *new)
    return state, metrics

  return train_step


def make_eval_step(
  model: Any, config: Mapping[str, Any]
) -> Callable[[Mapping[str, Any], Batch], dict[str, jax.Array]]:
  """Returns the function that judges one batch, used by evaluation and prediction alike.

  It takes the variables (see `TrainState.variables`) and a batch of `image` [batch, size, size, 3]
  uint8 and `label` [batch] int32, and returns, example by example: `loss` [batch] float32 in nats
  without smoothing, `predicted` [batch] int32, `in_top5` [batch] bool, `confidence` [batch] float32 (the
  predicted class's probability) and `probabilities` [batch, classes] float32.
  """
  dtype = jnp.dtype(config["model"]["dtype"])

  def eval_step(variables, batch: Batch) -> dict[str, jax.Array]:
    images = augment.eval_transform(batch["image"], config["augment"], dtype)
    logits = model.apply(variables, images, train=False)
    probabilities = jax.nn.softmax(logits).astype(jnp.float32)
    _, best = jax.lax.top_k(logits, min(5, logits.shape[1]))
    return {
      "loss": cross_entropy(logits, batch["label"]).astype(jnp.float32),
      "predicted": best[:, 0].astype(jnp.int32),
      "in_top5": jnp.any(best == batch["label"][:, None], axis=1),
      "confidence": jnp.max(probabilities, axis=1),
      "probabilities": probabilities,
    }

  return eval_step
