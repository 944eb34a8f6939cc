"""ResNet-18 on CIFAR-10, for one GPU.

    python launch.py --config=configs/cifar10.py --config.dataset.data_dir=DIR

DIR holds CIFAR-10 as a prepared TFDS set: `tfds build cifar10 --file_format=array_record
--data_dir=DIR` (needs `pip install 'imgclf[prepare]'`).

The network is He et al.'s ResNet-18 with the 3x3 stem for 32 px (11,173,962 parameters). 1,000
training images choose the checkpoint. Accuracy and time on a GPU: not measured. On two CPU cores it
makes some 26 images/s in float32.
"""

import imgclf


def get_config():
  config = imgclf.default_config()

  config.dataset.name = "cifar10"
  config.dataset.train_split = "train[:98%]"
  config.dataset.validation_split = "train[98%:]"
  config.dataset.image_size = 32
  config.dataset.crop_fraction = 1.0

  config.augment.crop = "padded"
  config.augment.crop_padding = 4
  config.augment.cutout = 16  # DeVries & Taylor 2017, https://arxiv.org/abs/1708.04552
  config.augment.mean = (0.4914, 0.4822, 0.4465)
  config.augment.std = (0.2470, 0.2435, 0.2616)

  config.model.name = "resnet18"
  config.model.stem = "cifar"
  config.model.dtype = "bfloat16"

  config.optimizer.name = "sgd"
  config.optimizer.learning_rate = 0.1
  config.optimizer.reference_batch_size = 128
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 5e-4
  config.schedule.name = "cosine"
  config.schedule.warmup_epochs = 5.0

  config.train.batch_size = 512
  config.train.total_epochs = 100.0
  config.eval.every_epochs = 5.0
  config.checkpoint.every_epochs = 5.0
  return config
