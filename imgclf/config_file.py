"""Runs a config file, which is Python and trusted like code, and tells what is wrong in it by its
line.

The `config.json` of a run is read as data.
"""

import ast
import difflib
import importlib.util
import os
import pathlib
import traceback

from imgclf.config import ConfigDict, from_json, no_such_field, refusal
from imgclf.errors import UserError
from imgclf.schema import FIELDS, SCHEMA


def load(path: str | os.PathLike) -> ConfigDict:
  """Returns the config of a file: what `get_config()` of a Python file gives, or the `config.json`
  of a run.

  A Python file is trusted like code and run. One that ends in .json is data.

  Raises:
    UserError: if the file is missing, has no `get_config`, or sets a field that does not exist.
  """
  path = pathlib.Path(path).expanduser()
  if not path.is_file():
    here = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
    near = difflib.get_close_matches(str(path), here, 1, 0.5)
    hint = (
      f"did you mean {near[0]}?"
      if near
      else "give the path of a config file, such as configs/digits.py"
    )
    raise UserError(f"--config={path}: no such file; {hint}")
  if path.suffix == ".json":
    try:
      return from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
      reason = getattr(error, "strerror", None) or error
      raise UserError(
        f"--config={path}: can't be read ({reason}); give a run's config.json"
      ) from None
  spec = importlib.util.spec_from_file_location(f"imgclf_config_{path.stem}", path)
  if spec is None or spec.loader is None:
    raise UserError(
      f"--config={path}: is not a Python file; config files end in .py, or in .json as that of a run"
    )
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config()
  except UserError:
    raise
  except Exception as error:  # whatever the user's file raises is the user's to mend
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == spec.origin]
    line = getattr(error, "lineno", None) or (frames[-1].lineno if frames else "?")
    message = _file_error(error, frames[-1].line if frames else None)
    raise UserError(f"{path}, line {line}: {message}") from error
  if not isinstance(config, ConfigDict):
    raise UserError(
      f"{path}: get_config() must return a ConfigDict; start from imgclf.default_config()"
    )
  return config


def _file_error(error: Exception, line: str | None) -> str:
  """One line for an exception of a config file, with our own hint where a field's name is wrong."""
  if (
    isinstance(error, AttributeError | KeyError | TypeError) and line and line.startswith("config.")
  ):
    path = line.partition("=")[0].strip().removeprefix("config.")
    if path in FIELDS:
      try:
        value = ast.literal_eval(line.partition("=")[2].strip())
      except (ValueError, SyntaxError):
        pass
      else:
        return str(refusal(path, value))
    elif path not in SCHEMA:
      return str(no_such_field(path))
  return f"{type(error).__name__}: {' '.join(str(error).split())}"
