"""Several classes an image: collages of Fashion-MNIST, and how well a small network names all that
is in each.

    python benchmarks/multilabel.py --data_dir=DIR [--model=cnn] [--epochs=3] [--loss=binary]

DIR holds `fashion_mnist` as a prepared TFDS set. A collage is 2x2 fields of 28 px, each with a
picture in three cases of four, else black; its label is the set of the classes in it, which may be
empty. No picture is in two collages, and test collages are of test pictures. They are written as
PNG files and a table, trained on, and judged: mean average precision on test beside that of a
ranking by chance, which is a class's share of the images. All of it is in a temporary folder.
"""

import argparse
import json
import pathlib
import tempfile
import time

import numpy as np
from PIL import Image

import imgclf
from imgclf import multilabel_metrics
from imgclf.data import datasets, images

# Collages of each split: at most a quarter of the pictures there are.
SIZES = {"train": 12_000, "validation": 1_500, "test": 2_500}
SIDE, FIELDS, FILLED = 28, 4, 3 / 4
SEPARATOR = "|"


def base(options, dataset):
  config = imgclf.default_config()
  config.dataset.name = dataset
  config.dataset.data_dir = options.data_dir
  config.dataset.image_size = 2 * SIDE
  config.dataset.crop_fraction = 1.0
  return config


def write_set(options, folder):
  """Writes collages and `set.csv`; returns which classes each test collage has, [n, classes] bool,
  in no order.
  """
  source = datasets.open(base(options, "fashion_mnist").dataset)
  draw = np.random.default_rng(options.seed)
  pictures = {
    "train": iter(draw.permutation(len(source.records("train")))),
    "test": iter(draw.permutation(len(source.records("test")))),
  }
  pictures["validation"] = pictures["train"]
  lines, there = ["path,label,split"], []
  for split, size in SIZES.items():
    records = source.records("test" if split == "test" else "train")
    (folder / split).mkdir()
    for number in range(max(2, round(size * options.share))):
      canvas, found = np.zeros((2 * SIDE, 2 * SIDE), np.uint8), set()
      for place in np.flatnonzero(draw.random(FIELDS) < FILLED):
        record = records[next(pictures[split])]
        top, left = SIDE * (place // 2), SIDE * (place % 2)
        pixels = images.decode(record.data, record.name)
        canvas[top : top + SIDE, left : left + SIDE] = pixels[:, :, 0]
        found.add(record.label)
      Image.fromarray(canvas).save(folder / split / f"{number}.png")
      names = SEPARATOR.join(source.classes[label] for label in sorted(found))
      lines.append(f"{split}/{number}.png,{names},{split}")
      if split == "test":
        there.append([label in found for label in range(len(source.classes))])
  (folder / "set.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
  return np.array(there)


def configured(options, folder):
  config = base(options, f"csv:{folder / 'set.csv'}")
  config.dataset.label_separator = SEPARATOR
  config.dataset.resident = True
  config.augment.crop = "padded"
  config.model.name = options.model
  config.train.loss = options.loss
  config.train.batch_size = 64
  config.train.total_epochs = options.epochs
  config.optimizer.learning_rate = 2e-3
  config.schedule.warmup_epochs = 0.5
  config.checkpoint.best_metric = "mAP"
  config.log.tensorboard = False
  return config


def by_chance(there, seed):
  """The mean average precision of random scores."""
  scores = np.random.default_rng(seed).random(there.shape)
  precisions = [
    multilabel_metrics.average_precision(scores[:, label], there[:, label], there[:, label].sum())
    for label in range(there.shape[1])
  ]
  return float(np.mean([value for value in precisions if value is not None]))


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data_dir", required=True, help="of prepared TFDS sets")
  parser.add_argument("--model", default="cnn", help="see --mode=models")
  parser.add_argument("--loss", default="binary", choices=("binary", "focal"))
  parser.add_argument("--epochs", type=float, default=3.0)
  parser.add_argument("--share", type=float, default=1.0, help="of the collages, to try it out")
  parser.add_argument("--seed", type=int, default=0, help="of the collages")
  parser.add_argument("--output", help="a JSON file for the figures")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    there = write_set(options, folder)
    began = time.perf_counter()
    imgclf.train(configured(options, folder), folder / "run")
    seconds = time.perf_counter() - began
    found = imgclf.evaluate(folder / "run", split="test")
  chance, random = float(there.mean(axis=0).mean()), by_chance(there, options.seed)
  print(
    f"{options.model}, {options.loss}: test mAP {found['mAP']:.2%} (by chance {chance:.2%}, random scores "
    f"{random:.2%}), micro F1 {found['f1_micro']:.2%}, macro F1 {found['f1_macro']:.2%}, exact match "
    f"{found['exact_match']:.2%} of {found['n']:,}; trained in {seconds:.0f} s"
  )
  if options.output:
    told = {"chance": chance, "random": random, "seconds": seconds, **vars(options), "test": found}
    pathlib.Path(options.output).write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
  main()
