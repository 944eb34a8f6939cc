"""What each format of `--mode=export` makes of three families: difference, size and latency against
imgclf's own.

    python benchmarks/export.py [--steps=30] [--models=lenet5,cnn,resnet18]

Trains each network on the digits for so many steps, since one whose head is still zero answers all
images alike, exports it to every format whose packages are installed, and prints a row each from
its `export.json`.
"""

import argparse
from collections.abc import Iterator
import pathlib
import tempfile

import imgclf
from imgclf.exporting import FORMATS


def train(name: str, steps: int, workdir: pathlib.Path) -> None:
  config = imgclf.default_config()
  config.dataset.image_size = 32
  config.dataset.crop_fraction = 1.0
  config.augment.crop = "center"
  config.augment.flip = False
  config.model.name = name
  config.train.batch_size = 32
  config.train.total_steps = steps
  config.eval.every_steps = steps
  config.log.tensorboard = False
  imgclf.train(config, workdir, quiet=True)


def rows(name: str, steps: int) -> Iterator[str]:
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder, "run")
    train(name, steps, workdir)
    for form in FORMATS:
      try:
        made = imgclf.export(workdir, format=form, output=pathlib.Path(folder, form), quiet=True)
      except imgclf.UserError as error:
        yield f"| {name} | {form} | {error} |"
        continue
      yield (
        f"| {name} | {form} | {made['max_difference']:.1e} | {made['size_bytes'] / 1e6:.2f} "
        f"| {made['latency_ms']:.2f} | {made['imgclf_latency_ms']:.2f} "
        f"| {made['latency_ms'] / made['imgclf_latency_ms']:.2f} |"
      )


if __name__ == "__main__":
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--steps", type=int, default=30)
  parser.add_argument("--models", default="lenet5,cnn,resnet18")
  arguments = parser.parse_args()
  print("| network | format | largest difference | MB | latency, ms | imgclf's, ms | ratio |")
  print("|---|---|---:|---:|---:|---:|---:|", flush=True)
  for each in arguments.models.split(","):
    for row in rows(each, arguments.steps):
      print(row, flush=True)
