"""What tests of several modules share: real data, fresh processes, small configs."""

import contextlib
import os
import pathlib
import subprocess
import sys

from fresh import ROOT, fresh_environment
import pytest
from quick_programs import quick_programs

SHARED_DATA = ROOT.parent / "shared" / "data"


def pytest_xdist_auto_num_workers(config):
  """What `-n auto` means: a process a core, at most four, as each may come to hold some gigabytes
  of programs."""
  return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, 4)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
  """Fixtures included, so not a fixture."""
  as_users_have_them = item.get_closest_marker("optimized")
  with contextlib.nullcontext() if as_users_have_them else quick_programs():
    return (yield)


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
  """Programs that several tests compile are compiled once, and none goes into the user's own cache.

  Of this process by JAX's own store, of fresh ones by that of `imgclf.compilation`.
  """
  import jax

  os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
  jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("xla")))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def run_python():
  """Runs a piece of Python in a fresh process with so many CPU devices; returns its stdout."""

  def run(code: str, *arguments: object, devices: int = 1, **environment: str) -> str:
    done = subprocess.run(
      [sys.executable, "-c", code, *map(str, arguments)],
      env=fresh_environment(devices, **environment),
      capture_output=True,
      text=True,
      timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  return run


@pytest.fixture(scope="session")
def launch():
  """Runs launch.py in a fresh process; returns the finished process with its output as text."""

  def run(*arguments: object, devices: int = 1, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
      [sys.executable, ROOT / "launch.py", *map(str, arguments)],
      env=fresh_environment(devices, **environment),
      capture_output=True,
      text=True,
      timeout=300,
    )

  return run


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
  """The folder of real data sets beside the repository, or a skip."""
  if not SHARED_DATA.is_dir():
    pytest.skip("no ../shared/data beside the repository")
  return SHARED_DATA


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> pathlib.Path:
  """A data_dir that holds the embedded digits once prepared."""
  return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def small_config(digits_dir):
  """Digits at 32 px with a network and a batch that make a step a few milliseconds."""
  import imgclf

  config = imgclf.default_config()
  config.dataset.name = "digits"
  config.dataset.data_dir = str(digits_dir)
  config.dataset.image_size = 32
  config.dataset.crop_fraction = 1.0
  config.dataset.threads = 2
  config.augment.crop = "padded"
  config.augment.flip = False
  config.augment.rotation = 10.0
  config.model.name = "lenet5"
  config.train.batch_size = 16
  config.train.total_steps = 6
  config.eval.every_steps = 3
  config.eval.batch_size = 64
  config.checkpoint.every_steps = 3
  config.log.every_steps = 2
  config.log.tensorboard = False
  return config


@pytest.fixture(scope="session")
def trained(tmp_path_factory, digits_dir):
  """A run of a few steps on the digits; tests copy it before they change it."""
  import imgclf

  workdir = tmp_path_factory.mktemp("run")
  config = imgclf.default_config()
  config.dataset.data_dir = str(digits_dir)
  config.dataset.image_size = 32
  config.dataset.crop_fraction = 1.0
  config.augment.flip = False
  config.augment.crop = "padded"
  config.model.name = "lenet5"
  config.train.batch_size = 32
  config.train.total_steps = 40
  config.eval.every_steps = 20
  config.eval.batch_size = 50
  config.log.tensorboard = False
  imgclf.train(config, workdir, quiet=True)
  return workdir
