"""Training losses, of one label, of several, or of two examples that were mixed.

Knows no network and no device.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Partner(NamedTuple):
  """What was mixed in.

  Attributes:
    label: [batch] int32, or [batch, classes] uint8 as in `Targets`.
    weight: [batch] float32, its share; the rest is the example's own.
  """

  label: jax.Array
  weight: jax.Array


class Targets(NamedTuple):
  """What a loss is taken against.

  Attributes:
    label: [batch] int32; of several classes an image [batch, classes] uint8, 1 where a class is
      there.
    partner: what was mixed in; None where nothing is.
  """

  label: jax.Array
  partner: Partner | None = None

  def main(self) -> jax.Array:
    """Returns the label of the larger weight, in the layout of `label`."""
    if self.partner is None:
      return self.label
    others = self.partner.weight.reshape(-1, *[1] * (self.label.ndim - 1)) > 0.5
    return jnp.where(others, self.partner.label, self.label)


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


def focal_loss(
  logits: jax.Array, labels: jax.Array, gamma: float, smoothing: float = 0.0
) -> jax.Array:
  """Returns (1 - p)^gamma times the cross-entropy -ln p of each example, in nats, [batch].

  Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4, with the softmax's p; alpha there
  is what `class_weights` are for.

  Args:
    logits: [batch, classes] float.
    labels: [batch] int32.
    gamma: 0 or more; at 0 it is the cross-entropy.
    smoothing: share of the target spread evenly over all classes.
  """
  log_p = jax.nn.log_softmax(logits)
  # Not down to 0, where powers below 1 have no slope.
  rest = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(log_p.dtype).eps)
  each = -(rest**gamma) * log_p
  loss = jnp.take_along_axis(each, labels[:, None], axis=1)[:, 0]
  return (1 - smoothing) * loss + smoothing * jnp.mean(each, axis=1) if smoothing else loss


def class_weights(
  labels: np.ndarray, classes: int, train_config: Mapping[str, Any]
) -> np.ndarray | None:
  """Returns what an example of each class counts in the loss, 1 in the mean over examples; None
  where all count alike.

  `balanced`: all classes count alike, as 1 / n for the n examples of a class. `effective`: as 1 /
  (1 - beta^n), the effective number of Cui et al. 2019, https://arxiv.org/abs/1901.05555, equation
  2, which grows slower than n.

  Args:
    labels: [examples] integers, of the train split.
    classes: how many there are.
    train_config: the section `train` of a config; its `class_weights` and `class_weights_beta` are
      read.

  Returns:
    [classes] float32, 0 for what does not occur.
  """
  if train_config["class_weights"] == "none":
    return None
  counts = np.bincount(labels, minlength=classes)
  numbers = np.maximum(counts, 1).astype(np.float64)
  if train_config["class_weights"] == "effective":
    numbers = 1 - train_config["class_weights_beta"] ** numbers
  weights = np.where(counts > 0, 1 / numbers, 0)
  return (weights * len(labels) / (weights * counts).sum()).astype(np.float32)


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
  """Returns the mean over classes of each class's own loss, in nats, [batch] (Wightman et al. 2021,
  section 3).

  Args:
    logits: [batch, classes] float.
    targets: [batch, classes] float, probabilities that each class is there.
  """
  return jnp.mean(jax.nn.softplus(logits) - targets * logits, axis=1)


def binary_focal_loss(logits: jax.Array, targets: jax.Array, gamma: float) -> jax.Array:
  """Returns the mean over classes of each class's own focal loss, in nats, [batch].

  Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4, with the sigmoid's p as there and
  without alpha: a target of 1 counts -(1 - p)^gamma ln p, one of 0 -p^gamma ln(1 - p), one between
  the two both by its share.

  Args:
    logits: [batch, classes] float.
    targets: [batch, classes] float, probabilities that each class is there.
    gamma: 0 or more; at 0 it is the binary cross-entropy.
  """
  # Powers by logarithms, which have a slope where p is 0 or 1.
  present, absent = jax.nn.softplus(-logits), jax.nn.softplus(logits)
  of_present = jnp.exp(-gamma * absent) * present
  of_absent = jnp.exp(-gamma * present) * absent
  return jnp.mean(targets * of_present + (1 - targets) * of_absent, axis=1)


def soft_targets(targets: Targets, classes: int, smoothing: float = 0.0) -> jax.Array:
  """Returns the weight of each class, [batch, classes] float32.

  Of one class an image they add up to 1 for each example. Of several each is a probability of its
  own.

  Args:
    targets: labels and their weights.
    classes: how many there are.
    smoothing: share of the target spread evenly over all classes; of several classes an image, over
      the two answers that each class has, so that it moves towards 1/2.
  """
  several = targets.label.ndim == 2

  def of(label: jax.Array) -> jax.Array:
    return label.astype(jnp.float32) if several else jax.nn.one_hot(label, classes)

  weights = of(targets.label)
  if targets.partner is not None:
    share = targets.partner.weight[:, None]
    weights = (1 - share) * weights + share * of(targets.partner.label)
  return (1 - smoothing) * weights + smoothing / (2 if several else classes)


def are_right(logits: jax.Array, targets: Targets) -> jax.Array:
  """Returns whether each example's answer is its label of the larger weight, [batch] bool.

  The answer is the class of the largest logit; of several classes an image all those with a
  probability of 1/2 or more, and it is right where all are there and no other.

  Args:
    logits: [batch, classes] float.
    targets: labels and their weights.
  """
  if targets.label.ndim == 2:
    return jnp.all((logits >= 0) == (targets.main() > 0), axis=1)
  return jnp.argmax(logits, axis=1) == targets.main()


def distillation(logits: jax.Array, taught: jax.Array, temperature: float) -> jax.Array:
  """Returns T^2 times the divergence KL(teacher || student) of each example, in nats, [batch].

  Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2: both logits are divided by T
  before the softmax, and by T^2 the gradient stays of the size that it has with labels. 0 where the
  two agree.

  Args:
    logits: [batch, classes] float, the student's.
    taught: [batch, classes] float, the teacher's; no gradient goes there.
    temperature: T, more than 0.
  """
  log_p = jax.nn.log_softmax(jax.lax.stop_gradient(taught).astype(logits.dtype) / temperature)
  log_q = jax.nn.log_softmax(logits / temperature)
  return temperature**2 * jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=1)


def training_loss(
  logits: jax.Array,
  targets: Targets,
  train_config: Mapping[str, Any],
  class_weights: np.ndarray | None = None,
) -> jax.Array:
  """Returns the loss of each example in nats, [batch], by the section `train` of a config.

  Of two labels that were mixed each has its own loss, times its class's weight, by its share. Of
  several classes an image the loss is `binary_cross_entropy` or `binary_focal_loss`, against the
  mixed targets.

  Args:
    logits: [batch, classes] float.
    targets: labels and their weights.
    train_config: its `loss`, `label_smoothing`, `binary_threshold` and `focal_gamma` are read.
    class_weights: [classes] float; none: all are 1. Not with the loss `binary`.
  """
  smoothing = train_config["label_smoothing"]
  several = targets.label.ndim == 2
  if several and train_config["loss"] == "softmax":
    raise ValueError("softmax is no loss of several classes an image")
  if several or train_config["loss"] == "binary":
    weights = soft_targets(targets, logits.shape[1], smoothing).astype(logits.dtype)
    if train_config["binary_threshold"] is not None:
      weights = (weights > train_config["binary_threshold"]).astype(logits.dtype)
    if train_config["loss"] == "focal":
      return binary_focal_loss(logits, weights, train_config["focal_gamma"])
    return binary_cross_entropy(logits, weights)

  def of_label(labels: jax.Array) -> jax.Array:
    if train_config["loss"] == "focal":
      loss = focal_loss(logits, labels, train_config["focal_gamma"], smoothing)
    else:
      loss = cross_entropy(logits, labels, smoothing)
    return loss if class_weights is None else jnp.asarray(class_weights, loss.dtype)[labels] * loss

  loss = of_label(targets.label)
  if targets.partner is None:
    return loss
  share = targets.partner.weight.astype(loss.dtype)
  return (1 - share) * loss + share * of_label(targets.partner.label)
