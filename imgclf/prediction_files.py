"""Predictions -> a CSV, JSON Lines or Parquet file, by the name's ending. Knows no model.

The only place that knows pyarrow, which is imported when a Parquet file is written.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import csv
import dataclasses
import json
import os
import pathlib
from typing import Any

from imgclf.errors import UserError
from imgclf.output import checked, whole_binary_file, whole_file
from imgclf.prediction import NONE_OF_THESE, Prediction

COLUMNS = ("path", "rank", "label", "probability", "error")
# Images of a Parquet file's row group: with 2048 features each it is 8 MB, and all that is held at
# once.
ROW_GROUP = 1024


@dataclasses.dataclass(frozen=True)
class LabelSets:
  """Images of several classes.

  Attributes:
    classes: names by label.
    separator: stands between two names in a cell.
  """

  classes: Sequence[str]
  separator: str


Write = Callable[[Sequence[Prediction]], None]


def checked_output(output: str | os.PathLike, *, features: bool) -> pathlib.Path:
  """Returns the path of a file that can be written.

  Raises:
    UserError: for another ending, a place that can't be written, or features in a CSV file.
  """
  path = checked(output, list(_WRITERS))
  if features and path.suffix == ".csv":
    raise UserError(
      f"--features: a CSV file has no column for them; let --output={path} end in .jsonl or .parquet"
    )
  return path


@contextlib.contextmanager
def writer(
  output: pathlib.Path, *, threshold: bool, features: int | None, sets: LabelSets | None = None
) -> Iterator[Write]:
  """Opens a file that takes its name once it is whole; yields the function that adds predictions.

  CSV has the columns path, rank, label, probability and error: a row for each class that is told,
  from rank 1 on; before them, for an image below the threshold, one of rank 0, which no class has,
  with the label `none of these` and no probability; for what can't be read a single one with path
  and error. JSON Lines and Parquet have for each image `path`, `predictions` (a list of `rank`,
  `label`, `probability`), `error`, with a threshold `none_of_these` (true or false), and with
  features `features`.

  Of several classes an image CSV has a row an image: path, label (the names of those that reach the
  threshold, joined by the separator, so that the file may be a table to train on), error, and
  `p(NAME)`, the probability of each class. JSON Lines and Parquet have `labels`, a list of those
  names, in place of `none_of_these`.

  Args:
    output: as `checked_output` returns it.
    threshold: whether there is one.
    features: how many each prediction has; None: they have none.
    sets: of several classes an image; None: it has one.

  Raises:
    UserError: if it can't be written.
  """
  if sets is not None and output.suffix == ".csv":
    with _csv_of_sets(output, sets) as write:
      yield write
    return
  more = "labels" if sets is not None else "none_of_these" if threshold else ""
  with _WRITERS[output.suffix](output, more, features) as write:
    yield write


# What a spreadsheet takes for the start of a formula, which can send the other cells away.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _cell(text: str) -> str:
  return f"'{text}" if text.startswith(_FORMULA) else text


@contextlib.contextmanager
def _csv(output: pathlib.Path, more: str, features: int | None) -> Iterator[Write]:
  with whole_file(output) as file:
    rows = csv.writer(file)
    rows.writerow(COLUMNS)

    def write(predictions: Sequence[Prediction]) -> None:
      for prediction in predictions:
        path = _cell(prediction.name)
        if prediction.error is not None:
          rows.writerow((path, "", "", "", _cell(prediction.error)))
        if prediction.is_none:
          rows.writerow((path, 0, NONE_OF_THESE, "", ""))
        for rank, (label, probability) in enumerate(prediction.top, 1):
          rows.writerow((path, rank, _cell(label), probability, ""))

    yield write


@contextlib.contextmanager
def _csv_of_sets(output: pathlib.Path, sets: LabelSets) -> Iterator[Write]:
  with whole_file(output) as file:
    rows = csv.writer(file)
    rows.writerow(("path", "label", "error", *(f"p({name})" for name in sets.classes)))

    def write(predictions: Sequence[Prediction]) -> None:
      for prediction in predictions:
        path, row = _cell(prediction.name), prediction.probabilities
        if row is None:
          rows.writerow((path, "", _cell(prediction.error or ""), *[""] * len(sets.classes)))
          continue
        label = sets.separator.join(guess.label for guess in prediction.labels)
        # The shortest decimals that read back as the same float32.
        rows.writerow((path, _cell(label), "", *(float(str(value)) for value in row)))

    yield write


def _fields(prediction: Prediction, more: str) -> dict[str, Any]:
  """What JSON Lines and Parquet have of an image, but for its features."""
  told = [
    {"rank": rank, "label": label, "probability": probability}
    for rank, (label, probability) in enumerate(prediction.top, 1)
  ]
  fields = {"path": prediction.name, "predictions": told, "error": prediction.error}
  if more == "labels":
    return fields | {"labels": [guess.label for guess in prediction.labels]}
  return fields | ({"none_of_these": prediction.is_none} if more else {})


@contextlib.contextmanager
def _jsonl(output: pathlib.Path, more: str, features: int | None) -> Iterator[Write]:
  with whole_file(output) as file:

    def write(predictions: Sequence[Prediction]) -> None:
      for prediction in predictions:
        fields = _fields(prediction, more)
        if features is not None:
          row = prediction.features
          # Shortest decimals that read back as the same float32, as for probabilities.
          fields["features"] = None if row is None else [float(str(value)) for value in row]
        file.write(json.dumps(fields, ensure_ascii=False) + "\n")

    yield write


@contextlib.contextmanager
def _parquet(output: pathlib.Path, more: str, features: int | None) -> Iterator[Write]:
  import pyarrow
  from pyarrow import parquet

  told = [
    pyarrow.field("rank", pyarrow.int32(), nullable=False),
    pyarrow.field("label", pyarrow.string(), nullable=False),
    pyarrow.field("probability", pyarrow.float32(), nullable=False),
  ]
  fields = [
    pyarrow.field("path", pyarrow.string(), nullable=False),
    pyarrow.field("predictions", pyarrow.list_(pyarrow.struct(told)), nullable=False),
    pyarrow.field("error", pyarrow.string()),
  ]
  kinds = {"none_of_these": pyarrow.bool_(), "labels": pyarrow.list_(pyarrow.string())}
  if more:
    fields.append(pyarrow.field(more, kinds[more], nullable=False))
  if features is not None:
    fields.append(pyarrow.field("features", pyarrow.list_(pyarrow.float32(), features)))
  schema = pyarrow.schema(fields)
  rows: list[dict[str, Any]] = []

  def flush() -> None:
    file.write_table(pyarrow.Table.from_pylist(rows, schema), row_group_size=ROW_GROUP)
    rows.clear()

  def write(predictions: Sequence[Prediction]) -> None:
    for prediction in predictions:
      row = _fields(prediction, more)
      for name in ("path", "error"):  # a file's name need not be UTF-8
        row[name] = row[name] and row[name].encode("utf-8", "backslashreplace").decode()
      if features is not None:
        row["features"] = prediction.features
      rows.append(row)
      if len(rows) == ROW_GROUP:
        flush()

  with whole_binary_file(output) as sink, parquet.ParquetWriter(sink, schema) as file:
    yield write
    flush()


_WRITERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
