"""A restored model -> its answers for images: probabilities and features.

Knows no class name, run folder or output.

The compiled function is evaluation's own, so the answers are too. A program is compiled for a size
of batch when that is first needed and kept as long as the classifier: `imgclf.run.Run` has one.
"""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

import numpy as np

from imgclf import config as configs
from imgclf import multilabel, parallel, steps
from imgclf.data import label_sets, loader
from imgclf.data.inputs import Inputs
from imgclf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Answers:
  """What the model says of one batch.

  Attributes:
    start: the first of the inputs that are in it.
    stop: the one after the last; why some between have no answer, the inputs' `errors` tell by now.
    index: [n] int64, the inputs that have one, rising.
    images: [n, size, size, 3] uint8, as the model saw them.
    probabilities: [n, classes] float32.
    features: [n, features] float32, what the head was given; None where it was not asked for.
  """

  start: int
  stop: int
  index: np.ndarray
  images: np.ndarray
  probabilities: np.ndarray
  features: np.ndarray | None


class Classifier:
  """A model on the devices.

  Attributes:
    feature_size: how many features the head is given.
  """

  def __init__(
    self, model: Any, variables: Any, config: Mapping[str, Any], temperature: float = 1.0
  ):
    """Puts the variables on every local device; compiles nothing yet.

    Args:
      model: the `flax.linen` module.
      variables: host arrays to apply it with.
      config: the run's config.
      temperature: what logits are divided by.

    Raises:
      UserError: in a job of several processes, which would share out a batch.
    """
    if parallel.process_count() > 1:
      raise UserError("prediction runs in one process; start it without a cluster's environment")
    self._config = config
    self._variables = parallel.replicate(variables)
    head = variables["params"]["head"]["kernel"]
    self.feature_size: int = head.shape[0]
    self._label_shape = (head.shape[1],) if multilabel.is_on(config) else ()
    self._steps = {
      features: parallel.pmap(steps.make_eval_step(model, config, temperature, features=features))
      for features in (False, True)
    }

  def answers(
    self, inputs: Inputs, *, features: bool = False, batch_size: int | None = None
  ) -> Iterator[Answers]:
    """Yields what the model says, batch by batch in order; decoding runs ahead of the devices, and
    they of the caller.

    Args:
      inputs: what to answer for.
      features: hand out what the head is given. That is a program of its own: probabilities may
        differ in the last digit.
      batch_size: images that the devices work on at once, rounded up to what they can share
        equally; left out: evaluation's, with which answers are evaluation's to the digit.
    """
    size = parallel.shareable(batch_size or configs.eval_batch_size(self._config))
    batches = loader.eval_batches(inputs, self._config, size, on_error=inputs.refuse)
    step = self._steps[features]

    def start(batch: loader.Batch) -> dict[str, Any]:
      label = label_sets.blank(len(batch["image"]), self._label_shape)
      return step(self._variables, parallel.shard({"image": batch["image"], "label": label}))

    # A single batch is made by the thread that asks, without starting others.
    few = len(batches) <= 1
    ready = (
      map(batches.__getitem__, range(len(batches)))
      if few
      else loader.prefetch(batches, self._config)
    )
    for batch, result in parallel.run_ahead(start, ready):
      # A whole batch is not copied for it.
      seen = slice(None) if batch["mask"].all() else batch["mask"]
      yield Answers(
        int(batch["index"][0]),
        int(batch["index"].max()) + 1,
        batch["index"][seen],
        batch["image"][seen],
        parallel.unshard(result["probabilities"])[seen],
        parallel.unshard(result["features"])[seen] if features else None,
      )

  def few(self, count: int) -> int:
    """Returns a batch size for so few images: of 1, 4, 16, ... the first that holds them,
    evaluation's at most.

    So a single image does not take the time of a whole batch, and calls of all numbers of images
    share a handful of programs.
    """
    size, most = 1, configs.eval_batch_size(self._config)
    while size < min(count, most):
      size *= 4
    return min(size, most)
