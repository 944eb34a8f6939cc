"""Train, evaluate and use image classifiers in JAX.

    config = imgclf.default_config()
    imgclf.train(config, "runs/digits")
    imgclf.evaluate("runs/digits")["accuracy"]
    imgclf.load("runs/digits").predict("photo.jpg").label

These names are what launch.py itself calls. They are imported when they are first used, so that
`import imgclf` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

# ruff: noqa: F401
if TYPE_CHECKING:
  from imgclf.config import ConfigDict as ConfigDict
  from imgclf.config import default_config as default_config
  from imgclf.errors import Diverged as Diverged
  from imgclf.errors import Stopped as Stopped
  from imgclf.errors import UserError as UserError
  from imgclf.models import create as create_model
  from imgclf.models import names as model_names
  from imgclf.modes.benchmark import run as benchmark
  from imgclf.modes.check import run as check
  from imgclf.modes.evaluate import run as evaluate
  from imgclf.modes.export import run as export
  from imgclf.modes.find_lr import run as find_lr
  from imgclf.modes.predict import run as predict
  from imgclf.modes.report import run as report
  from imgclf.modes.train import run as train
  from imgclf.prediction import Prediction as Prediction
  from imgclf.run import Run as Run
  from imgclf.run import load as load

__version__ = "0.1.0"

_SOURCES = {
  "ConfigDict": ("imgclf.config", "ConfigDict"),
  "default_config": ("imgclf.config", "default_config"),
  "Diverged": ("imgclf.errors", "Diverged"),
  "Stopped": ("imgclf.errors", "Stopped"),
  "UserError": ("imgclf.errors", "UserError"),
  "benchmark": ("imgclf.modes.benchmark", "run"),
  "check": ("imgclf.modes.check", "run"),
  "evaluate": ("imgclf.modes.evaluate", "run"),
  "export": ("imgclf.modes.export", "run"),
  "find_lr": ("imgclf.modes.find_lr", "run"),
  "create_model": ("imgclf.models", "create"),
  "model_names": ("imgclf.models", "names"),
  "predict": ("imgclf.modes.predict", "run"),
  "Prediction": ("imgclf.prediction", "Prediction"),
  "report": ("imgclf.modes.report", "run"),
  "Run": ("imgclf.run", "Run"),
  "load": ("imgclf.run", "load"),
  "train": ("imgclf.modes.train", "run"),
}


def __getattr__(name: str) -> Any:
  if name not in _SOURCES:
    raise AttributeError(f"module 'imgclf' has no attribute {name!r}")
  module, attribute = _SOURCES[name]
  value = getattr(importlib.import_module(module), attribute)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted([*globals(), *_SOURCES])
