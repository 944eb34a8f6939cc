"""A run's config: made, overridden, checked, read and written, by the one schema in
imgclf/schema.py.

A config is an `ml_collections.ConfigDict` with the sections and fields of the schema, locked.
"""

import ast
from collections.abc import Iterable, Mapping
import difflib
import json
import os
import pathlib
from typing import Any

from ml_collections import config_dict
from ml_collections.config_dict import ConfigDict

from imgclf import combinations, durations
from imgclf.errors import UserError
from imgclf.fields import Field
from imgclf.schema import FIELDS, SCHEMA


def default_config() -> ConfigDict:
  """Returns a new locked config with every field at its default."""
  config = ConfigDict()
  for section, fields in SCHEMA.items():
    target = config
    if section:
      config[section] = target = ConfigDict()
    for name, field in fields.items():
      target[name] = config_dict.placeholder(field.type) if field.default is None else field.default
  return config.lock()


def copy(config: ConfigDict) -> ConfigDict:
  """Returns a locked copy whose sections are its own; those of `ConfigDict(config)` are the
  config's.
  """
  return config.copy_and_resolve_references().lock()


def get(config: Mapping, path: str) -> Any:
  """Returns the value of a dotted field name such as `optimizer.learning_rate`."""
  value: Any = config
  for part in path.split("."):
    value = value[part]
  return value


def _set(config: ConfigDict, path: str, value: Any) -> None:
  section, _, name = path.rpartition(".")
  (config[section] if section else config)[name] = value


def no_such_field(path: str) -> UserError:
  """Returns the error for a dotted name that is no field, with the field that may be meant."""
  known = list(FIELDS)
  # A right name under a wrong section is as likely a slip as a typing error.
  leaf = path.rpartition(".")[2]
  near = difflib.get_close_matches(path, known, 1, 0.7) or [
    k for k in known if k.rpartition(".")[2] == leaf
  ]
  if not near:
    leaves = {k.rpartition(".")[2]: k for k in known}
    near = [leaves[m] for m in difflib.get_close_matches(leaf, leaves, 1, 0.6)]
  hint = f"did you mean config.{near[0]}?" if near else "imgclf/schema.py lists the fields"
  return UserError(f"config.{path}: no such field; {hint}")


_ARTICLES = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}


def _describe(field: Field) -> str:
  words = field.allowed or _ARTICLES.get(field.type, "numbers in brackets")
  return words + (" or none" if field.default is None else "")


def refusal(path: str, value: Any) -> UserError:
  """Returns the error for a value that a field does not take."""
  field = FIELDS[path]
  near = ""
  if isinstance(value, str) and field.allowed.startswith("one of "):
    names = field.allowed.removeprefix("one of ").split(", ")
    match = difflib.get_close_matches(value, names, 1, 0.5)
    near = f"; did you mean {match[0]}?" if match else ""
  return UserError(f"config.{path}: got {value!r}, allowed is {_describe(field)}{near}")


def _conforms(field: Field, value: Any) -> bool:
  """Whether the value is of the field's type; an int will do for a float."""
  if value is None:
    return field.default is None
  if field.type is bool:
    return isinstance(value, bool)
  if isinstance(value, bool):
    return False
  if field.type is float:
    return _is_number(value)
  if field.type is tuple:
    return isinstance(value, list | tuple) and all(map(_is_number, value))
  return isinstance(value, field.type)


def _is_number(value: Any) -> bool:
  if isinstance(value, int) and not isinstance(value, bool):
    return abs(value) < 2**1023  # JSON holds integers that no float can
  return isinstance(value, float)


def accepts(path: str, value: Any) -> bool:
  """Whether a field, by its dotted name, takes a value."""
  field = FIELDS[path]
  return _conforms(field, value) and (value is None or field.check(value))


def _cast(field: Field, value: Any) -> Any:
  if value is None:
    return None
  if field.type is tuple:
    return tuple(value)
  return field.type(value)


def _parse(path: str, text: str) -> Any:
  """Reads a command-line value as the field's type."""
  field = FIELDS[path]
  if field.default is None and text.lower() in ("none", ""):
    return None
  if field.type is str:
    return text
  if field.type is bool:
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
      raise refusal(path, text)
    return words[text.lower()]
  try:
    value = float(text) if field.type is float else ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    raise refusal(path, text) from None
  if not _conforms(field, value):
    raise refusal(path, text)
  return value


def apply_overrides(config: ConfigDict, overrides: Iterable[tuple[str, str]]) -> None:
  """Sets fields from command-line text, in place.

  A duration given in one unit replaces the one that the config file gave in another; the same
  duration given here in two units is refused.

  Args:
    config: the config to change.
    overrides: pairs of a dotted field name and its value as text; `none` clears an optional field.

  Raises:
    UserError: for an unknown field, a section, or a value of the wrong type.
  """
  given: dict[str, str] = {}
  for path, text in overrides:
    if path in SCHEMA and path:
      raise UserError(
        f"config.{path}: is a section; set its fields one by one, "
        f"such as --config.{path}.{next(iter(SCHEMA[path]))}=VALUE"
      )
    if path not in FIELDS:
      raise no_such_field(path)
    given[path] = text
  for path, text in given.items():
    value = _parse(path, text)
    prefix, _, unit = path.rpartition("_")
    if value is not None and prefix in durations.NAMES and unit in durations.UNITS:
      for other in durations.UNITS:
        if f"{prefix}_{other}" not in given:
          _set(config, f"{prefix}_{other}", None)
    _set(config, path, _cast(FIELDS[path], value))


def validate(config: Mapping) -> None:
  """Checks every field and the combinations that the schema alone can judge.

  Raises:
    UserError: naming the field, what was given and what is allowed.
  """
  for path, value in _flatten(config):
    if path not in FIELDS:
      raise no_such_field(path)
    field = FIELDS[path]
    if not _conforms(field, value) or (value is not None and not field.check(value)):
      raise refusal(path, value)
  combinations.check(config)


def _flatten(config: Mapping) -> Iterable[tuple[str, Any]]:
  """Yields every dotted name and its value.

  Raises:
    UserError: if a section or field of the schema is missing.
  """
  for path in FIELDS:
    section, _, name = path.rpartition(".")
    within = config.get(section) if section else config
    if section and not isinstance(within, Mapping | ConfigDict):
      raise UserError(
        f"config.{section}: got {within!r}, must be a section with the fields of its own"
      )
    if within is None or name not in within:
      raise UserError(f"config.{path}: is missing; add it or start from imgclf.default_config()")
  for key, value in config.items():
    if key in SCHEMA:
      for name, leaf in value.items():
        yield f"{key}.{name}", leaf
    else:
      yield key, value


def eval_batch_size(config: Mapping) -> int:
  """Returns the global batch size of evaluation and prediction."""
  return config["eval"]["batch_size"] or config["train"]["batch_size"]


def resolve(config: ConfigDict) -> ConfigDict:
  """Returns a checked copy in which paths are absolute, so that it holds from any folder."""
  validate(config)
  resolved = copy(config)
  dataset = resolved["dataset"]
  kind, _, path = dataset["name"].partition(":")
  if path and kind in ("folder", "csv"):
    dataset["name"] = f"{kind}:{pathlib.Path(path).expanduser().resolve()}"
  weights = resolved["model"]["weights"]
  if weights is not None and not weights.startswith("timm:"):
    kind, _, path = weights.partition(":")
    resolved["model"]["weights"] = f"{kind}:{pathlib.Path(path).expanduser().resolve()}"
  teacher = resolved["distill"]["teacher"]
  if teacher is not None:
    path = teacher.removeprefix("run:")
    resolved["distill"]["teacher"] = f"run:{pathlib.Path(path).expanduser().resolve()}"
  data_dir = dataset["data_dir"] or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  dataset["data_dir"] = str(pathlib.Path(data_dir).expanduser().resolve())
  return resolved


def to_json(config: Mapping) -> str:
  """Returns the config as indented JSON, which `from_json` reads back."""
  tree: dict[str, Any] = {}
  for section, fields in SCHEMA.items():
    target = tree.setdefault(section, {}) if section else tree
    for name in fields:
      target[name] = get(config, f"{section}.{name}" if section else name)
  return json.dumps(tree, indent=2) + "\n"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Makes an object of its pairs; which of two values counts would depend on who reads them."""
  tree = dict(pairs)
  if len(tree) < len(pairs):
    names = [name for name, _ in pairs]
    raise ValueError(f"it gives {next(n for n in names if names.count(n) > 1)!r} twice")
  return tree


def from_json(text: str, where: str = "config.json") -> ConfigDict:
  """Reads a config that `to_json` wrote. The text is data: nothing in it is executed.

  Raises:
    UserError: if it is not JSON, or not a config by the schema.
  """
  try:
    tree = json.loads(text, object_pairs_hook=_once)
  except (ValueError, RecursionError) as error:
    raise UserError(
      f"{where}: is not JSON ({error}); restore the file or use another --workdir"
    ) from None
  if not isinstance(tree, dict):
    raise UserError(f"{where}: is not a JSON object; restore the file or use another --workdir")
  for path, field in FIELDS.items():
    # A run of a version that did not have this field yet: new fields default to what was done
    # before.
    section, _, name = path.rpartition(".")
    within = tree.setdefault(section, {}) if section else tree
    if isinstance(within, dict):
      within.setdefault(name, field.default)
  try:
    validate(tree)
  except UserError as error:
    raise UserError(f"{where}: {error}") from None
  config = default_config()
  for path, value in _flatten(tree):
    _set(config, path, _cast(FIELDS[path], value))
  return config


def differences(old: Mapping, new: Mapping) -> tuple[list[str], list[str]]:
  """Compares the config of a run with the one it is to be resumed with.

  Returns:
    Two lists of lines such as `config.seed: 0 -> 1`: those that make it another run, and those that
    may change within a run.
  """
  matter: list[str] = []
  free: list[str] = []
  for path, field in FIELDS.items():
    before, after = get(old, path), get(new, path)
    if _cast(field, before) != _cast(field, after):
      (free if field.may_change else matter).append(f"config.{path}: {before!r} -> {after!r}")
  return matter, free
