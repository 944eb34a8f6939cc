"""Lines of metrics.jsonl: strict JSON, one object a line, cut back when a killed run is resumed.

Knows no figure by name but `step`.
"""

from collections.abc import Mapping
import json
import math
import numbers
import os
import pathlib
from typing import Any

from imgclf import whole_files
from imgclf.errors import UserError


def number(value: Any) -> Any:
  """Returns the Python number of a scalar of Python, numpy or JAX; None for anything else."""
  if getattr(value, "shape", None) == () and hasattr(value, "item"):
    value = value.item()
  return value if isinstance(value, numbers.Real) else None


def json_line(record: Mapping[str, Any]) -> str:
  """Returns a flat record as a line of JSON; NaN and infinities, which JSON lacks, become null."""
  strict = {
    key: None if isinstance(value, float) and not math.isfinite(value) else value
    for key, value in record.items()
  }
  return json.dumps(strict, allow_nan=False) + "\n"


def truncate_metrics(path: str | os.PathLike, step: int) -> None:
  """Drops from a metrics.jsonl what a killed run wrote after `step`, and its half-written last
  line.

  The lines that stay are kept byte for byte, and the file is replaced whole or not at all. A file
  that is not there is left so.

  Raises:
    UserError: if a line other than the last is not a JSON object with a step.
  """
  path = pathlib.Path(path)
  if not path.exists():
    return
  before = path.read_bytes()
  lines = before.removesuffix(b"\n").split(b"\n") if before else []
  kept = []
  for position, line in enumerate(lines, start=1):
    recorded = _step_of(line)
    if recorded is None and position < len(lines):
      raise UserError(
        f"{path}, line {position}: not a JSON object with a step; remove or mend the line"
      )
    if recorded is not None and recorded <= step:
      kept.append(line + b"\n")
  after = b"".join(kept)
  if after == before:
    return
  whole_files.write(path, after)


def read_metrics(path: str | os.PathLike) -> tuple[list[dict[str, Any]], int]:
  """Returns the records of a metrics.jsonl in their order, and how many lines are none.

  The half-written last line of a run that is going on, or was killed, is not counted as one. A file
  that is not there has no record.

  Raises:
    UserError: if it can't be read.
  """
  path = pathlib.Path(path)
  try:
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
  except OSError as error:
    raise UserError(f"{path}: can't be read ({error.strerror}); restore the file") from error
  records, wrong = [], 0
  for line in lines[:-1]:  # after the last newline stands nothing, or what is not whole
    if _step_of(line) is None:
      wrong += 1
    else:
      records.append(json.loads(line))
  return records, wrong


def _step_of(line: bytes) -> int | None:
  try:
    record = json.loads(line)
  except ValueError:  # also of bytes that are not UTF-8
    return None
  step = record.get("step") if isinstance(record, dict) else None
  return step if isinstance(step, int) else None
