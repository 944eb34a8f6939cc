"""What is told of an image: the most probable classes by name, all that it has, none, or why there
is no answer.

Knows no model and no file.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from imgclf import multilabel
from imgclf.classifier import Answers
from imgclf.data.inputs import Inputs
from imgclf.errors import UserError

NONE_OF_THESE = "none of these"


class Guess(NamedTuple):
  """A class that an image may be of."""

  label: str
  probability: float


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What the model says of one image.

  Attributes:
    name: the file's path; `images[3]` for what is no file, `image` for a single one.
    label: the most probable class; None below the threshold, and for what can't be read.
    probability: of the most probable class, below the threshold too; None for what can't be read.
    top: the most probable classes, best first, whatever the threshold; empty for what can't be
      read.
    error: why it can't be read, in a line; None where it could.
    probabilities: [classes] float32, by label; None for what can't be read.
    features: [features] float32, what the head was given; None where it was not asked for.
    labels: of a run of several classes an image those whose probability reaches the threshold, best
      first.
  """

  name: str
  label: str | None
  probability: float | None
  top: tuple[Guess, ...]
  error: str | None = None
  probabilities: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)
  features: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)
  labels: tuple[Guess, ...] = ()

  @property
  def is_none(self) -> bool:
    """Whether it was read, and no class reaches the threshold."""
    return self.label is None and self.error is None


@dataclasses.dataclass(frozen=True)
class Teller:
  """How much is told of each image.

  Attributes:
    classes: names by label.
    top_k: how many of them are told; at most all.
    threshold: an image whose best probability is below it is of none; None: there is no such image.
    several: whether an image has several classes, all those that reach the threshold.
  """

  classes: Sequence[str]
  top_k: int
  threshold: float | None
  several: bool = False

  def tell(self, answers: Answers, inputs: Inputs) -> list[Prediction]:
    """Returns a prediction for each input of a batch, in order.

    Args:
      answers: of the batch.
      inputs: that they are answers for.
    """
    found = {}
    for place, (index, row) in enumerate(zip(answers.index.tolist(), answers.probabilities)):
      top = tuple(best(row, self.classes, self.top_k))
      # As float32: 0.9 is not below 0.9.
      reached = row >= np.float32(self.threshold or 0)
      none = self.threshold is not None and row.max() < np.float32(self.threshold)
      found[index] = Prediction(
        inputs.names[index],
        None if none else top[0].label,
        top[0].probability,
        top,
        probabilities=row,
        features=None if answers.features is None else answers.features[place],
        labels=tuple(best(row, self.classes, int(reached.sum()))) if self.several else (),
      )
    return [
      found.get(index) or Prediction(inputs.names[index], None, None, (), inputs.errors[index])
      for index in range(answers.start, answers.stop)
    ]


def teller(
  config: Mapping[str, Any], classes: Sequence[str], top_k: int, threshold: float | None
) -> Teller:
  """Returns what tells the answers of a run.

  Args:
    config: the run's.
    classes: names by label.
    top_k: see `Teller`.
    threshold: see `Teller`; None stands for 1/2 where images have several classes.
  """
  several = multilabel.is_on(config)
  if several and threshold is None:
    threshold = multilabel.THRESHOLD
  return Teller(classes, top_k, threshold, several)


def best(row: np.ndarray, classes: Sequence[str], top_k: int) -> list[Guess]:
  """Returns the most probable classes of one image, best first; of equals the lower label comes
  first.

  Args:
    row: [classes] float32, probabilities.
    classes: names by label.
    top_k: how many; at most all.
  """
  order = np.argsort(-row, kind="stable")[:top_k]
  # The shortest decimal that reads back as the same float32.
  return [Guess(classes[label], float(str(row[label]))) for label in order]


def check(top_k: int, threshold: float | None, flag: str = "") -> None:
  """Refuses numbers that make no sense.

  Args:
    top_k: classes told for each image.
    threshold: see `Teller`.
    flag: what stands before their names in the error, such as `--`.

  Raises:
    UserError: naming the one that is wrong.
  """
  if top_k < 1:
    raise UserError(f"{flag}top_k={top_k}: must be at least 1")
  if threshold is not None and not 0 <= threshold <= 1:
    raise UserError(f"{flag}threshold={threshold}: is a probability; give 0 to 1")
