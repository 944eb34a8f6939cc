"""StableHLO by `jax.export`: one program for CPUs, NVIDIA GPUs and TPUs, and the weights in a file
beside it.

The weights are arguments of the program, not part of it. JAX promises to read an exported program
for six months (https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees);
`weights.npz`, which NumPy reads without pickle, has no such date, so what was trained outlives the
program.
"""

from collections.abc import Callable, Mapping
import pathlib
from typing import Any

import flatbuffers  # noqa: F401 - what JAX reads and writes programs with, but does not bring
import jax
from jax import export
import numpy as np

from imgclf.exporting.exportable import PLATFORMS, Exportable

PROGRAM, WEIGHTS = "model.stablehlo", "weights.npz"
RUNTIME = ("jax", "flatbuffers")

LOAD = f"""\
import jax
from jax import export

with open("{PROGRAM}", "rb") as file:
  program = export.deserialize(bytearray(file.read()))
with np.load("{WEIGHTS}", allow_pickle=False) as file:
  weights = dict(file)
call = jax.jit(program.call)


def probabilities(pixels):
  return np.asarray(call(weights, pixels))
"""


def write(carried: Exportable, about: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Writes `model.stablehlo` and `weights.npz`; the former has no place for `about`."""
  (batch,) = export.symbolic_shape("batch")
  program = export.export(jax.jit(carried.probabilities), platforms=PLATFORMS)
  (folder / PROGRAM).write_bytes(program(*carried.specs(batch)).serialize())
  np.savez(folder / WEIGHTS, allow_pickle=False, **carried.weights)


def load(folder: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
  """Reads the program and the weights back; see `imgclf.exporting`."""
  program = export.deserialize(bytearray((folder / PROGRAM).read_bytes()))
  with np.load(folder / WEIGHTS, allow_pickle=False) as file:
    weights = jax.device_put(dict(file))
  call = jax.jit(program.call)
  return lambda pixels: np.asarray(call(weights, pixels))
