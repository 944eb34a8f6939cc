"""Files -> labels, with the run's own preprocessing and class names."""

from collections.abc import Sequence
import contextlib
import os
import time

from imgclf import multilabel, prediction, prediction_files, progress, tables
from imgclf.data import image_paths, inputs
from imgclf.errors import UserError
from imgclf.explain.folder import Pictures
from imgclf.prediction import Prediction
from imgclf.run import load


def run(
  workdir: str | os.PathLike,
  *,
  images: Sequence[str],
  output: str | os.PathLike | None = None,
  step: str | int = "best",
  top_k: int = 5,
  threshold: float | None = None,
  features: bool = False,
  explain: str | None = None,
  explain_dir: str | os.PathLike | None = None,
  quiet: bool = False,
) -> int:
  """Predicts image files with a run's best checkpoint.

  Args:
    workdir: the run folder.
    images: files, folders, patterns, lists of files; see `imgclf.data.image_paths.find`.
    output: a file that ends in .csv, .jsonl or .parquet, see `imgclf.prediction_files.writer`;
      none: the answers are printed.
    step: `best`, `latest` or a step's number.
    top_k: classes told for each image; where it may have several, all are told in files, and on the
      screen those that reach the threshold.
    threshold: an image whose best probability is below it is none of these; where it may have
      several classes, it has those that reach it, left out 1/2.
    features: write what the head is given, too; not to CSV.
    explain: one of `imgclf.explain.METHODS`: show what speaks for each image's most probable class.
    explain_dir: a folder for these pictures; see `imgclf.explain.folder`.
    quiet: print nothing.

  Returns:
    How many files were predicted.

  Raises:
    UserError: for a wrong argument, or if no file at all could be read.
  """
  prediction.check(top_k, threshold, flag="--")
  path = None
  if output is not None:
    path = prediction_files.checked_output(output, features=features)
  elif features:
    raise UserError("--features: needs a file; add --output=features.parquet or .jsonl")
  listed = image_paths.find(images)
  explaining = explain is not None or explain_dir is not None
  pictures = Pictures(explain, explain_dir) if explaining else None
  restored = load(workdir, step)
  files = inputs.of_files(listed, restored.config["dataset"])
  sets = None
  if multilabel.is_on(restored.config):
    separator = restored.config["dataset"]["label_separator"]
    sets = prediction_files.LabelSets(restored.classes, separator)
  told_classes = top_k if sets is None or path is None else len(restored.classes)
  teller = prediction.teller(restored.config, restored.classes, told_classes, threshold)
  console = tables.make_console(quiet=quiet)
  predicted, began = 0, time.perf_counter()
  with contextlib.ExitStack() as open_files:
    if path is None:
      none = [] if teller.threshold is None else [prediction.NONE_OF_THESE]
      labels = [*restored.classes, *none]
      write = _printer(tables.PredictionTable(files.names, labels, console=console))
    else:
      size = restored.classifier.feature_size if features else None
      write = open_files.enter_context(
        prediction_files.writer(path, threshold=threshold is not None, features=size, sets=sets)
      )
    advance = open_files.enter_context(progress.counting(len(files), console=console))
    for answers in restored.classifier.answers(files, features=features):
      told = teller.tell(answers, files)
      write(told)
      # What else is made of a batch belongs here: `answers.images` are the pixels that the model
      # saw.
      if pictures is not None:
        pictures.write(restored, answers.images, answers.probabilities, answers.index, files.names)
      predicted += len(answers.index)
      advance(len(told))
  seconds = time.perf_counter() - began
  failed = f"; {len(files.errors)} could not be read" if files.errors else ""
  written = "" if path is None else f"; written to {path}"
  tables.print_line(
    f"{predicted:,} of {len(files):,} images predicted in {seconds:.1f} s, "
    f"{len(files) / seconds:,.0f} images/s{failed}{written}",
    console=console,
  )
  if pictures is not None:
    tables.print_line(pictures.summary(), console=console)
  if not predicted:
    where = "" if path is None else f"; {path} says why"
    raise UserError(f"--images: none of {len(files)} files could be read{where}")
  return predicted


def _printer(table: tables.PredictionTable) -> prediction_files.Write:
  def write(predictions: Sequence[Prediction]) -> None:
    for told in predictions:
      if told.error is not None:
        table.add_error(told.name, told.error)
      elif told.is_none:
        table.add(told.name, prediction.NONE_OF_THESE, None, told.top)
      else:
        first, *others = told.labels or told.top
        table.add(told.name, first.label, first.probability, others)
    table.print()

  return write
