"""The losses of a sweep of learning rates as a picture, with both axes. Knows no run."""

from collections.abc import Sequence
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgclf.sweep import Finding

_WIDTH, _HEIGHT = 800, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 40, 52
# Drawn larger, then reduced: Pillow's lines have no smooth edges.
_FINER = 2


def draw(rates: np.ndarray, losses: Sequence[float], finding: Finding) -> Image.Image:
  """Draws losses (grey), their smooth curve (blue) and the suggested rate (orange, dashed).

  Args:
    rates: [n] rising, of the losses.
    losses: [n] finite, n at least 2.
    finding: what was found in them.

  Returns:
    An RGB picture of 800 x 480.
  """
  page = Image.new("RGB", (_WIDTH * _FINER, _HEIGHT * _FINER), "white")
  pen = ImageDraw.Draw(page)
  small = ImageFont.load_default(13 * _FINER)
  low_x, high_x = math.log10(rates[0]), math.log10(rates[-1])
  # What is far above the begin is where training is lost, and would flatten all else.
  low = min(finding.smoothed)
  high = min(max(finding.smoothed), 1.5 * finding.smoothed[0] - 0.5 * low)
  high = high if high > low else low + 1
  low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)

  def x_of(rate: float) -> float:
    share = (math.log10(rate) - low_x) / (high_x - low_x)
    return _FINER * (_LEFT + share * (_WIDTH - _LEFT - _RIGHT))

  def y_of(loss: float) -> float:
    share = (min(max(loss, low), high) - low) / (high - low)
    return _FINER * (_HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP))

  left, right = _FINER * _LEFT, _FINER * (_WIDTH - _RIGHT)
  top, bottom = _FINER * _TOP, _FINER * (_HEIGHT - _BOTTOM)
  for power in range(math.ceil(low_x - 1e-9), math.floor(high_x + 1e-9) + 1):
    x = x_of(10.0**power)
    pen.line([(x, top), (x, bottom)], "#e6e6e6", _FINER)
    pen.text((x, bottom + 6 * _FINER), f"{10.0**power:g}", "#333333", small, anchor="ma")
  step = _round_step((high - low) / 6)
  for number in range(math.ceil(low / step), math.floor(high / step) + 1):
    value = number * step
    pen.line([(left, y_of(value)), (right, y_of(value))], "#e6e6e6", _FINER)
    pen.text((left - 6 * _FINER, y_of(value)), f"{value:.4g}", "#333333", small, anchor="rm")
  pen.line([(x_of(r), y_of(v)) for r, v in zip(rates, losses)], "#b0b0b0", _FINER, joint="curve")
  curve = [(x_of(r), y_of(v)) for r, v in zip(rates, finding.smoothed)]
  pen.line(curve, "#0060a8", 3 * _FINER, joint="curve")
  pen.line([(left, top), (left, bottom), (right, bottom)], "#333333", _FINER)
  if finding.suggested is not None:
    x = x_of(finding.suggested)
    for y in range(top, bottom, 10 * _FINER):
      pen.line([(x, y), (x, y + 5 * _FINER)], "#c25700", 2 * _FINER)
    text = f"suggested: {finding.suggested:.2g}"
    half = pen.textlength(text, font=small) / 2
    place = min(max(x, left + half), right - half)
    pen.text((place, top - 6 * _FINER), text, "#c25700", small, anchor="ms")
  pen.text((left, 8 * _FINER), "training loss", "#333333", small)
  middle = (left + right) / 2
  pen.text((middle, (_HEIGHT - 10) * _FINER), "learning rate", "#333333", small, anchor="ms")
  return page.resize((_WIDTH, _HEIGHT), Image.Resampling.LANCZOS)


def _round_step(step: float) -> float:
  """The smallest of 1, 2 or 5 times a power of ten that is no less than a step."""
  power = 10.0 ** math.floor(math.log10(step))
  return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))
