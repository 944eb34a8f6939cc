"""ResNet-50 on ImageNet: 90 epochs, the classic recipe scaled by the batch size.

    python launch.py --config=configs/imagenet.py --config.dataset.data_dir=DIR

DIR holds `imagenet2012` as a prepared TFDS set: `tfds build imagenet2012 --file_format=array_record
--data_dir=DIR` (needs `pip install 'imgclf[prepare]'` and the two archives that ImageNet gives to
its registered users). Class folders do as well: `--config.dataset.name=folder:PATH`.

SGD with momentum, learning rate 0.1 for 256 images and linear in the batch size, five epochs of
warm-up (Goyal et al. 2017), cosine decay, label smoothing 0.1. Top-1 accuracy and time: not
measured. Published for this recipe (step decay, no smoothing, batch 256 to 8192): 76.3% (Goyal et
al. 2017, table 1).
"""

import imgclf


def get_config():
  config = imgclf.default_config()

  config.dataset.name = "imagenet2012"
  # The labels of ImageNet's test split are secret: its validation split is the test here, and 1% of
  # the training images choose the best checkpoint.
  config.dataset.train_split = "train[:99%]"
  config.dataset.validation_split = "train[99%:]"
  config.dataset.test_split = "validation"
  config.dataset.image_size = 224

  config.augment.crop = "random_resized"
  config.augment.flip = True

  config.model.name = "resnet50"
  config.model.dtype = "bfloat16"
  # Statistics over each device's 128 images, as in the paper: synchronising costs time and gains
  # nothing.
  config.model.sync_batch_norm = False

  config.optimizer.name = "sgd"
  config.optimizer.learning_rate = 0.1
  config.optimizer.reference_batch_size = 256
  config.optimizer.nesterov = True
  config.optimizer.weight_decay = 1e-4
  config.schedule.name = "cosine"
  config.schedule.warmup_epochs = 5.0

  config.train.batch_size = 1024
  config.train.total_epochs = 90.0
  config.train.label_smoothing = 0.1
  config.log.every_steps = 100
  return config
