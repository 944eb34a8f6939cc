"""How fast, and how well, the recipe configs/cifar10_speedrun.py trains: many seeds, one
compilation, by the record's rules.

    python benchmarks/speedrun.py --data_dir=DIR [--seeds=20] [--output=FILE.json] [--peer=CHECKOUT]

The rules are those that airbench94_muon.py of github.com/KellerJordan/cifar10-airbench times itself
by. All 50,000 training images are trained on, and the 10,000 test images are judged once, at the
end. On the clock: the whitening of the first layer, the order of the examples, every step with its
augmentation, the judging with test-time augmentation, and the wait until the accuracy is known. Off
the clock, and told: reading and decoding into device memory, compilation (a whole run on random
labels that is thrown away, as there), and the drawing of the first weights.

`--peer` is a checkout of that repository: its script is run on the same device after imgclf's
seeds, until it has told of as many of its own, with its own CIFAR-10, by the Python that runs this
one; it needs torch and torchvision.
"""

import argparse
from collections.abc import Iterator, Sequence
import concurrent.futures
import dataclasses
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from imgclf import (
  augment,
  calls,
  config_file,
  durations,
  feeds,
  models,
  optim,
  parallel,
  state,
  steps,
)
from imgclf import config as configs
from imgclf.data import datasets, loader

RECIPE = pathlib.Path(__file__).parents[1] / "configs" / "cifar10_speedrun.py"
SCRIPT = "airbench94_muon.py"
# The row of the script's table that ends a run: its last two columns are the accuracy and the
# seconds.
_ROW = re.compile(r"\|\s*(?:\d*|warmup)\s*\|\s*eval\s*\|.*\|\s*([\d.]+)\s*\|\s*([\d.]+)\s*\|\s*$")


class Speedrun:
  """The compiled programs of the recipe, and the data they work on; a seed is an argument."""

  def __init__(self, config: configs.ConfigDict, source: datasets.Dataset):
    """Reads and decodes; compiles nothing yet.

    Args:
      config: resolved.
      source: the set; its splits `train` and `test` are used whole.
    """
    self.config = config
    records = source.records("train")
    self.feed = feeds.Resident(records, config, None)
    self.total = durations.steps(config, "train.total", len(records))
    learning_rate = optim.schedule(config, total_steps=self.total, warmup_steps=0)
    self._optimizer = optim.create(config, learning_rate)
    self._model = models.create(config["model"], len(source.classes), axis_name=parallel.AXIS)
    self._test = self._placed_test(source.records("test"))
    self._first = jnp.asarray(self.feed.held["image"][0, : self._model.fitted_to])

    def call(current, held, batch):
      batch = dict(batch)
      # What is compiled must serve every seed, so the config's is replaced by one that is traced.
      seeded = {**config.to_dict(), "seed": batch.pop("seed")[0]}
      step = steps.make_train_step(self._model, seeded, self._optimizer, learning_rate)
      return calls.resident_call(step, self.feed.steps_per_call)(current, held, batch)

    def right(variables, batch):
      said = steps.make_eval_step(self._model, config)(variables, batch)["predicted"]
      return jax.lax.psum(jnp.sum((said == batch["label"]) & batch["mask"]), parallel.AXIS)

    def begin(seed):
      side = config["dataset"]["image_size"]
      return state.create(self._model, self._optimizer, seed=seed, image_size=side, ema=False)

    self._begin = parallel.pmap(begin)
    self._call = parallel.pmap(call, donate_argnums=(0,))
    self._right = parallel.pmap(right)
    self._normalized = jax.jit(
      lambda images: augment.eval_transform(images, config["augment"], jnp.float32)
    )

  def _placed_test(self, records: Any) -> list[dict[str, jax.Array]]:
    """The test split in device memory, in batches, and its size."""
    self._tested = len(records)
    batches = loader.prefetch(
      loader.eval_batches(records, self.config, configs.eval_batch_size(self.config)), self.config
    )
    return [parallel.shard({k: b[k] for k in ("image", "label", "mask")}) for b in batches]

  def run(self, seed: int) -> tuple[float, float]:
    """Trains once and judges the test split.

    Returns:
      The accuracy, and the seconds on the clock.
    """
    share, most = self.config["train"]["batch_size"], self.feed.steps_per_call
    seeds = {"seed": np.full(share, seed, np.int32), "stop": np.zeros(share, np.int32)}
    counts = [min(most, self.total - made) for made in range(0, self.total, most)]
    current = jax.block_until_ready(self._begin(parallel.replicate(np.int32(seed))))
    began = time.perf_counter()
    current = self._whitened(current)
    # Sorting the next examples takes a part of the host's time that the device need not wait for.
    for batch in ahead(self.feed.batches(0, self.total, counts, seed)):
      current, _ = self._call(current, self.feed.held, parallel.shard({**batch, **seeds}))
    variables = current.variables()
    right = [self._right(variables, batch) for batch in self._test]
    accuracy = sum(parallel.scalar(number) for number in right) / self._tested
    return accuracy, time.perf_counter() - began

  def _whitened(self, current: state.TrainState) -> state.TrainState:
    params = self._model.fitted(current.params, self._normalized(self._first))
    # What is new is on the host; all else stays where it is.
    params = jax.tree.map(
      lambda leaf: parallel.replicate(leaf) if isinstance(leaf, np.ndarray) else leaf, params
    )
    return dataclasses.replace(current, params=params)


def ahead(items: Iterator[Any]) -> Iterator[Any]:
  """Yields the items, made one after the other by a thread of their own."""
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    following = pool.submit(next, items, None)
    while (item := following.result()) is not None:
      following = pool.submit(next, items, None)
      yield item


def run_peer(checkout: pathlib.Path, seeds: int) -> dict[str, Any]:
  """Runs airbench94_muon.py until it has told of so many runs, its first one for warming up left
  out.
  """
  if not (checkout / SCRIPT).is_file():
    return {"skipped": f"there is no {SCRIPT} in {checkout}"}
  found: list[tuple[float, float]] = []
  last = ""
  with subprocess.Popen(
    [sys.executable, "-u", SCRIPT],
    cwd=checkout,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  ) as process:
    for line in process.stdout:
      last = line.strip() or last
      if row := _ROW.match(line):
        found.append((float(row[1]), float(row[2])))
      if len(found) > seeds:
        process.terminate()
        break
  if len(found) < 2:
    return {"skipped": last[:120] or f"exit code {process.returncode}"}
  return summary(found[1:])


def summary(runs: Sequence[tuple[float, float]]) -> dict[str, Any]:
  """Returns accuracies and seconds of the runs with their means and (sample) standard
  deviations.
  """
  told: dict[str, Any] = {"runs": len(runs)}
  for name, values in zip(("accuracy", "seconds"), zip(*runs)):
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    told |= {name: list(values), f"{name}_mean": statistics.fmean(values), f"{name}_std": spread}
  return told


def line(name: str, told: dict[str, Any]) -> str:
  if "skipped" in told:
    return f"{name:<16} skipped: {told['skipped']}"
  return (
    f"{name:<16} {told['accuracy_mean']:.2%} +- {told['accuracy_std']:.2%} in "
    f"{told['seconds_mean']:.3f} +- {told['seconds_std']:.3f} s, {told['runs']} seeds"
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data_dir", help="where CIFAR-10 is prepared; else as imgclf looks for it")
  parser.add_argument("--seeds", type=int, default=20)
  parser.add_argument("--output", type=pathlib.Path, help="a JSON file")
  parser.add_argument("--peer", type=pathlib.Path, help="a checkout of cifar10-airbench")
  parser.add_argument(
    "--set", action="append", default=[], metavar="FIELD=VALUE", help="of the recipe's config"
  )
  options = parser.parse_args()
  config = config_file.load(RECIPE)
  configs.apply_overrides(config, [tuple(text.split("=", 1)) for text in options.set])
  config.dataset.data_dir = options.data_dir
  config = configs.resolve(config)
  began = time.perf_counter()
  speedrun = Speedrun(config, datasets.open(config["dataset"]))
  read = time.perf_counter()
  speedrun.run(0)
  warmed = time.perf_counter()
  print(f"{parallel.describe_devices()}, JAX {jax.__version__}, {config['model']['dtype']}")
  print(
    f"off the clock: {read - began:.1f} s to read, {warmed - read:.1f} s for a run that compiles"
  )
  runs = []
  for seed in range(options.seeds):
    runs.append(speedrun.run(seed))
    print(f"seed {seed:<4} {runs[-1][0]:.2%}  {runs[-1][1]:.3f} s", flush=True)
  told = {
    "device": parallel.describe_devices(),
    "jax": jax.__version__,
    "dtype": config["model"]["dtype"],
    "steps": speedrun.total,
    "read_seconds": read - began,
    "warm_up_seconds": warmed - read,
    "imgclf": summary(runs),
  }
  print(line("imgclf", told["imgclf"]))
  if options.peer is not None:
    told["airbench94_muon"] = run_peer(options.peer, options.seeds)
    print(line("airbench94_muon", told["airbench94_muon"]))
  if options.output is not None:
    options.output.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
  main()
