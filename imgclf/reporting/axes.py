"""Axes of a drawing: round ticks, their labels, and where a value lies.

Knows no data and no markup.
"""

from collections.abc import Iterable
import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Axis:
  """A linear axis.

  Attributes:
    label: what is measured, with its unit.
    low, high: values at its ends, low < high.
    start, end: where those lie in the drawing; end < start for an axis that points up.
    ticks: (place in the drawing, text), low to high.
  """

  label: str
  low: float
  high: float
  start: float
  end: float
  ticks: tuple[tuple[float, str], ...]

  def place(self, value: float) -> float:
    """Returns where a finite value lies; one beyond an end lies at that end."""
    share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
    return round(self.start + share * (self.end - self.start), 1)


def fit(
  values: Iterable[float],
  label: str,
  start: float,
  end: float,
  *,
  percent: bool = False,
  most_ticks: int = 5,
  floor: float | None = None,
  ceiling: float | None = None,
  tight: bool = False,
) -> Axis:
  """Returns an axis from a round value to a round value around finite `values`.

  Args:
    values: to be shown; without any the axis runs from 0 to 1.
    label: of the axis.
    start, end: as in `Axis`.
    percent: whether the values are shares, labelled in percent.
    most_ticks: how many steps there may be between the ends.
    floor, ceiling: ends that are not passed, such as 0 and 1 of a share.
    tight: whether the axis ends at the values themselves, with ticks at whole numbers between: for
      steps of a run.
  """
  values = list(values) or [0.0, 1.0]
  low, high = min(values), max(values)
  if low == high:
    apart = abs(low) / 2 or 0.5
    low, high = low - apart, high + apart
  if floor is not None:
    low = max(low, floor)
  if ceiling is not None:
    high = min(high, ceiling)
  if not low < high:  # all values lie at an end that may not be passed
    low, high = (low - 0.5, high) if floor is None else (low, low + 0.5)
  step = _round_step((high - low) / most_ticks)
  if tight:
    step = max(step, 1.0)
    first, last = math.ceil(low / step), math.floor(high / step)
  else:
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    low, high = first * step, last * step
    if ceiling is not None:
      high = min(high, ceiling)
  ticks = [
    number * step for number in range(first, last + 1) if number * step <= high + 1e-9 * step
  ]
  axis = Axis(label, low, high, start, end, ())
  texts = [tick_text(tick, step, percent=percent) for tick in ticks]
  return dataclasses.replace(axis, ticks=tuple(zip(map(axis.place, ticks), texts, strict=True)))


def _round_step(step: float) -> float:
  """The smallest of 1, 2 or 5 times a power of ten that is no less than a step."""
  power = 10.0 ** math.floor(math.log10(step))
  return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def tick_text(value: float, step: float, *, percent: bool = False) -> str:
  """Returns the label of a tick, with as many decimals as the step between ticks needs."""
  if percent:
    return f"{_decimal(100 * value, 100 * step)}%"
  if step < 1e-4 and value:
    return f"{value:.1e}".replace(".0e", "e").replace("e-0", "e-")
  for unit, suffix in ((1e6, "M"), (1e3, "k")):
    if step >= unit:
      return f"{_decimal(value / unit, step / unit)}{suffix}" if value else "0"
  return _decimal(value, step)


def _decimal(value: float, step: float) -> str:
  decimals = max(0, -math.floor(math.log10(step) + 1e-9))
  # Adding 0 makes of a negative zero, as rounding leaves it, a plain one.
  return f"{round(value, decimals) + 0.0:,.{decimals}f}"
