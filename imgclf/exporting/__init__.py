"""A trained classifier in a form that runs without imgclf: what the formats share, and the formats
by name.

A format is a file here with three names:

  write(carried, about, folder): writes the files of the format into a folder that is empty of them.
  load(folder): reads them back through the format's own runtime, and returns a function from pixels
    [batch, size, size, 3] uint8 to probabilities [batch, classes] float32, both numpy arrays.
  RUNTIME: the names of the packages that `load` needs, by which pip knows them.

`timm_folder.py` is of another kind: weights without a program, for the networks of PyTorch's
libraries.

Each is imported when it is asked for, and with it a runtime that may not be installed. Knows no run
folder.
"""

import difflib
import importlib
from types import ModuleType

from imgclf.errors import UserError

# What each format is called on the command line, and the file here that knows it.
FORMATS = {"stablehlo": "stablehlo", "savedmodel": "savedmodel", "onnx": "onnx_file"}

WEIGHTS = "timm"


def open(name: str) -> ModuleType:
  """Returns the file of a format.

  Raises:
    UserError: if there is no such format, or a package that it needs is not installed.
  """
  if name not in FORMATS:
    near = difflib.get_close_matches(name.lower(), (*FORMATS, WEIGHTS), 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(
      f"--format={name}: no such format; there are {', '.join((*FORMATS, WEIGHTS))}{hint}"
    )
  try:
    return importlib.import_module(f"imgclf.exporting.{FORMATS[name]}")
  except ModuleNotFoundError as error:
    if not error.name or error.name.split(".")[0] in ("imgclf", "jax"):
      raise
    raise UserError(
      f"--format={name}: needs {error.name.split('.')[0]}, which is not installed; "
      "pip install 'imgclf[export]'"
    ) from None
