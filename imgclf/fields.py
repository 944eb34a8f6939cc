"""What a field of the config is, and the kinds of field that imgclf/schema.py is made of."""

from collections.abc import Callable
import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Field:
  """One field of the schema.

  Attributes:
    type: int, float, bool, str or tuple (of numbers).
    default: the value where nothing is said; None means that the field is optional.
    meaning: what the field does, with units.
    allowed: what `check` accepts, in words.
    check: whether a value of the right type is acceptable.
    may_change: whether a run may be resumed with another value.
  """

  type: type
  default: Any
  meaning: str
  allowed: str = ""
  check: Callable[[Any], bool] = lambda value: True
  may_change: bool = False


def number(
  kind: type,
  default: float | None,
  meaning: str,
  low: float = 0,
  high: float = math.inf,
  *,
  above: bool = False,
  below: bool = False,
  may_change: bool = False,
) -> Field:
  """A field in [low, high]; `above` and `below` leave the ends out."""
  name = "an integer" if kind is int else "a number"
  if kind is int:
    high = min(high, 2**53)  # beyond it, integers and floats no longer compare exactly
  words = [f"{name} {'>' if above else '>='} {low}"]
  if high < 2**53:
    words.append(f"{'<' if below else '<='} {high}")

  def check(value):
    return (
      (kind is int or math.isfinite(value))
      and (value > low if above else value >= low)
      and (value < high if below else value <= high)
    )

  return Field(kind, default, meaning, " and ".join(words), check, may_change)


def choice(default: str, meaning: str, *names: str, may_change: bool = False) -> Field:
  """A field that takes one of a few names."""
  words = "one of " + ", ".join(names)
  return Field(str, default, meaning, words, lambda value: value in names, may_change)


def numbers(
  default: tuple,
  meaning: str,
  allowed: str,
  check: Callable[[tuple], bool],
  may_change: bool = False,
) -> Field:
  """A field that takes several numbers, for which `check` and its words `allowed` are given."""
  return Field(tuple, default, meaning, allowed, check, may_change)


def duration(
  prefix: str, meaning: str, *, above: bool = True, may_change: bool = True
) -> dict[str, Field]:
  """The three fields of a duration, of which at most one is set; see `imgclf.durations`."""
  units: dict[str, tuple[type, str]] = {
    "steps": (int, "in steps (one step is one update)"),
    "epochs": (float, "in passes over the train split"),
    "examples": (int, "in training examples"),
  }
  return {
    f"{prefix}_{unit}": number(
      kind, None, f"{meaning}, {words}.", above=above, may_change=may_change
    )
    for unit, (kind, words) in units.items()
  }
