"""A run and a split in, a `Report` out: judges, works out, chooses examples and has their pictures
made.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import datetime
import json
import os

import numpy as np

from imgclf import config as configs
from imgclf import records
from imgclf.data import files
from imgclf.data.datasets import Dataset
from imgclf.errors import UserError
from imgclf.judge import split_records
from imgclf.reporting import answers, comparison, curves, facts, pictures
from imgclf.reporting.contents import MOST_IN_MATRIX, Comparison, Example, Figure, Report, Series
from imgclf.reporting.judging import Judge, Judged, Temperature, calibrated, store
from imgclf.reporting.selection import GALLERY, Selection, select
from imgclf.run import Run

# (run, [n, size, size, 3] uint8, [n] int32 labels) -> as many pictures that show why the model says
# so.
Explain = Callable[[Run, np.ndarray, np.ndarray], Sequence[np.ndarray]]


def report(
  run: Run,
  split: str,
  *,
  other: Run | None = None,
  data_dir: str | os.PathLike | None = None,
  bad_images: str | None = None,
  explain: Explain | None = None,
  report_command: str = "",
  tell: Callable[[str, str], None] = lambda what, text: None,
) -> Report:
  """Works a report out, and stores the temperature that it fits in the run folder.

  Args:
    run: loaded without a temperature.
    split: `test`, `validation`, `train`, or a split expression.
    other: a run to compare with, loaded likewise.
    data_dir: where prepared TFDS sets are, if not where they were in training.
    bad_images: `error` or `wrong`; None: as the run's config says.
    explain: makes the pictures of heat maps; None: there are none.
    report_command: what makes the report again.
    tell: takes a word and a text on what is being done.

  Raises:
    UserError: for a split, set or comparison that is none, and for images or answers that nothing
      can be said of.
  """
  judge = Judge(run, data_dir=data_dir, bad_images=bad_images)
  chosen = split_records(judge.config, judge.source, split)
  expression = judge.expression(split)
  other_judge = None
  if other is not None:
    _refuse_unlike(run, other, judge.source)
    other_judge = Judge(other, bad_images=bad_images, source=judge.source)
  temperature, judged = _judged(judge, split, expression, len(chosen), tell)
  stored = store(run, temperature)
  if stored is not None:
    tell("stored", f"in {stored}; eval and predict use it")
  notes = [*_overlaps(judge, expression), *filter(None, [temperature.note])]
  compared: Judged | None = None
  better: list[int] = []
  worse: list[int] = []
  if other_judge is not None:
    tell("comparing", f"with {other_judge.run.folder.path}, step {other_judge.run.step:,}")
    compared = _judged(other_judge, split, expression, len(chosen), tell)[1]
    better, worse = _differing(judged, compared)
    notes.extend(_overlaps(other_judge, expression, f"{other_judge.run.folder.path}: "))
  tell("figures", f"with intervals, of {len(run.classes):,} classes")
  summary = answers.summary(judged.after, run.classes)
  precision_recall, roc, class_rows = answers.curves_and_classes(judged, run.classes)
  selection = select(judged, len(run.classes), better, worse)
  versus = None
  if other_judge is not None and compared is not None:
    versus = _comparison(other_judge, judged, compared, summary, selection)
  lines, wrong_lines = records.read_metrics(run.folder.metrics)
  drawn = curves.curves(lines)
  notes.extend(_missing(drawn, wrong_lines, judged))
  maps = "" if explain is None else ", with heat maps"
  tell("pictures", f"{len(selection.numbers):,}{maps}")
  read = pictures.read(chosen, judge.config, selection.numbers)
  examples = _examples(judge, judged, read, explain)
  return Report(
    title=facts.title(run),
    workdir=str(run.folder.path),
    split=split,
    step=run.step,
    n=len(chosen),
    unreadable=len(chosen) - len(judged.places),
    made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    command=facts.train_command(run),
    report_command=report_command,
    versions=facts.versions(),
    facts=facts.facts(judge, split, expression, len(chosen), len(chosen) - len(judged.places)),
    config=json.loads(configs.to_json(run.config)),
    curves=drawn,
    summary=summary,
    calibration=answers.calibration(judged, temperature),
    precision_recall=precision_recall,
    roc=roc,
    classes=list(run.classes),
    class_rows=class_rows,
    matrix=answers.matrix(judged.after, run.classes)
    if len(run.classes) <= MOST_IN_MATRIX
    else None,
    confusions=selection.confusions,
    mistakes=selection.mistakes,
    uncertain=selection.uncertain,
    label_errors=selection.label_errors,
    examples=examples,
    comparison=versus,
    notes=notes + selection.notes,
  )


def _judged(
  judge: Judge, split: str, expression: str, n: int, tell: Callable[[str, str], None]
) -> tuple[Temperature, Judged]:
  """Fits a run's temperature on its validation split, and judges the split of the report with
  it.
  """
  if judge.roles["validation"] is not None:
    tell("judging", f"validation, {judge.roles['validation']}")
  temperature = judge.temperature()
  if temperature.fitted_on is not None:
    told = temperature.figures
    tell(
      "temperature",
      f"{temperature.value:.4g}; on validation ECE {100 * told['ece_before']:.2f}% -> "
      f"{100 * told['ece_after']:.2f}%, loss {told['loss_before']:.4f} -> {told['loss_after']:.4f}",
    )
  tell("judging", f"{split}, {n:,} images")
  found = calibrated(judge.answers(expression), temperature.value)
  if not len(found.places):
    raise UserError(
      f"--split={split}: none of its {n:,} images can be read; mend the data set or give another split"
    )
  return temperature, found


def _refuse_unlike(run: Run, other: Run, source: Dataset) -> None:
  """Refuses to compare runs of two data sets, or of two lists of classes."""
  where = f"--compare={other.folder.path}"
  name, other_name = run.config["dataset"]["name"], other.config["dataset"]["name"]
  if name != other_name:
    raise UserError(
      f"{where}: was trained on {other_name} and this run on {name}; compare runs of one data set"
    )
  ours, theirs = (dict.fromkeys(map(files.normal, r.classes)) for r in (run, other))
  unlike = [c for c in ours if c not in theirs] + [c for c in theirs if c not in ours]
  if unlike:
    who = "it lacks" if unlike[0] in ours else "this run lacks"
    raise UserError(
      f"{where}: has other classes, {who} {unlike[0]!r}; compare runs with the same classes"
    )
  if other.folder.read_splits() != source.splits:
    raise UserError(
      f"{where}: was trained when {source.name} had {other.folder.read_splits()} examples and now it has "
      f"{source.splits}; compare runs of the same data"
    )


def _overlaps(judge: Judge, expression: str, where: str = "") -> Iterable[str]:
  """Lines on figures that flatter, since the run has seen the examples before."""
  trained, fitted = judge.shared(expression, "train"), judge.shared(expression, "validation")
  if trained:
    yield (
      f"{where}{trained:,} of these images were trained on: the figures flatter the model, and likely label errors "
      "can't be told, since a model that has learned a wrong label does not doubt it."
    )
  if fitted:
    yield (
      f"{where}{fitted:,} of these images are of the validation split, which chose the best checkpoint and the "
      "temperature: the figures flatter the model."
    )


def _missing(drawn: Mapping[str, Series], wrong_lines: int, judged: Judged) -> Iterable[str]:
  """Lines on what the report lacks."""
  if not drawn:
    yield "There are no curves: metrics.jsonl in the run folder is missing or has no figures."
  if wrong_lines:
    yield f"Lines of metrics.jsonl that are no records, and were left out: {wrong_lines:,}."
  unread = len(judged.after.index) - len(judged.places)
  if unread:
    yield (
      f"Images that could not be read: {unread:,}. They count as wrong answers, and are in no diagram of confidence, "
      "curve or gallery."
    )


def _differing(judged: Judged, compared: Judged) -> tuple[list[int], list[int]]:
  """Positions that only this run, and that only the other gets right; the most confident answers of
  this run first.
  """
  this, other = (rows.predicted == rows.label for rows in (judged.after, compared.after))
  order = np.argsort(-judged.after.confidence, kind="stable")
  better, worse = order[(this & ~other)[order]], order[(other & ~this)[order]]
  return better[:GALLERY].tolist(), worse[:GALLERY].tolist()


def _comparison(
  judge: Judge, judged: Judged, compared: Judged, summary: Sequence[Figure], selection: Selection
) -> Comparison:
  """Returns this run against another; `judge` is the other's, each has the temperature of its
  own.
  """
  others = answers.summary(compared.after, judge.run.classes)
  both, only_this, only_other, neither = comparison.counts(
    *(rows.predicted == rows.label for rows in (judged.after, compared.after))
  )
  return Comparison(
    other=str(judge.run.folder.path),
    other_step=judge.run.step,
    figures=list(zip(summary, others, strict=True)),
    both_right=both,
    only_this=only_this,
    only_other=only_other,
    both_wrong=neither,
    p_value=comparison.mcnemar(only_this, only_other),
    better=selection.better,
    worse=selection.worse,
  )


def _examples(
  judge: Judge,
  judged: Judged,
  read: Mapping[int, pictures.Picture],
  explain: Explain | None,
) -> dict[int, Example]:
  """Returns the examples that are shown, with their pictures and the heat maps of what was
  predicted.
  """
  classes, rows = judge.run.classes, judged.after
  place_of = {number: place for place, number in enumerate(judged.places.tolist())}
  pixels = {
    number: picture.pixels for number, picture in read.items() if picture.pixels is not None
  }
  maps: dict[int, str] = {}
  if explain is not None and pixels:
    predicted = rows.predicted[list(pixels)]
    overlays = explain(judge.run, np.stack(list(pixels.values())), predicted)
    maps = {n: pictures.data_uri(overlay) for n, overlay in zip(pixels, overlays, strict=True)}
  found = {}
  for number, picture in read.items():
    own = judged.probabilities[place_of[number]]
    found[number] = Example(
      number=number,
      name=picture.name,
      truth=classes[rows.label[number]],
      predicted=classes[rows.predicted[number]],
      confidence=float(own.max()),
      truth_probability=float(own[rows.label[number]]),
      picture=pictures.data_uri(pixels[number]) if number in pixels else None,
      heatmap=maps.get(number),
    )
  return found
