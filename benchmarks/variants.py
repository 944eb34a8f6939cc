"""Variants of the training step of a ResNet, each timed against the step as it is, on whatever device there is.

    python benchmarks/variants.py --model=resnet50 --batch=256 --dtype=bfloat16

Rounds are interleaved: in each, every variant runs some steps after the step as it is, and the median over the
rounds of the ratio of their times is printed; above 1 the variant is faster. Input is synthetic and stays on
the device. A variant that wins on the device that it is for may become the default.
"""

import argparse
from collections.abc import Callable
import contextlib
import functools
import statistics
import time
from unittest import mock

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import imgclf
from imgclf import models, optim, parallel, state, steps
from imgclf.models import layers


def space_to_depth_stem(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """The 7x7 convolution with stride 2 and padding 3, as a 4x4 one with stride 1 on blocks of 2x2 pixels.

  The same products are added, so the same weights give the same result; three channels, which fill a matrix
  unit badly, become twelve (MLPerf's ResNet-50 since v0.6 has its stem so).

  Args:
    x: [batch, height, width, channels], height and width even.
    kernel: [7, 7, channels, features].

  Returns:
    [batch, height / 2, width / 2, features].
  """
  batch, height, width, channels = x.shape
  features = kernel.shape[-1]
  # A window starts 3 pixels before its block; with a row of zeros before the kernel it starts 4 before.
  kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
  kernel = kernel.reshape(4, 2, 4, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
  return jax.lax.conv_general_dilated(
    x.reshape(batch, height // 2, width // 2, 4 * channels),
    kernel.reshape(4, 4, 4 * channels, features),
    window_strides=(1, 1),
    padding=((2, 1), (2, 1)),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


@jax.custom_vjp
def max_pool_3x3(x: jax.Array) -> jax.Array:
  """Maxima over 3x3 windows with stride 2 and padding 1, whose gradient is no select-and-scatter.

  Pixels that are the maximum of a window together share its gradient evenly, where XLA's gives it to the first.

  Args:
    x: [batch, height, width, channels].
  """
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


def _pool_forward(x):
  y = max_pool_3x3(x)
  return y, (x, y)


def _pool_backward(residuals, gradient):
  x, y = residuals
  _, height, width, _ = x.shape
  rows, columns = y.shape[1:3]
  lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
  # One row more than the windows reach, so that each of the nine slices has its pixel of every window.
  far = 2 * rows + 1 - height - 1, 2 * columns + 1 - width - 1
  padded = jnp.pad(
    x, ((0, 0), (1, max(far[0], 0)), (1, max(far[1], 0)), (0, 0)), constant_values=lowest
  )
  places = [(i, j) for i in range(3) for j in range(3)]
  largest = [
    padded[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] == y for i, j in places
  ]
  share = gradient / sum(pixel.astype(gradient.dtype) for pixel in largest)
  total = jnp.zeros_like(padded)
  for (i, j), pixel in zip(places, largest):
    ends = padded.shape[1] - i - (2 * rows - 1), padded.shape[2] - j - (2 * columns - 1)
    part = jnp.where(pixel, share, 0)
    zero = jnp.zeros((), x.dtype)
    total += jax.lax.pad(part, zero, ((0, 0, 0), (i, ends[0], 1), (j, ends[1], 1), (0, 0, 0)))
  return (total[:, 1 : height + 1, 1 : width + 1],)


max_pool_3x3.defvjp(_pool_forward, _pool_backward)


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


def _conv_general_dilated(x, kernel, strides, *arguments, **options):
  if kernel.shape[:2] == (7, 7) and tuple(strides) == (2, 2):
    return space_to_depth_stem(x, kernel)
  return jax.lax.conv_general_dilated(x, kernel, strides, *arguments, **options)


def _stem():
  conv = functools.partial(nn.Conv, conv_general_dilated=_conv_general_dilated)
  return mock.patch.object(layers.nn, "Conv", conv)


def _pool():
  return mock.patch.object(layers, "max_pool", lambda x, *_, **__: max_pool_3x3(x))


def _plain_norm():
  return mock.patch.object(layers, "BatchNorm", _PlainBatchNorm)


VARIANTS = {
  "as it is": contextlib.nullcontext,
  "flax's batch norm": _plain_norm,
  "space-to-depth stem": _stem,
  "max-pool without scatter": _pool,
}


def stepper(options: argparse.Namespace, variant: Callable) -> Callable[[], None]:
  """Compiles the step under a variant; returns what runs so many steps and waits for the last."""
  config = imgclf.default_config()
  config.model.name, config.model.dtype = options.model, options.dtype
  config.optimizer.name = "sgd"
  config.dataset.image_size = options.size
  schedule = optim.schedule(config, total_steps=1000, warmup_steps=0)
  optimizer = optim.create(config, schedule)
  model = models.create(config.model, options.classes, axis_name=parallel.AXIS)
  with variant():
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
  return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
  options = parse(arguments)
  print(f"{parallel.describe_devices()}, JAX {jax.__version__}, {vars(options)}")
  runs = {name: stepper(options, variant) for name, variant in VARIANTS.items()}
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
