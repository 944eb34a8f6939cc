"""Split expressions in TFDS's own syntax, as stretches of a set's splits.

Parsing and rounding are TFDS's, so that an expression selects here what it selects there. Knows the
sizes of splits, not what is in them.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import difflib
from typing import NamedTuple

import tensorflow_datasets as tfds

from imgclf.errors import UserError


class Span(NamedTuple):
  """Examples [start, stop) of a split; stop is above start."""

  split: str
  start: int
  stop: int


@dataclasses.dataclass(frozen=True)
class _Size:
  """What TFDS asks of a split to make an expression absolute."""

  num_examples: int
  shard_lengths: list[int]


def describe(sizes: Mapping[str, int]) -> str:
  """Returns the splits with their sizes, such as `train (50000), test (10000)`."""
  return ", ".join(f"{split} ({size})" for split, size in sizes.items())


def parse(expression: str, shards: Mapping[str, Sequence[int]]) -> tuple[Span, ...]:
  """Returns the stretches that a split expression selects, in its order.

  Args:
    expression: such as `train`, `train[:90%]`, `train[-5:]+test`, `all`; percentages are rounded to
      the nearest example.
    shards: the lengths of each split's shards.

  Raises:
    UserError: for an expression that does not parse, names a split that is not there, reaches
      beyond its end, selects nothing, or selects an example twice.
  """
  sizes = {split: sum(lengths) for split, lengths in shards.items()}
  there = f"the set has {describe(sizes)}"
  for term in expression.split("+"):
    name = term.partition("[")[0].strip()
    if name not in (*sizes, "all"):
      near = difflib.get_close_matches(name, sizes, 1, 0.5)
      hint = f"; did you mean {near[0]}?" if near else ""
      raise UserError(f"{expression}: no split is called {name!r}, {there}{hint}")
  try:
    instruction = tfds.core.ReadInstruction.from_spec(expression)
  except (ValueError, NotImplementedError):  # the second for a part of `all`
    raise UserError(
      f"{expression}: is not a split expression; write train, train[:90%], train[10:20], train[-5:] or "
      f"train+test, {there}"
    ) from None
  known = {split: _Size(sizes[split], list(lengths)) for split, lengths in shards.items()}
  try:
    absolute = instruction.to_absolute(known)
  except ValueError:
    raise UserError(
      f"{expression}: reaches beyond the end, {there}; take a smaller slice"
    ) from None
  spans = []
  for part in absolute:
    start = part.from_ or 0
    stop = sizes[part.splitname] if part.to is None else part.to
    if start < stop:
      spans.append(Span(part.splitname, start, stop))
  if not spans:
    raise UserError(f"{expression}: selects no examples, {there}; take a larger slice")
  repeated = size(spans) - size(_merged(spans))
  if repeated:
    raise UserError(
      f"{expression}: selects {repeated} examples more than once, {there}; make the slices disjoint"
    )
  return tuple(spans)


def size(spans: Iterable[Span]) -> int:
  """Returns the number of examples in the stretches."""
  return sum(span.stop - span.start for span in spans)


def _merged(spans: Iterable[Span]) -> list[Span]:
  merged: list[Span] = []
  for span in sorted(spans):
    if merged and merged[-1].split == span.split and span.start <= merged[-1].stop:
      merged[-1] = merged[-1]._replace(stop=max(merged[-1].stop, span.stop))
    else:
      merged.append(span)
  return merged


def shared(first: Iterable[Span], second: Iterable[Span]) -> int:
  """Returns the number of examples that are in both."""
  first, second = _merged(first), _merged(second)
  return size(first) + size(second) - size(_merged([*first, *second]))


def remainder(spans: Iterable[Span], taken: Iterable[Span]) -> tuple[Span, ...]:
  """Returns what is left of `spans` without the examples in `taken`, in the order of `spans`."""
  left = list(spans)
  for hole in taken:
    kept = []
    for span in left:
      if span.split != hole.split or hole.stop <= span.start or span.stop <= hole.start:
        kept.append(span)
        continue
      if span.start < hole.start:
        kept.append(span._replace(stop=hole.start))
      if hole.stop < span.stop:
        kept.append(span._replace(start=hole.stop))
    left = kept
  return tuple(left)


def expression(spans: Iterable[Span], sizes: Mapping[str, int]) -> str:
  """Returns a split expression that `parse` reads as these stretches."""
  terms = []
  for split, start, stop in spans:
    low = "" if start == 0 else str(start)
    high = "" if stop == sizes[split] else str(stop)
    terms.append(f"{split}[{low}:{high}]" if low or high else split)
  return "+".join(terms)
