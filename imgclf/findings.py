"""What a survey of a data set means for a run with this config: a report of plain lists and
numbers.

Pure: opens nothing and prints nothing. imgclf/data/survey.py collects the facts, and
imgclf/modes/check.py shows this.
"""

from collections.abc import Iterator, Mapping, Sequence
import math
from typing import Any

import numpy as np

from imgclf.data import label_sets
from imgclf.data.datasets import Dataset
from imgclf.data.survey import Survey

UNUSED = "unused"


class Parts:
  """Which part each record plays: a role, or `unused`; its split, where the roles are not known.

  Args:
    dataset: the set.
    roles: split expressions by role, None for a role without; nothing at all where they are not
      known.

  Attributes:
    names: of the parts that have records.
    of: for each split, [n] int8, indices into `names`.
  """

  def __init__(self, dataset: Dataset, roles: Mapping[str, str | None]):
    given = {role: text for role, text in roles.items() if text} or {s: s for s in dataset.splits}
    names = [*given, UNUSED]
    of = {split: np.full(n, len(given), np.int8) for split, n in dataset.splits.items()}
    for number, text in enumerate(given.values()):
      for span in dataset.spans(text):
        of[span.split][span.start : span.stop] = number
    there = sorted({int(number) for numbers in of.values() for number in np.unique(numbers)})
    self.names = [names[number] for number in there]
    self.of = {split: np.searchsorted(there, numbers) for split, numbers in of.items()}

  def at(self, split: str, place: int) -> str:
    """Returns the part of one record."""
    return self.names[self.of[split][place]]

  def members(self, name: str) -> dict[str, np.ndarray]:
    """Returns, for each split, [n] bool: what belongs to a part."""
    number = self.names.index(name) if name in self.names else -1
    return {split: numbers == number for split, numbers in self.of.items()}


def report(
  dataset: Dataset,
  config: Mapping[str, Any],
  roles: Mapping[str, str | None],
  parts: Parts,
  survey: Survey,
  refusals: Sequence[str],
) -> dict[str, Any]:
  """Puts together what `--mode=check` tells.

  Args:
    dataset: the set.
    config: resolved.
    roles: split expressions by role; nothing where they were refused.
    parts: of the same set and roles.
    survey: of the same set.
    refusals: what a run with this config would refuse before it begins.

  Returns:
    What README.md lists: strict JSON once it is dumped, the same on any number of threads.
  """
  place = _Places(dataset, parts)
  unreadable = [
    place.told(name, at, reason=reason)
    for name, split in survey.splits.items()
    for at, reason in sorted({**split.unread, **split.undecoded}.items())
  ]
  copies = [
    {
      "parts": sorted({member["part"] for member in group}),
      "classes": sorted({member["class"] for member in group}),
      "images": group,
    }
    for group in _copies(dataset, place, survey)
  ]
  counts = _counts(dataset, parts, survey)
  held = [name for name in parts.names if name != UNUSED]
  pictures = [split.kind >= 0 for split in survey.splits.values()]
  widths = np.concatenate([s.width[p] for s, p in zip(survey.splits.values(), pictures)])
  heights = np.concatenate([s.height[p] for s, p in zip(survey.splits.values(), pictures)])
  size = config["dataset"]["image_size"]
  return {
    "dataset": dataset.name,
    "notes": list(dataset.notes),
    "splits": dataset.splits,
    "roles": dict(roles),
    "parts": {name: _size(parts, name) for name in parts.names},
    "unreadable": unreadable,
    "misnamed": [
      place.told(name, at, format=survey.kinds[split.kind[at]][0])
      for name, split in survey.splits.items()
      for at in sorted(split.misnamed)
    ],
    "formats": _tally(survey, 0),
    "modes": _tally(survey, 1),
    "width": _range(widths),
    "height": _range(heights),
    "image_size": size,
    "smaller_than_image_size": int(np.count_nonzero(np.minimum(widths, heights) < size)),
    "copies": copies,
    "copies_across_parts": sum(len(set(copy["parts"]) - {UNUSED}) > 1 for copy in copies),
    "copies_of_other_class": sum(len(copy["classes"]) > 1 for copy in copies),
    "images_per_class": counts,
    **({"labels_per_image": per_image} if (per_image := _labels_per_image(parts, survey)) else {}),
    "missing": [
      {"class": name, "part": part} for part in held for name in counts if not counts[name][part]
    ],
    "train": _moments(survey),
    "stops": [*refusals, *_stops(config, parts, survey)],
  }


class _Places:
  """Tells records by name."""

  def __init__(self, dataset: Dataset, parts: Parts):
    self._dataset, self._parts = dataset, parts

  def told(self, split: str, at: int, **more: Any) -> dict[str, Any]:
    name = self._dataset.sources[split].name(at)
    return {"name": name, "split": split, "part": self._parts.at(split, at), **more}


def _size(parts: Parts, name: str) -> int:
  return sum(int(np.count_nonzero(member)) for member in parts.members(name).values())


def _tally(survey: Survey, which: int) -> dict[str, int]:
  """Counts formats (0) or modes (1), the most frequent first."""
  found: dict[str, int] = {}
  for split in survey.splits.values():
    for number, count in zip(*np.unique(split.kind[split.kind >= 0], return_counts=True)):
      word = survey.kinds[number][which]
      found[word] = found.get(word, 0) + int(count)
  return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _range(values: np.ndarray) -> dict[str, float | None]:
  if not len(values):
    return {"min": None, "median": None, "max": None}
  return {
    "min": int(values.min()),
    "median": float(np.median(values)),
    "max": int(values.max()),
  }


def _copies(dataset: Dataset, place: _Places, survey: Survey) -> Iterator[list[dict[str, Any]]]:
  """Yields the groups of pictures whose encoded bytes are the same, in the order of their first
  ones.
  """
  places = [(name, np.flatnonzero(split.kind >= 0)) for name, split in survey.splits.items()]
  digests = np.concatenate([survey.splits[name].digest[at] for name, at in places])
  order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal ones stay in order
  same = np.all(digests[order[1:]] == digests[order[:-1]], axis=1)
  edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
  groups = [order[start : stop + 1] for start, stop in zip(edges[::2], edges[1::2])]
  firsts = np.cumsum([0, *(len(at) for _, at in places)])
  for group in sorted(groups, key=lambda group: int(group[0])):
    members = []
    for index in group:
      number = int(np.searchsorted(firsts, index, side="right")) - 1
      name, at = places[number][0], int(places[number][1][index - firsts[number]])
      label = label_sets.words(survey.splits[name].label[at], dataset.classes)
      members.append(place.told(name, at, **{"class": label}))
    yield members


def _counts(dataset: Dataset, parts: Parts, survey: Survey) -> dict[str, dict[str, int]]:
  """Counts the pictures of each class in each part."""
  total = np.zeros((len(parts.names), len(dataset.classes)), np.int64)
  for name, split in survey.splits.items():
    picture = split.kind >= 0
    for number in range(len(parts.names)):
      labels = split.label[picture & (parts.of[name] == number)]
      total[number] += label_sets.counts(labels, len(dataset.classes))
  return {
    label: {part: int(total[row, column]) for row, part in enumerate(parts.names)}
    for column, label in enumerate(dataset.classes)
  }


def _labels_per_image(parts: Parts, survey: Survey) -> dict[str, dict[str, Any]]:
  """Of each part the mean number of classes that a picture has, and how many pictures have 0, 1,
  ...; {} for sets of one class an image.
  """
  told = {}
  for number, part in enumerate(parts.names):
    sizes = [
      split.label[(split.kind >= 0) & (parts.of[name] == number)].sum(axis=1)
      for name, split in survey.splits.items()
      if split.label.ndim == 2
    ]
    joined = np.concatenate(sizes).astype(np.int64) if sizes else np.empty(0, np.int64)
    if len(joined):
      images = {str(size): int(n) for size, n in enumerate(np.bincount(joined)) if n}
      told[part] = {"mean": round(float(joined.mean()), 6), "images": images}
  return told


def _moments(survey: Survey) -> dict[str, Any]:
  """Mean and standard deviation of each channel, from 0 to 1; integers up to the last division."""
  n = survey.pixels
  if not n:
    return {"images": 0, "mean": None, "std": None}
  variances = [n * q - s * s for s, q in zip(survey.sums, survey.squares)]
  return {
    "images": survey.images,
    "mean": [round(s / (255 * n), 6) for s in survey.sums],
    "std": [round(math.sqrt(v) / (255 * n), 6) for v in variances],
  }


def _stops(config: Mapping[str, Any], parts: Parts, survey: Survey) -> Iterator[str]:
  """Yields what the bad records of each role would do to training or to its evaluation."""
  for part in parts.names:
    if part == UNUSED:
      continue
    unread = _within(parts, part, survey, lambda split: split.unread)
    undecoded = _within(parts, part, survey, lambda split: split.undecoded)
    if unread:
      yield f"{part}: records that can't be read: {unread}; restore them or take them out"
    if not undecoded:
      continue
    many = f"{part}: images that can't be decoded: {undecoded}"
    if part != "train":
      if config["eval"]["bad_images"] == "error":
        yield f"{many}; mend them, or let them count as wrong: --config.eval.bad_images=wrong"
    elif config["dataset"]["bad_images"] == "error":
      yield f"{many}; mend them, or let training pass them over: --config.dataset.bad_images=skip"
    elif (share := undecoded / _size(parts, part)) > config["dataset"]["max_bad_share"]:
      yield (
        f"{many}, a share of {share:.4g} and more than "
        f"config.dataset.max_bad_share={config['dataset']['max_bad_share']:g}; mend them"
      )


def _within(parts: Parts, part: str, survey: Survey, places: Any) -> int:
  members = parts.members(part)
  return sum(
    bool(members[name][place]) for name, split in survey.splits.items() for place in places(split)
  )
