"""How images were prepared for weights, and what a config has to do with it.

Weights answer well only for images that are prepared as in their training, and nothing fails where they are not. So
what is known is taken over, field by field and out loud, or a difference is told.
"""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

from imgclf import config as configs
from imgclf.errors import UserError
from imgclf.schema import FIELDS as SCHEMA_FIELDS

# What belongs to weights, by the names that timm's config.json has for it.
_OF_TIMM = {
  "augment.mean": "mean",
  "augment.std": "std",
  "dataset.crop_fraction": "crop_pct",
  "dataset.interpolation": "interpolation",
}
FIELDS = tuple(_OF_TIMM)


@dataclasses.dataclass(frozen=True)
class Known:
  """What a file beside weights says of them; none where it says nothing.

  Attributes:
    network: by timm's name.
    classes: names by label.
    fields: values of the config by dotted names.
    image_size: in pixels.
  """

  network: str | None = None
  classes: tuple[str, ...] | None = None
  fields: Mapping[str, Any] | None = None
  image_size: int | None = None


def of_timm(path: pathlib.Path) -> Known:
  """Reads timm's `config.json`, as data.

  Raises:
    UserError: if it is not such a file, or names a preparation that this project does not know.
  """
  mend = "mend it, or take it away and set config.augment.mean and the like by hand"
  try:
    tree = json.loads(path.read_text(encoding="utf-8"))
    card = tree.get("pretrained_cfg", tree)
    network, size = tree.get("architecture"), card.get("input_size")
    names = tree.get("label_names")
    found = {field: card[key] for field, key in _OF_TIMM.items() if key in card}
  except (OSError, ValueError, RecursionError, AttributeError, TypeError):
    raise UserError(f"{path}: is not timm's description of weights; {mend}") from None
  for field, value in found.items():
    if isinstance(value, list):
      value = found[field] = tuple(value)
    if not configs.accepts(field, value):
      raise UserError(
        f"{path}: {_OF_TIMM[field]} is {value!r}, which config.{field} does not take "
        f"({SCHEMA_FIELDS[field].allowed}); {mend}"
      )
  if not (isinstance(size, list) and len(size) == 3 and all(type(n) is int for n in size)):
    size = None
  if not (isinstance(names, list) and all(isinstance(each, str) for each in names)):
    names = None
  return Known(
    network=network.partition(".")[0] if isinstance(network, str) else None,
    classes=tuple(names) if names else None,
    fields=found if len(found) == len(_OF_TIMM) else None,
    image_size=size[-1] if size else None,
  )


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


def to_timm(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the entries of timm's `pretrained_cfg` that say how a run's evaluation prepares images."""
  size = config["dataset"]["image_size"]
  told = {key: configs.get(config, field) for field, key in _OF_TIMM.items()}
  return {
    "input_size": [3, size, size],
    **{key: list(value) if isinstance(value, tuple) else value for key, value in told.items()},
    "crop_mode": "center",
  }


def adopt(
  config: configs.ConfigDict,
  where: str,
  preparation: Mapping[str, Any] | None,
  image_size: int | None,
) -> list[str]:
  """Takes over what belongs to the weights into a config, in place, where it says so; tells what differs.

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
