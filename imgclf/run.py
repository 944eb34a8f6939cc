"""A trained run, restored for use: what evaluation and prediction start from.

Reads the run folder alone: no config file is executed, no optimizer state is read.
"""

import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any, overload

from imgclf import config as configs
from imgclf import models, parallel, prediction
from imgclf.checkpoint import Checkpoints
from imgclf.classifier import Classifier
from imgclf.data import inputs
from imgclf.errors import UserError
from imgclf.identity import identity, refuse_other_run
from imgclf.prediction import Prediction
from imgclf.run_folder import RunFolder

if TYPE_CHECKING:
  from PIL import Image


@dataclasses.dataclass(frozen=True)
class Run:
  """A restored classifier.

  Attributes:
    folder: the run folder.
    config: the run's resolved config.
    classes: names of the classes, by label.
    step: the step whose weights these are.
    model: the `flax.linen` module.
    variables: host arrays to apply the model with; the averages where the run keeps them (EMA).
    checkpoint: SHA-256 in hexadecimal that stands for the checkpoint's files.
    temperature: what logits are divided by before they become probabilities; 1 where none was
      fitted.
  """

  folder: RunFolder
  config: configs.ConfigDict
  classes: list[str]
  step: int
  model: Any
  variables: dict[str, Any]
  checkpoint: str
  temperature: float

  @functools.cached_property
  def classifier(self) -> Classifier:
    """The model on the devices, from the first use on; it keeps what it has compiled."""
    # In the instance's own __dict__, which a frozen dataclass leaves open; `dataclasses.replace`
    # makes another.
    return Classifier(self.model, self.variables, self.config, self.temperature)

  @overload
  def predict(
    self,
    images: "str | os.PathLike[str] | Image.Image",
    *,
    top_k: int = 5,
    threshold: float | None = None,
    features: bool = False,
    batch_size: int | None = None,
  ) -> Prediction: ...

  @overload
  def predict(
    self,
    images: list[Any] | tuple[Any, ...],
    *,
    top_k: int = 5,
    threshold: float | None = None,
    features: bool = False,
    batch_size: int | None = None,
  ) -> list[Prediction]: ...

  @overload  # an array's type does not tell whether it is one image or a batch
  def predict(
    self,
    images: Any,
    *,
    top_k: int = 5,
    threshold: float | None = None,
    features: bool = False,
    batch_size: int | None = None,
  ) -> Any: ...

  def predict(
    self,
    images: Any,
    *,
    top_k: int = 5,
    threshold: float | None = None,
    features: bool = False,
    batch_size: int | None = None,
  ) -> Prediction | list[Prediction]:
    """Says what is in an image or in several; prepares each as evaluation does.

        run = imgclf.load("runs/digits")
        run.predict("photo.jpg").label
        [prediction.label for prediction in run.predict(batch)]

    Programs are compiled at the first call of a size and kept; the number of images is padded to 1,
    4, 16, ..., at most evaluation's batch. With evaluation's batch the answers are evaluation's to
    the digit; in a smaller one sums may be added in another order, which moves a probability by
    some 1e-7.

    Args:
      images: a path, [height, width, 3] or [height, width] uint8 (grey), or a Pillow image; a list
        of any of these; or [batch, height, width, 3] uint8. Of any size. Of Pillow images mode,
        transparency and EXIF orientation are treated as those of files.
      top_k: classes told for each image.
      threshold: an image whose best probability is below it has the label None. Where images have
        several classes, a class that reaches it is among the image's `labels`; left out, it is 1/2
        there.
      features: hand out what the head is given.
      batch_size: images that the devices work on at once.

    Returns:
      A prediction, or a list of one for each image of a list or batch. In it, what can't be read
      has an `error` and no label.

    Raises:
      UserError: for an array of another type or shape, a number that makes no sense, or a single
        image that can't be read.
    """
    prediction.check(top_k, threshold)
    if batch_size is not None and batch_size < 1:
      raise UserError(f"batch_size={batch_size}: must be at least 1")
    given, single = inputs.of_python(images, self.config["dataset"])
    teller = prediction.teller(self.config, self.classes, top_k, threshold)
    answers = self.classifier.answers(
      given, features=features, batch_size=batch_size or self.classifier.few(len(given))
    )
    told = [each for batch in answers for each in teller.tell(batch, given)]
    if not single:
      return told
    if told[0].error is not None:
      raise UserError(told[0].error)
    return told[0]


def load(workdir: str | os.PathLike, step: str | int = "best", *, calibrated: bool = True) -> Run:
  """Restores a run for evaluation or prediction.

  Args:
    workdir: the run folder.
    step: `best` (by the validation figure that the config names), `latest`, or a step's number.
    calibrated: take the temperature that was fitted to the checkpoint, if one was; else it is 1.

  Raises:
    UserError: if the folder is no run, has no such checkpoint that is sound, or holds one of
      another run or shape, or a temperature of another checkpoint.
  """
  folder = RunFolder(workdir)
  config, classes = folder.read_config(), folder.read_classes()
  models.check(config["model"], config["dataset"]["image_size"])
  parallel.check_dtype(config["model"]["dtype"])
  model = models.create(config["model"], len(classes), axis_name=None)
  with Checkpoints(folder.checkpoints, read_only=True, **retention(config)) as checkpoints:
    number = checkpoints.choose(str(step))
    refuse_other_run(checkpoints.run(number), identity(config, classes), folder.path)
    shapes = models.shapes(model, config["dataset"]["image_size"])
    if config["optimizer"]["ema_decay"] is not None:
      variables = checkpoints.restore(number, {"ema": shapes}, partial=True)["ema"]
    else:
      variables = checkpoints.restore(number, shapes, partial=True)
    digest = checkpoints.digest(number)
  temperature = folder.read_temperature(number, digest) if calibrated else 1.0
  return Run(folder, config, classes, number, model, variables, digest, temperature)


def retention(config: configs.ConfigDict) -> dict[str, Any]:
  """Returns the part of the config that says which checkpoints stay, as `Checkpoints` takes it."""
  section = config["checkpoint"]
  return {
    "keep_latest": section["keep_latest"],
    "keep_best": section["keep_best"],
    "best_metric": section["best_metric"],
  }
