"""Which checkpoints stay. Pure: steps and scores in, steps out."""

from collections.abc import Mapping
import math


def ranking(scores: Mapping[int, float]) -> list[int]:
  """Returns the steps that have a score (more is better; -inf, NaN: none), best first, ties by age."""
  return sorted((s for s in scores if scores[s] > -math.inf), key=lambda s: (-scores[s], s))


def retained(scores: Mapping[int, float], *, latest: int, best: int, every: int | None) -> set[int]:
  """Returns the steps to keep.

  Args:
    scores: every step there is, with its score, as for `ranking`.
    latest: newest steps that are kept.
    best: best steps that are kept.
    every: the first step at or after each multiple of this is kept for good, so that the interval holds
      too where steps are not saved at the multiples themselves.
  """
  steps = sorted(scores)
  keep = {*steps[len(steps) - min(latest, len(steps)) :], *ranking(scores)[:best]}
  if every:
    first: dict[int, int] = {}
    for step in steps:
      first.setdefault(step // every, step)
    keep.update(step for multiple, step in first.items() if multiple > 0)
  return keep
