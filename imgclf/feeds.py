"""What a call of the compiled training program works on: batches that the host decodes, or places
in a split that the devices hold. Both give the same examples in the same order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from imgclf import calls, memory, parallel
from imgclf.data import loader, resident, workers
from imgclf.data.bad_images import BadImages
from imgclf.errors import UserError

# Of a device's memory, what a resident split may take where nobody asked for it.
_SHARE = 1 / 4
# Steps of a call on GPUs and TPUs, so that the host has time for all else that it does. A CPU runs
# convolutions that stand in a loop on an unoptimised path: with five steps a call the digits'
# network made 50 images/s, with one 700.
_STEPS = 16


class Streamed:
  """Batches that the host decodes ahead of need.

  Attributes:
    steps_per_call: 1.
    held: what the devices hold: nothing.
  """

  steps_per_call = 1
  held: dict[str, jax.Array]

  def __init__(
    self, records: loader.TrainRecords, config: Mapping[str, Any], bad: BadImages | None
  ):
    """Reads nothing yet.

    Args:
      records: the train split.
      config: the run's config.
      bad: where images that can't be decoded are listed; none: they are errors.
    """
    self._records, self._config, self._bad = records, config, bad
    self.held = {}

  def call(self, train_step: Callable) -> Callable:
    """Returns the per-device function of a call: (state, held, batch) -> (state, metrics)."""
    return calls.one_call(train_step)

  def batches(self, begun: int, total: int, counts: Iterable[int]) -> Iterator[loader.Batch]:
    """Returns what each call takes, from the step after `begun` on; waits for what is not ready.

    Args:
      begun: steps that were made.
      total: steps that will have been made at the end.
      counts: how many of them each call makes.
    """
    return workers.train_batches(
      self._records,
      self._config,
      range(begun, total),
      process_index=parallel.process_index(),
      process_count=parallel.process_count(),
      on_error=None if self._bad is None else self._bad.add,
    )

  def blank(self) -> loader.Batch:
    """Returns a call's batch of no example."""
    share = self._config["train"]["batch_size"] // parallel.process_count()
    batch = loader.blank_batch(self._config, share, loader.label_shape(self._records))
    batch["position"] = batch.pop("index").astype(np.int32)
    if self._config["augment"]["flip_alternate"]:
      batch["mirror"] = np.zeros(share, bool)
    if self._bad is None:
      del batch["mask"]
    return batch


class Resident:
  """Places in the train split, which every device holds whole.

  Attributes:
    steps_per_call: the most that one call makes.
    held: what the devices hold of it.
  """

  def __init__(
    self,
    records: loader.TrainRecords,
    config: Mapping[str, Any],
    bad: BadImages | None,
  ):
    """Decodes the split and puts it on the devices.

    Args:
      records: the train split.
      config: the run's config.
      bad: where images that can't be decoded are listed; none: they are errors.

    Raises:
      UserError: for an image that can't be decoded, or a split that is too large.
    """
    needed, limit = resident.size(config, records), memory.device_bytes()
    if limit is not None and needed > limit:
      raise UserError(
        f"config.dataset.resident: the train split takes {needed / 1e9:,.1f} GB of each device, which has "
        f"{limit / 1e9:,.1f} GB; set it to False or config.dataset.image_size to less"
      )
    self._config = config
    self._records = records
    self._positions = loader.positions(config, parallel.process_index(), parallel.process_count())
    on_error = None if bad is None else bad.add
    self.held = parallel.place(resident.decode(records, config, on_error=on_error))
    given = config["train"]["steps_per_call"]
    self.steps_per_call = given or (1 if jax.default_backend() == "cpu" else _STEPS)

  def call(self, train_step: Callable) -> Callable:
    """Returns the per-device function of a call: (state, held, batch) -> (state, metrics)."""
    return calls.resident_call(train_step, self.steps_per_call)

  def batches(
    self, begun: int, total: int, counts: Iterable[int], seed: int | None = None
  ) -> Iterator[loader.Batch]:
    """Yields which examples each call takes, from the step after `begun` on; see
    `Streamed.batches`.

    Args:
      begun: see there.
      total: see there.
      counts: see there.
      seed: of the order; none: the run's.
    """
    order = loader.example_order(self._records, self._config, seed)
    for count in counts:
      batch = self.blank()
      batch["count"][:] = count
      numbers = np.arange(begun, begun + count)
      places = loader.stream_places(self._config, numbers, self._positions[:, None])
      batch["index"][:, :count] = order.at(places)
      if "mirror" in batch:
        batch["mirror"][:, :count] = loader.mirrored(
          order, self._config, numbers, self._positions[:, None]
        )
      begun += count
      yield batch

  def blank(self) -> loader.Batch:
    """Returns a call's batch that makes one step, on whatever examples."""
    share = len(self._positions)
    batch = {
      "index": np.zeros((share, self.steps_per_call), np.int32),
      "position": self._positions,
      "count": np.ones(share, np.int32),
    }
    if self._config["augment"]["flip_alternate"]:
      batch["mirror"] = np.zeros((share, self.steps_per_call), bool)
    return batch


def is_resident(records: loader.TrainRecords, config: Mapping[str, Any]) -> bool:
  """Whether the train split is to live on the devices: as the config says, else where that is
  faster and it fits.
  """
  asked = config["dataset"]["resident"]
  if asked is not None:
    return asked
  limit = memory.device_bytes()
  return (
    jax.default_backend() != "cpu"
    and loader.fixed_train_crop(config) is not None
    and limit is not None
    and resident.size(config, records) <= _SHARE * limit
  )
