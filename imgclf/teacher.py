"""Another run whose answers a run learns: which checkpoint of it, whether it can teach, its network
as a function.

It is shown each image as the student sees it, after augmentation and mixing, as Beyer et al. 2022,
https://arxiv.org/abs/2106.05237, found best, and answers as in evaluation: without dropout, by its
running statistics.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import config as configs
from imgclf import models, parallel, run
from imgclf.errors import UserError
from imgclf.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A run that teaches.

  Attributes:
    model: its `flax.linen` module, which computes in the student's type.
    variables: host arrays to apply it with; its averages where it has them.
    scale, shift: [3] float32 each, which make of a student's normalised image what the teacher
      takes.
    record: what the student's run folder has to hold of it: `source`, `step` and `sha256`.
    notes: lines for a person.
  """

  model: Any
  variables: Mapping[str, Any]
  scale: np.ndarray
  shift: np.ndarray
  record: Mapping[str, Any]
  notes: Sequence[str]

  def logits(self, variables: Any, images: jax.Array) -> jax.Array:
    """Returns what it answers.

    Args:
      variables: its own, on the device.
      images: [batch, size, size, 3] floats, normalised for the student.

    Returns:
      [batch, classes] floats.
    """
    pixels = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    pixels = pixels * self.scale + self.shift
    return self.model.apply(variables, pixels.astype(images.dtype), train=False)

  def place(self) -> dict[str, Any]:
    """Puts its variables on every local device, as a call of the training program takes them."""
    return parallel.place(dict(self.variables))


def prepare(
  config: Mapping[str, Any], classes: Sequence[str], folder: RunFolder | None = None
) -> Teacher | None:
  """Restores the teacher that a config names and holds it against the run; none where it names
  none.

  Args:
    config: a resolved config.
    classes: of the data set, by label.
    folder: of the run, where there is one. A run with checkpoints goes on with the teacher's
      checkpoint that it began with.

  Raises:
    UserError: if there is no such run, or it can't teach this one; and if it is not what it was.
  """
  named = config["distill"]["teacher"]
  if named is None:
    return None
  where = f"config.distill.teacher={named}"
  record, step = None, "best"
  if folder is not None and folder.exists() and folder.holds_checkpoints():
    if folder.read_config()["distill"]["teacher"] is None:
      return None  # that is another run, which `imgclf.plan` refuses by the configs
    record = folder.read_teacher()
    step = str(record["step"])
  try:
    taught = run.load(named.removeprefix("run:"), step, calibrated=False)
  except UserError as error:
    raise UserError(f"{where}: {error}") from None
  if record is not None and record["sha256"] != taught.checkpoint:
    raise UserError(
      f"{where}: step {step} of it is not the checkpoint that has taught this run so far; restore that, or take another "
      "--workdir"
    )
  model, notes = _fitting(taught, config, classes, where)
  (mean, std), (own_mean, own_std) = (
    [np.asarray(each["augment"][name], np.float64) for name in ("mean", "std")]
    for each in (config, taught.config)
  )
  return Teacher(
    model=model,
    variables=taught.variables,
    scale=(std / own_std).astype(np.float32),
    shift=((mean - own_mean) / own_std).astype(np.float32),
    record={"source": named, "step": taught.step, "sha256": taught.checkpoint},
    notes=[
      f"taught by step {taught.step} of {taught.folder.path}, {taught.config['model']['name']}",
      *notes,
    ],
  )


def _fitting(
  taught: run.Run, config: Mapping[str, Any], classes: Sequence[str], where: str
) -> tuple[Any, list[str]]:
  """Returns the teacher's network in the student's type, and lines on it.

  Raises:
    UserError: if it answers another question, or can't see images of the student's size.
  """
  for section, whose in ((config, "this run's"), (taught.config, "its")):
    if section["train"]["loss"] == "binary":
      raise UserError(
        f"{where}: what is learnt is a softmax, and {whose} config.train.loss is binary; take softmax or focal"
      )
  if taught.classes != list(classes):
    differing = sorted(set(taught.classes) ^ set(classes)) or ["their order"]
    raise UserError(
      f"{where}: has other classes than the data set ({', '.join(differing[:3])}); take a run on the same classes"
    )
  section = configs.ConfigDict(taught.config["model"])
  section["dtype"] = config["model"]["dtype"]
  model = models.create(section, len(classes), axis_name=None)
  size, before = config["dataset"]["image_size"], taught.config["dataset"]["image_size"]
  if size == before:
    return model, []
  try:
    models.check(section, size)
  except UserError as error:
    raise UserError(f"{where}: {error}") from None
  if models.shapes(model, size) != models.shapes(model, before):
    raise UserError(
      f"{where}: its {section['name']} takes images of {before} px alone; set config.dataset.image_size to that, or "
      "take another teacher"
    )
  return model, [f"the teacher was trained at {before} px, and sees images of {size} px"]
