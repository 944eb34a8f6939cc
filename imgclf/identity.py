"""What tells a run from others: its config and its classes, carried by each of its checkpoints."""

from collections.abc import Mapping, Sequence
import itertools
import json
import pathlib
from typing import Any

from imgclf import config as configs
from imgclf.errors import UserError


def identity(config: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
  """Returns what tells a run from others, as JSON values; every checkpoint of it carries this."""
  return {"config": json.loads(configs.to_json(config)), "classes": list(classes)}


def refuse_other_run(
  saved: Mapping[str, Any], now: Mapping[str, Any], workdir: pathlib.Path
) -> None:
  """Refuses a checkpoint that the config.json and classes.json beside it are not those of.

  Args:
    saved: the `identity` that the checkpoint carries.
    now: the `identity` by the files of the run folder.
    workdir: the run folder.

  Raises:
    UserError: naming what differs.
  """
  where = f"--workdir={workdir}"
  old = configs.from_json(json.dumps(saved["config"]), where)
  matter, _ = configs.differences(old, configs.from_json(json.dumps(now["config"]), where))
  # Where the images lie, the weights that it began with and its teacher, may change.
  free = ("config.dataset.name:", "config.model.weights:", "config.distill.teacher:")
  matter = [line for line in matter if not line.startswith(free)]
  if saved["classes"] != now["classes"]:
    pairs = itertools.zip_longest(saved["classes"], now["classes"])
    label, (before, after) = next((i, pair) for i, pair in enumerate(pairs) if pair[0] != pair[1])
    matter.append(f"class {label}: {before!r} -> {after!r}")
  if matter:
    raise UserError(
      f"{where}: its config.json and classes.json are not those that the checkpoint was saved with "
      f"({'; '.join(matter)}); restore them, or take another --workdir"
    )
