import json

import pytest

import imgclf
from imgclf import config as configs
from imgclf import durations
from imgclf.errors import UserError
from imgclf.schema import FIELDS, SCHEMA


def overridden(*overrides):
  config = configs.default_config()
  configs.apply_overrides(config, overrides)
  configs.validate(config)
  return config


def test_the_defaults_pass_their_own_checks():
  configs.validate(imgclf.default_config())


def test_every_field_has_a_meaning_and_a_section_of_the_schema():
  assert set(SCHEMA) == {
    "",
    "dataset",
    "augment",
    "model",
    "optimizer",
    "schedule",
    "train",
    "distill",
    "eval",
    "checkpoint",
    "log",
  }
  assert all(field.meaning.endswith(".") or "`" in field.meaning for field in FIELDS.values())


@pytest.mark.parametrize(
  ("path", "text", "value"),
  [
    ("train.batch_size", "512", 512),
    ("optimizer.learning_rate", "1e-2", 0.01),
    ("optimizer.learning_rate", "1", 1.0),
    ("augment.flip", "false", False),
    ("augment.crop_scale", "(0.5, 1)", (0.5, 1)),
    ("augment.crop_scale", "[0.5, 1]", (0.5, 1)),
    ("dataset.name", "folder:/a=b, c", "folder:/a=b, c"),
    ("dataset.data_dir", "none", None),
    ("train.total_epochs", "2", 2.0),
    ("seed", "7", 7),
  ],
)
def test_an_override_is_read_as_the_fields_type(path, text, value):
  found = configs.get(overridden((path, text)), path)
  assert found == value
  assert type(found) is type(value)


@pytest.mark.parametrize(
  ("path", "text", "words"),
  [
    (
      "optimizer.lerning_rate",
      "1",
      ["no such field", "did you mean config.optimizer.learning_rate?"],
    ),
    ("train.learning_rate", "1", ["no such field", "did you mean config.optimizer.learning_rate?"]),
    ("batch_size", "1", ["no such field", "batch_size?"]),
    ("train", "{}", ["is a section", "--config.train.batch_size=VALUE"]),
    ("train.batch_size", "1e3", ["'1e3'", "an integer >= 1"]),
    ("train.batch_size", "0", ["got 0", "an integer >= 1"]),
    ("train.batch_size", "True", ["'True'", "an integer >= 1"]),
    ("optimizer.learning_rate", "fast", ["'fast'", "a number > 0"]),
    ("optimizer.learning_rate", "nan", ["got nan", "a number > 0"]),
    ("optimizer.name", "adan", ["'adan'", "adam, sgd, lamb", "did you mean adam?"]),
    ("model.stem", "imagnet", ["'imagnet'", "imagenet or cifar"]),
    ("augment.flip", "maybe", ["'maybe'", "True or False"]),
    ("augment.crop_scale", "(0.5, 2)", ["(0.5, 2)", "0 < low <= high <= 1"]),
    ("augment.std", "(1, 1, 0)", ["three numbers > 0"]),
    ("augment.mean", "('a', 1, 0)", ["three numbers"]),
    ("dataset.background", "(1.5, 0, 0)", ["three integers from 0 to 255"]),
    ("dataset.crop_fraction", "0", ["a number >= 0.1 and <= 1"]),
    ("schedule.step_boundaries", "(0.5, 0.3)", ["rising numbers"]),
    ("optimizer.accumulate_steps", "3", ["does not divide config.train.batch_size=128"]),
    ("optimizer.nesterov", "true", ["only sgd and lars have it"]),
    ("optimizer.muon_unit_filters", "true", ["only muon has it"]),
    ("optimizer.rules", "head", ["is no rule", "PATTERN: lr=2"]),
    ("eval.tta", "flips", ["one of none, flip, flip_translate", "did you mean flip?"]),
    ("optimizer.ema_decay", "1.0", ["a number >= 0 and < 1"]),
    ("seed", "-1", ["an integer >= 0"]),
    ("seed", "{[]:1}", ["an integer >= 0"]),
    ("train.total_steps", "1" + "0" * 400, ["an integer > 0"]),
  ],
)
def test_a_wrong_override_is_one_line_with_field_value_and_mend(path, text, words):
  with pytest.raises(UserError) as refused:
    overridden((path, text))
  message = str(refused.value)
  assert message.startswith("config.")
  assert "\n" not in message
  for word in words:
    assert word in message


def test_a_duration_on_the_command_line_replaces_the_files_in_another_unit():
  config = configs.default_config()
  config.train.total_epochs = 30.0
  configs.apply_overrides(config, [("train.total_steps", "100")])
  assert (config.train.total_steps, config.train.total_epochs) == (100, None)


def test_a_duration_in_two_units_is_refused():
  with pytest.raises(
    UserError, match=r"train\.total_steps=5 and train\.total_epochs=2 are both set"
  ):
    overridden(("train.total_steps", "5"), ("train.total_epochs", "2"))


@pytest.mark.parametrize(
  ("field", "value", "expected"),
  [
    ("train.total_steps", 7, 7),
    ("train.total_epochs", 3.0, 24),  # 3 * 1000 / 128 = 23.4
    ("train.total_epochs", 0.128, 1),  # exactly one batch
    ("train.total_epochs", 0.0001, 1),
    ("train.total_epochs", 1e-12, 1),
    ("train.total_examples", 129, 2),
    ("train.total_examples", 128, 1),
  ],
)
def test_durations_become_whole_steps(field, value, expected):
  config = configs.default_config()
  section, name = field.split(".")
  config[section][name] = value
  assert durations.steps(config, "train.total", 1000) == expected


def test_a_duration_that_is_not_set_has_its_default_or_is_none():
  config = configs.default_config()
  assert durations.steps(config, "eval.every", 1000) == 8  # an epoch: 1000 / 128 = 7.8
  assert durations.steps(config, "log.every", 1000) == 50
  assert durations.steps(config, "schedule.warmup", 1000) == 0
  assert durations.optional_steps(config, "checkpoint.keep_every", 1000) is None


def test_json_brings_back_the_same_config():
  config = overridden(("augment.crop_scale", "(0.5, 1)"), ("train.total_epochs", "2.5"))
  again = configs.from_json(configs.to_json(config))
  assert again.to_dict() == config.to_dict()
  assert configs.differences(config, again) == ([], [])


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda tree: tree.update(surprise=1), "config.surprise: no such field"),
    (lambda tree: tree["train"].update(batch_size="128"), "config.train.batch_size: got '128'"),
    (
      lambda tree: tree["train"].update(batch_size={"__class__": "os.system"}),
      "allowed is an integer",
    ),
    (lambda tree: tree.update(train=3), "config.train: got 3, must be a section"),
    (lambda tree: tree["augment"].update(mean=[0, None, 1]), "three numbers"),
  ],
)
def test_a_damaged_config_json_is_refused_by_field(change, words):
  tree = json.loads(configs.to_json(configs.default_config()))
  change(tree)
  with pytest.raises(UserError) as refused:
    configs.from_json(json.dumps(tree), "runs/x/config.json")
  assert str(refused.value).startswith("runs/x/config.json: ")
  assert words in str(refused.value)


def test_flips_that_alternate_need_flips():
  with pytest.raises(
    UserError, match=r"^config\.augment\.flip_alternate: needs config\.augment\.flip;"
  ):
    overridden(("augment.flip", "false"), ("augment.flip_alternate", "true"))


def test_a_shift_needs_a_second_pixel():
  fields = [("eval.tta", "flip_translate"), ("dataset.image_size", "1"), ("augment.crop", "center")]
  with pytest.raises(UserError, match=r"^config\.eval\.tta: flip_translate shifts by a pixel"):
    overridden(*fields)


def test_nesterov_is_for_what_sgd_updates():
  fields = [("optimizer.name", "muon"), ("optimizer.nesterov", "true")]
  with pytest.raises(UserError, match="only sgd and lars have it"):
    overridden(*fields)
  overridden(*fields, ("optimizer.muon_rest", "sgd"))


def test_a_field_that_an_older_version_did_not_write_has_its_default():
  tree = json.loads(configs.to_json(overridden(("seed", "7"))))
  del tree["optimizer"]["nesterov"], tree["log"]
  again = configs.from_json(json.dumps(tree))
  assert again.to_dict() == overridden(("seed", "7")).to_dict()


def test_a_config_that_lacks_a_field_is_refused():
  tree = json.loads(configs.to_json(configs.default_config()))
  del tree["train"]["batch_size"]
  with pytest.raises(UserError, match=r"config\.train\.batch_size: is missing"):
    configs.validate(tree)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000])
def test_what_is_no_json_object_is_refused(text):
  with pytest.raises(UserError, match=r"is not (JSON|a JSON object)"):
    configs.from_json(text)


def test_differences_tell_what_matters_from_what_may_change():
  old = configs.default_config()
  new = overridden(("seed", "1"), ("log.every_steps", "9"), ("model.name", "lenet5"))
  matter, free = configs.differences(old, new)
  assert matter == ["config.seed: 0 -> 1", "config.model.name: 'cnn' -> 'lenet5'"]
  assert free == ["config.log.every_steps: None -> 9"]


@pytest.mark.parametrize("name", ["folder:", "csv:"])
def test_an_empty_path_is_not_the_current_folder(name):
  assert configs.resolve(overridden(("dataset.name", name))).dataset.name == name


def test_what_is_done_to_a_resolved_config_or_a_copy_is_not_done_to_the_given_one():
  config = overridden(("dataset.name", "folder:photos"))
  before = configs.to_json(config)
  for other in (configs.resolve(config), configs.copy(config)):
    other.dataset.data_dir = "elsewhere"
    other.model.batch_norm_epsilon = 1e-3
    assert configs.to_json(config) == before
    with pytest.raises(AttributeError):  # as locked as the one it came from
      other.model.depht = 3


def test_resolved_paths_hold_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("TFDS_DATA_DIR", "sets")
  resolved = configs.resolve(overridden(("dataset.name", "folder:photos")))
  assert resolved.dataset.name == f"folder:{tmp_path / 'photos'}"
  assert resolved.dataset.data_dir == str(tmp_path / "sets")


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"augment.repeats": 3}, "config.augment.repeats: 3 does not divide"),
    ({"augment.cutout": 300}, "config.augment.cutout: 300 is more than config.dataset.image_size"),
    ({"train.binary_threshold": 0.2}, "config.train.binary_threshold: only the loss binary"),
    (
      {"train.class_weights": "balanced", "train.loss": "binary"},
      "config.train.class_weights: the loss binary has none",
    ),
    (
      {"train.class_weights": "balanced", "dataset.sampling": "balanced"},
      "config.train.class_weights: config.dataset.sampling=balanced makes up",
    ),
    ({"augment.scale": (1.2, 0.8)}, "config.augment.scale"),
    ({"augment.policy": "randaugmnt"}, "did you mean randaugment"),
  ],
)
def test_an_augmentation_that_cannot_be_is_refused_by_field(changes, words):
  config = configs.default_config()
  for path, value in changes.items():
    section, name = path.split(".")
    config[section][name] = value
  with pytest.raises(UserError, match=words):
    configs.validate(config)
