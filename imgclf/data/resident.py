"""A split that is decoded once and kept: what a device, or the host's memory, holds of it.

Knows no device.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from imgclf.data import images, label_sets, loader

# Records that a thread decodes at a time: reading several at once is three times faster than one by
# one.
_CHUNK = 64


def size(config: Mapping[str, Any], records: loader.Records) -> int:
  """Returns the bytes that the pixels and labels of the records take."""
  label = label_sets.blank(1, loader.label_shape(records)).nbytes
  return len(records) * (config["dataset"]["image_size"] ** 2 * 3 + label)


def decode(
  records: loader.Records,
  config: Mapping[str, Any],
  *,
  on_error: Callable[[images.ImageError, str], None] | None = None,
  first: int | None = None,
) -> dict[str, np.ndarray]:
  """Decodes the records of a train split, by several threads.

  Args:
    records: the split.
    config: the run's config.
    on_error: as for `imgclf.data.loader.train_batches`.
    first: how many records to decode, from the first one on; none: all.

  Returns:
    `image` [n, size, size, 3] uint8, `label` [n] int32 (or [n, classes] uint8) and, with
    `on_error`, `mask` [n] bool, all in the order of the split and as `train_batches` has them of an
    example; where the training crop is random on the host, as evaluation has them.
  """
  total = len(records) if first is None else min(first, len(records))
  side = config["dataset"]["image_size"]
  image = np.empty((total, side, side, 3), np.uint8)
  label, mask = label_sets.blank(total, loader.label_shape(records)), np.empty(total, bool)

  def left_out(index: int, error: images.ImageError) -> None:
    assert on_error is not None
    on_error(error, records.__getitems__([index])[0].name)

  batches = loader.eval_batches(
    records,
    config,
    _CHUNK,
    crop=loader.fixed_train_crop(config),
    on_error=None if on_error is None else left_out,
  )
  done = 0
  for batch in loader.prefetch(batches[: -(-total // _CHUNK)], config):
    count = min(_CHUNK, total - done)
    rows = slice(done, done + count)
    image[rows], label[rows], mask[rows] = (batch[k][:count] for k in ("image", "label", "mask"))
    done += count
  return {"image": image, "label": label} | ({} if on_error is None else {"mask": mask})
