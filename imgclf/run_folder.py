"""A run folder: the small JSON files in it, read as data and written whole.

Knows neither jax nor orbax, nor how many processes there are: in a job of several, process 0 alone
writes.
"""

from collections.abc import Iterable, Mapping, Sequence
import difflib
import json
import math
import pathlib
from typing import Any

from ml_collections import config_dict
import numpy as np

from imgclf import config as configs
from imgclf import whole_files
from imgclf.errors import UserError, unwritable
from imgclf.run_paths import RunPaths


class RunFolder(RunPaths):
  """What `--workdir` names: its files, and what is in the small ones of them."""

  def exists(self) -> bool:
    """Whether a run was begun here.

    Raises:
      UserError: if the path is a file.
    """
    self._refuse_file()
    return self.config.is_file()

  def holds_checkpoints(self) -> bool:
    """Whether a checkpoint was saved here; whether it is sound is for `Checkpoints` to say."""
    try:
      return any(path.name.isdecimal() for path in self.checkpoints.iterdir())
    except OSError:
      return False

  def write_config(self, config: Mapping) -> None:
    """Writes the resolved config, making the folder.

    Raises:
      UserError: if the folder can't be made or written.
    """
    self._write(self.config, configs.to_json(config))

  def read_config(self) -> config_dict.ConfigDict:
    """Returns the run's config.

    Raises:
      UserError: if the folder holds no run, or a config that is not of the schema.
    """
    return configs.from_json(self._read(self.config), str(self.config))

  def write_classes(self, classes: Sequence[str]) -> None:
    """Writes the names of the classes, by label.

    Raises:
      UserError: if the folder can't be made or written.
    """
    self._write(self.classes, json.dumps(list(classes), indent=2) + "\n")

  def read_classes(self) -> list[str]:
    """Returns the names of the classes, by label.

    Raises:
      UserError: if the folder holds no run, or the file is not a list of distinct names.
    """
    text = self._read(self.classes)
    try:
      classes = json.loads(text)
    except (ValueError, RecursionError):
      classes = None
    if not (
      isinstance(classes, list)
      and classes
      and all(isinstance(name, str) for name in classes)
      and len(set(classes)) == len(classes)
    ):
      raise UserError(
        f"{self.classes}: is not a JSON list of distinct names; "
        "restore the file or use another --workdir"
      )
    return classes

  def write_splits(self, splits: Mapping[str, int]) -> None:
    """Writes the number of examples in each split of the data set.

    Raises:
      UserError: if the folder can't be made or written.
    """
    self._write(self.dataset, json.dumps({"splits": dict(splits)}, indent=2) + "\n")

  def read_splits(self) -> dict[str, int]:
    """Returns the number of examples in each split of the data set when the run was begun.

    Raises:
      UserError: if the folder holds no run, or the file does not hold such numbers.
    """
    text = self._read(self.dataset)
    try:
      splits = json.loads(text)["splits"]
      if not all(type(size) is int for size in splits.values()):
        raise ValueError
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
      raise UserError(
        f"{self.dataset}: does not hold the sizes of the splits; restore the file or use another --workdir"
      ) from None
    return splits

  def write_weights(self, record: Mapping[str, Any]) -> None:
    """Writes where the weights that the run begins with came from.

    Raises:
      UserError: if the folder can't be made or written.
    """
    self._write(self.weights, json.dumps(_plain(record), indent=2) + "\n")

  def read_weights(self) -> dict[str, Any]:
    """Returns what `write_weights` wrote.

    Raises:
      UserError: if the file is missing or is not such an object.
    """
    kinds = {"preparation": dict, "image_size": int, "batch_norm_epsilon": float}
    missing = {"batch_norm_epsilon": None}  # from the file of an older run
    return self._read_record(
      self.weights, kinds, "does not say where the run's weights came from", missing
    )

  def write_teacher(self, record: Mapping[str, Any]) -> None:
    """Writes which checkpoint of another run teaches this one: `source`, `step` and `sha256`.

    Raises:
      UserError: if the folder can't be made or written.
    """
    self._write(self.teacher, json.dumps(_plain(record), indent=2) + "\n")

  def read_teacher(self) -> dict[str, Any]:
    """Returns what `write_teacher` wrote.

    Raises:
      UserError: if the file is missing or is not such an object.
    """
    kinds = {"step": int, "sha256": str}
    return self._read_record(self.teacher, kinds, "does not say what teaches the run")

  def _read_record(
    self,
    path: pathlib.Path,
    kinds: Mapping[str, type],
    what: str,
    missing: Mapping[str, Any] | None = None,
  ) -> dict[str, Any]:
    """Returns an object whose fields are of these types or null.

    Args:
      path: of the file.
      kinds: types by the names of fields that have to be there.
      what: what is wrong where they are not.
      missing: values of fields that may be left out.
    """
    text = self._read(path)
    try:
      record = {**(missing or {}), **json.loads(text)}
      if any(type(record[key]) not in (kind, type(None)) for key, kind in kinds.items()):
        raise TypeError
    except (ValueError, RecursionError, TypeError, KeyError):
      raise UserError(f"{path}: {what}; restore the file or use another --workdir") from None
    return record

  def write_diverged(self, report: Mapping[str, Any]) -> pathlib.Path:
    """Writes the step at which a run diverged, and its examples, and returns the file.

    Raises:
      UserError: if the folder can't be written.
    """
    self._write(self.diverged, json.dumps(_plain(report), indent=2) + "\n")
    return self.diverged

  def write_evaluation(self, split: str, step: int, figures: Mapping[str, Any]) -> pathlib.Path:
    """Writes the figures of one evaluation, after `split` and `step`, and returns the file.

    Args:
      split: name or split expression.
      step: the step whose weights were evaluated.
      figures: numbers, text, numpy arrays, lists and mappings of them; what JSON has no number for
        (NaN, infinity) becomes null.

    Raises:
      UserError: if the folder can't be made or written.
    """
    path = self.evaluation(split, step)
    tree = _plain({"split": split, "step": step, **figures})
    self._write(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")
    return path

  def read_evaluation(self, split: str, step: int) -> dict[str, Any]:
    """Returns what `write_evaluation` wrote, None standing for NaN and infinity.

    Raises:
      UserError: if the folder holds no run, or the file is missing or is not a JSON object.
    """
    path = self.evaluation(split, step)
    text = self._read(path)
    try:
      figures = json.loads(text)
    except (ValueError, RecursionError):
      figures = None
    if not isinstance(figures, dict):
      raise UserError(f"{path}: is not a JSON object; run --mode=eval to write it anew")
    return figures

  def write_calibration(
    self, step: int, checkpoint: str, temperature: float, figures: Mapping[str, Any]
  ) -> pathlib.Path:
    """Writes the temperature that was fitted to a checkpoint, and returns the file.

    Args:
      step: of the checkpoint.
      checkpoint: its digest, see `imgclf.checkpoint.Checkpoints.digest`.
      temperature: above 0.
      figures: what it was fitted on, and what it changed.

    Raises:
      UserError: if the folder can't be made or written.
    """
    path = self.calibration(step)
    tree = {"step": step, "checkpoint": checkpoint, "temperature": temperature, **_plain(figures)}
    self._write(path, json.dumps(tree, indent=2, allow_nan=False) + "\n")
    return path

  def read_temperature(self, step: int, checkpoint: str) -> float:
    """Returns the temperature that was fitted to a checkpoint; 1 if none was.

    Raises:
      UserError: if the folder holds no run, or the file holds no temperature, or that of other
        weights.
    """
    path = self.calibration(step)
    if not path.exists():
      return 1.0
    text = self._read(path)
    mend = "delete it, or run --mode=report to fit it anew"
    try:
      tree = json.loads(text)
      temperature, owner = tree["temperature"], tree["checkpoint"]
      if type(temperature) not in (int, float) or not 0 < temperature < math.inf:
        raise ValueError
    except (ValueError, RecursionError, TypeError, KeyError):
      raise UserError(f"{path}: holds no temperature; {mend}") from None
    if owner != checkpoint:
      raise UserError(f"{path}: was fitted to another checkpoint than the one that is here; {mend}")
    return float(temperature)

  def _refuse_file(self) -> None:
    try:
      file = self.path.exists() and not self.path.is_dir()
    except (OSError, ValueError) as error:  # too long, or with a character that no path has
      raise UserError(f"--workdir={self.path}: is not a path ({error}); give a folder") from None
    if file:
      raise UserError(f"--workdir={self.path}: is a file; give a folder")

  def _read(self, path: pathlib.Path) -> str:
    if not self.exists():
      near = " or ".join(str(p) for p in self._runs_nearby())
      hint = f"did you mean {near}? Otherwise " if near else ""
      raise UserError(
        f"--workdir={self.path}: holds no run (no config.json in it); {hint}"
        f"train first: python launch.py --config=FILE --workdir={self.path}"
      )
    try:
      return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
      reason = getattr(error, "strerror", None) or error
      raise UserError(
        f"{path}: can't be read ({reason}); restore the file or use another --workdir"
      ) from error

  def _runs_nearby(self) -> list[pathlib.Path]:
    """Up to three runs, inside this folder or else beside it, the most alike in name first."""
    for parent in (self.path, self.path.parent):
      runs = {p.name: p for p in _subfolders(parent) if RunFolder(p).classes.is_file()}
      names = difflib.get_close_matches(self.path.name, runs, 3, 0)
      if names:
        return [runs[name] for name in names]
    return []

  def _write(self, path: pathlib.Path, text: str) -> None:
    self._refuse_file()
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      whole_files.write(path, text.encode())
    except OSError as error:
      raise unwritable(path, error) from error


def _subfolders(parent: pathlib.Path) -> Iterable[pathlib.Path]:
  try:
    return [p for p in sorted(parent.iterdir()) if (p / "config.json").is_file()]
  except OSError:  # a hint is not worth an error of its own
    return []


def _plain(value: Any) -> Any:
  """Turns numpy into Python and NaN and infinities into None, all the way down."""
  if isinstance(value, np.ndarray | np.generic):
    value = value.tolist()
  if isinstance(value, Mapping):
    return {str(key): _plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
