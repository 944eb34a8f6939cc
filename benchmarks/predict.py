"""What prediction makes of a folder of JPEGs, beside what its parts would: decoding alone, and the
input pipeline.

    python benchmarks/predict.py FOLDER [--count=2000] [--rounds=5] [--size=224] [--batch_size=256]

FOLDER holds JPEG files, at any depth, which are taken over and over. The model averages a few
pixels and has a head of 1000 classes, so that the devices have next to nothing to do. The parts
take turns in one process, round by round, on the same files; a figure is the median of the rounds.
Restoring a run and compiling are left out.
"""

import argparse
from collections.abc import Callable
import concurrent.futures
import dataclasses
import itertools
import os
import pathlib
import platform
import statistics
import tempfile
import time

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import imgclf
from imgclf import compilation, parallel, prediction, prediction_files, timing
from imgclf.data import files, image_paths, images, inputs, loader
from imgclf.models import layers
from imgclf.run import Run
from imgclf.run_folder import RunFolder

CLASSES = 1000
AT_ONCE = 16  # files that a thread decodes before it asks for more


class Average(nn.Module):
  """The mean of each 16th pixel and a head."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False, keys: jax.Array | None = None) -> jax.Array:
    """Returns logits; see `imgclf.models`."""
    x = layers.feature(self, "pre_logits", jnp.mean(x[:, ::16, ::16], axis=(1, 2)))
    return layers.head(CLASSES, dtype=jnp.float32)(x)


@dataclasses.dataclass(frozen=True)
class Setting:
  """What every part works on.

  Attributes:
    run: with the model that does next to nothing.
    listed: the files, over and over.
    folder: where to write.
  """

  run: Run
  listed: list[image_paths.Listed]
  folder: pathlib.Path

  @property
  def inputs(self) -> inputs.Inputs:
    """The files as prediction takes them."""
    return inputs.of_files(self.listed, self.run.config["dataset"])


def decode(setting: Setting) -> None:
  """Reads and decodes whole files, by as many threads as the loader has: no crop, no batch, no
  model.
  """

  def some(listed: list[image_paths.Listed]) -> None:
    for path, _ in listed:
      images.decode(files.read_file(path), str(path))

  groups = [setting.listed[k : k + AT_ONCE] for k in range(0, len(setting.listed), AT_ONCE)]
  with concurrent.futures.ThreadPoolExecutor(max(loader.threads(setting.run.config), 1)) as pool:
    for _ in pool.map(some, groups):
      pass


def pipeline(setting: Setting) -> None:
  """Makes evaluation's batches, and drops them."""
  config = setting.run.config
  batches = loader.eval_batches(setting.inputs, config, config["eval"]["batch_size"])
  for _ in loader.prefetch(batches, config):
    pass


def whole(setting: Setting) -> None:
  """What `--mode=predict` does from the first batch on, to a CSV file."""
  given, teller = setting.inputs, prediction.Teller(setting.run.classes, 5, None)
  with prediction_files.writer(
    setting.folder / "labels.csv", threshold=False, features=None
  ) as write:
    for answers in setting.run.classifier.answers(given):
      write(teller.tell(answers, given))


PARTS: dict[str, Callable[[Setting], None]] = {
  "decode": decode,
  "input": pipeline,
  "predict": whole,
}


def setting(options: argparse.Namespace, folder: pathlib.Path) -> Setting:
  config = imgclf.default_config()
  config.dataset.image_size, config.eval.batch_size = options.size, options.batch_size
  found = image_paths.find([options.folder], flag="FOLDER")
  model = Average()
  variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
  classes = [f"class {number}" for number in range(CLASSES)]
  run = Run(
    RunFolder(folder), config, classes, 0, model, jax.tree.map(np.asarray, variables), "", 1.0
  )
  return Setting(run, list(itertools.islice(itertools.cycle(found), options.count)), folder)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("folder")
  parser.add_argument("--count", type=int, default=2000)
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--size", type=int, default=224)
  parser.add_argument("--batch_size", type=int, default=256)
  options = parser.parse_args()
  rates: dict[str, list[tuple[float, float]]] = {name: [] for name in PARTS}
  with tempfile.TemporaryDirectory() as folder, compilation.temporary_cache():
    given = setting(options, pathlib.Path(folder))
    whole(dataclasses.replace(given, listed=given.listed[: options.batch_size]))  # compiles
    for _ in range(options.rounds):
      for name, part in PARTS.items():
        began, cpu_began = time.perf_counter(), timing.cpu_seconds()
        part(given)
        elapsed, cpu = time.perf_counter() - began, timing.cpu_seconds() - cpu_began
        rates[name].append((options.count / elapsed, options.count / cpu))
  size = statistics.mean(os.path.getsize(path) for path, _ in given.listed)
  print(
    f"{options.count:,} files of {size / 1e3:.1f} kB on average to {options.size} px, batches of "
    f"{options.batch_size}, {loader.threads(given.run.config)} threads, {parallel.describe_devices()}, "
    f"Python {platform.python_version()}, JAX {jax.__version__}"
  )
  print("| part | images/s | of decode | images/CPU s | of decode |\n|---|---:|---:|---:|---:|")
  medians = {
    name: [statistics.median(column) for column in zip(*rounds)] for name, rounds in rates.items()
  }
  for name, (rate, per_cpu) in medians.items():
    # Of rounds, as other work on the machine comes and goes.
    shares = [
      statistics.median(own[i] / floor[i] for own, floor in zip(rates[name], rates["decode"]))
      for i in (0, 1)
    ]
    print(f"| {name} | {rate:,.0f} | {shares[0]:.2f} | {per_cpu:,.0f} | {shares[1]:.2f} |")


if __name__ == "__main__":
  main()
