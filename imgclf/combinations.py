"""What fields of a config ask of each other, each of them right by itself.

Knows no model, data set or device.
"""

from collections.abc import Mapping
from typing import Any

from imgclf import durations, multilabel, rules
from imgclf.errors import UserError


def check(config: Mapping[str, Any]) -> None:
  """Refuses what can't go together.

  Args:
    config: every field of it is right by itself.

  Raises:
    UserError: naming a field, what it does not go with, and the mend.
  """
  durations.check(config)
  _check_images(config)
  _check_loss(config)
  _check_optimizer(config)
  multilabel.check(config)


def _check_images(config: Mapping[str, Any]) -> None:
  augment, size = config["augment"], config["dataset"]["image_size"]
  if config["dataset"]["resident"] and augment["crop"] == "random_resized":
    raise UserError(
      "config.dataset.resident: the host draws the crops of config.augment.crop=random_resized, so no decoded image "
      "can be kept; set augment.crop to padded or center, or resident to False"
    )
  if augment["crop"] == "padded" and augment["crop_padding"] >= size:
    raise UserError(
      f"config.augment.crop_padding: {augment['crop_padding']} is not below "
      f"config.dataset.image_size={size}; choose a smaller padding"
    )
  if augment["cutout"] > size:
    raise UserError(
      f"config.augment.cutout: {augment['cutout']} is more than config.dataset.image_size={size}; "
      "choose a smaller square"
    )
  if augment["flip_alternate"] and not augment["flip"]:
    raise UserError(
      "config.augment.flip_alternate: needs config.augment.flip; set it to True, or flip_alternate to False"
    )
  if config["eval"]["tta"] == "flip_translate" and size < 2:
    raise UserError(
      f"config.eval.tta: flip_translate shifts by a pixel, and config.dataset.image_size is {size}; set it to none"
    )
  batch_size = config["train"]["batch_size"]
  if batch_size % augment["repeats"]:
    raise UserError(
      f"config.augment.repeats: {augment['repeats']} does not divide config.train.batch_size={batch_size}; "
      "choose a divisor"
    )


def _check_loss(config: Mapping[str, Any]) -> None:
  train = config["train"]
  if train["binary_threshold"] is not None and train["loss"] != "binary":
    raise UserError(
      f"config.train.binary_threshold: only the loss binary has it, and config.train.loss is {train['loss']}; "
      "set it to none or the loss to binary"
    )
  if train["class_weights"] != "none" and train["loss"] == "binary":
    raise UserError(
      "config.train.class_weights: the loss binary has none; set it to none or config.train.loss to softmax or focal"
    )
  if train["class_weights"] != "none" and config["dataset"]["sampling"] == "balanced":
    raise UserError(
      "config.train.class_weights: config.dataset.sampling=balanced makes up for small classes already; set one of "
      "them to its default"
    )


def _check_optimizer(config: Mapping[str, Any]) -> None:
  optimizer = config["optimizer"]
  batch_size, parts = config["train"]["batch_size"], optimizer["accumulate_steps"]
  if batch_size % parts:
    raise UserError(
      f"config.optimizer.accumulate_steps: {parts} does not divide config.train.batch_size={batch_size}; "
      "choose a divisor"
    )
  name, rest = optimizer["name"], optimizer["muon_rest"]
  if optimizer["nesterov"] and name not in ("sgd", "lars") and (name, rest) != ("muon", "sgd"):
    raise UserError(
      f"config.optimizer.nesterov: only sgd and lars have it, and config.optimizer.name is "
      f"{name}; set nesterov to False or the name to sgd"
    )
  if optimizer["nesterov"] and not optimizer["momentum"]:
    raise UserError(
      "config.optimizer.nesterov: needs config.optimizer.momentum > 0; set one of them"
    )
  if optimizer["muon_unit_filters"] and name != "muon":
    raise UserError(
      f"config.optimizer.muon_unit_filters: only muon has it, and config.optimizer.name is {name}; set it to "
      "False or the name to muon"
    )
  rules.parse(optimizer["rules"])
