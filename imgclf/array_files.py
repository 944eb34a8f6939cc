"""A tree of host arrays as files of one folder, by orbax, under names that a person can read.

`params.head.kernel` is the kernel of the head. Knows neither which folder it is nor whether its
files are still what was written; imgclf/checkpoint.py does.
"""

from collections.abc import Iterator, Mapping
import contextlib
import logging
import os
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from imgclf import named, parallel

# Orbax tells of every folder and default of a save through absl's logger, some 40 lines at INFO and
# a few at WARNING, and prints a failed save with a traceback that is also raised. What matters of
# it reaches the caller as an exception; other users of that logger are let be.
logging.getLogger("absl").addFilter(lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname)


class Unreadable(ValueError):
  """The folder holds no arrays that orbax can read."""


def _checkpointer() -> ocp.Checkpointer:
  # Each process reads, and process 0 writes, by itself: orbax's would wait for each other at every
  # turn.
  me = parallel.process_index()
  alone = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me})
  handler = ocp.PyTreeCheckpointHandler(multiprocessing_options=alone)
  return ocp.Checkpointer(handler, multiprocessing_options=alone)


def write(folder: pathlib.Path, arrays: Mapping[named.Path, np.ndarray], empty: list) -> None:
  """Writes arrays to a folder that is not there yet, and returns when they are on the disk.

  Args:
    folder: in a folder that is there.
    arrays: with elements, as `imgclf.named.split_arrays` returns them.
    empty: those without, likewise.
  """
  arguments = ocp.args.PyTreeSave(named.nested(arrays), custom_metadata={"empty": empty})
  with _checkpointer() as checkpointer, _quiet_after_failure():
    checkpointer.save(folder, args=arguments)


@contextlib.contextmanager
def _quiet_after_failure() -> Iterator[None]:
  """Leaves out what orbax prints when a write has failed and was told, for good; see to it that the
  run ends.

  It raises at the first failure and closes its event loop: the other writes then report their
  failures to nobody, and each prints a traceback.
  """

  hook, log = sys.unraisablehook, logging.getLogger("asyncio")

  def other(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      hook(unraisable)

  def asked_for(record: logging.LogRecord) -> bool:
    return "exception was never retrieved" not in record.getMessage()

  sys.unraisablehook = other
  log.addFilter(asked_for)
  yield
  log.removeFilter(asked_for)
  sys.unraisablehook = hook


def read(folder: pathlib.Path, target: Any, *, partial: bool = False) -> Any:
  """Reads arrays, after checking every shape and dtype against the target.

  Args:
    folder: that was written.
    target: a pytree of arrays or `jax.ShapeDtypeStruct`s.
    partial: read only what the target's top level names, such as `params`.

  Returns:
    Numpy arrays in the target's structure, bit for bit as they were written.

  Raises:
    Unreadable: if it is no folder of arrays.
    UserError: if an array is missing, left over, or of another shape or dtype than the target's.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(target)
  wanted = {named.names(path): named.leaf(value) for path, value in leaves}
  with _checkpointer() as checkpointer:
    try:
      found = _leaves(checkpointer, folder)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
      raise Unreadable(str(error)) from error
    if partial:
      here = {name for name, *_ in named.top_level(target)}
      found = {path: leaf for path, leaf in found.items() if path[0] in here}
    named.refuse_mismatches(folder.parent, found, wanted)
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
        tree = checkpointer.restore(folder, args=arguments)
      except (OSError, ValueError) as error:
        raise Unreadable(str(error)) from error
      for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
        arrays[named.names(path)] = np.asarray(value)
  return jax.tree.unflatten(structure, [arrays[path] for path in wanted])


def _leaves(checkpointer: ocp.Checkpointer, folder: pathlib.Path) -> dict[named.Path, named.Leaf]:
  """The shape and dtype of every array that was written."""
  metadata = checkpointer.metadata(folder).item_metadata
  found = {
    named.names(path): (tuple(leaf.shape), np.dtype(leaf.dtype))
    for path, leaf in jax.tree_util.tree_flatten_with_path(metadata.tree)[0]
  }
  for path, shape, dtype in (metadata.custom_metadata or {}).get("empty", ()):
    found[tuple(path)] = tuple(shape), np.dtype(dtype)
  return found
