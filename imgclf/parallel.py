"""Devices and processes: pmap, replicate, shard, gather. The only place that knows them.

Arrays that live on devices carry a leading axis of local devices, as `jax.pmap` has it. Since JAX
0.10 pmap is jit(shard_map) inside; inputs laid out by `shard` and `replicate` match it and are not
copied again.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
import hashlib
import os
from typing import Any, TypeVar

import jax
import jax._src.distributed
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from imgclf import cpu
from imgclf.errors import UserError

# XLA reads its flags once, when the first device is touched; every way to one leads through this
# file.
if cpu.only_cpus(os.environ, cpu.accelerators()):
  cpu.choose_libraries(os.environ, jax.__version_info__)
  cpu.keep_memory()

AXIS = "batch"

# Batches that may be under way on the devices before the host waits for the oldest: one that runs
# and one that waits keep a device busy. On CPUs JAX 0.10 aborts when steps with collectives pile up
# without a bound.
IN_FLIGHT = 2

# JAX ends every process of a job when it has not heard of one of them for so long; imgclf/job.py is
# faster and says more, and this comes after it. Its default is 100.
HEARTBEAT_SECONDS = 30

Item = TypeVar("Item")
Result = TypeVar("Result")


def start(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> Any:
  """Joins the processes of a job into one program; returns at once where there is just one.

  With no argument the cluster's own environment decides (SLURM, Open MPI, Kubernetes jobs, TPU
  pods), by JAX's detection. Must run before anything else touches a device.

  Returns:
    The client of the coordination service, for `imgclf.job.Job`; None where there is just one
    process.

  Raises:
    UserError: if some but not all of the three are given, or JAX can't find the other processes.
  """
  given = (coordinator_address, num_processes, process_id)
  # It would take SIGTERM for itself; imgclf/interrupt.py and imgclf/job.py see to signals.
  jax.config.update("jax_enable_preemption_service", False)
  if any(value is not None for value in given):
    if any(value is None for value in given):
      raise UserError(
        "--coordinator_address, --num_processes and --process_id: give all three or none of them"
      )
    jax.distributed.initialize(
      coordinator_address,
      num_processes,
      process_id,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
  elif _in_cluster(os.environ):
    try:
      jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (ValueError, RuntimeError, ImportError) as error:
      raise UserError(
        "this process is one of several by its environment, but JAX does not find the others "
        f"({error}); give --coordinator_address, --num_processes and --process_id"
      ) from error
  # Not public, and what multihost_utils, orbax and grain use as well.
  return jax._src.distributed.global_state.client


def _in_cluster(environment: Mapping[str, str]) -> bool:
  """Whether the environment says that this process is one of several.

  JAX's own detection raises where it finds nothing and, in a SLURM allocation used interactively,
  finds a job of one task; so the number of tasks is looked at first.
  """
  for variable in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
    if environment.get(variable, "").isdecimal():
      return int(environment[variable]) > 1
  if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
    return True
  return "KUBERNETES_SERVICE_HOST" in environment and "JOB_COMPLETION_INDEX" in environment


def process_index() -> int:
  """Returns this process's number; process 0 writes and prints."""
  return jax.process_index()


def process_count() -> int:
  """Returns the number of processes."""
  return jax.process_count()


def device_count() -> int:
  """Returns the number of devices over all processes."""
  return jax.device_count()


def describe_devices() -> str:
  """Returns a few words on the hardware, such as `8 x NVIDIA H200 in 1 process`."""
  kind = jax.devices()[0].device_kind
  processes = process_count()
  return f"{device_count()} x {kind} in {processes} process{'es' if processes > 1 else ''}"


def check_dtype(dtype: str) -> None:
  """Refuses float64 where JAX would silently compute in float32.

  Raises:
    UserError: telling how to switch float64 on.
  """
  if dtype == "float64" and not jax.config.read("jax_enable_x64"):
    raise UserError("config.model.dtype: float64 needs JAX_ENABLE_X64=1 in the environment")


def shareable(batch_size: int) -> int:
  """Returns the batch size, rounded up to one that the devices can share equally."""
  return -(-batch_size // device_count()) * device_count()


def check_batch_size(field: str, batch_size: int, parts: int = 1) -> None:
  """Refuses a global batch that the devices can't share equally.

  Unequal shares would make batch norm's mean of means wrong (`flax.linen.BatchNorm`).

  Raises:
    UserError: naming the field and the nearest batch sizes that fit.
  """
  unit = device_count() * parts
  if batch_size % unit:
    below, above = batch_size // unit * unit, -(-batch_size // unit) * unit
    fits = f"{below} or {above}" if below else f"{above}"
    times = f" x {parts} accumulation steps" if parts > 1 else ""
    raise UserError(
      f"{field}: {batch_size} can't be shared equally by {device_count()} devices{times}; "
      f"{fits} can"
    )


def pmap(function: Callable, donate_argnums: tuple[int, ...] = ()) -> Callable:
  """Compiles a per-device function for all devices, over the axis `AXIS`."""
  return jax.pmap(function, axis_name=AXIS, donate_argnums=donate_argnums)


def _local_sharding() -> NamedSharding:
  return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec(AXIS))


def replicate(tree: Any) -> Any:
  """Returns a copy of a host tree on every local device.

  Never aliases its input: `jax.device_put` to several devices shares the first one's buffer with an
  array that is there already, and donating the copy would delete the original.
  """
  count = jax.local_device_count()
  stacked = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (count, *np.shape(x))), tree)
  return pmap(lambda x: x)(stacked)


def place(tree: Any) -> Any:
  """Puts arrays on every local device, laid out as `replicate` does, for reading only.

  Args:
    tree: of host arrays, which must not change afterwards: on CPUs the devices may share their
      memory.
  """
  devices = jax.local_devices()

  def everywhere(x: np.ndarray) -> jax.Array:
    copies = [jax.device_put(x[None], device) for device in devices]
    shape = (len(devices), *x.shape)
    return jax.make_array_from_single_device_arrays(shape, _local_sharding(), copies)

  return jax.tree.map(everywhere, tree)


def unreplicate(tree: Any) -> Any:
  """Returns the first local device's copy of a replicated tree as host numpy arrays.

  Reads that device's shard alone; `x[0]` would gather over devices (62 ms for a whole state).
  """
  jax.block_until_ready(tree)
  for leaf in jax.tree.leaves(tree):
    leaf.addressable_shards[0].data.copy_to_host_async()
  return jax.tree.map(lambda x: np.array(x.addressable_shards[0].data)[0], tree)


def shard(batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
  """Puts this process's share of a batch, [batch, ...], on its devices as [devices, batch /
  devices, ...].

  Returns at once; the copies run in the background.
  """
  count = jax.local_device_count()
  split = {key: x.reshape(count, x.shape[0] // count, *x.shape[1:]) for key, x in batch.items()}
  return jax.device_put(split, _local_sharding())


def run_ahead(
  function: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[tuple[Item, Result]]:
  """Yields each item with the function's result, in order, starting the next ones before a result
  is read.

  Args:
    function: starts work on the devices and returns without waiting for it.
    items: one a call.
  """
  under_way: collections.deque[tuple[Item, Result]] = collections.deque()
  for item in items:
    under_way.append((item, function(item)))
    if len(under_way) > IN_FLIGHT:
      yield under_way.popleft()
  yield from under_way


def scalar(array: jax.Array) -> float:
  """Waits for a replicated scalar and returns it; reads one device's copy (3 us, where `x[0]` takes
  790).
  """
  return np.asarray(array.addressable_shards[0].data).item()


def first(array: jax.Array) -> np.ndarray:
  """Waits for a replicated array and returns the first local device's copy of it."""
  return np.asarray(array.addressable_shards[0].data)[0]


def unshard(array: jax.Array) -> np.ndarray:
  """Returns this process's rows of a sharded result, [devices, rows, ...], as host [devices * rows,
  ...].
  """
  shards = sorted(array.addressable_shards, key=lambda s: s.index[0].start or 0)
  rows = np.concatenate([np.asarray(s.data) for s in shards])
  return rows.reshape(-1, *rows.shape[2:])


def barrier(name: str) -> None:
  """Returns when every process has come here; at once where there is just one."""
  if process_count() > 1:
    multihost_utils.sync_global_devices(name)


def unlike_first(text: str) -> list[int]:
  """Returns the processes whose text is another than that of process 0."""
  digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
  digests = gather(digest).reshape(-1, len(digest))
  return [int(i) for i in np.flatnonzero((digests != digests[0]).any(axis=1))]


def of_first(number: int) -> int:
  """Returns the number, of at most 31 bits, that process 0 gave."""
  return int(gather(np.array([number], np.int32))[0])


def tree_of_first(tree: Any) -> Any:
  """Returns the host arrays that process 0 has, bit by bit; trees must be of the same shapes in all
  processes.
  """

  def of_first_process(x: np.ndarray) -> np.ndarray:
    # As bytes: numbers of 64 bits would be cut on their way over the devices.
    row = np.ascontiguousarray(x).reshape(-1)
    return gather(row.view(np.uint8))[: row.nbytes].view(row.dtype).reshape(x.shape)

  return tree if process_count() == 1 else jax.tree.map(of_first_process, tree)


def gather(rows: np.ndarray) -> np.ndarray:
  """Returns the rows of all processes, [rows, ...] each of the same shape, as one host array.

  Types of 32 bits or fewer only: the way leads over devices, where wider ones would be cut.
  """
  if process_count() == 1:
    return rows
  assert rows.dtype.itemsize <= 4, rows.dtype
  return np.asarray(multihost_utils.process_allgather(rows, tiled=True))
