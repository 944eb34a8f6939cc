"""timm's `config.json` beside weights, read as data and written: whose they are, and how images are
prepared for them.

Knows fields of the config by their dotted names, no weights and no network.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

from imgclf import config as configs
from imgclf.errors import UserError

# In a folder of weights, as the hub has them.
WEIGHTS, CARD = "model.safetensors", "config.json"

# What belongs to weights, by the names that timm has for it.
_NAMES = {
  "augment.mean": "mean",
  "augment.std": "std",
  "dataset.crop_fraction": "crop_pct",
  "dataset.interpolation": "interpolation",
}
FIELDS = tuple(_NAMES)

# Of `model_args`, which timm makes a network with: what batch norm adds to the variance, and what
# says nothing that shapes of arrays or the config do not.
_EPSILON = "bn_eps"
_HARMLESS = {"img_size", "num_classes", "drop_rate", "drop_path_rate"}


@dataclasses.dataclass(frozen=True)
class Known:
  """What the file says of weights; none where it says nothing.

  Attributes:
    network: by timm's name.
    classes: names by label.
    fields: values of the config by dotted names.
    image_size: in pixels.
    epsilon: what batch norm adds to the variance.
  """

  network: str | None = None
  classes: tuple[str, ...] | None = None
  fields: Mapping[str, Any] | None = None
  image_size: int | None = None
  epsilon: float | None = None


def read(path: pathlib.Path) -> Known:
  """Reads a `config.json`.

  Raises:
    UserError: if it is no such file, or names a preparation that this project does not know.
  """
  mend = "mend it, or take it away and set config.augment.mean and the like by hand"
  try:
    tree = json.loads(path.read_text(encoding="utf-8"))
    card = tree.get("pretrained_cfg", tree)
    network, size = tree.get("architecture"), card.get("input_size")
    names, arguments = tree.get("label_names"), dict(tree.get("model_args") or {})
    found = {field: card[key] for field, key in _NAMES.items() if key in card}
  except (OSError, ValueError, RecursionError, AttributeError, TypeError):
    raise UserError(f"{path}: is not timm's description of weights; {mend}") from None
  for field, value in found.items():
    if isinstance(value, list):
      value = found[field] = tuple(value)
    if not configs.accepts(field, value):
      raise UserError(
        f"{path}: {_NAMES[field]} is {value!r}, which config.{field} does not take "
        f"({configs.FIELDS[field].allowed}); {mend}"
      )
  epsilon = arguments.pop(_EPSILON, None)
  if not (epsilon is None or configs.accepts("model.batch_norm_epsilon", epsilon)):
    raise UserError(f"{path}: {_EPSILON} is {epsilon!r}, which is not a number above 0; {mend}")
  strange = sorted(set(arguments) - _HARMLESS)
  if strange:
    raise UserError(
      f"{path}: the network was made with {strange[0]}={arguments[strange[0]]!r}, which this project's has not; take "
      "other weights"
    )
  if not (isinstance(size, list) and len(size) == 3 and all(type(n) is int for n in size)):
    size = None
  if not (isinstance(names, list) and all(isinstance(each, str) for each in names)):
    names = None
  return Known(
    network=network.partition(".")[0] if isinstance(network, str) else None,
    classes=tuple(names) if names else None,
    fields=found if len(found) == len(_NAMES) else None,
    image_size=size[-1] if size else None,
    epsilon=epsilon,
  )


def write(
  folder: pathlib.Path,
  architecture: str,
  config: Mapping[str, Any],
  classes: Sequence[str],
  features: int,
  head: str,
  arguments: Mapping[str, Any],
) -> None:
  """Writes a `config.json` by which timm makes a network for weights in the same folder.

  Args:
    folder: that holds the weights.
    architecture: timm's name of the network.
    config: a run's resolved config, whose evaluation says how images are prepared.
    classes: names by label.
    features: how many the head is given.
    head: timm's name of it.
    arguments: for timm's function that makes the network.

  Raises:
    OSError: if it can't be written.
  """
  size = config["dataset"]["image_size"]
  prepared = {key: configs.get(config, field) for field, key in _NAMES.items()}
  tree = {
    "architecture": architecture,
    "num_classes": len(classes),
    "num_features": features,
    "label_names": list(classes),
    **({"model_args": dict(arguments)} if arguments else {}),
    "pretrained_cfg": {
      "num_classes": len(classes),
      "input_size": [3, size, size],
      "fixed_input_size": "img_size" in arguments,
      **prepared,
      "crop_mode": "center",
      "classifier": head,
    },
  }
  text = json.dumps(tree, indent=2) + "\n"
  (folder / CARD).write_text(text, encoding="utf-8", newline="\n")
