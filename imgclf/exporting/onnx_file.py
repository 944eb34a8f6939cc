"""ONNX: one file, run by ONNX Runtime and whatever else reads the standard."""

from collections.abc import Callable, Mapping
import json
import pathlib
from typing import Any

from jax import export
import numpy as np
import onnx
import onnxruntime

from imgclf.exporting import onnx_operators
from imgclf.exporting.exportable import Exportable

MODEL = "model.onnx"
RUNTIME = ("onnxruntime",)

LOAD = f"""\
import onnxruntime

session = onnxruntime.InferenceSession("{MODEL}", providers=["CPUExecutionProvider"])


def probabilities(pixels):
  return session.run(["probabilities"], {{"pixels": pixels}})[0]
"""


def write(carried: Exportable, about: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Writes `model.onnx`; what `about` holds, the classes among it, are its metadata, as JSON."""
  (batch,) = export.symbolic_shape("batch")
  weights, pixels = carried.weights, carried.specs(batch)[1]
  texts = {key: x if isinstance(x, str) else json.dumps(x) for key, x in about.items()}
  model = onnx_operators.convert(carried.probabilities, weights, pixels, texts)
  onnx.save(model, folder / MODEL)


def load(folder: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
  """Loads `model.onnx` in ONNX Runtime, on the CPU; see `imgclf.exporting`."""
  session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])
  return lambda pixels: session.run(["probabilities"], {"pixels": pixels})[0]
