"""Variants of the training step, each timed against the step as it is, on whatever device there is.

    python benchmarks/variants.py --model=resnet50 --batch=256 --dtype=bfloat16

Rounds are interleaved: in each, every variant runs some steps after the step as it is, and the
median over the rounds of the ratio of their times is printed; above 1 the variant is faster. Input
is synthetic and stays on the device. The first variants undo what the step gained from; a part that
its network lacks leaves it as it is.
"""

import argparse
from collections.abc import Callable
import contextlib
import pathlib
import statistics
import time
from typing import Any
from unittest import mock

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import imgclf
from imgclf import config_file, models, optim, parallel, state, steps
from imgclf.augment import operations
from imgclf.models import convolution, layers, pooling

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


class _PlainBatchNorm(nn.Module):
  """Flax's batch norm, with the sum and ReLU after it as operations of their own."""

  train: bool
  dtype: jnp.dtype
  param_dtype: jnp.dtype
  axis_name: str | None
  use_scale: bool
  scale_init: Callable
  momentum: float
  epsilon: float

  @nn.compact
  def __call__(self, x, added=None, relu=False):
    norm = nn.BatchNorm(
      use_running_average=not self.train,
      momentum=self.momentum,
      epsilon=self.epsilon,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      axis_name=self.axis_name,
      use_scale=self.use_scale,
      scale_init=self.scale_init,
    )
    y = norm(x) if added is None else norm(x) + added
    return nn.relu(y) if relu else y


def _as_it_is(config):
  del config
  return contextlib.nullcontext()


def _plain_norm(config):
  del config
  return mock.patch.object(layers, "BatchNorm", _PlainBatchNorm)


def _as_written(config):
  del config
  return convolution.as_written()


def _scattered(config):
  del config

  def max_pool(x, size, *, stride=None, padding=0):
    strides, sides = (stride or size,) * 2, ((padding, padding),) * 2
    return nn.max_pool(x, (size, size), strides, sides)

  return mock.patch.object(pooling, "max_pool", max_pool)


def _augmented(config):
  config.augment = config_file.load(CONFIGS / "imagenet_rsb_a2.py").augment
  return contextlib.nullcontext()


@contextlib.contextmanager
def _augmented_whole(config):
  def of_every(wanted, compute, otherwise):
    del otherwise
    return compute(jnp.arange(len(wanted)))

  with _augmented(config), mock.patch.object(operations, "where_wanted", of_every):
    yield


# Each changes a config, and what it names while the context that it returns is open.
VARIANTS = {
  "as it is": _as_it_is,
  "flax's batch norm": _plain_norm,
  "convolutions as written": _as_written,
  "max-pooling with scatter": _scattered,
  "RSB-A2's augmentation": _augmented,
  "RSB-A2's, of every image": _augmented_whole,
}


def stepper(
  options: argparse.Namespace, variant: Callable[[Any], contextlib.AbstractContextManager]
) -> Callable[[], None]:
  """Compiles the step under a variant; returns what runs so many steps and waits for the last."""
  config = imgclf.default_config()
  config.model.name, config.model.dtype = options.model, options.dtype
  config.optimizer.name = "sgd"
  config.dataset.image_size = options.size
  schedule = optim.schedule(config, total_steps=1000, warmup_steps=0)
  optimizer = optim.create(config, schedule)
  model = models.create(config.model, options.classes, axis_name=parallel.AXIS)
  with variant(config):
    begun = parallel.replicate(
      state.create(model, optimizer, seed=0, image_size=options.size, ema=False)
    )
    step = parallel.pmap(
      steps.make_train_step(model, config, optimizer, schedule), donate_argnums=(0,)
    )
    draws = np.random.default_rng(0)
    batch = parallel.shard(
      {
        "image": draws.integers(0, 256, (options.batch, options.size, options.size, 3), np.uint8),
        "label": draws.integers(0, options.classes, options.batch).astype(np.int32),
        "position": np.arange(options.batch, dtype=np.int32),
        "stop": np.zeros(options.batch, np.int32),
      }
    )
    held = list(step(begun, batch))

  def run() -> None:
    for _ in range(options.steps):
      held[:] = step(held[0], batch)
      if jax.default_backend() == "cpu":
        jax.block_until_ready(held[1])
    jax.block_until_ready(held)

  run()
  return run


def seconds(run: Callable[[], None]) -> float:
  begun = time.perf_counter()
  run()
  return time.perf_counter() - begun


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--model", default="resnet50")
  parser.add_argument("--dtype", default="bfloat16")
  for name, default in (("batch", 256), ("size", 224), ("classes", 1000), ("steps", 20)):
    parser.add_argument(f"--{name}", type=int, default=default)
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--variant", choices=VARIANTS, action="append", help="instead of all")
  return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
  options = parse(arguments)
  print(f"{parallel.describe_devices()}, JAX {jax.__version__}, {vars(options)}")
  chosen = {"as it is", *(options.variant or VARIANTS)}
  runs = {name: stepper(options, made) for name, made in VARIANTS.items() if name in chosen}
  times = {name: [] for name in runs}
  for _ in range(options.rounds):
    for name, run in runs.items():
      times[name].append(seconds(run))
  for name, spent in times.items():
    ratio = statistics.median(a / b for a, b in zip(times["as it is"], spent))
    rate = options.batch * options.steps / statistics.median(spent)
    print(f"{name:26s} {rate:10,.1f} images/s   {ratio:.3f}x")


if __name__ == "__main__":
  main()
