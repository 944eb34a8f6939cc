"""Checkpoints: a tree of host arrays a step, written in the background, verified before it is read.

`DIR/checkpoints/<step>/` holds `state/` (imgclf/array_files.py) and `manifest.json`
(imgclf/manifest.py). It appears with one rename, when all of it is on the disk. Knows no model and
no config.
"""

from collections.abc import Mapping
import functools
import hashlib
import json
import logging
import math
import os
import pathlib
from typing import Any

from imgclf import array_files, manifest, named, parallel
from imgclf.errors import UserError
from imgclf.retention import meant, ranking, retained
from imgclf.saving import Saver, mendable
from imgclf.text import printable

_log = logging.getLogger("imgclf")

# Figures of an evaluation of which less is better.
_BETTER_LOWER = ("loss", "ece")

# Where training moves a checkpoint that is not what was saved, to be looked at.
_DAMAGED = "damaged"


class Checkpoints:
  """The checkpoints of one run.

  In a job of several processes every one makes and calls this alike, with the same figures; process
  0 writes, and all of them read, so the folder must be one that all of them see. Which steps there
  are is remembered, not looked up, so that all processes decide alike while process 0 is still
  writing.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    *,
    run: Mapping[str, Any] | None = None,
    keep_latest: int = 2,
    keep_best: int = 1,
    keep_every: int | None = None,
    best_metric: str = "accuracy",
    read_only: bool = False,
  ):
    """Opens the folder, and clears it of what a killed save or deletion left.

    Args:
      folder: made if it is not there, unless `read_only`.
      run: JSON values that tell this run from others; saved with every checkpoint.
      keep_latest: newest checkpoints that are kept, at least 1.
      keep_best: best checkpoints that are kept.
      keep_every: one checkpoint per this many steps is kept for good; None: none.
      best_metric: the figure that ranks checkpoints; `loss` and `ece` are better lower, all others
        higher.
      read_only: nothing is made, changed or deleted.

    Raises:
      UserError: if the folder can't be made or written.
    """
    if keep_latest < 1:
      raise ValueError(f"keep_latest is {keep_latest}; the newest checkpoint must stay")
    self.folder = pathlib.Path(folder).absolute()
    self._run = dict(run or {})
    self._best_metric = best_metric
    self._retained = functools.partial(
      retained, latest=keep_latest, best=keep_best, every=keep_every
    )
    self._read_only = read_only
    writes = not read_only and parallel.process_index() == 0
    self._saver = Saver(self.folder) if writes else None
    # The figures of every step whose manifest is sound, and why the others are not.
    self._figures: dict[int, Mapping[str, float | None] | None] = {}
    self._damaged: dict[int, str] = {}
    self._verified: set[int] = set()
    self._list()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type | None, *_: object) -> None:
    self.close()
    if kind is None and not self._read_only:
      parallel.barrier("checkpoints")  # what process 0 wrote is there when any process goes on

  def save(self, step: int, state: Any, metrics: Mapping[str, float] | None) -> None:
    """Writes a checkpoint in the background; the arrays are its own from here on, and must not be
    changed.

    Waits for the save before it, and deletes what is no longer kept once this one is complete. A
    step that is there already is not written again. Nothing that was saved before is touched unless
    all of the new checkpoint is on the disk.

    Args:
      step: the step, above all that are saved.
      state: a pytree of host arrays and numbers. Objects without leaves (None, `optax.EmptyState`)
        are not written; the target of `restore` has them.
      metrics: figures to rank it by and to keep beside it; None where there are none. NaN and
        infinite figures are kept as NaN and never make a checkpoint the best.

    Raises:
      UserError: if the disk is full or the folder can't be written, now or in the save before.
      TypeError: for a leaf that is no array of numbers.
      ValueError: for a step below the latest.
    """
    steps = self.steps()
    if step in steps:
      return
    if steps and step < steps[-1]:
      raise ValueError(f"step {step} can't be saved: step {steps[-1]} is there already")
    full, empty = named.split_arrays(state)
    figures = _plain(metrics)
    scores = self._scores() | {step: self._score(figures)}
    dropped = sorted(scores.keys() - self._retained(scores))
    if self._saver is not None:
      self._saver.submit(step, full, empty, figures, self._run, dropped)
    self._figures[step] = figures
    self._verified.add(step)
    for old in dropped:
      del self._figures[old]

  def steps(self) -> list[int]:
    """Returns the steps that are complete and whose manifest is sound, rising.

    Waits for a save that is under way.
    """
    self.wait()
    return sorted(self._figures)

  def latest(self) -> int | None:
    """Returns the newest step, or None. Waits for a save that is under way."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """Returns the best step by `best_metric`, the earlier of equals; None where none has the
    figure.
    """
    self.wait()
    return next(iter(ranking(self._scores())), None)

  def improves(self, metrics: Mapping[str, float]) -> bool:
    """Whether a checkpoint with these figures would be the best."""
    score = self._score(metrics)
    return all(score > other for other in self._scores().values()) and score > -math.inf

  def metrics(self, step: int) -> dict[str, float] | None:
    """Returns the figures that were saved with a step, or None."""
    figures = self._figures[step]
    if figures is None:
      return None
    return {key: math.nan if value is None else value for key, value in figures.items()}

  def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
    """Gives a step that was saved without figures those of its evaluation.

    Raises:
      UserError: if they can't be written.
    """
    self.wait()
    self._figures[step] = _plain(metrics)
    if self._saver is not None:
      try:
        manifest.add_figures(self._path(step), self._figures[step] or {})
      except OSError as error:
        raise mendable(self.folder, error) from error

  def run(self, step: int) -> Mapping[str, Any]:
    """Returns what the run was that saved a step.

    Raises:
      UserError: if its manifest can't be read any more.
    """
    self.wait()
    try:
      return manifest.read(self._path(step)).run
    except manifest.Damaged as damage:
      raise self._refusal(step, str(damage)) from None

  def digest(self, step: int) -> str:
    """Returns a SHA-256 in hexadecimal that stands for all that was saved at a step: the digests of
    its files.

    Raises:
      UserError: if its manifest can't be read any more.
    """
    self.wait()
    try:
      files = manifest.read(self._path(step)).files
    except manifest.Damaged as damage:
      raise self._refusal(step, str(damage)) from None
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()

  def choose(self, text: str) -> int:
    """Returns the step that `best`, `latest` or a number names, once all of its files were
    verified.

    Where `best` or `latest` is damaged, the next best or next newest is taken, and the log tells
    so.

    Raises:
      UserError: naming the steps there are, if it is none of them; or what is damaged, if it is
        asked for by its number or nothing sound is left.
    """
    self.wait()
    candidates = meant(text, self._scores(), self._damaged)
    if not candidates:
      raise self._no_such(text)
    for step in candidates:
      damage = self.damage(step)
      if damage is None:
        return step
      if len(candidates) == 1:
        raise self._refusal(step, damage)
      _log.warning("%s", printable(f"{self._path(step)}: is damaged ({damage}) and is passed over"))
    raise UserError(
      f"{self.folder}: no checkpoint is sound, the last was that of step {candidates[-1]} "
      f"({self.damage(candidates[-1])}); restore the folder from a copy, or train again"
    )

  def newest_sound(self) -> int:
    """Returns the newest step all of whose files are what was saved, or 0 where there is none."""
    return next((step for step in reversed(self.steps()) if self.damage(step) is None), 0)

  def damage(self, step: int) -> str | None:
    """Returns what is wrong with a step that is there, naming the file; None if all of it is as
    saved.
    """
    if step in self._verified or step in self._damaged:
      return self._damaged.get(step)
    try:
      manifest.verify(self._path(step))
    except manifest.Damaged as damage:
      self._damaged[step] = str(damage)
      self._figures.pop(step, None)
      return str(damage)
    self._verified.add(step)
    return None

  def set_aside(self, above: int) -> list[str]:
    """Moves what is damaged out of the way of a run that goes on from step `above`, and forgets it.

    All steps above it are damaged, or it would go on from there.

    Returns:
      Lines on what was moved where, for a person.

    Raises:
      UserError: if it can't be moved, or if nothing sound is there to go on from.
    """
    if self._damaged and not above:
      raise UserError(
        f"{self.folder}: no checkpoint is sound, the newest was that of step {max(self._damaged)} "
        f"({self._damaged[max(self._damaged)]}); restore the folder from a copy, or begin anew with another "
        "--workdir"
      )
    told = []
    for step in [step for step in self._figures if step > above]:
      self._damaged[step] = "as process 0 found"
      del self._figures[step]
    for step, damage in sorted(self._damaged.items()):
      target = self.folder / _DAMAGED / str(step)
      for again in range(2, 1000):
        if not target.exists():
          break
        target = target.with_name(f"{step}-{again}")
      told.append(f"checkpoint {step} is damaged ({damage}); it was moved to {target}")
      if self._saver is not None:
        try:
          target.parent.mkdir(exist_ok=True)
          self._path(step).rename(target)
        except OSError as error:
          raise mendable(self.folder, error) from error
    self._damaged.clear()
    return told

  def restore(self, step: int, target: Any, *, partial: bool = False) -> Any:
    """Reads a checkpoint, after verifying its files and checking every shape and dtype against the
    target.

    Args:
      step: one of `steps()`.
      target: a pytree of arrays or `jax.ShapeDtypeStruct`s.
      partial: read only what the target's top level names, such as `params`; the rest of the
        checkpoint is verified, but not loaded.

    Returns:
      Numpy arrays in the target's structure, bit for bit as they were saved.

    Raises:
      UserError: if there is no such step, a file of it is not what was saved, or an array is
        missing, left over, or of another shape or dtype than the target's.
    """
    where = self._path(step)
    if step not in self.steps() and step not in self._damaged:
      raise UserError(f"{where}: no such checkpoint; {self._there_are()}")
    damage = self.damage(step)
    if damage is not None:
      raise self._refusal(step, damage)
    try:
      return array_files.read(where / "state", target, partial=partial)
    except array_files.Unreadable as error:
      raise self._refusal(step, str(error)) from error

  def poll(self) -> None:
    """Raises what `wait` would raise, without waiting; costs next to nothing."""
    if self._saver is not None and self._saver.done():
      self.wait()

  def wait(self) -> None:
    """Returns when no save is under way.

    Raises:
      UserError: if the last save failed for a reason that the user can mend; other errors as they
        are.
    """
    if self._saver is None:
      return
    try:
      self._saver.wait()
    except Exception:
      self._list()  # what the step that failed would have replaced is still there, and it is not
      raise

  def close(self) -> None:
    """Waits for the last save, like `wait`, and ends the thread that saves."""
    try:
      self.wait()
    finally:
      if self._saver is not None:
        self._saver.close()

  def _list(self) -> None:
    """Looks up which steps there are, and reads their manifests."""
    self._figures.clear()
    try:
      found = sorted(int(path.name) for path in self.folder.iterdir() if path.name.isdecimal())
    except FileNotFoundError:
      found = []
    except OSError as error:
      raise mendable(self.folder, error) from error
    for step in found:
      try:
        self._figures[step] = manifest.read(self._path(step)).figures
      except manifest.Damaged as damage:
        self._damaged[step] = str(damage)

  def _path(self, step: int) -> pathlib.Path:
    return self.folder / str(step)

  def _scores(self) -> dict[int, float]:
    return {step: self._score(figures) for step, figures in self._figures.items()}

  def _score(self, metrics: Mapping[str, Any] | None) -> float:
    value = (metrics or {}).get(self._best_metric)
    if not isinstance(value, int | float):
      return -math.inf
    return -value if self._best_metric in _BETTER_LOWER else value

  def _no_such(self, text: str) -> UserError:
    there = self._there_are()
    if not self._figures:
      return UserError(f"--step={text}: {self.folder}: {there}")
    if text == "best":
      return UserError(
        f"--step=best: no checkpoint in {self.folder} has a validation figure to rank it by; give "
        f"--step=latest, or a number; {there}"
      )
    return UserError(
      f"--step={text}: no such checkpoint in {self.folder}; give best, latest or a number; {there}"
    )

  def _refusal(self, step: int, reason: str) -> UserError:
    return UserError(
      f"{self._path(step)}: this checkpoint is damaged ({' '.join(reason.split())[:300]}); "
      f"{self._there_are()}; give another --step, or train on: damaged checkpoints are passed over"
    )

  def _there_are(self) -> str:
    steps = [str(step) for step in self.steps()]
    if not steps:
      return "there is no sound checkpoint; train first, with the same --workdir"
    if len(steps) > 12:
      steps = [*steps[:3], "...", *steps[-8:]]
    return f"there are the steps {', '.join(steps)}"


def _plain(metrics: Mapping[str, float] | None) -> dict[str, float | None] | None:
  """Figures as strict JSON has them."""
  if metrics is None:
    return None
  return {name: float(v) if math.isfinite(v) else None for name, v in metrics.items()}
