"""Your own images, from pretrained weights: a folder of class folders, as configs/folder.py takes
it.

    python launch.py --config=configs/finetune.py --config.dataset.name=folder:PATH

ResNet-50 at 224 px from timm's `resnet50.a1_in1k`, which needs `pip install 'imgclf[hub]'`. For
other weights give their network as well: `--config.model.weights=run:runs/imagenet
--config.model.name=resnet50`. The head starts at zero and learns at ten times the rate of the rest,
which knows much already. On few images freeze the rest, `--config.optimizer.rules='head/*: lr=1; *:
lr=0'` (all but batch norm's statistics), and compare, with configs/folder.py as well: weights of a
set that is far from yours may be worse than none. Accuracy and time depend on your images: not
measured.
"""

import imgclf


def get_config():
  config = imgclf.default_config()

  config.dataset.name = "folder:images"
  # Mean, standard deviation, crop fraction and interpolation are taken over from the weights.
  config.dataset.image_size = 224

  config.augment.crop = "random_resized"
  # Few images: milder than ImageNet's, as in configs/folder.py.
  config.augment.crop_scale = (0.35, 1.0)
  config.augment.flip = True

  config.model.name = "resnet50"
  config.model.weights = "timm:resnet50.a1_in1k"
  config.model.head = "new"  # as many classes as those of the weights are still other classes

  config.optimizer.learning_rate = 1e-3
  config.optimizer.rules = "head/*: lr=1; *: lr=0.1"
  config.optimizer.weight_decay = 0.05
  config.schedule.warmup_epochs = 1.0

  config.train.batch_size = 32
  config.train.total_epochs = 15.0
  config.train.label_smoothing = 0.1
  config.log.every_epochs = 1.0
  return config
