"""What a compiled step takes of a device's memory, and what would fit where it is too much."""

import os
import pathlib
from typing import Any

import jax

from imgclf import parallel
from imgclf.errors import UserError

# Of a device's memory, what arrays can have: the rest is the runtime's own, and lost between them.
_USABLE = 0.9


def exhausted(error: BaseException) -> bool:
  """Whether an error says that a device's memory, or the host's, did not suffice."""
  return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def device_bytes() -> int | None:
  """Returns the memory of one device; on CPUs its share of the machine's, or of what the container
  may use.
  """
  device = jax.local_devices()[0]
  stats = device.memory_stats() or {}
  if "bytes_limit" in stats:
    return int(stats["bytes_limit"])
  if device.platform != "cpu":
    return None
  limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
  for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
    try:
      limits.append(int(pathlib.Path(path).read_text()))
    except (OSError, ValueError):  # not there, or `max`
      continue
  return min(limits) // jax.local_device_count()


def check(
  step: Any, arguments: tuple[Any, ...], examples: int, field: str, parts: int
) -> int | None:
  """Compiles a step and refuses it where a device has not the memory that it takes.

  The compiled program is kept by JAX: the first call does not compile again.

  Args:
    step: as from `imgclf.parallel.pmap`.
    arguments: what it will be called with.
    examples: of one call, over all devices and processes.
    field: the config field, or flag, that sets them.
    parts: that a device's share is computed in.

  Returns:
    The bytes that it takes of each device, arguments and results included; None where JAX can't
    tell.

  Raises:
    UserError: telling the bytes, the batch size that fits, and the parts that would keep this one.
  """
  try:
    stats = step.lower(*arguments).compile().memory_analysis()
  except Exception as error:
    if exhausted(error):
      raise refusal(error, examples, field, parts) from error
    raise
  if stats is None:
    return None
  fixed = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
  needed = fixed + stats.temp_size_in_bytes
  limit = device_bytes()
  if limit is None or needed <= limit:
    return needed
  # What comes and goes grows with the batch, in as many parts as it is; of a step that has nothing
  # of the kind, no batch fits.
  local = examples // parallel.device_count()
  fits = int(max(_USABLE * limit - fixed, 0) * local / max(stats.temp_size_in_bytes, 1))
  raise UserError(
    f"{field}: {examples} images take {_size(needed)} on each device, which has {_size(limit)}"
    + _mend(fits * parallel.device_count(), examples, field, parts)
  )


def refusal(error: BaseException, examples: int, field: str, parts: int = 1) -> UserError:
  """Returns the error for a batch whose memory ran out while it was compiled or run; see
  `check`.
  """
  words = " ".join(str(error).split()).removeprefix("RESOURCE_EXHAUSTED: ")
  told = f" ({words[:160]})" if words else ""
  return UserError(
    f"{field}: the memory does not suffice for {examples} images{told}"
    + _mend(examples // 2, examples, field, parts)
  )


def _mend(fits: int, examples: int, field: str, parts: int) -> str:
  unit = parallel.device_count() * parts
  fits = fits // unit * unit
  if fits < 1:
    return "; take a smaller model or image size"
  mend = f"; set it to {fits} or less"
  # On CPUs the parts are computed side by side, and take as much as the whole: 435 instead of 412
  # MB for a resnet18.
  if field == "config.train.batch_size" and jax.default_backend() != "cpu":
    share = examples // parallel.device_count()
    keep = next(
      (p for p in range(parts + 1, share + 1) if share % p == 0 and examples * parts // p <= fits),
      None,
    )
    if keep is not None:
      mend += f", or keep it with config.optimizer.accumulate_steps={keep}"
  return mend


def _size(size: int) -> str:
  return f"{size / 1e9:,.1f} GB"
