"""What a checkpoint says it is of, held against the run folder that it lies in."""

import json
import pathlib

import pytest

import imgclf
from imgclf import config as configs
from imgclf.errors import UserError
from imgclf.identity import identity, refuse_other_run

WORKDIR = pathlib.Path("/runs/cats")


def of(classes=("cat", "dog"), **changes):
  config = imgclf.default_config()
  for path, value in changes.items():
    section, name = path.split("__")
    config[section][name] = value
  return identity(configs.resolve(config), classes)


def test_an_identity_is_the_whole_config_and_the_classes_as_json_has_them():
  one = of(model__name="resnet50", augment__std=(0.5, 0.25, 0.125))
  assert one["classes"] == ["cat", "dog"]
  assert one["config"]["model"]["name"] == "resnet50"
  assert one["config"]["augment"]["std"] == [0.5, 0.25, 0.125]
  assert json.loads(json.dumps(one)) == one


def test_the_same_run_is_let_through():
  refuse_other_run(of(), of(), WORKDIR)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"model__name": "resnet50"}, "config.model.name: 'cnn' -> 'resnet50'"),
    ({"augment__mean": (0.5, 0.5, 0.5)}, "config.augment.mean: "),
    ({"dataset__image_size": 64}, "config.dataset.image_size: 224 -> 64"),
    ({"classes": ("dog", "cat")}, "class 0: 'cat' -> 'dog'"),
    ({"classes": ("cat", "dog", "emu")}, "class 2: None -> 'emu'"),
    ({"classes": ("cat",)}, "class 1: 'dog' -> None"),
  ],
)
def test_another_run_is_refused_with_what_differs(changes, words):
  with pytest.raises(UserError) as caught:
    refuse_other_run(of(), of(**changes), WORKDIR)
  told = str(caught.value)
  assert told.startswith(
    f"--workdir={WORKDIR}: its config.json and classes.json are not those that the checkpoint was"
  )
  assert words in told and "\n" not in told


def test_all_that_differs_is_told():
  with pytest.raises(UserError) as caught:
    refuse_other_run(of(), of(("cat", "emu"), model__name="vgg11", train__batch_size=64), WORKDIR)
  for words in (
    "config.model.name",
    "config.train.batch_size: 128 -> 64",
    "class 1: 'dog' -> 'emu'",
  ):
    assert words in str(caught.value)


@pytest.mark.parametrize(
  "changes",
  [
    {"dataset__name": "folder:/elsewhere/cats"},  # the images moved
    {"dataset__threads": 7},
    {"train__max_bad_steps": 3},
    {"dataset__bad_images": "skip"},
  ],
)
def test_what_may_change_in_a_run_makes_it_no_other(changes):
  refuse_other_run(
    of(dataset__name="folder:/cats"), of(**{"dataset__name": "folder:/cats"} | changes), WORKDIR
  )


def test_a_config_of_an_older_schema_means_what_its_missing_fields_meant():
  """A field that was added since stands for its default; refused is only another value."""
  old = of()
  del old["config"]["train"]["max_bad_steps"]
  del old["config"]["model"]["sync_batch_norm"]
  refuse_other_run(old, of(), WORKDIR)
  with pytest.raises(UserError, match=r"config\.model\.sync_batch_norm: True -> False"):
    refuse_other_run(old, of(model__sync_batch_norm=False), WORKDIR)


def test_a_checkpoint_that_carries_something_else_is_refused_in_one_line():
  with pytest.raises(UserError) as caught:
    refuse_other_run({"config": {"modle": {}}, "classes": []}, of(), WORKDIR)
  assert str(WORKDIR) in str(caught.value) and "\n" not in str(caught.value)
