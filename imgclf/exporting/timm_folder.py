"""A run's weights by the names of timm, or of torchvision where timm lacks the network: the way
back to PyTorch.

No program is written, so nothing is run: what is written is read back, and must be the run's
weights to the bit.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import jax
import numpy as np

from imgclf import models, named, safetensors_file, timm_config
from imgclf.errors import UserError
from imgclf.exporting import WEIGHTS
from imgclf.exporting.card import SEVERAL
from imgclf.models import torch_names
from imgclf.text import printable

NAME = WEIGHTS


def write(
  config: Mapping[str, Any],
  classes: Sequence[str],
  variables: Mapping[str, Any],
  folder: pathlib.Path,
) -> tuple[str, int]:
  """Writes `model.safetensors` and `config.json`, and reads the former back.

  Args:
    config: a run's resolved config.
    classes: names by label.
    variables: the network's parameters and, where it has them, running statistics.
    folder: that is empty of them.

  Returns:
    The library that loads it, and how many arrays there are.

  Raises:
    UserError: if neither library has the network.
    OSError: if the folder can't be written.
  """
  section = config["model"]
  name = section["name"]
  model = models.create(section, len(classes), axis_name=None)
  try:
    layout = torch_names.layouts(model)[-1]
  except UserError as error:
    raise UserError(f"--format={NAME}: {error}; take another format") from None
  if section["stem"] not in (None, "imagenet"):
    raise UserError(
      f"--format={NAME}: timm's {name} has no stem {section['stem']!r}; take another format"
    )
  theirs = torch_names.timm_names(name)
  library = NAME if theirs else layout.library
  tensors = torch_names.tensors(variables, layout)
  leaves = {
    named.names(keys): np.asarray(leaf, np.float32)
    for keys, leaf in jax.tree_util.tree_flatten_with_path(dict(variables))[0]
  }
  arrays = {tensors[path].name: tensors[path].there(leaf) for path, leaf in leaves.items()}
  for norm in [n.removesuffix("running_mean") for n in arrays if n.endswith("running_mean")]:
    arrays[norm + torch_names.COUNTER] = np.zeros((), np.int64)
  path = folder / timm_config.WEIGHTS
  safetensors_file.write(path, arrays)
  read, _ = safetensors_file.read(path, str(path))
  for keys, leaf in leaves.items():
    # Of the bits, so that a NaN is equal to itself.
    if tensors[keys].here(read[tensors[keys].name]).tobytes() != leaf.tobytes():
      raise OSError(f"{tensors[keys].name} is read back otherwise than it was written")
  timm_config.write(
    folder,
    theirs[0] if theirs else name,
    config,
    classes,
    leaves["params", "head", "kernel"].shape[0],
    layout.module(("head",)),
    _arguments(model, layout, tensors, config["dataset"]["image_size"]),
  )
  return library, len(arrays)


def _arguments(
  model: Any, layout: torch_names.Layout, tensors: Mapping[Any, torch_names.Tensor], size: int
) -> dict[str, Any]:
  """Returns how timm's network has to be made, where that is not how it makes it by itself."""
  arguments: dict[str, Any] = {}
  if layout.epsilon is not None and model.batch_norm_epsilon != layout.epsilon:
    arguments["bn_eps"] = model.batch_norm_epsilon
  if any(tensor.positions for tensor in tensors.values()):
    arguments["img_size"] = size
  return arguments


def card(record: Mapping[str, Any]) -> str:
  """Returns the README of such a folder, from what its `export.json` holds."""
  name, inside = record["model"]["name"], record["preprocessing"]["inside"]
  before = record["preprocessing"]["before"]
  load = {
    NAME: 'import timm\n\nmodel = timm.create_model("local-dir:.", pretrained=True).eval()',
    "torchvision": "from safetensors.torch import load_file\nimport torchvision\n\n"
    f"model = torchvision.models.{name}(num_classes={len(record['classes'])}).eval()\n"
    f'model.load_state_dict(load_file("{timm_config.WEIGHTS}"), strict=True)',
  }[record["library"]]
  views = record["preprocessing"]["tta"]
  return f"""\
# {name} for {len(record["classes"])} classes, as weights for {record["library"]}

Weights of the network `{name}` with {record["model"]["parameters"]:,} parameters, step {record["step"]:,} of a
run of imgclf {record["versions"]["imgclf"]}, in float32 by {record["library"]}'s names; `export.json` has the classes and
where they came from. In this folder, with {record["library"]} and PyTorch installed:

```python
{load}
```

It takes [batch, 3, {before["center_crop"]}, {before["center_crop"]}] and returns logits. Images are 8-bit RGB, upright; the
short side is resized to {before["resize_short_side"]} pixels ({before["interpolation"]}, antialiased) and the centre cut out;
then (pixels / 255 - {inside["mean"]}) / {inside["std"]}, channel by channel. `config.json` says the same to timm.

The run's own probabilities are {"sigmoid" if record.get(SEVERAL) else "softmax"}(logits / {record["temperature"]:.6g}){_of_views(views)}.

Data: {"`" + printable(record["data"]["name"]).replace("`", "'") + "`"}. Licence: not stated; whoever publishes this says here on what terms.
"""


def _of_views(views: str) -> str:
  return "" if views == "none" else f", the logits being means over views of an image ({views})"
