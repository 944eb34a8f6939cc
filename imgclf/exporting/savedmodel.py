"""TensorFlow's SavedModel by jax2tf: the weights as variables, the program as StableHLO in one operation.

The only place that knows TensorFlow. Runs where TensorFlow does, TensorFlow Serving among them; TensorFlow Lite
and TensorFlow.js do not have the operation (`XlaCallModule`).
"""

from collections.abc import Callable, Mapping
import json
import os
import pathlib
from typing import Any

import numpy as np

# Else its start-up writes lines about CPU instructions on stderr; what the user says of them stays.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

from jax.experimental import jax2tf
import tensorflow as tf

from imgclf.exporting.classifier import Classifier
from imgclf.exporting.stablehlo import PLATFORMS

MODEL = "model"
RUNTIME = ("tensorflow",)

LOAD = f"""\
import tensorflow as tf

model = tf.saved_model.load("{MODEL}")


def probabilities(pixels):
  return model.signatures["serving_default"](pixels=tf.constant(pixels))["probabilities"].numpy()
"""


class _Module(tf.Module):
  """What is saved: the weights, two signatures, and the classes as an asset."""

  def __init__(self, classifier: Classifier, classes_file: pathlib.Path):
    super().__init__()
    self.weights = [
      tf.Variable(value, trainable=False, name=name) for name, value in classifier.weights.items()
    ]
    self.classes = tf.saved_model.Asset(str(classes_file))
    call = jax2tf.convert(
      lambda weights, pixels: classifier.probabilities(
        dict(zip(classifier.weights, weights, strict=True)), pixels
      ),
      polymorphic_shapes=[None, "(batch, ...)"],
      native_serialization_platforms=PLATFORMS,
      with_gradient=False,
    )
    shape = (None, classifier.size, classifier.size, 3)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec(shape, tf.uint8, name="pixels")])
    def probabilities(pixels: Any) -> dict[str, Any]:
      return {"probabilities": call(self.weights, pixels)}

    @tf.function(autograph=False, input_signature=[])
    def classes() -> dict[str, Any]:
      return {"classes": tf.constant(list(classifier.classes))}

    self.served = {"serving_default": probabilities, "classes": classes}


def write(classifier: Classifier, about: Mapping[str, Any], folder: pathlib.Path) -> None:
  """Writes the folder `model`; the classes are an asset of it and the result of the signature `classes`."""
  tf.config.set_visible_devices([], "GPU")  # it would take all the memory of the one that JAX uses
  # An asset is copied from a file, whose name it keeps.
  listed = folder / "classes.json"
  listed.write_text(json.dumps(classifier.classes, indent=2) + "\n", encoding="utf-8")
  module = _Module(classifier, listed)
  tf.saved_model.save(module, str(folder / MODEL), signatures=module.served)
  listed.unlink()


def load(folder: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
  """Loads the folder `model` with TensorFlow, on the CPU; see `imgclf.exporting`."""
  model = tf.saved_model.load(str(folder / MODEL))
  call = model.signatures["serving_default"]
  return lambda pixels: call(pixels=tf.constant(pixels))["probabilities"].numpy()
