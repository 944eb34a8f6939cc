"""Files -> labels, with the run's own preprocessing and class names."""

from collections.abc import Iterator, Sequence
import csv
import json
import os
import pathlib
from typing import IO, Any, NamedTuple

import numpy as np

from imgclf import config as configs
from imgclf import parallel, steps
from imgclf.data import files as data_files
from imgclf.data import headers, loader
from imgclf.data.datasets import Record
from imgclf.data.files import IMAGE_SUFFIXES
from imgclf.data.images import ImageError
from imgclf.errors import UserError
from imgclf.output import checked, whole_file
from imgclf.run import Run, load

COLUMNS = ("path", "rank", "label", "probability", "error")


class Listed(NamedTuple):
  """A file to predict, and the folder that was named where it is one of those below it."""

  path: pathlib.Path
  folder: str | None


class Files:
  """Image files as records of unknown label.

  Attributes:
    paths: of the files.
    errors: index -> why the file can't be predicted; filled while records are read.
  """

  def __init__(self, listed: Sequence[Listed], max_bytes: int):
    self.paths = [path for path, _ in listed]
    self.errors: dict[int, str] = {}
    self._folders = [folder for _, folder in listed]
    self._max_bytes = max_bytes

  def __len__(self) -> int:
    return len(self.paths)

  def __getitems__(self, indices: Sequence[int]) -> list[Record]:
    return [self._read(index) for index in indices]

  def _read(self, index: int) -> Record:
    path, folder = self.paths[index], self._folders[index]
    data = b""  # decodes to an ImageError, which keeps the reason given here
    try:
      if folder is not None and path.is_symlink() and not data_files.stays(folder, path):
        self.errors[index] = (
          f"{path}: cannot be read (a link that leads nowhere or out of the folder)"
        )
      else:
        data = data_files.read_file(path, self._max_bytes)
    except OSError as error:
      self.errors[index] = f"{path}: cannot be read ({error.strerror})"
    return Record(data, 0, str(path))

  def refuse(self, index: int, error: ImageError) -> None:
    """Notes that a file can't be decoded, unless it could not even be read."""
    self.errors.setdefault(index, str(error))


def find_images(paths: Sequence[str]) -> list[Listed]:
  """Returns the files that are named, and those with an image ending below the folders that are named.

  A folder's files come in the order of their names. A file that is named is taken whatever its ending;
  one that is not there gets its row of output like any other that can't be read.

  Raises:
    UserError: if a folder holds no image.
  """
  found = []
  for text in filter(None, paths):
    path = pathlib.Path(text).expanduser()
    if not os.path.isdir(path):  # unlike Path.is_dir, it takes a name that is too long
      found.append(Listed(path, None))
      continue
    inside = sorted(
      p
      for p in path.rglob("*")
      if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")
    )
    if not inside:
      endings = " ".join(sorted(IMAGE_SUFFIXES))
      raise UserError(f"--images={text}: no image in this folder; looked for {endings}")
    folder = os.path.realpath(path)
    found.extend(Listed(image, folder) for image in inside)
  if not found:
    raise UserError("--images: give image files or folders, separated by commas")
  return found


def probabilities(run: Run, files: Files) -> Iterator[tuple[int, np.ndarray]]:
  """Yields each file's index and its probabilities [classes] float32, in order; skips the unreadable.

  The compiled function and its batch are those of evaluation, so the answers are evaluation's own.
  """
  batch_size = parallel.shareable(configs.eval_batch_size(run.config))
  batches = loader.prefetch(
    loader.eval_batches(files, run.config, batch_size, on_error=files.refuse), run.config
  )
  eval_step = parallel.pmap(steps.make_eval_step(run.model, run.config, run.temperature))
  variables = parallel.replicate(run.variables)

  def start(batch: loader.Batch) -> dict[str, Any]:
    return eval_step(variables, parallel.shard({"image": batch["image"], "label": batch["label"]}))

  for batch, result in parallel.run_ahead(start, batches):
    rows = parallel.unshard(result["probabilities"])
    for index, row in zip(batch["index"][batch["mask"]], rows[batch["mask"]]):
      yield int(index), row


def rank(row: np.ndarray, classes: Sequence[str], top_k: int) -> list[dict[str, Any]]:
  """Returns the most probable classes of one image, best first; of equals the lower label comes first.

  Args:
    row: [classes] float32, probabilities.
    classes: names by label.
    top_k: how many; at most all.
  """
  best = np.argsort(-row, kind="stable")[:top_k]
  # The shortest decimal that reads back as the same float32.
  return [
    {"rank": place, "label": classes[label], "probability": float(str(row[label]))}
    for place, label in enumerate(best, 1)
  ]


# What a spreadsheet takes for the start of a formula, which can send the other cells away.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _cell(value: Any) -> Any:
  return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _write_csv(file: IO[str], answers: Iterator[dict[str, Any]]) -> None:
  writer = csv.DictWriter(file, COLUMNS, restval="")
  writer.writeheader()
  for answer in answers:
    if answer["error"]:
      writer.writerow({"path": _cell(answer["path"]), "error": _cell(answer["error"])})
    for prediction in answer["predictions"]:
      label = _cell(prediction["label"])
      writer.writerow({"path": _cell(answer["path"]), **prediction, "label": label})


def _write_jsonl(file: IO[str], answers: Iterator[dict[str, Any]]) -> None:
  for answer in answers:
    file.write(json.dumps(answer, ensure_ascii=False) + "\n")


WRITERS = {".csv": _write_csv, ".jsonl": _write_jsonl}


def run(
  workdir: str | os.PathLike,
  *,
  images: Sequence[str],
  output: str | os.PathLike,
  step: str | int = "best",
  top_k: int = 5,
  quiet: bool = False,
) -> int:
  """Predicts image files with a run's best checkpoint and writes one CSV or JSONL file.

  Args:
    workdir: the run folder.
    images: files and folders.
    output: ends in .csv (columns path, rank, label, probability, error) or .jsonl (one object a file).
    step: `best`, `latest` or a step's number.
    top_k: classes told for each image.
    quiet: print nothing.

  Returns:
    How many files were predicted.

  Raises:
    UserError: for a wrong argument, or if no file at all could be read.
  """
  output = checked(output, list(WRITERS))
  if top_k < 1:
    raise UserError(f"--top_k={top_k}: must be at least 1")
  if parallel.process_count() > 1:
    raise UserError("--mode=predict: runs in one process; start it without a cluster's environment")
  restored = load(workdir, step)
  max_bytes = headers.max_bytes(restored.config["dataset"]["max_pixels"])
  files = Files(find_images(images), max_bytes)
  predicted = 0

  def answers() -> Iterator[dict[str, Any]]:
    nonlocal predicted
    following = 0
    for index, row in probabilities(restored, files):
      yield from _failures(files, following, index)
      yield {
        "path": str(files.paths[index]),
        "predictions": rank(row, restored.classes, top_k),
        "error": None,
      }
      predicted, following = predicted + 1, index + 1
    yield from _failures(files, following, len(files))

  with whole_file(output) as file:
    WRITERS[output.suffix](file, answers())
  if not quiet:
    failed = f"; {len(files.errors)} could not be read" if files.errors else ""
    print(f"{predicted} of {len(files)} images predicted{failed}: {output}", flush=True)
  if not predicted:
    raise UserError(f"--images: none of {len(files)} files could be read; {output} says why")
  return predicted


def _failures(files: Files, start: int, stop: int) -> Iterator[dict[str, Any]]:
  for index in range(start, stop):
    yield {"path": str(files.paths[index]), "predictions": [], "error": files.errors[index]}
