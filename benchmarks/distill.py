"""A small network on few images, by their labels and by a teacher that has seen many.

    python benchmarks/distill.py --data_dir=DIR [--teacher=cnn] [--student=lenet5] [--examples=1000]
    [--seeds=3]

DIR holds `fashion_mnist` as a prepared TFDS set. The teacher is trained on all but the last of its
train split once. The student is trained on the first `examples` images of that, for each seed and
the same number of steps: by labels alone, by both, and by the teacher alone. Tells accuracies on
the test split, of the checkpoint that was best on validation.
"""

import argparse
import json
import pathlib
import shutil
import statistics

import imgclf

SHARES = {"labels alone": None, "half and half": 0.5, "teacher alone": 1.0}
VALIDATION = "train[55000:]"


def base(options, model, split):
  config = imgclf.default_config()
  config.dataset.name = "fashion_mnist"
  config.dataset.data_dir = options.data_dir
  config.dataset.image_size, config.dataset.crop_fraction = 32, 1.0
  config.dataset.train_split, config.dataset.validation_split = split, VALIDATION
  config.augment.crop = "padded"
  config.augment.crop_padding = 2
  config.model.name = model
  config.train.batch_size = 64
  config.eval.batch_size = 500
  config.log.tensorboard = False
  return config


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data_dir", required=True)
  parser.add_argument("--workdir", default="runs/distill", help="is emptied")
  parser.add_argument("--teacher", default="cnn")
  parser.add_argument("--student", default="lenet5")
  parser.add_argument("--epochs", type=float, default=4.0, help="of the teacher")
  parser.add_argument("--examples", type=int, default=1000, help="of the student")
  parser.add_argument("--steps", type=int, default=1000, help="of the student")
  parser.add_argument("--temperature", type=float, default=1.0)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--output", help="file for the figures, JSON")
  options = parser.parse_args()
  workdir = pathlib.Path(options.workdir).absolute()
  shutil.rmtree(workdir, ignore_errors=True)
  config = base(options, options.teacher, "train[:55000]")
  config.train.total_epochs = options.epochs
  imgclf.train(config, workdir / "teacher", quiet=True)
  taught_by = imgclf.evaluate(workdir / "teacher", quiet=True)["accuracy"]
  print(f"The teacher, {options.teacher}, on 55,000 images: {taught_by:.2%}", flush=True)
  found = {}
  for name, share in SHARES.items():
    found[name] = []
    for seed in range(options.seeds):
      config = base(options, options.student, f"train[:{options.examples}]")
      config.seed = seed
      config.train.total_steps = options.steps
      config.eval.every_steps = max(options.steps // 4, 1)
      if share is not None:
        config.distill.teacher = f"run:{workdir / 'teacher'}"
        config.distill.weight, config.distill.temperature = share, options.temperature
      run = workdir / f"{name}-{seed}"
      imgclf.train(config, run, quiet=True)
      found[name].append(imgclf.evaluate(run, quiet=True)["accuracy"])
  print(f"| {options.student}, {options.examples:,} images | accuracy | least to greatest |")
  print("|---|---:|---:|")
  for name, accuracies in found.items():
    mean = statistics.fmean(accuracies)
    print(f"| {name} | {mean:.2%} | {min(accuracies):.2%} to {max(accuracies):.2%} |")
  if options.output:
    tree = {"options": vars(options), "teacher": taught_by, "accuracy": found}
    pathlib.Path(options.output).write_text(json.dumps(tree, indent=2) + "\n")


if __name__ == "__main__":
  main()
