"""Which checkpoints stay, and which are meant. Pure: steps and scores in, steps out."""

from collections.abc import Collection, Mapping
import math


def ranking(scores: Mapping[int, float]) -> list[int]:
  """Returns the steps that have a score (more is better; -inf, NaN: none), best first, ties by
  age.
  """
  return sorted((s for s in scores if scores[s] > -math.inf), key=lambda s: (-scores[s], s))


def retained(scores: Mapping[int, float], *, latest: int, best: int, every: int | None) -> set[int]:
  """Returns the steps to keep.

  Args:
    scores: every step there is, with its score, as for `ranking`.
    latest: newest steps that are kept.
    best: best steps that are kept.
    every: the first step at or after each multiple of this is kept for good, so that the interval
      holds too where steps are not saved at the multiples themselves.
  """
  steps = sorted(scores)
  keep = {*steps[len(steps) - min(latest, len(steps)) :], *ranking(scores)[:best]}
  if every:
    first: dict[int, int] = {}
    for step in steps:
      first.setdefault(step // every, step)
    keep.update(step for multiple, step in first.items() if multiple > 0)
  return keep


def meant(text: str, scores: Mapping[int, float], damaged: Collection[int]) -> list[int]:
  """Returns the steps that `best`, `latest` or a number may mean, the likeliest first; none where
  it is no step.

  Args:
    text: what the user gave.
    scores: every step that can be ranked, with its score, as for `ranking`.
    damaged: steps that are there too, but whose score can't be read.
  """
  there = sorted({*scores, *damaged}, reverse=True)
  if text == "latest":
    return there
  if text == "best":
    best = ranking(scores)
    if not best and not damaged:
      return []
    # What can't be ranked may have been the best; of what has no score the newest is the likeliest.
    return list(dict.fromkeys([*sorted(damaged, reverse=True), *best, *there]))
  return [int(text)] if text.isdecimal() and int(text) in there else []
