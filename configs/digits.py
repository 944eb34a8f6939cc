"""The plain CNN on scikit-learn's scanned handwritten digits: the first run of a newcomer.

    python launch.py --config=configs/digits.py

Needs no download: the 1,797 images come with scikit-learn. 20 epochs take 23 s on two CPU cores,
start and compilation included (2026-11-25, Python 3.11, JAX 0.10.2), and give 99.17% on the test
split.
"""

import imgclf


def get_config():
  config = imgclf.default_config()

  config.dataset.name = "digits"
  config.dataset.image_size = 32
  config.dataset.crop_fraction = 1.0

  config.augment.crop = "padded"
  config.augment.crop_padding = 4
  config.augment.flip = False  # a mirrored 2 is no digit
  config.augment.rotation = 10.0
  config.augment.mean = (0.5, 0.5, 0.5)
  config.augment.std = (0.5, 0.5, 0.5)

  config.model.name = "cnn"

  config.optimizer.learning_rate = 1e-3
  config.schedule.warmup_epochs = 1.0

  config.train.batch_size = 64
  config.train.total_epochs = 20.0
  config.eval.every_epochs = 4.0
  config.checkpoint.every_epochs = 4.0
  config.checkpoint.best_metric = "loss"  # 144 validation images tie in accuracy
  return config
