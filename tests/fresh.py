"""Fresh processes for tests: their environment, ports, and what a run left on the disk."""

import json
import os
import pathlib
import socket

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent


def fresh_environment(devices: int = 1, **changes: str) -> dict[str, str]:
  """The environment of a new Python process with so many CPU devices."""
  flags = f"--xla_force_host_platform_device_count={devices}"
  paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
  return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": paths, **changes}


def free_port():
  with socket.socket() as s:
    s.bind(("localhost", 0))
    return s.getsockname()[1]


def saved_state(workdir, step=None):
  """The step and every array of a run's newest checkpoint, or of the one of `step`."""
  import jax

  from imgclf import config as configs
  from imgclf import models, optim, state
  from imgclf.checkpoint import Checkpoints

  config = configs.from_json((workdir / "config.json").read_text())
  classes = json.loads((workdir / "classes.json").read_text())
  model = models.create(config["model"], len(classes), axis_name=None)
  schedule = optim.schedule(config, total_steps=100, warmup_steps=0)
  target = state.create(
    model,
    optim.create(config, schedule),
    seed=1,
    image_size=config["dataset"]["image_size"],
    ema=config["optimizer"]["ema_decay"] is not None,
  )
  with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
    step = checkpoints.latest() if step is None else step
    return step, jax.tree.leaves(checkpoints.restore(step, target))


def assert_same_bits(one, other):
  """Two results of `saved_state` are of the same step and equal to the bit."""
  assert one[0] == other[0]
  assert len(one[1]) == len(other[1])
  for a, b in zip(one[1], other[1]):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)
