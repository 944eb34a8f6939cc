"""Checkpoints: a tree of host arrays a step, written in the background by orbax, checked before it is read.

`DIR/checkpoints/<step>/` holds `state/` (the arrays under readable names: `params.head.kernel`) and
`metrics/` (the validation figures that rank it). Knows no model, no device and no config beyond the names
of the fields that an error tells to mend.
"""

from collections.abc import Iterable, Mapping
import errno
import logging
import math
import os
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from imgclf import named
from imgclf.errors import UserError

# Orbax tells of every barrier, folder and default of a save through absl's logger, some 40 lines at INFO
# and a few at WARNING ("read only", "no metrics"), and prints a failed save with a traceback that is also
# raised. What matters of it reaches the caller as an exception; other users of that logger are let be.
logging.getLogger("absl").addFilter(lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname)

# Orbax moves a step that is no longer kept in here with one rename, and we remove it from here. Deleted
# in place, a step whose deletion was cut by a kill would still be listed, and trusted.
_DELETED = ".deleted"


def ranking(scores: Mapping[int, float]) -> list[int]:
  """Returns the steps that have a score (more is better; -inf, NaN: none), best first, ties by age."""
  return sorted((s for s in scores if scores[s] > -math.inf), key=lambda s: (-scores[s], s))


def retained(scores: Mapping[int, float], *, latest: int, best: int, every: int | None) -> set[int]:
  """Returns the steps to keep.

  Args:
    scores: every step there is, with its score, as for `ranking`.
    latest: newest steps that are kept.
    best: best steps that are kept.
    every: the first step at or after each multiple of this is kept for good, so that the interval holds
      too where steps are not saved at the multiples themselves.
  """
  steps = sorted(scores)
  keep = {*steps[len(steps) - min(latest, len(steps)) :], *ranking(scores)[:best]}
  if every:
    first: dict[int, int] = {}
    for step in steps:
      first.setdefault(step // every, step)
    keep.update(step for multiple, step in first.items() if multiple > 0)
  return keep


class Checkpoints:
  """The checkpoints of one run.

  In a job of several processes every one makes and calls this alike, with the same arrays; process 0
  writes, and all of them read, so the folder must be one that all of them see.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    *,
    keep_latest: int = 2,
    keep_best: int = 1,
    keep_every: int | None = None,
    best_metric: str = "accuracy",
    read_only: bool = False,
  ):
    """Opens the folder, and clears it of what a killed save or deletion left.

    Args:
      folder: made if it is not there, unless `read_only`.
      keep_latest: newest checkpoints that are kept, at least 1.
      keep_best: best checkpoints that are kept.
      keep_every: one checkpoint per this many steps is kept for good; None: none.
      best_metric: the figure that ranks checkpoints; `loss` is better lower, all others higher.
      read_only: nothing is made, changed or deleted.

    Raises:
      UserError: if the folder can't be made or written.
    """
    if keep_latest < 1:
      raise ValueError(f"keep_latest is {keep_latest}; the newest checkpoint must stay")
    self.folder = pathlib.Path(folder).absolute()
    self._best_metric = best_metric
    self._keep_latest, self._keep_best, self._keep_every = keep_latest, keep_best, keep_every
    self._read_only = read_only
    options = ocp.CheckpointManagerOptions(
      create=not read_only,
      read_only=read_only,
      cleanup_tmp_directories=not read_only,
      # Orbax's own BestN takes a NaN for the best and deletes the true one; this object decides.
      preservation_policy=self,
      best_fn=self._score,  # without it orbax does not write the metrics
      todelete_subdir=_DELETED,
    )
    try:
      self._manager = ocp.CheckpointManager(
        self.folder,
        options=options,
        item_names=("state",),
        item_handlers={"state": ocp.PyTreeCheckpointHandler()},
      )
    except OSError as error:
      raise self._mendable(error) from error
    self._clear_deleted()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def save(self, step: int, state: Any, metrics: Mapping[str, float] | None) -> None:
    """Writes a checkpoint in the background; the arrays may be changed as soon as this returns.

    Waits for the save before it, and deletes what is no longer kept once this one is complete. A step
    that is there already is not written again.

    Args:
      step: the step, above all that are saved.
      state: a pytree of host arrays and numbers. Objects without leaves (None, `optax.EmptyState`) are
        not written; the target of `restore` has them.
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
    figures = None
    if metrics is not None:
      figures = {k: float(v) if math.isfinite(v) else None for k, v in metrics.items()}
    arguments = ocp.args.PyTreeSave(named.nested(full), custom_metadata={"empty": empty})
    try:
      self._manager.save(step, metrics=figures, args=ocp.args.Composite(state=arguments))
    except Exception as error:
      raise self._mendable(error) from error

  def steps(self) -> list[int]:
    """Returns the steps that are complete, rising. Waits for a save that is under way."""
    self.wait()
    return sorted(self._manager.all_steps())

  def latest(self) -> int | None:
    """Returns the newest step, or None. Waits for a save that is under way."""
    return max(self.steps(), default=None)

  def best(self) -> int | None:
    """Returns the best step by `best_metric`, the earlier of equals; None where none has the figure."""
    return next(iter(ranking({s: self._score(self.metrics(s)) for s in self.steps()})), None)

  def improves(self, metrics: Mapping[str, float]) -> bool:
    """Whether a checkpoint with these figures would be the best; waits for a save that is under way."""
    score = self._score(metrics)
    return all(score > self._score(self.metrics(s)) for s in self.steps()) and score > -math.inf

  def metrics(self, step: int) -> dict[str, float] | None:
    """Returns the figures that were saved with a step, or None."""
    self.wait()
    figures = self._manager.metrics(step)
    if figures is None:
      return None
    return {key: math.nan if value is None else value for key, value in figures.items()}

  def restore(self, step: int, target: Any, *, partial: bool = False) -> Any:
    """Reads a checkpoint, after checking every shape and dtype against the target.

    Args:
      step: one of `steps()`.
      target: a pytree of arrays or `jax.ShapeDtypeStruct`s.
      partial: read only what the target's top level names, such as `params`; the rest of the
        checkpoint is not read.

    Returns:
      Numpy arrays in the target's structure, bit for bit as they were saved.

    Raises:
      UserError: if there is no such step, it can't be read, or an array is missing, left over, or of
        another shape or dtype than the target's.
    """
    where = self.folder / str(step)
    if step not in self.steps():
      raise UserError(f"{where}: no such checkpoint; {_there_are(self)}")
    leaves, structure = jax.tree_util.tree_flatten_with_path(target)
    wanted = {named.names(path): named.leaf(value) for path, value in leaves}
    try:
      metadata = self._manager.item_metadata(step)["state"]
      found = {
        named.names(path): (tuple(leaf.shape), np.dtype(leaf.dtype))
        for path, leaf in jax.tree_util.tree_flatten_with_path(metadata.tree)[0]
      }
      for path, shape, dtype in (metadata.custom_metadata or {}).get("empty", ()):
        found[tuple(path)] = tuple(shape), np.dtype(dtype)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
      raise self._unreadable(step, error) from error
    if partial:
      here = {name for name, *_ in named.top_level(target)}
      found = {path: leaf for path, leaf in found.items() if path[0] in here}
    named.refuse_mismatches(where, found, wanted)
    arrays = {path: np.zeros(*leaf) for path, leaf in wanted.items() if 0 in leaf[0]}
    full = {
      path: jax.ShapeDtypeStruct(*leaf) for path, leaf in wanted.items() if path not in arrays
    }
    if full:
      item = named.nested(full)
      arguments = ocp.args.PyTreeRestore(
        item,
        restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item),
        partial_restore=True,
      )
      try:
        read = self._manager.restore(step, args=ocp.args.Composite(state=arguments))["state"]
      except (OSError, ValueError) as error:
        raise self._unreadable(step, error) from error
      for path, value in jax.tree_util.tree_flatten_with_path(read)[0]:
        arrays[named.names(path)] = np.asarray(value)
    return jax.tree.unflatten(structure, [arrays[path] for path in wanted])

  def wait(self) -> None:
    """Returns when no save is under way.

    Raises:
      UserError: if the last save failed for a reason that the user can mend; other errors as they are.
    """
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      self._manager.reload()  # what was to go after the failed save is still there
      raise self._mendable(error) from error
    self._clear_deleted()

  def close(self) -> None:
    """Waits for the last save, like `wait`, and ends orbax's threads."""
    try:
      self.wait()
    finally:
      self._manager.close()

  def should_preserve(self, checkpoints: Iterable, *, context: object) -> list[bool]:
    """Tells orbax which checkpoints stay (its `PreservationPolicy`), the one being saved among them."""
    del context
    checkpoints = list(checkpoints)
    keep = retained(
      {c.step: self._score(c.metrics) for c in checkpoints},
      latest=self._keep_latest,
      best=self._keep_best,
      every=self._keep_every,
    )
    return [c.step in keep for c in checkpoints]

  def _score(self, metrics: Mapping[str, Any] | None) -> float:
    value = (metrics or {}).get(self._best_metric)
    if not isinstance(value, int | float):
      return -math.inf
    return -value if self._best_metric == "loss" else value

  def _clear_deleted(self) -> None:
    # What can't be removed now is tried again at the next call; it takes room and does no harm.
    if not self._read_only and jax.process_index() == 0:
      shutil.rmtree(self.folder / _DELETED, ignore_errors=True)

  def _mendable(self, error: Exception) -> Exception:
    """Returns a UserError where the user can mend the failed save, else the error itself."""
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
      # Tensorstore raises ValueErrors that carry the system's words.
      if getattr(error, "errno", None) == code or os.strerror(code) in str(error):
        return UserError(
          f"{self.folder}: a checkpoint can't be written ({os.strerror(code)}); make room or give a "
          "--workdir that you may write to, then run the same command again"
        )
    return error

  def _unreadable(self, step: int, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:200]
    return UserError(
      f"{self.folder / str(step)}: this checkpoint can't be read ({reason}); {_there_are(self)}; give "
      "another --step, or delete this folder and training goes on from the one before"
    )


def parse_step(text: str, checkpoints: Checkpoints) -> int:
  """Returns the step that `best`, `latest` or a number names.

  Raises:
    UserError: naming the steps there are, if it is none of them.
  """
  latest = checkpoints.latest()
  if latest is None:
    raise UserError(f"--step={text}: {checkpoints.folder}: {_there_are(checkpoints)}")
  if text == "latest":
    return latest
  if text == "best":
    best = checkpoints.best()
    if best is None:
      raise UserError(
        f"--step=best: no checkpoint in {checkpoints.folder} has a validation figure to rank it by; "
        f"give --step=latest, or a number; {_there_are(checkpoints)}"
      )
    return best
  if not text.isdecimal() or int(text) not in checkpoints.steps():
    raise UserError(
      f"--step={text}: no such checkpoint in {checkpoints.folder}; give best, latest or a number; "
      f"{_there_are(checkpoints)}"
    )
  return int(text)


def _there_are(checkpoints: Checkpoints) -> str:
  steps = [str(step) for step in checkpoints.steps()]
  if not steps:
    return "there is no checkpoint; train first, with the same --workdir"
  if len(steps) > 12:
    steps = [*steps[:3], "...", *steps[-8:]]
  return f"there are the steps {', '.join(steps)}"
