"""ResNet-50 on ImageNet by procedure A2 of "ResNet strikes back" (Wightman et al. 2021,
arXiv:2110.00476).

    python launch.py --config=configs/imagenet_rsb_a2.py --config.dataset.data_dir=DIR

DIR holds `imagenet2012` as a prepared TFDS set, see configs/imagenet.py. LAMB, binary
cross-entropy, RandAugment m7, mixup 0.1, cutmix 1.0, three repeats, 300 epochs (table 2 of the
paper). It lacks the paper's stochastic depth of 0.05, and holds 1% of train out. Top-1 accuracy and
time: not measured. Published: 79.8%.
"""

import imgclf


def get_config():
  config = imgclf.default_config()

  config.dataset.name = "imagenet2012"
  config.dataset.train_split = "train[:99%]"
  config.dataset.validation_split = "train[99%:]"
  config.dataset.test_split = "validation"
  config.dataset.image_size = 224
  config.dataset.crop_fraction = 0.95
  config.dataset.interpolation = "bicubic"

  config.augment.crop = "random_resized"
  config.augment.flip = True
  config.augment.policy = "randaugment"  # timm's rand-m7-mstd0.5-inc1
  config.augment.policy_ops = 2
  config.augment.policy_magnitude = 7.0
  config.augment.policy_magnitude_std = 0.5
  config.augment.mixup = 0.1
  config.augment.cutmix = 1.0
  config.augment.repeats = 3

  config.model.name = "resnet50"
  config.model.dtype = "bfloat16"
  config.model.sync_batch_norm = False

  config.optimizer.name = "lamb"
  config.optimizer.learning_rate = 5e-3
  config.optimizer.weight_decay = 0.02
  config.optimizer.epsilon = 1e-6  # timm's LAMB, as the clipping below
  config.optimizer.clip_norm = 1.0
  config.schedule.name = "cosine"
  config.schedule.warmup_epochs = 5.0

  config.train.batch_size = 2064  # 2048 in the paper; for 3 repeats on up to 8 devices
  config.train.total_epochs = 300.0
  config.train.loss = "binary"
  # All classes that are mixed in are targets of 1, as in the paper, unless their share is small.
  config.train.binary_threshold = 0.2
  config.log.every_steps = 100
  return config
