"""How fast some work is done: medians of repeats, CPU time, and what a device could do at most.

Knows no image and no model.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math
import os
import pathlib
import resource
import statistics
import time

# Dense multiply-adds in bfloat16 (T4: float16), in FLOP/s, by the beginning of JAX's name of the
# device; the first that fits counts. NVIDIA's data sheets, without sparsity;
# cloud.google.com/tpu/docs/system-architecture-tpu-vm.
PEAK_FLOPS = (
  ("NVIDIA H200", 989e12),
  ("NVIDIA H100 PCIe", 756e12),
  ("NVIDIA H100 NVL", 835e12),
  ("NVIDIA H100", 989e12),
  ("NVIDIA A100", 312e12),
  ("NVIDIA L4", 121e12),
  ("NVIDIA GeForce RTX 4090", 165e12),
  ("Tesla T4", 65e12),
  ("TPU v4", 275e12),
  ("TPU v5 lite", 197e12),
  ("TPU v5e", 197e12),
  ("TPU v5p", 459e12),
  ("TPU v5", 459e12),
  ("TPU v6 lite", 918e12),
  ("TPU v6e", 918e12),
)


@dataclasses.dataclass(frozen=True)
class Rate:
  """Units of work a second.

  Attributes:
    median: over the repeats.
    spread: the slowest repeat's distance from the fastest, as a share of the median; 0 for one
      repeat.
    per_cpu_second: units by the CPU time of all threads and child processes, over all repeats; NaN
      where that is not known.
  """

  median: float
  spread: float
  per_cpu_second: float


def of_repeats(rates: list[float], per_cpu_second: float) -> Rate:
  """Returns the rate that one or more repeats stand for."""
  median = statistics.median(rates)
  return Rate(median, (max(rates) - min(rates)) / median, per_cpu_second)


def measure(
  work: Callable[[], int],
  seconds: float,
  clock: Callable[[], float] = time.perf_counter,
  cpu: Callable[[], float] | None = None,
) -> Rate:
  """Does work for so many seconds and returns its rate; nothing is excluded, so warm up first.

  A repeat is a fifth of the time, or one call where that takes longer: the last one may end up to a
  call late.

  Args:
    work: does some and returns how many units it was, when they are done.
    seconds: in all.
    clock: seconds, rising.
    cpu: CPU seconds, rising; left out: `cpu_seconds`.
  """
  cpu = cpu or cpu_seconds
  rates: list[float] = []
  began, cpu_began, units = clock(), cpu(), 0
  now = began
  while now - began < seconds:
    repeat_began, done = now, 0
    while now - repeat_began < seconds / 5:
      done += work()
      now = clock()
    rates.append(done / (now - repeat_began))
    units += done
  used = cpu() - cpu_began
  return of_repeats(rates, units / (used if math.isnan(used) else max(used, 1e-9)))


def cpu_seconds(processes: Sequence[int] = ()) -> float:
  """Returns the CPU time of this process, all its threads, and its children that have ended.

  Args:
    processes: ids of others that run and count too; only Linux tells of them, elsewhere the result
      is NaN.
  """
  used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
  seconds = sum(usage.ru_utime + usage.ru_stime for usage in used)
  for process in processes:
    try:
      stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    except OSError:
      return math.nan
    # proc(5): after the name, which may hold anything, in brackets; fields 14 and 15 of all, in
    # clock ticks.
    fields = stat.rpartition(")")[2].split()
    seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
  return seconds


def peak_flops(device_kind: str) -> float | None:
  """Returns what a device could do at most, in FLOP/s, see `PEAK_FLOPS`; None where it is not
  known.
  """
  # In whole words: an L40S is no L4.
  words = f"{device_kind} ".replace("-", " ")
  return next((peak for name, peak in PEAK_FLOPS if words.startswith(f"{name} ")), None)
