"""What does not go with several classes an image is refused in a line that says what to set."""

import pytest

import imgclf
from imgclf import config as configs
from imgclf import multilabel
from imgclf.errors import UserError


@pytest.fixture
def config():
  config = imgclf.default_config()
  config.dataset.name = "csv:set.csv"
  config.dataset.label_separator = "|"
  config.train.loss = "binary"
  config.checkpoint.best_metric = "mAP"
  return config


REFUSED = [
  ("checkpoint.best_metric", "accuracy", "set it to mAP, f1_micro, f1_macro, "),
  ("checkpoint.best_metric", "ece", "ece is of one class an image"),
  ("checkpoint.best_metric", "top5_accuracy", "top5_accuracy is of one class an image"),
  ("dataset.name", "digits", "only csv:PATH has cells of several classes"),
  ("dataset.name", "folder:x", "only csv:PATH has cells of several classes"),
  ("dataset.sampling", "balanced", "set it to shuffled"),
  ("distill.teacher", "run:x", "set it to none"),
  ("train.loss", "softmax", "set it to binary or focal"),
]


@pytest.mark.parametrize(("field", "value", "words"), REFUSED)
def test_what_assumes_one_class_is_refused_by_its_field_with_the_mend(config, field, value, words):
  section, name = field.split(".")
  config[section][name] = value
  with pytest.raises(UserError) as refused:
    configs.validate(config)
  where = "dataset.label_separator" if field == "dataset.name" else field
  assert str(refused.value).startswith(f"config.{where}: ")
  assert words in str(refused.value)
  assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("loss", "words"), [("binary", "binary has none"), ("focal", "none")])
def test_class_weights_are_refused_with_either_loss(config, loss, words):
  config.train.loss, config.train.class_weights = loss, "balanced"
  with pytest.raises(UserError, match=rf"config\.train\.class_weights: .*{words}"):
    configs.validate(config)


@pytest.mark.parametrize("loss", ["binary", "focal"])
@pytest.mark.parametrize("best", multilabel.FIGURES)
def test_what_works_with_several_classes_passes(config, loss, best):
  config.train.loss, config.checkpoint.best_metric = loss, best
  config.train.label_smoothing = 0.1
  config.augment.mixup, config.augment.cutmix = 0.2, 1.0
  configs.validate(config)
  assert multilabel.is_on(config)


@pytest.mark.parametrize("best", ["exact_match", "f1_micro", "mAP"])
def test_figures_of_several_classes_are_refused_where_images_have_one(best):
  config = imgclf.default_config()
  config.checkpoint.best_metric = best
  with pytest.raises(UserError, match=rf"best_metric: {best} is of images with several classes"):
    configs.validate(config)


def test_a_config_that_lacks_the_separator_has_one_class_an_image():
  text = configs.to_json(imgclf.default_config())
  older = text.replace('"label_separator": "",', "")
  assert older != text
  assert not multilabel.is_on(configs.from_json(older))
