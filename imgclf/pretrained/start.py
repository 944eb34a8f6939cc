"""What a run starts from, before and at its first step: the order in which weights are found,
matched, read, recorded.

A run with checkpoints has weights of its own: for it the old ones are not even looked for, and what
was taken over from them is in its `weights.json`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from imgclf import config as configs
from imgclf import models
from imgclf.pretrained import matching, preprocessing, sources
from imgclf.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Start:
  """What a run starts from.

  Attributes:
    source: the weights; none: random ones, or those of the run's checkpoint.
    matched: how they fit; none without a source.
    notes: lines for a person.
  """

  source: sources.Source | None = None
  matched: matching.Match | None = None
  notes: Sequence[str] = ()

  def variables(self, begin: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the weights into a network's first `params` and `batch_stats`.

    Returns:
      The variables, host arrays; and what the run folder's `weights.json` has to hold.

    Raises:
      UserError: see `imgclf.pretrained.matching.variables`.
    """
    assert self.source is not None and self.matched is not None
    found, read = matching.variables(self.source, self.matched, begin)
    record = {
      "source": self.source.where.partition("=")[2],
      "network": self.source.network,
      "head": self.matched.head,
      "preparation": self.source.preparation,
      "image_size": self.source.image_size,
      "batch_norm_epsilon": self.matched.epsilon,
      **read,
    }
    return found, record


def prepare(
  config: configs.ConfigDict, classes: Sequence[str], folder: RunFolder | None = None
) -> Start:
  """Finds the weights that a config names, holds them against it, and takes over into it what
  belongs to them.

  Args:
    config: a resolved config; its preprocessing and `model.batch_norm_epsilon` are changed in
      place.
    classes: of the data set, by label.
    folder: of the run, where there is one.

  Raises:
    UserError: for weights that are not there or do not fit.
  """
  weights = config["model"]["weights"]
  if weights is None:
    return Start()
  where = f"config.model.weights={weights}"
  if folder is not None and folder.holds_checkpoints():
    record = folder.read_weights()
    preparation = preprocessing.recorded(record["preparation"], str(folder.weights))
    preprocessing.adopt(config, where, preparation, record["image_size"])
    _adopt_epsilon(config, classes, where, record["batch_norm_epsilon"])
    return Start()
  source = sources.find(weights)
  notes = preprocessing.adopt(config, where, source.preparation, source.image_size)
  matched = matching.match(source, config, classes)
  of_norm = _adopt_epsilon(config, classes, where, matched.epsilon)
  return Start(source, matched, (*matched.notes, *notes, *of_norm))


def _adopt_epsilon(
  config: configs.ConfigDict, classes: Sequence[str], where: str, epsilon: float | None
) -> list[str]:
  model = models.create(config["model"], len(classes), axis_name=None)
  return preprocessing.adopt_epsilon(config, where, epsilon, model)


def only_moved(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
  """Whether two configs of a run name weights of one kind that may be the same, which lie at two
  places.
  """
  before, after = old["model"]["weights"], new["model"]["weights"]
  if before is None or after is None:
    return False
  kind = before.partition(":")[0]
  return kind == after.partition(":")[0] and kind != "timm"
