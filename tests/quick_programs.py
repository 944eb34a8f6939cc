"""Programs of a test's own process, compiled fast rather than to run fast.

The suite compiles thousands of programs and runs most of them once or twice. On a CPU with JAX
0.10, XLA without LLVM's optimisations, without its fusion emitters and with a module in one piece
takes a third of the CPU time for tests of training steps. (JAX 0.12 has no choice of emitters, and
gains nothing without.) What is computed is the same; where numbers are rounded may differ, as
between machines. Tests marked `optimized` have their programs as users have them, and so have the
runs in fresh processes.
"""

from collections.abc import Iterator
import contextlib
import functools
from typing import Any
from unittest import mock

import jax
import jax._src.compiler

OPTIONS: dict[str, Any] = {
  "xla_backend_optimization_level": 0,
  "xla_cpu_parallel_codegen_split_count": 1,
  "xla_cpu_use_fusion_emitters": False,
}


@contextlib.contextmanager
def quick_programs() -> Iterator[None]:
  """Within it what is compiled for CPUs has `OPTIONS`, but for those that a program names
  itself."""
  # Not public: options for all programs are else those of XLA_FLAGS, which a process reads once.
  compile_options = jax._src.compiler.get_compile_options

  if not _are_known():
    yield
    return

  def with_options(*args, backend=None, env_options_overrides=None, **rest):
    if backend is not None and backend.platform == "cpu":
      env_options_overrides = {**OPTIONS, **(env_options_overrides or {})}
    return compile_options(
      *args, backend=backend, env_options_overrides=env_options_overrides, **rest
    )

  with mock.patch.object(jax._src.compiler, "get_compile_options", with_options):
    yield


@functools.cache
def _are_known() -> bool:
  """Whether this version of XLA has all the options."""
  try:
    jax.jit(lambda: 0, compiler_options=OPTIONS).lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if "No such compile option" not in str(error):
      raise
    return False
  return True
