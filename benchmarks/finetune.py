"""Few images of one set: training from nothing beside fine-tuning weights that imgclf trained on
another set.

    python benchmarks/finetune.py --data_dir=DIR [--model=resnet18] [--shots=20] [--seeds=3]
    python benchmarks/finetune.py --data_dir=DIR --weights=RUN [--shots=20] [--seeds=3]

DIR holds `cifar10` and `fashion_mnist` as prepared TFDS sets. The network is trained on CIFAR-10
once, or is that of the run folder RUN, which was trained there. Then `shots` images a class of
Fashion-MNIST, with as many for validation, become a folder; on it the same network is trained, for
each seed and for the same number of steps, from random weights, from those weights, and from those
weights with all but the head frozen. Tells accuracies on 5,000 test images, of the checkpoint that
was best on validation.
"""

import argparse
import json
import pathlib
import shutil
import statistics

import imgclf
from imgclf.data import datasets

TESTED = 5000


def base(options, dataset):
  config = imgclf.default_config()
  config.dataset.name = dataset
  config.dataset.data_dir = options.data_dir
  config.dataset.image_size = 32
  config.dataset.crop_fraction = 1.0
  config.augment.crop = "padded"
  config.model.name, config.model.stem = options.model, options.stem
  config.optimizer.learning_rate = 1e-3
  config.schedule.warmup_steps = 10
  config.log.tensorboard = False
  return config


def write_folder(options, folder):
  """Writes class folders: `shots` images a class to train and to validate on, 5,000 to test on."""
  section = base(options, "fashion_mnist").dataset
  source = datasets.open(section)
  taken = dict.fromkeys(range(len(source.classes)), 0)
  for index, record in enumerate(source.records("train")):
    count = taken[record.label]
    if count < 2 * options.shots:
      taken[record.label] += 1
      part = "train" if count < options.shots else "validation"
      place(folder / part, source.classes[record.label], index, record)
    if all(count == 2 * options.shots for count in taken.values()):
      break
  for index, record in enumerate(source.records(f"test[:{TESTED}]")):
    place(folder / "test", source.classes[record.label], index, record)


def place(folder, name, index, record):
  path = folder / name.replace("/", " or ") / f"{index}.png"
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(record.data)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data_dir", required=True)
  parser.add_argument("--workdir", default="runs/finetune", help="is emptied")
  parser.add_argument("--model", default="resnet18")
  parser.add_argument("--weights", metavar="RUN", help="of a network that knows CIFAR-10 already")
  parser.add_argument("--epochs", type=float, default=20.0, help="on CIFAR-10")
  parser.add_argument("--steps", type=int, default=400, help="on the few images")
  parser.add_argument("--shots", type=int, default=20, help="images a class")
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument(
    "--body_rate", type=float, default=0.1, help="what the fine-tuned body's learning rate is times"
  )
  parser.add_argument(
    "--head_rate", type=float, default=1.0, help="what every head's learning rate is times"
  )
  parser.add_argument("--output", help="file for the figures, JSON")
  options = parser.parse_args()
  workdir = pathlib.Path(options.workdir).absolute()
  shutil.rmtree(workdir, ignore_errors=True)
  options.stem = "cifar" if options.model.startswith("resnet") else None
  weights = pathlib.Path(options.weights or workdir / "cifar10").absolute()
  if options.weights:
    section = imgclf.load(weights).config["model"]
    options.model, options.stem = section["name"], section["stem"]
  else:
    pretraining = base(options, "cifar10")
    pretraining.train.total_epochs = options.epochs
    imgclf.train(pretraining, weights, quiet=True)
  figures = imgclf.evaluate(weights, quiet=True)
  print(f"CIFAR-10, {options.model}: {figures['accuracy']:.2%}", flush=True)
  write_folder(options, workdir / "images")
  found = {}
  bodies = {"random weights": 1.0, "fine-tuned": options.body_rate, "head alone": 0.0}
  for name, body in bodies.items():
    found[name] = []
    for seed in range(options.seeds):
      config = base(options, f"folder:{workdir / 'images'}")
      config.seed = seed
      config.train.batch_size = 32
      config.train.total_steps = options.steps
      config.eval.every_steps = max(options.steps // 8, 1)
      config.eval.batch_size = 100
      config.optimizer.rules = f"head/*: lr={options.head_rate}; *: lr={body}"
      if name != "random weights":
        config.model.weights = f"run:{weights}"
      run = workdir / f"{name}-{seed}"
      imgclf.train(config, run, quiet=True)
      found[name].append(imgclf.evaluate(run, quiet=True)["accuracy"])
  print(f"| {options.shots} images a class, {options.steps} steps | accuracy | least to greatest |")
  print("|---|---:|---:|")
  for name, accuracies in found.items():
    mean = statistics.fmean(accuracies)
    print(f"| {name} | {mean:.2%} | {min(accuracies):.2%} to {max(accuracies):.2%} |")
  if options.output:
    tree = {"options": vars(options), "cifar10": figures["accuracy"], "accuracy": found}
    pathlib.Path(options.output).write_text(json.dumps(tree, indent=2) + "\n")


if __name__ == "__main__":
  main()
