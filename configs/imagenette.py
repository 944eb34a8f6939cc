"""The plain CNN on Imagenette, ten easy classes of ImageNet at 224 px: 10 epochs.

    python launch.py --config=configs/imagenette.py --config.dataset.data_dir=DIR

DIR holds Imagenette as a prepared TFDS set: `tfds build imagenette/320px-v2
--file_format=array_record --data_dir=DIR` (needs `pip install 'imgclf[prepare]'`).

The network is the textbook's: three convolutions and 44,401,226 parameters, nearly all of them in
the first dense layer. Accuracy and time on this set: not measured.
"""

import imgclf


def get_config():
  config = imgclf.default_config()

  config.dataset.name = "imagenette/320px-v2"
  # The set has no test split: its validation split is the test, and 10% of train choose the best.
  config.dataset.train_split = "train[:90%]"
  config.dataset.validation_split = "train[90%:]"
  config.dataset.test_split = "validation"
  config.dataset.image_size = 224

  config.augment.crop = "random_resized"
  config.augment.crop_scale = (0.35, 1.0)

  config.model.name = "cnn"
  config.model.dropout_rate = 0.5

  config.optimizer.learning_rate = 1e-3
  config.optimizer.weight_decay = 1e-2
  config.schedule.warmup_epochs = 0.5

  config.train.batch_size = 128
  config.train.total_epochs = 10.0
  return config
