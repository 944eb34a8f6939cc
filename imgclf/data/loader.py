"""Step -> host batch: order, share of the process, decoding, padding, prefetch.

A batch is a function of its number: `train_batches(...)[k]` is the host's share of global batch k, whatever
was asked for before, on any number of threads, processes or devices. Grain's `MapDataset` gives that random
access and runs ahead with threads; decoding releases the interpreter's lock. Knows no device.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import os
import sys
from typing import Any, Protocol

import grain
import numpy as np

from imgclf.data import crops, images
from imgclf.data.datasets import Record

Batch = dict[str, np.ndarray]


class Records(Protocol):
  """Encoded examples by index, as `imgclf.data.datasets.Dataset.records` returns them."""

  def __len__(self) -> int: ...
  def __getitems__(self, indices: Sequence[int]) -> list[Record]: ...


def train_crop(config: Mapping[str, Any]) -> Callable[[Record, np.random.Generator], np.ndarray]:
  """Returns the host's part of the training transform: a record to [size, size, 3] uint8.

  Raises (when called): ImageError naming a record that can't be decoded.
  """
  dataset, augment = config["dataset"], config["augment"]
  size, interpolation = dataset["image_size"], dataset["interpolation"]
  whole = eval_crop(config)

  def crop(record: Record, rng: np.random.Generator) -> np.ndarray:
    if augment["crop"] == "center":
      return whole(record)
    image = _decode(record, dataset)
    if augment["crop"] == "padded":
      return crops.padded_random_crop(
        image, rng, size, padding=augment["crop_padding"], interpolation=interpolation
      )
    return crops.random_resized_crop(
      image,
      rng,
      size,
      scale=augment["crop_scale"],
      ratio=augment["crop_ratio"],
      interpolation=interpolation,
    )

  return crop


def eval_crop(config: Mapping[str, Any]) -> Callable[[Record], np.ndarray]:
  """Returns the host's part of the evaluation transform: a record to [size, size, 3] uint8.

  Raises (when called): ImageError naming a record that can't be decoded.
  """
  dataset = config["dataset"]

  def crop(record: Record) -> np.ndarray:
    return crops.resize_center_crop(
      _decode(record, dataset),
      dataset["image_size"],
      crop_fraction=dataset["crop_fraction"],
      interpolation=dataset["interpolation"],
    )

  return crop


def _decode(record: Record, dataset: Mapping[str, Any]) -> np.ndarray:
  return images.decode(
    record.data, record.name, background=dataset["background"], max_pixels=dataset["max_pixels"]
  )


def _order(records: Records, config: Mapping[str, Any]) -> grain.MapDataset:
  """The endless stream: the split shuffled by the seed, then shuffled anew, and so on."""
  return grain.MapDataset.range(len(records)).seed(config["seed"]).shuffle().repeat()


def _distinct(config: Mapping[str, Any]) -> int:
  """How many examples a global batch holds: fewer than images where `augment.repeats` shows each several times."""
  return config["train"]["batch_size"] // config["augment"]["repeats"]


def train_examples(
  records: Records, config: Mapping[str, Any], k: int, count: int | None = None
) -> list[Record]:
  """Returns the encoded examples of the whole global batch k, each once, in their order; or the first `count`."""
  size, order = _distinct(config), _order(records, config)
  places = range(k * size, (k + 1) * size)[:count]
  return records.__getitems__([int(order[place]) for place in places])


def crop_generator(config: Mapping[str, Any], k: int, position: int) -> np.random.Generator:
  """Returns what the crop of one image of global batch k is drawn from.

  A generator an image, keyed by its place in the stream of images shown, costs 10 us and makes its crop
  independent of which thread or process draws it.
  """
  place = k * config["train"]["batch_size"] + position
  return np.random.Generator(np.random.Philox(key=[config["seed"], place]))


def train_batches(
  records: Records,
  config: Mapping[str, Any],
  *,
  process_index: int = 0,
  process_count: int = 1,
  on_error: Callable[[images.ImageError, str], None] | None = None,
) -> grain.MapDataset:
  """Returns this process's share of every training batch, by number and without end.

  The examples stand in one endless stream: the split shuffled by the seed, then shuffled anew, and so
  on. Global batch k is the stream's part from k * batch_size on, so that every example comes once an
  epoch. With `augment.repeats` it is the part from k * n on, n being batch_size / repeats, and position q
  shows example q mod n of it: the examples once in their order, then again. Process p of P has the p-th
  of P blocks of positions, in their order, so that neighbours stay together.

  Args:
    records: the split.
    config: the run's config.
    process_index: this process.
    process_count: all processes; divides the batch size.
    on_error: called, in a thread of the loader, with the error and the name of a record that can't be
      decoded, which then is blank and masked; left out, its ImageError is raised.

  Returns:
    A dataset whose item k is a dict of `image` [share, size, size, 3] uint8, `label` [share] int32,
    `position` [share] int32, the example's place in the global batch, and, with `on_error`, `mask`
    [share] bool, False where the image is blank.
  """
  size, batch_size = config["dataset"]["image_size"], config["train"]["batch_size"]
  order, distinct = _order(records, config), _distinct(config)
  crop = train_crop(config)
  share = batch_size // process_count
  positions = np.arange(process_index * share, (process_index + 1) * share, dtype=np.int32)

  def batch(k: int) -> Batch:
    places = [k * distinct + int(position) % distinct for position in positions]
    image = np.zeros((share, size, size, 3), np.uint8)
    label = np.empty(share, np.int32)
    mask = np.ones(share, bool)
    examples = records.__getitems__([int(order[place]) for place in places])
    for row, (position, record) in enumerate(zip(positions, examples)):
      label[row] = record.label
      try:
        image[row] = crop(record, crop_generator(config, k, int(position)))
      except images.ImageError as error:
        if on_error is None:
          raise
        on_error(error, record.name)
        mask[row] = False
    made = {"image": image, "label": label, "position": positions}
    return made if on_error is None else {**made, "mask": mask}

  return grain.MapDataset.range(sys.maxsize // batch_size).map(batch)


def eval_batches(
  records: Records,
  config: Mapping[str, Any],
  batch_size: int,
  *,
  process_index: int = 0,
  process_count: int = 1,
  on_error: Callable[[int, images.ImageError], None] | None = None,
) -> grain.MapDataset:
  """Returns this process's share of the batches that hold every example exactly once, in order.

  All processes have the same number of batches of the same shape; what is missing in the last one is
  filled with rows that `mask` marks.

  Args:
    records: the split.
    config: the run's config.
    batch_size: global; process_count must divide it.
    process_index: this process.
    process_count: all processes.
    on_error: called with the index of a record that can't be decoded, which then is blank and masked;
      left out, its ImageError is raised.

  Returns:
    A dataset whose item k is a dict of `image` [share, size, size, 3] uint8, `label` [share] int32,
    `index` [share] int64 (place in the split, -1 where the row only fills the batch) and `mask` [share] bool,
    False where there is no image.
  """
  size, total = config["dataset"]["image_size"], len(records)
  crop = eval_crop(config)

  def batch(k: int) -> Batch:
    index = np.arange(k * batch_size + process_index, (k + 1) * batch_size, process_count)
    image = np.zeros((len(index), size, size, 3), np.uint8)
    label = np.zeros(len(index), np.int32)
    mask = index < total
    for row, record in enumerate(records.__getitems__([int(i) for i in index[mask]])):
      try:
        image[row] = crop(record)
      except images.ImageError as error:
        if on_error is None:
          raise
        on_error(int(index[row]), error)
        mask[row] = False
      label[row] = record.label
    index = np.where(index < total, index, -1)
    return {"image": image, "label": label, "index": index, "mask": mask}

  return grain.MapDataset.range(-(-total // batch_size)).map(batch)


def blank_batch(config: Mapping[str, Any], count: int) -> Batch:
  """Returns a batch of no example, in the layout of `eval_batches`: `image`, `label`, `index`, `mask`."""
  size = config["dataset"]["image_size"]
  return {
    "image": np.zeros((count, size, size, 3), np.uint8),
    "label": np.zeros(count, np.int32),
    "index": np.full(count, -1),
    "mask": np.zeros(count, bool),
  }


def threads(config: Mapping[str, Any]) -> int:
  """Returns how many threads decode images; 0: the one that asks for them."""
  given = config["dataset"]["threads"]
  return min(16, os.cpu_count() or 1) if given is None else given


def prefetch(batches: grain.MapDataset, config: Mapping[str, Any]) -> Iterator[Batch]:
  """Iterates over batches in order, made ahead of need by threads that share the work batch by batch."""
  options = grain.ReadOptions(
    num_threads=threads(config), prefetch_buffer_size=config["dataset"]["prefetch"]
  )
  return iter(batches.to_iter_dataset(options))
