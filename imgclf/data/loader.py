"""Step -> host batch: order, share of the process, decoding, padding, prefetch.

A batch is a function of its number: `train_batches(...)[k]` is the host's share of global batch k,
whatever was asked for before, on any number of threads, processes or devices. Grain's `MapDataset`
gives that random access and runs ahead with threads; decoding releases the interpreter's lock.
Knows no device.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import os
import sys
from typing import Any, Protocol

import grain
import numpy as np

from imgclf.data import crops, images, label_sets
from imgclf.data.datasets import Record
from imgclf.data.order import BalancedOrder, Order
from imgclf.data.sources import Decoded

Batch = dict[str, np.ndarray]

# Of smaller images, in pixels along a side, the work is the interpreter's rather than a codec's.
SMALL = 96


class Records(Protocol):
  """Encoded examples by index, as `imgclf.data.datasets.Dataset.records` returns them."""

  def __len__(self) -> int: ...
  def __getitems__(self, indices: Sequence[int]) -> list[Record]: ...


class TrainRecords(Records, Protocol):
  """Encoded examples whose labels are known beforehand, as `imgclf.data.sources.Records`."""

  def labels(self) -> np.ndarray:
    """Returns the label of each, [n] integers."""
    ...


def label_shape(records: Records) -> tuple[int, ...]:
  """Returns the shape of one record's label: () or, where an image may have several classes,
  (classes,).
  """
  return getattr(records, "label_shape", ())


def train_crop(
  config: Mapping[str, Any], sound: np.ndarray | None = None
) -> Callable[..., np.ndarray]:
  """Returns the host's part of the training transform: a record, its place among all images shown
  and, where that is known, its index in the split, to pixels.

  They are [size, size, 3] uint8. Image k * batch_size + q of those shown is at position q of global
  batch k.

  Args:
    config: the run's config.
    sound: [records] bool, those of which `images.decode_window` said so; kept up to date.

  Raises (when called): ImageError naming a record that can't be decoded.
  """
  dataset, augment, seed = config["dataset"], config["augment"], config["seed"]
  size = dataset["image_size"]
  fixed = fixed_train_crop(config)

  def crop(record: Record, place: int, index: int | None = None) -> np.ndarray:
    if fixed is not None:
      return fixed(record)
    # A generator an image, keyed by its place, costs 10 us and makes its crop independent of which
    # thread or process draws it.
    rng = np.random.Generator(np.random.Philox(key=[seed, place]))
    known = None if index is None else sound
    window = images.decode_window(
      record.data,
      record.name,
      lambda height, width: crops.random_window(
        height, width, rng, scale=augment["crop_scale"], ratio=augment["crop_ratio"]
      ),
      least=size,
      sound=known is not None and bool(known[index]),
      background=dataset["background"],
      max_pixels=dataset["max_pixels"],
    )
    if known is not None:
      known[index] = window.sound
    return crops.resize_window(
      window.pixels, window.box, size, interpolation=dataset["interpolation"]
    )

  return crop


def fixed_train_crop(config: Mapping[str, Any]) -> Callable[[Record], np.ndarray] | None:
  """Returns what `train_crop` makes of a record where that is always the same; None where it is
  random.
  """
  if config["augment"]["crop"] == "random_resized":
    return None
  # The device shifts a padded image, which is whole until then.
  return eval_crop(config) if config["augment"]["crop"] == "center" else _center_crop(config, 1.0)


def eval_crop(config: Mapping[str, Any]) -> Callable[[Record], np.ndarray]:
  """Returns the host's part of the evaluation transform: a record to [size, size, 3] uint8.

  Raises (when called): ImageError naming a record that can't be decoded.
  """
  return _center_crop(config, config["dataset"]["crop_fraction"])


def _center_crop(config: Mapping[str, Any], fraction: float) -> Callable[[Record], np.ndarray]:
  dataset = config["dataset"]

  def crop(record: Record) -> np.ndarray:
    return crops.resize_center_crop(
      _decode(record, dataset),
      dataset["image_size"],
      crop_fraction=fraction,
      interpolation=dataset["interpolation"],
    )

  return crop


def _decode(record: Record, dataset: Mapping[str, Any]) -> np.ndarray:
  if isinstance(record, Decoded):
    return record.pixels
  return images.decode(
    record.data, record.name, background=dataset["background"], max_pixels=dataset["max_pixels"]
  )


def example_order(
  records: TrainRecords, config: Mapping[str, Any], seed: int | None = None
) -> Order | BalancedOrder:
  """Returns the stream of a run's training examples, by `dataset.sampling`.

  Args:
    records: the train split.
    config: the run's config.
    seed: of the order; none: the run's.
  """
  seed = config["seed"] if seed is None else seed
  if config["dataset"]["sampling"] == "balanced":
    return BalancedOrder(records.labels(), seed)
  return Order(len(records), seed)


def train_examples(
  records: TrainRecords, config: Mapping[str, Any], k: int, count: int | None = None
) -> list[Record]:
  """Returns the encoded examples of the whole global batch k, each once, in their order; or the
  first `count`.
  """
  places = np.arange(k * _distinct(config), (k + 1) * _distinct(config))[:count]
  return records.__getitems__(example_order(records, config).at(places).tolist())


def _distinct(config: Mapping[str, Any]) -> int:
  """How many examples a global batch holds: fewer than images where `augment.repeats` shows each
  several times.
  """
  return config["train"]["batch_size"] // config["augment"]["repeats"]


def positions(config: Mapping[str, Any], process_index: int, process_count: int) -> np.ndarray:
  """Returns which places in a global batch a process works on: a block, so that neighbours stay
  together.

  Returns:
    [share] int32.
  """
  share = config["train"]["batch_size"] // process_count
  return np.arange(process_index * share, (process_index + 1) * share, dtype=np.int32)


def stream_places(
  config: Mapping[str, Any], k: int | np.ndarray, positions: np.ndarray
) -> np.ndarray:
  """Returns where in the stream of examples (see `Order`) those at these positions of global batch
  k stand, int64.
  """
  return k * _distinct(config) + positions.astype(np.int64) % _distinct(config)


def mirrored(
  order: Order | BalancedOrder,
  config: Mapping[str, Any],
  k: int | np.ndarray,
  positions: np.ndarray,
) -> np.ndarray:
  """Returns which images `augment.flip_alternate` mirrors of those at these positions of global
  batch k, bool.
  """
  repeats = config["augment"]["repeats"]
  return order.mirrored(
    stream_places(config, k, positions), positions // _distinct(config), repeats
  )


def train_batches(
  records: TrainRecords,
  config: Mapping[str, Any],
  *,
  process_index: int = 0,
  process_count: int = 1,
  on_error: Callable[[images.ImageError, str], None] | None = None,
  allocate: Callable[[tuple[int, ...], type], np.ndarray] = np.empty,
  sound: np.ndarray | None = None,
) -> grain.MapDataset:
  """Returns this process's share of every training batch, by number and without end.

  The examples stand in one endless stream: the split shuffled by the seed, then shuffled anew, and
  so on. Global batch k is the stream's part from k * batch_size on, so that every example comes
  once an epoch; with balanced `dataset.sampling` see `BalancedOrder`. With `augment.repeats` it is
  the part from k * n on, n being batch_size / repeats, and position q shows example q mod n of it:
  the examples once in their order, then again. Process p of P has the p-th of P blocks of
  positions, in their order, so that neighbours stay together.

  Args:
    records: the split.
    config: the run's config.
    process_index: this process.
    process_count: all processes; divides the batch size.
    on_error: called, in a thread of the loader, with the error and the name of a record that can't
      be decoded, which then is blank and masked; left out, its ImageError is raised.
    allocate: where a batch's images go: of a shape and dtype, as `np.empty`.
    sound: as for `train_crop`; left out, nothing is known at first.

  Returns:
    A dataset whose item k is a dict of `image` [share, size, size, 3] uint8, `label` [share] int32
    (or, of several classes an image, [share, classes] uint8), `position` [share] int32, the
    example's place in the global batch; with `augment.flip_alternate`, `mirror` [share] bool,
    whether the image is to be mirrored; and, with `on_error`, `mask` [share] bool, False where it
    is blank.
  """
  size, batch_size = config["dataset"]["image_size"], config["train"]["batch_size"]
  order = example_order(records, config)
  crop = train_crop(config, np.zeros(len(records), bool) if sound is None else sound)
  own = positions(config, process_index, process_count)
  shape = label_shape(records)

  def batch(k: int) -> Batch:
    image = allocate((len(own), size, size, 3), np.uint8)
    label = label_sets.blank(len(own), shape)
    mask = np.ones(len(own), bool)
    indices = order.at(stream_places(config, k, own)).tolist()
    examples = records.__getitems__(indices)
    for row, (position, index, record) in enumerate(zip(own.tolist(), indices, examples)):
      label[row] = record.label
      try:
        image[row] = crop(record, k * batch_size + position, index)
      except images.ImageError as error:
        if on_error is None:
          raise
        on_error(error, record.name)
        image[row], mask[row] = 0, False
    made = {"image": image, "label": label, "position": own}
    if config["augment"]["flip_alternate"]:
      made["mirror"] = mirrored(order, config, k, own)
    return made if on_error is None else {**made, "mask": mask}

  return grain.MapDataset.range(sys.maxsize // batch_size).map(batch)


def eval_batches(
  records: Records,
  config: Mapping[str, Any],
  batch_size: int,
  *,
  crop: Callable[[Record], np.ndarray] | None = None,
  process_index: int = 0,
  process_count: int = 1,
  on_error: Callable[[int, images.ImageError], None] | None = None,
) -> grain.MapDataset:
  """Returns this process's share of the batches that hold every example exactly once, in order.

  All processes have the same number of batches of the same shape; what is missing in the last one
  is filled with rows that `mask` marks.

  Args:
    records: the split.
    config: the run's config.
    batch_size: global; process_count must divide it.
    crop: a record to [size, size, 3] uint8; none: `eval_crop`.
    process_index: this process.
    process_count: all processes.
    on_error: called with the index of a record that can't be decoded, which then is blank and
      masked; left out, its ImageError is raised.

  Returns:
    A dataset whose item k is a dict of `image` [share, size, size, 3] uint8, `label` [share] int32
    (or, of several classes an image, [share, classes] uint8), `index` [share] int64 (place in the
    split, -1 where the row only fills the batch) and `mask` [share] bool, False where there is no
    image.
  """
  size, total = config["dataset"]["image_size"], len(records)
  crop = crop or eval_crop(config)
  shape = label_shape(records)

  def batch(k: int) -> Batch:
    index = np.arange(k * batch_size + process_index, (k + 1) * batch_size, process_count)
    image = np.zeros((len(index), size, size, 3), np.uint8)
    label = label_sets.blank(len(index), shape)
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


def blank_batch(config: Mapping[str, Any], count: int, shape: tuple[int, ...] = ()) -> Batch:
  """Returns a batch of no example, in the layout of `eval_batches`: `image`, `label`, `index`,
  `mask`.

  Args:
    config: the run's config.
    count: rows.
    shape: of a label, see `label_shape`.
  """
  size = config["dataset"]["image_size"]
  return {
    "image": np.zeros((count, size, size, 3), np.uint8),
    "label": label_sets.blank(count, shape),
    "index": np.full(count, -1),
    "mask": np.zeros(count, bool),
  }


def threads(config: Mapping[str, Any]) -> int:
  """Returns how many threads decode images; 0: the one that asks for them."""
  given = config["dataset"]["threads"]
  # The interpreter works for one at a time: CIFAR-10's PNGs came as fast by one thread as by two to
  # sixteen.
  most = 16 if config["dataset"]["image_size"] >= SMALL else 4
  return min(most, os.cpu_count() or 1) if given is None else given


def prefetch(batches: grain.MapDataset, config: Mapping[str, Any]) -> Iterator[Batch]:
  """Iterates over batches in order, made ahead of need by threads that share the work batch by
  batch.
  """
  workers = threads(config)
  # Of more threads than batches that it may make ahead, Grain leaves some idle, and warns.
  ahead = max(config["dataset"]["prefetch"], workers)
  options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=ahead)
  return iter(batches.to_iter_dataset(options))
