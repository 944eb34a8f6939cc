"""How images were prepared for weights, what their batch norm added, and what a config has to do
with it.

Weights answer well only for images that are prepared as in their training, and nothing fails where
they are not. So what is known is taken over, field by field and out loud, or a difference is told.
"""

from collections.abc import Mapping
from typing import Any

from imgclf import config as configs
from imgclf.errors import UserError
from imgclf.models import layers
from imgclf.timm_config import FIELDS


def recorded(fields: Mapping[str, Any] | None, where: str) -> dict[str, Any] | None:
  """Returns the preparation that a run folder holds, once it is found to be one.

  Raises:
    UserError: if it has other fields, or values that they do not take.
  """
  if fields is None:
    return None
  found = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
  if set(found) != set(FIELDS) or not all(configs.accepts(k, v) for k, v in found.items()):
    raise UserError(
      f"{where}: does not say how images are prepared; restore the file or use another --workdir"
    )
  return found


def adopt(
  config: configs.ConfigDict,
  where: str,
  preparation: Mapping[str, Any] | None,
  image_size: int | None,
) -> list[str]:
  """Takes over what belongs to the weights into a config, in place, where it says so; tells what
  differs.

  Args:
    config: a resolved config.
    where: how the lines call the weights.
    preparation: see `imgclf.pretrained.sources.Source`.
    image_size: likewise.

  Returns:
    Lines for a person.
  """
  if preparation is None:
    return [
      f"{where} does not say how its images were prepared: config.augment.mean, std, "
      "config.dataset.crop_fraction and interpolation are taken as they stand"
    ]
  lines = []
  differing = {
    field: value for field, value in preparation.items() if configs.get(config, field) != value
  }
  if differing:
    changes = "; ".join(
      f"config.{field}: {configs.get(config, field)!r} -> {value!r}"
      for field, value in differing.items()
    )
    if config["model"]["preprocessing"] == "weights":
      for field, value in differing.items():
        section, name = field.split(".")
        config[section][name] = value
      lines.append(
        f"taken over from the weights: {changes} (config.model.preprocessing=config: not)"
      )
    else:
      lines.append(f"the weights were trained otherwise than this config has it: {changes}")
  size = config["dataset"]["image_size"]
  if image_size not in (None, size):
    lines.append(f"the weights were trained at {image_size} px, and this run is at {size} px")
  return lines


def adopt_epsilon(
  config: configs.ConfigDict, where: str, epsilon: float | None, model: Any
) -> list[str]:
  """Takes over what batch norm added to the variance for the weights into a config, in place.

  Args:
    config: a resolved config.
    where: how the lines call the weights.
    epsilon: see `imgclf.pretrained.matching.Match`.
    model: the network of the config, as from `imgclf.models.create`.

  Returns:
    Lines for a person.

  Raises:
    UserError: if the config asks for another one, or the network can't have it.
  """
  own = getattr(model, "batch_norm_epsilon", layers.EPSILON)
  if epsilon in (None, own):
    return []
  field, name = "config.model.batch_norm_epsilon", config["model"]["name"]
  if config["model"]["batch_norm_epsilon"] is not None:
    raise UserError(
      f"{field}={own}: {where} was trained with {epsilon}; leave it out, and that is taken over"
    )
  if not hasattr(model, "batch_norm_epsilon"):
    raise UserError(
      f"{where}: its batch norm adds {epsilon} to the variance, and {name} here can't; take other weights"
    )
  config["model"]["batch_norm_epsilon"] = epsilon
  return [f"taken over from the weights: {field}: {own} -> {epsilon}"]
