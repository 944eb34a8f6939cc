"""A guard against what is far slower than it was: ratios of figures of one run on one machine,
never times.

    python benchmarks/guard.py

Bounds are generous, some half or less of what was measured on two cores (3.8, 0.55 and 0.68 times):
a loss that a person would notice fails, noise does not.
"""

import contextlib
import dataclasses
import io
import pathlib
import sys
import tempfile

import numpy as np
from PIL import Image
import simplejpeg

import imgclf
from imgclf import compilation, plan, timing
from imgclf.data.sources import Record
from imgclf.parts import Bench, endless

SECONDS = 2.0


class Photographs:
  """Records of JPEGs of 500 x 375 pixels whose detail is that of a photograph: noise, smoothed."""

  def __init__(self, count: int = 16):
    draw = np.random.default_rng(0)
    self._records = []
    for number in range(count):
      coarse = draw.integers(0, 256, (94, 125, 3), np.uint8)
      image = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
      file = io.BytesIO()
      image.save(file, "JPEG", quality=90)
      self._records.append(Record(file.getvalue(), number % 10, f"photograph {number}"))

  def __len__(self) -> int:
    return 100_000

  def __getitems__(self, indices) -> list[Record]:
    return [self._records[index % len(self._records)] for index in indices]


def bench(held: contextlib.ExitStack) -> Bench:
  config = imgclf.default_config()
  config.dataset.name = "digits"
  config.dataset.image_size = 32
  config.model.name = "cnn"
  config.train.batch_size = 64
  folder = held.enter_context(tempfile.TemporaryDirectory())
  config.dataset.data_dir = folder
  return Bench(plan.prepare(endless(config), pathlib.Path(folder, "run"), held), SECONDS)


def input_ratio(small: Bench) -> float:
  """Training crops of the loader by full decodes of simplejpeg, both a CPU second."""
  records = Photographs()
  config = small.plan.config.copy_and_resolve_references()
  config.dataset.image_size = 224
  config.dataset.workers = 0  # the records are of this program, and the ratio is of CPU time
  config.augment.crop = "random_resized"
  planned = dataclasses.replace(small.plan, config=config, train_records=records)
  made = Bench(planned, SECONDS).input().per_cpu_second
  files = [record.data for record in records.__getitems__(range(16))]

  def decode() -> int:
    for data in files:
      simplejpeg.decode_jpeg(data, "RGB")
    return len(files)

  return made / timing.measure(decode, SECONDS).per_cpu_second


def main() -> int:
  failed = 0

  def held_to(words: str, ratio: float, least: float) -> None:
    nonlocal failed
    failed += ratio < least
    verdict = "ok" if ratio >= least else "TOO SLOW"
    print(f"{verdict:<9} {words}: {ratio:.2f}, at least {least:.2f}", flush=True)

  with contextlib.ExitStack() as held:
    small = bench(held)
    held.enter_context(compilation.temporary_cache())
    compiled = small.compile()
    held_to(
      "compiling cold by finding it on the disk",
      compiled.seconds_cold / compiled.seconds_warm,
      1.25,
    )
    step = small.step()
    trained, _ = small.train(small.log_steps(step, None))
    held_to("training on digits by the bare step", trained.median / step.median, 0.25)
    held_to("input by simplejpeg's full decode, a CPU second", input_ratio(small), 0.4)
  return 1 if failed else 0


if __name__ == "__main__":
  sys.exit(main())
