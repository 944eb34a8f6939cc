"""A run judged for a report: every example of a split once, with a temperature fitted on
validation.

Knows no picture and nothing of what the report makes of the answers.
"""

import dataclasses
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from imgclf import calibration, metrics, parallel, steps
from imgclf import config as configs
from imgclf.data import datasets, splits
from imgclf.errors import UserError
from imgclf.judge import judge, refuse_changed, split_batches, split_expression
from imgclf.run import Run


class Temperature(NamedTuple):
  """What logits are divided by, and how it was found.

  Attributes:
    value: above 0.
    fitted_on: the split; None where there was nothing to fit on.
    n: examples that it was fitted on.
    figures: `loss` and `ece` on them, before and after, for the run folder.
    note: a line for the reader; None where all went as it should.
  """

  value: float
  fitted_on: str | None
  n: int
  figures: dict[str, float]
  note: str | None


@dataclasses.dataclass(frozen=True)
class Judged:
  """The answers to every example of a split.

  Attributes:
    before, after: with temperature 1 and with the fitted one, in the order of the split; without
      logits.
    places: [read] integer, positions in the split of the images that could be read.
    probabilities: [read, classes] float32 of those, with the fitted temperature.
  """

  before: metrics.Predictions
  after: metrics.Predictions
  places: np.ndarray
  probabilities: np.ndarray


class Judge:
  """A run with its data set, ready to judge splits of it.

  Attributes:
    run: the run, without a temperature.
    config: its config, as this evaluation takes it.
    source: the data set.
    roles: the split expressions of train, validation and test.
  """

  def __init__(
    self,
    run: Run,
    *,
    data_dir: str | os.PathLike | None = None,
    bad_images: str | None = None,
    source: datasets.Dataset | None = None,
  ):
    """Opens the data set of a run, unless it is given, and refuses one that has changed.

    Raises:
      UserError: for a set that is not there or was another one in training.
    """
    config = configs.copy(run.config)
    config["eval"]["batch_size"] = parallel.shareable(configs.eval_batch_size(config))
    if data_dir is not None:
      config["dataset"]["data_dir"] = os.fspath(data_dir)
    if bad_images is not None:
      config["eval"]["bad_images"] = bad_images
    self.run, self.config = run, configs.resolve(config)
    self.source = source or datasets.open(self.config["dataset"])
    name = self.config["dataset"]["name"]
    self._label_map = datasets.match_classes(run.classes, self.source.classes, name)
    refuse_changed(self.source, run.folder.read_splits())
    self.roles = datasets.roles(self.config["dataset"], self.source)
    self._eval_step = parallel.pmap(steps.make_eval_step(run.model, self.config))
    self._variables = parallel.replicate(run.variables)

  def expression(self, split: str) -> str:
    """Returns the split expression that `--split` means; raises UserError for one that is none."""
    return split_expression(self.config, self.source, split)

  def shared(self, expression: str, role: str) -> int:
    """Returns how many examples of a split expression the run had in a role."""
    other = self.roles[role]
    spans = self.source.spans
    return splits.shared(spans(expression), spans(other)) if other else 0

  def answers(self, expression: str) -> metrics.Predictions:
    """Judges every example that a split expression selects, with temperature 1.

    Returns:
      The predictions, with logits, in the order of the split.

    Raises:
      UserError: for an image that can't be read, unless the config counts it as wrong, and for
        logits that are not finite.
    """
    records = self.source.records(expression)
    batches = split_batches(records, self.config)
    found = metrics.in_order(
      judge(
        *(self._eval_step, self._variables, batches, len(records), self._label_map),
        keep_logits=True,
      )
    )
    assert found.logits is not None
    bad = int((~np.isfinite(found.logits).all(axis=1) & (found.predicted != -1)).sum())
    if bad:
      raise UserError(
        f"--workdir={self.run.folder.path}: step {self.run.step} answers {bad} of {len(records)} images with numbers "
        "that are not finite, so there is nothing to report; take an earlier --step"
      )
    return found

  def temperature(self) -> Temperature:
    """Fits the temperature on the validation split; see `imgclf.calibration.fit_temperature`."""
    expression = self.roles["validation"]
    if expression is None:
      note = f"{self.source.name} has no validation split to fit a temperature on; it is 1."
      return Temperature(1.0, None, 0, {}, note)
    found = self.answers(expression)
    read = np.flatnonzero(found.predicted != -1)
    if not len(read):
      note = (
        "No image of the validation split could be read, so no temperature was fitted; it is 1."
      )
      return Temperature(1.0, None, 0, {}, note)
    assert found.logits is not None
    fit = calibration.fit_temperature(found.logits[read], found.label[read])
    judged = calibrated(found, fit.temperature)
    figures: dict[str, float] = {}
    for name, rows in (("before", judged.before), ("after", judged.after)):
      figures[f"loss_{name}"], figures[f"ece_{name}"] = loss_and_ece(rows)
    told = None
    if fit.note is not None:
      told = f"Temperature, fitted on {expression} ({len(read):,} images): {fit.note}."
    return Temperature(fit.temperature, expression, len(read), figures, told)


def calibrated(found: metrics.Predictions, temperature: float) -> Judged:
  """Takes the answers of temperature 1 to those of another; the logits become probabilities in
  place.

  Args:
    found: with logits, in the order of the split.
    temperature: above 0.
  """
  logits = found.logits
  assert logits is not None
  places = np.flatnonzero(found.predicted != -1)
  if len(places) < len(logits):
    logits = logits[places]
  elif not logits.flags.writeable:
    logits = logits.copy()
  before = dataclasses.replace(found, logits=None)
  loss, confidence = before.loss.copy(), before.confidence.copy()
  if temperature != 1:
    loss[places] = calibration.losses(logits, found.label[places], temperature)
  calibration.to_probabilities(logits, temperature)
  if temperature != 1:
    confidence[places] = logits.max(axis=1, initial=0)
  after = dataclasses.replace(before, loss=loss, confidence=confidence)
  return Judged(before, after, places, logits)


def loss_and_ece(rows: metrics.Predictions) -> tuple[float, float]:
  """Returns the mean loss in nats and the calibration error of the images that could be read, of
  one at least.
  """
  read = rows.predicted != -1
  correct = rows.predicted[read] == rows.label[read]
  ece = metrics.expected_calibration_error(rows.confidence[read], correct)
  return float(np.mean(rows.loss[read], dtype=np.float64)), ece


def store(run: Run, temperature: Temperature) -> pathlib.Path | None:
  """Writes a temperature that was fitted into the run folder, where evaluation and prediction take
  it from.

  Returns:
    The file; None where nothing was fitted.

  Raises:
    UserError: if it can't be written.
  """
  if temperature.fitted_on is None:
    return None
  figures: dict[str, Any] = {"fitted_on": temperature.fitted_on, "n": temperature.n}
  return run.folder.write_calibration(
    run.step, run.checkpoint, temperature.value, figures | temperature.figures
  )
