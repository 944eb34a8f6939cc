"""Records of metrics.jsonl to curves over the steps. Knows no file."""

from collections.abc import Iterable, Mapping, Sequence
import math
from typing import Any

from imgclf.reporting.contents import Series

POINTS = 1000

# Name of the curve: split and key of its records.
CURVES = {
  "train loss": ("train", "loss"),
  "validation loss": ("validation", "loss"),
  "train accuracy": ("train", "accuracy"),
  "validation accuracy": ("validation", "accuracy"),
  "learning_rate": ("train", "learning_rate"),
  "images_per_second": ("train", "images_per_second"),
}


def curves(records: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
  """Returns the curves that the records hold, each thinned to `POINTS` points.

  Args:
    records: each with `step`, `split` and figures; of several for the same step and split the last
      one counts, as in a run that was cut and went on.
  """
  values: dict[str, dict[int, float | None]] = {name: {} for name in CURVES}
  for record in records:
    for name, (split, key) in CURVES.items():
      if record.get("split") == split and key in record:
        values[name][record["step"]] = _finite(record[key])
  found = {}
  for name, by_step in values.items():
    steps = sorted(by_step)
    kept = _thinned([by_step[step] for step in steps])
    # A curve of gaps alone, such as the speed of a run of one window, is none.
    if any(by_step[steps[place]] is not None for place in kept):
      found[name] = Series([steps[p] for p in kept], [by_step[steps[p]] for p in kept])
  return found


def _finite(value: Any) -> float | None:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  try:
    return float(value) if number and math.isfinite(value) else None
  except OverflowError:  # JSON holds integers that no float can
    return None


def _thinned(values: Sequence[float | None]) -> list[int]:
  """Places of at most `POINTS` values: the least and the greatest of each stretch, and a gap where
  it has one.

  So a single spike, or step that diverged, is drawn among a million others.
  """
  n = len(values)
  if n <= POINTS:
    return list(range(n))
  kept = {0, n - 1}
  stretches = (POINTS - 2) // 3
  for k in range(stretches):
    places = range(k * n // stretches, (k + 1) * n // stretches)
    there = [(value, place) for place in places if (value := values[place]) is not None]
    kept |= {min(there)[1], max(there)[1]} if there else set()
    kept |= set([place for place in places if values[place] is None][:1])
  return sorted(kept)
