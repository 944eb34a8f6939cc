"""What makes XLA fast where the CPU is the device. Knows no network and no step.

Both settings hold for the whole process, so both are made once, when `imgclf.parallel` is imported.
"""

from collections.abc import Iterable, MutableMapping
import ctypes
import importlib.metadata
import sys

# Which parts of a program XLA hands to YNNPACK. Left out of its own choice are convolutions: there
# YNNPACK is slower than XLA's Eigen, above all for weight gradients. On two AVX-512 cores, CPU
# time, JAX 0.10.2: a 3x3 convolution of 8 images at 54 px, 64 to 128 channels, 96 ms and its weight
# gradient 128, against 31 and 40; the weight gradient of a 1x1 convolution at 56 px, 64 to 256
# channels, 56 ms against 18. It is also the less exact one, 2e-5 of the largest weight gradient
# against 9e-7: it sums one by one.
_YNNPACK = "--xla_cpu_experimental_ynn_fusion_type"
_TYPES = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
# XLA ends the process for a flag that it does not know, so only versions that were tried get it.
_KNOWN_FROM, _KNOWN_BELOW = (0, 10, 2), (0, 13)

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def accelerators() -> list[str]:
  """Returns what is installed that lets JAX see more than CPUs, such as `cuda13`."""
  plugins = [entry.name for entry in importlib.metadata.entry_points(group="jax_plugins")]
  try:
    importlib.metadata.version("libtpu")
  except importlib.metadata.PackageNotFoundError:
    return plugins
  return [*plugins, "libtpu"]


def only_cpus(environment: MutableMapping[str, str], plugins: Iterable[str]) -> bool:
  """Whether this process can have no device but CPUs, told without touching one."""
  return environment.get("JAX_PLATFORMS", "") == "cpu" or not list(plugins)


def choose_libraries(environment: MutableMapping[str, str], version: tuple[int, ...]) -> None:
  """Keeps convolutions out of YNNPACK, by XLA_FLAGS; what the user says there of YNNPACK stays.

  Comes too late, and then changes nothing, where a device was touched before.

  Args:
    environment: of the process; changed in place.
    version: of JAX.
  """
  flags = environment.get("XLA_FLAGS", "")
  if _KNOWN_FROM <= version < _KNOWN_BELOW and _YNNPACK not in flags:
    environment["XLA_FLAGS"] = f"{flags} {_YNNPACK}={_TYPES}".strip()


def keep_memory() -> bool:
  """Makes malloc keep freed memory for the next step; returns whether it is glibc's and does.

  XLA allocates the arrays within a step anew in each. Large ones would come as fresh pages from the
  kernel, which zeroes them one by one: a step of the plain CNN at 28 px in batches of 128 took 98
  ms of CPU time so, and 78 to 86 without. The process's memory stays at its peak.
  """
  if not sys.platform.startswith("linux"):
    return False
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
  if mallopt is None:
    return False
  # mallopt(3): -1 never gives the heap's top back, 0 never takes pages beside the heap.
  return bool(mallopt(_M_TRIM_THRESHOLD, -1)) and bool(mallopt(_M_MMAP_MAX, 0))
