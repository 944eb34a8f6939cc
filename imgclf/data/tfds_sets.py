"""Prepared TFDS sets, read by index from ArrayRecord files without TensorFlow and without network.

Finds the set's folder itself, because TFDS's own search imports the set's code. Knows neither split
expressions nor what the images hold.
"""

from collections.abc import Iterator, Sequence
import difflib
import json
import os
import pathlib
import re
import shlex
from typing import Any

from google.protobuf import json_format
import tensorflow_datasets as tfds

from imgclf.data import digits
from imgclf.data.sources import Record
from imgclf.errors import UserError

REFERENCE = re.compile(
  r"(?P<name>[A-Za-z_]\w*)(/(?P<config>[\w.+=-]+))?(:(?P<version>\d+\.\d+\.\d+))?"
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")
# TFDS imports the module of each class that features.json names, which runs whatever code is there.
_FEATURE_CLASS = re.compile(r"tensorflow_datasets\.core\.features(\.[A-Za-z_]\w*)+")
_ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD


class TfdsSource:
  """One split of a prepared set. Safe to read from several threads.

  Args:
    builder: reads ArrayRecord files.
    split: the split's name.
    image_key: name of the Image feature.
    label_key: name of the ClassLabel feature.
  """

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str, image_key: str, label_key: str):
    features = builder.info.features
    self._name, self._folder = f"{builder.info.name}/{split}", builder.data_dir
    self._image_key, self._label_key = image_key, label_key
    self._classes = features[label_key].num_classes
    self._shard_lengths = list(builder.info.splits[split].shard_lengths)
    self._raw = builder.as_data_source(
      split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    # Other features (boxes, texts, videos) would be decoded for nothing.
    self._features = tfds.features.FeaturesDict(
      {key: features[key] for key in (image_key, label_key)}
    )
    self._decoders = {image_key: tfds.decode.SkipDecoding()}

  @property
  def shard_lengths(self) -> list[int]:
    """Number of examples in each record file."""
    return self._shard_lengths

  def name(self, index: int) -> str:
    """Returns the set, the split and the place in it, such as `cifar10/train[123]`."""
    return f"{self._name}[{index}]"

  def read(self, indices: Sequence[int]) -> list[Record]:
    """Reads examples by their place in the split.

    Raises:
      UserError: if a record file is damaged (its checksums tell), or an example has no class.
    """
    try:
      examples = self._raw.__getitems__(list(indices))
    except (RuntimeError, ValueError) as error:  # what array_record raises, checksums included
      raise self._damaged(" ".join(str(error).split())) from None
    records = []
    for index, example in zip(indices, examples):
      if not example:  # what array_record gives for a file that was cut at a multiple of 64 KiB
        raise self._damaged(f"example {index} is missing")
      parts = self._features.deserialize_example_np(example, decoders=self._decoders)
      name, label = self.name(index), int(parts[self._label_key])
      if not 0 <= label < self._classes:
        raise UserError(
          f"{name}: has the label {label}, which stands for no class; leave this split out"
        )
      records.append(Record(parts[self._image_key], label, name))
    return records

  def _damaged(self, why: str) -> UserError:
    return UserError(
      f"{self._name}: a record file in {self._folder} can't be read ({why}); delete that folder and "
      "prepare the set again"
    )


def read(
  reference: str, data_dir: pathlib.Path, image_key: str, label_key: str
) -> tuple[tuple[str, ...], dict[str, TfdsSource]]:
  """Opens a prepared set.

  Args:
    reference: `name`, `name:version`, `name/config` or `name/config:version`; the highest version
      where none is given.
    data_dir: the folder that holds prepared sets.
    image_key: name of the feature that holds the image.
    label_key: name of the feature that holds the class.

  Returns:
    The class names (`0`, `1`, … where the set has none), and the splits that are not empty.

  Raises:
    UserError: for a set that is not there, is damaged, is not in ArrayRecord files, or lacks a
      feature.
  """
  folder = _find(reference, data_dir)
  again = f"delete {folder} and " + (
    "run again" if reference.partition(":")[0] == digits.NAME else _prepare(reference, data_dir)
  )
  builder = _open(folder, again)
  if _ARRAY_RECORD not in builder.info.available_file_formats():
    raise UserError(
      f"config.dataset.name={reference}: {folder} holds {builder.info.file_format.value} files, which "
      "can't be read by index; convert them: pip install 'imgclf[prepare]' && tfds convert_format "
      f"--dataset_version_dir={shlex.quote(str(folder))} --out_file_format={_ARRAY_RECORD.value}"
    )
  _check_features(reference, builder.info.features, image_key, label_key)
  if builder.info.file_format != _ARRAY_RECORD:
    # A converted set has both formats; its file names are those of the first until it is told so.
    builder.info.set_file_format(_ARRAY_RECORD, override=True, override_if_initialized=True)
  found = {}
  for split, info in builder.info.splits.items():
    if not info.num_examples:
      continue
    for path in info.filepaths:
      if not os.path.isfile(path):
        raise UserError(
          f"config.dataset.name={reference}: {path} is missing; restore it, or {again}"
        )
    found[split] = TfdsSource(builder, split, image_key, label_key)
  if not found:
    raise UserError(f"config.dataset.name={reference}: {folder} holds no examples; {again}")
  return tuple(builder.info.features[label_key].names), found


def _prepare(reference: str, data_dir: pathlib.Path) -> str:
  return (
    "prepare it: pip install 'imgclf[prepare]' && "
    f"tfds build {reference} --file_format=array_record --data_dir={shlex.quote(str(data_dir))}"
  )


def _folders(path: pathlib.Path) -> list[str]:
  try:
    with os.scandir(path) as listing:
      return sorted(e.name for e in listing if e.is_dir() and not e.name.startswith("."))
  except (FileNotFoundError, NotADirectoryError):
    return []
  except OSError as error:
    raise UserError(
      f"{path}: can't be listed ({error.strerror}); make it readable or give another "
      "--config.dataset.data_dir=DIR"
    ) from None


def _versions(path: pathlib.Path) -> list[str]:
  names = [name for name in _folders(path) if _VERSION.fullmatch(name)]
  return sorted(names, key=lambda name: tuple(map(int, name.split("."))))


def _configs(path: pathlib.Path) -> list[str]:
  return [name for name in _folders(path) if _versions(path / name)]


def _find(reference: str, data_dir: pathlib.Path) -> pathlib.Path:
  """Returns the folder of a prepared version."""
  match = REFERENCE.fullmatch(reference)
  assert match, reference
  name, config, version = match["name"], match["config"], match["version"]
  where = f"config.dataset.name={reference}"
  folder = data_dir / name
  configs = _configs(folder)
  if config is None and configs and not _versions(folder):
    config = _default_config(folder)
    if config not in configs:
      raise UserError(
        f"{where}: the set has several configs; choose one: "
        + ", ".join(f"{name}/{known}" for known in configs)
      )
  if config is not None:
    folder /= config
  versions = _versions(folder)
  if version in versions:
    return folder / version
  if versions and version is None:
    return folder / versions[-1]
  prepare = f"{_prepare(reference, data_dir)} (or give its folder, --config.dataset.data_dir=DIR)"
  if versions or name == digits.NAME:
    there = ", ".join(versions or [digits.VERSION])
    prepare = "leave :VERSION out" + ("" if name == digits.NAME else f", or {prepare}")
    raise UserError(f"{where}: {data_dir} has only version {there}; {prepare}")
  if configs:
    wanted, known = f"{name}/{config}", [f"{name}/{c}" for c in configs]
  else:
    prepared = [n for n in _folders(data_dir) if _versions(data_dir / n) or _configs(data_dir / n)]
    wanted, known = name, [*prepared, digits.NAME]
  near = difflib.get_close_matches(wanted.lower(), known, 1, 0.6)
  if os.path.isdir(reference):
    near = [f"folder:{reference}"]
  hint = f"did you mean {near[0]}? If not, {prepare}" if near else prepare
  raise UserError(f"{where}: no such set in {data_dir}; {hint}")


def _default_config(folder: pathlib.Path) -> str | None:
  """Returns the config that TFDS noted down as the default one."""
  try:
    tree = json.loads((folder / ".config" / "metadata.json").read_text())
    return tree.get("default_config_name")
  except (OSError, ValueError, AttributeError):
    return None


def _open(folder: pathlib.Path, again: str) -> tfds.core.DatasetBuilder:
  for name in ("dataset_info.json", "features.json"):
    if not (folder / name).is_file():
      raise UserError(f"{folder}: is incomplete, {name} is missing; {again}")
  try:
    for name in _class_names(json.loads((folder / "features.json").read_text(encoding="utf-8"))):
      if not _FEATURE_CLASS.fullmatch(str(name)):
        raise UserError(
          f"{folder}/features.json: names the class {name}, which is none of TFDS's own features "
          f"and would be run as code; {again}"
        )
    json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    return tfds.builder_from_directory(folder)
  except (
    json_format.ParseError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RecursionError,
  ) as error:
    # TFDS raises all of these over files that are not what they should be.
    raise UserError(
      f"{folder}: dataset_info.json or features.json is damaged ({' '.join(str(error).split())}); "
      f"{again}"
    ) from None


def _class_names(tree: Any) -> Iterator[Any]:
  """Yields what stands where TFDS looks for a class's name, at any depth, in old and new files."""
  waiting = [tree]
  while waiting:
    part = waiting.pop()
    if isinstance(part, list):
      waiting += part
    elif isinstance(part, dict):
      for key, value in part.items():
        if isinstance(value, dict | list):
          waiting.append(value)  # a feature may be called `type`
        elif key in ("pythonClassName", "python_class_name", "type"):
          yield value
        elif key == "json" and isinstance(value, str):
          waiting.append(json.loads(value))


def _check_features(reference: str, features, image_key: str, label_key: str) -> None:
  listed = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
  wanted = (
    ("image_key", image_key, tfds.features.Image),
    ("label_key", label_key, tfds.features.ClassLabel),
  )
  for field, key, kind in wanted:
    if key not in features or not isinstance(features[key], kind):
      what = f"is no {kind.__name__}" if key in features else "is no feature"
      fits = [name for name, feature in features.items() if isinstance(feature, kind)]
      mend = (
        f"set it to {' or '.join(fits)}"
        if fits
        else f"it has no {kind.__name__} feature, take another set"
      )
      raise UserError(
        f"config.dataset.{field}={key}: {what} of {reference}, whose features are {listed}; {mend}"
      )
