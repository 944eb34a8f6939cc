"""Your own images: a folder of class folders.

    python launch.py --config=configs/folder.py --config.dataset.name=folder:PATH

PATH holds `train/CLASS/...` and, if you like, `validation/CLASS/...` and `test/CLASS/...`; or class
folders alone, which are then split 80 / 10 / 10. A CSV of paths and labels does as well:
`csv:FILE`.

ResNet-18 at 128 px from random weights. Accuracy and time depend on your images: not measured.
"""

import imgclf


def get_config():
  config = imgclf.default_config()

  config.dataset.name = "folder:images"
  config.dataset.image_size = 128

  config.augment.crop = "random_resized"
  # From nothing on few images, milder crops than ImageNet's keep the subject in the picture.
  config.augment.crop_scale = (0.35, 1.0)
  config.augment.flip = True

  config.model.name = "resnet18"

  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 0.05
  config.optimizer.ema_decay = 0.999
  config.schedule.warmup_epochs = 2.0

  config.train.batch_size = 32
  config.train.total_epochs = 40.0
  config.train.label_smoothing = 0.1
  config.log.every_epochs = 1.0
  return config
