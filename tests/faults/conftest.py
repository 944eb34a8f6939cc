"""What the fault tests share: a disk that fails on command, and the run that nothing happened
to."""

import pathlib
import shutil
import subprocess
import sys

import pytest
from runs import Run


@pytest.fixture(scope="session")
def failing_disk(tmp_path_factory):
  """The library of disk.c, to be preloaded, or a skip."""
  if sys.platform != "linux" or shutil.which("gcc") is None:
    pytest.skip("needs Linux and gcc")
  library = tmp_path_factory.mktemp("disk") / "disk.so"
  source = pathlib.Path(__file__).with_name("disk.c")
  subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
  return library


@pytest.fixture(scope="session")
def whole(tmp_path_factory, digits_dir):
  """The run that nothing happened to."""
  run = Run(tmp_path_factory.mktemp("whole") / "run", digits_dir)
  run.start()
  assert run.finish() == [0], run.printed(0, "err")
  return run
