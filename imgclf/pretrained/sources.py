"""What `config.model.weights` names -> names and shapes of arrays, what is known of them, and a way
to read them.

`file:PATH`, a file of PyTorch's arrays by name, with what a `config.json` of timm beside it says;
`timm:NAME`, the same from the Hugging Face hub; `run:DIR`, the best checkpoint of another run.
Knows no network to put them into.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from imgclf import config as configs
from imgclf import models, named, run, safetensors_file, timm_config
from imgclf.errors import UserError
from imgclf.pretrained import hub
from imgclf.run_folder import RunFolder

_PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar")


@dataclasses.dataclass(frozen=True)
class Source:
  """Weights that were found.

  Attributes:
    where: how errors and notes call them: `config.model.weights=...`.
    network: whose they are, by our names or timm's; none where nothing tells.
    classes: of the head by label, where known.
    preparation: fields of the config, by dotted names, that say how images were prepared; none
      where nothing tells.
    image_size: that they were trained at, in pixels, where known.
    epsilon: what batch norm added to the variance, where known.
    arrays: shapes and types by name.
    own: whether the names are those of this project's arrays, with slashes, and not PyTorch's.
    read: returns the arrays by name, and what tells them from others: `sha256`, and `revision` or
      `step`.
  """

  where: str
  network: str | None
  classes: tuple[str, ...] | None
  preparation: Mapping[str, Any] | None
  image_size: int | None
  epsilon: float | None
  arrays: Mapping[str, safetensors_file.Leaf]
  own: bool
  read: Callable[[], tuple[dict[str, np.ndarray], dict[str, Any]]]


def find(weights: str) -> Source:
  """Finds weights and reads all about them but their numbers.

  Args:
    weights: as in a resolved config: `file:PATH`, `run:DIR`, `timm:NAME` or `timm:NAME@REVISION`.

  Raises:
    UserError: if they are not there, or not what can be read as data alone.
  """
  kind, _, rest = weights.partition(":")
  where = f"config.model.weights={weights}"
  if kind == "run":
    return _of_run(rest, where)
  if kind == "timm":
    name, _, revision = rest.partition("@")
    fetched = hub.fetch(name, revision or None, where, (timm_config.WEIGHTS, timm_config.CARD))
    return _of_file(fetched.folder, where, {"revision": fetched.revision})
  return _of_file(pathlib.Path(rest), where, {})


def _of_file(path: pathlib.Path, where: str, record: dict[str, Any]) -> Source:
  if path.is_dir():
    path = path / timm_config.WEIGHTS
  if path.suffix in _PICKLES:
    raise UserError(
      f"{where}: a {path.suffix} file is a pickle, which could run anything, and is never opened; "
      f"{safetensors_file.CONVERT}"
    )
  arrays = safetensors_file.header(path, where)
  card = path.with_name(timm_config.CARD)
  known = timm_config.read(card) if card.is_file() else timm_config.Known()

  def read() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    values, digest = safetensors_file.read(path, where)
    return values, {"sha256": digest, **record}

  return Source(
    where=where,
    network=known.network,
    classes=known.classes,
    preparation=known.fields,
    image_size=known.image_size,
    epsilon=known.epsilon,
    arrays=arrays,
    own=False,
    read=read,
  )


def _of_run(folder: str, where: str) -> Source:
  try:
    config = RunFolder(folder).read_config()
    classes = RunFolder(folder).read_classes()
    models.check(config["model"], config["dataset"]["image_size"])
  except UserError as error:
    raise UserError(f"{where}: {error}") from None
  model = models.create(config["model"], len(classes), axis_name=None)
  shapes = models.shapes(model, config["dataset"]["image_size"])

  def read() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
      restored = run.load(folder, calibrated=False)
    except UserError as error:
      raise UserError(f"{where}: {error}") from None
    values = {name: np.asarray(leaf) for name, leaf in _by_name(restored.variables).items()}
    return values, {"sha256": restored.checkpoint, "step": restored.step}

  kinds = {"float32": "F32", "float64": "F64"}
  return Source(
    where=where,
    network=config["model"]["name"],
    classes=tuple(classes),
    preparation={path: configs.get(config, path) for path in timm_config.FIELDS},
    image_size=config["dataset"]["image_size"],
    epsilon=getattr(model, "batch_norm_epsilon", None),
    arrays={n: (tuple(x.shape), kinds[str(x.dtype)]) for n, x in _by_name(shapes).items()},
    own=True,
    read=read,
  )


def _by_name(variables: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_flatten_with_path(dict(variables))[0]
  return {"/".join(named.names(path)): leaf for path, leaf in leaves}
