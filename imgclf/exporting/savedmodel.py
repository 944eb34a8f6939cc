"""TensorFlow's SavedModel: the weights as variables, the program as StableHLO in one operation,
`XlaCallModule`.

The only place that knows TensorFlow. Runs where TensorFlow does, TensorFlow Serving among them;
TensorFlow Lite and TensorFlow.js do not have the operation. jax2tf, which makes the same, writes
StableHLO of a version that a TensorFlow older than the JAX beside it can't read: that of JAX 0.12
is too new for TensorFlow 2.21, its latest.
"""

from collections.abc import Callable, Mapping
import json
import os
import pathlib
from typing import Any

import jax
from jax import export
from jaxlib.mlir.dialects import stablehlo as dialect
import numpy as np

# Else its start-up writes lines about CPU instructions on stderr; what the user says of them stays.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import (
  xla,
)  # not of TensorFlow's public API, but what jax2tf calls

from imgclf.exporting.exportable import PLATFORMS, Exportable

MODEL = "model"
RUNTIME = ("tensorflow",)

LOAD = f"""\
import tensorflow as tf

model = tf.saved_model.load("{MODEL}")


def probabilities(pixels):
  return model.signatures["serving_default"](pixels=tf.constant(pixels))["probabilities"].numpy()
"""

# Of StableHLO; what networks use has been there since, and every later version reads it.
_OLD_ENOUGH = "1.0.0"


class _Module(tf.Module):
  """What is saved: the weights, two signatures, and the classes as an asset."""

  def __init__(self, carried: Exportable, classes_file: pathlib.Path):
    super().__init__()
    (batch,) = export.symbolic_shape("batch")
    exporter = export.export(jax.jit(carried.probabilities), platforms=PLATFORMS)
    program = exporter(*carried.specs(batch))
    portable = dialect.deserialize_portable_artifact_str(program.mlir_module_serialized)
    portable = dialect.serialize_portable_artifact_str(portable, _OLD_ENOUGH)
    # In the order in which JAX takes a dict apart.
    self.weights = [
      tf.Variable(carried.weights[name], trainable=False, name=name)
      for name in sorted(carried.weights)
    ]
    self.classes = tf.saved_model.Asset(str(classes_file))
    shape = (None, carried.size, carried.size, 3)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.uint8, name="pixels")])
    def probabilities(pixels: Any) -> dict[str, Any]:
      arguments = [*self.weights, pixels]
      (result,) = xla.call_module(
        [arguments[place] for place in program.module_kept_var_idx],
        version=program.calling_convention_version,
        module=portable,
        Sout=[(None, len(carried.classes))],
        Tout=[tf.float32],
        platforms=[name.upper() for name in program.platforms],
      )
      return {"probabilities": result}

    @tf.function(autograph=False, input_signature=[])
    def classes() -> dict[str, Any]:
      return {"classes": tf.constant(list(carried.classes))}

    self.served = {"serving_default": probabilities, "classes": classes}


def write(carried: Exportable, about: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Writes the folder `model`; the classes are an asset of it and the result of the signature
  `classes`.
  """
  tf.config.set_visible_devices([], "GPU")  # it would take all the memory of the one that JAX uses
  # An asset is copied from a file, whose name it keeps.
  listed = folder / "classes.json"
  listed.write_text(json.dumps(carried.classes, indent=2) + "\n", encoding="utf-8")
  module = _Module(carried, listed)
  tf.saved_model.save(module, str(folder / MODEL), signatures=module.served)
  listed.unlink()


def load(folder: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
  """Loads the folder `model` with TensorFlow, on the CPU; see `imgclf.exporting`."""
  model = tf.saved_model.load(str(folder / MODEL))
  call = model.signatures["serving_default"]
  return lambda pixels: call(pixels=tf.constant(pixels))["probabilities"].numpy()
