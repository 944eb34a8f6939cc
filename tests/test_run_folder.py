import json
import math
import os
import pathlib

import numpy as np
import pytest

from imgclf import config as configs
from imgclf.errors import UserError
from imgclf.run_folder import RunFolder


def _run(path: pathlib.Path) -> RunFolder:
  folder = RunFolder(path)
  folder.write_classes(["cat", "dog"])
  folder.write_config(configs.default_config())
  return folder


def test_files_lie_where_scripts_expect_them(tmp_path):
  folder = RunFolder(str(tmp_path / "run"))
  assert folder.config == tmp_path / "run/config.json"
  assert folder.classes == tmp_path / "run/classes.json"
  assert folder.checkpoints == tmp_path / "run/checkpoints"
  assert folder.metrics == tmp_path / "run/metrics.jsonl"
  assert folder.tensorboard == tmp_path / "run/tensorboard"
  assert folder.evaluation("test", 300) == tmp_path / "run/eval/test-300.json"
  assert not folder.exists() and not folder.path.exists()


def test_a_tilde_stands_for_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert RunFolder("~/runs/a").path == tmp_path / "runs/a"


def test_the_config_is_read_back_as_it_was_written(tmp_path):
  config = configs.default_config()
  configs.apply_overrides(config, [("seed", "7"), ("train.total_epochs", "2.5")])
  folder = RunFolder(tmp_path / "deep" / "run")
  folder.write_config(config)
  assert folder.exists()
  assert configs.to_json(folder.read_config()) == configs.to_json(config)


@pytest.mark.parametrize("classes", [["cat", "dog"], ["Äpfel", "山", "\udc80 bytes", 'a"b\n']])
def test_class_names_are_read_back_as_they_were_written(tmp_path, classes):
  folder = _run(tmp_path / "run")
  folder.write_classes(classes)
  assert folder.read_classes() == classes


@pytest.mark.parametrize(
  "text",
  ["", "{}", "[]", '["cat", 1]', '["cat", "cat"]', '"cat"', "[" * 100_000, "__import__('os')"],
)
def test_class_names_that_are_no_list_of_distinct_names_are_refused(tmp_path, text):
  folder = _run(tmp_path / "run")
  folder.classes.write_text(text)
  with pytest.raises(UserError, match=r"classes\.json: is not a JSON list of distinct names"):
    folder.read_classes()


def test_a_config_that_is_no_config_is_refused_by_the_name_of_its_file(tmp_path):
  folder = _run(tmp_path / "run")
  folder.config.write_text('{"seed": "x"}')
  with pytest.raises(UserError, match=r"run/config\.json: config\."):
    folder.read_config()
  folder.config.write_bytes(b"\xff\xfe")
  with pytest.raises(UserError, match=r"run/config\.json: can't be read"):
    folder.read_config()


def test_an_evaluation_is_strict_json_with_null_for_what_is_no_number(tmp_path):
  figures = {
    "n": np.int64(3),
    "loss": np.float32(0.5),
    "ece": math.nan,
    "per_class": [{"name": "cat", "f1": np.float64("nan")}, {"name": "dog", "f1": -math.inf}],
    "confusion_matrix": np.array([[1, 0], [2, 0]]),
  }
  folder = _run(tmp_path / "run")
  path = folder.write_evaluation("test", 300, figures)
  assert path == tmp_path / "run/eval/test-300.json"

  def refuse(constant):
    raise AssertionError(constant)

  expected = {
    "split": "test",
    "step": 300,
    "n": 3,
    "loss": 0.5,
    "ece": None,
    "per_class": [{"name": "cat", "f1": None}, {"name": "dog", "f1": None}],
    "confusion_matrix": [[1, 0], [2, 0]],
  }
  assert json.loads(path.read_text(), parse_constant=refuse) == expected
  assert folder.read_evaluation("test", 300) == expected


def test_an_evaluation_that_is_missing_or_broken_is_named(tmp_path):
  folder = _run(tmp_path / "run")
  with pytest.raises(UserError, match=r"eval/test-1\.json: can't be read \(No such file"):
    folder.read_evaluation("test", 1)
  folder.write_evaluation("test", 1, {}).write_text("[1]")
  with pytest.raises(UserError, match=r"eval/test-1\.json: is not a JSON object"):
    folder.read_evaluation("test", 1)


def test_a_temperature_belongs_to_the_checkpoint_that_it_was_fitted_to(tmp_path):
  folder = _run(tmp_path)
  assert folder.read_temperature(20, "a") == 1
  path = folder.write_calibration(20, "a", 1.5, {"n": np.int64(7)})
  assert json.loads(path.read_text()) == {"step": 20, "checkpoint": "a", "temperature": 1.5, "n": 7}
  assert folder.read_temperature(20, "a") == 1.5
  assert folder.read_temperature(40, "a") == 1
  with pytest.raises(UserError, match=r"20\.json: was fitted to another checkpoint"):
    folder.read_temperature(20, "b")


@pytest.mark.parametrize(
  "text",
  [
    "",
    "[]",
    "{}",
    '{"temperature": 0, "checkpoint": "a"}',
    '{"temperature": NaN, "checkpoint": "a"}',
  ],
)
def test_a_calibration_without_a_temperature_is_refused(tmp_path, text):
  folder = _run(tmp_path)
  folder.calibration(20).parent.mkdir()
  folder.calibration(20).write_text(text)
  with pytest.raises(UserError, match="holds no temperature"):
    folder.read_temperature(20, "a")


def test_every_split_expression_has_a_file_of_its_own_inside_the_folder(tmp_path):
  folder = RunFolder(tmp_path / "run")
  splits = [
    "train[:90%]",
    "train[90%:]",
    "train_90",
    "a/b",
    "../../b",
    "a-b",
    "test+train",
    "a:b",
    "..",
  ]
  paths = [folder.write_evaluation(split, 5, {}) for split in splits]
  assert len(set(paths)) == len(splits)
  assert {p.parent for p in paths} == {tmp_path / "run/eval"}
  assert paths[0].name == "train%5B%3A90%25%5D-5.json"
  assert [json.loads(p.read_text())["split"] for p in paths] == splits


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
  folder = _run(tmp_path / "run")
  before = sorted(os.listdir(folder.path))

  def full(_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(
    UserError, match=r"classes\.json: can't be written \(No space left on device\)"
  ):
    folder.write_classes(["a", "b", "c"])
  assert folder.read_classes() == ["cat", "dog"]
  assert sorted(os.listdir(folder.path)) == before


def test_a_written_file_has_the_permissions_that_the_user_gives_to_new_files(tmp_path):
  mask = os.umask(0o022)
  try:
    folder = _run(tmp_path / "run")
  finally:
    os.umask(mask)
  assert folder.config.stat().st_mode & 0o777 == 0o644


def test_a_folder_without_a_run_is_refused_with_the_command_that_makes_one(tmp_path):
  with pytest.raises(UserError) as caught:
    RunFolder(tmp_path / "nothing").read_config()
  assert str(caught.value) == (
    f"--workdir={tmp_path}/nothing: holds no run (no config.json in it); "
    f"train first: python launch.py --config=FILE --workdir={tmp_path}/nothing"
  )
  assert not (tmp_path / "nothing").exists()


def test_the_run_that_was_likely_meant_is_named(tmp_path):
  _run(tmp_path / "runs" / "digits")
  _run(tmp_path / "runs" / "zebra")
  (tmp_path / "runs" / "no_run").mkdir()
  near = f"did you mean {tmp_path}/runs/digits or {tmp_path}/runs/zebra?"
  for wrong in ("runs/digit", "runs/no_run", "runs"):
    with pytest.raises(UserError, match="holds no run") as caught:
      RunFolder(tmp_path / wrong).read_classes()
    assert "\n" not in str(caught.value)
    if wrong == "runs/digit":
      assert near in str(caught.value)
    else:
      assert f"{tmp_path}/runs/digits" in str(caught.value)
      assert "no_run or" not in str(caught.value)


def test_a_workdir_that_is_a_file_is_refused(tmp_path):
  file = tmp_path / "model.txt"
  file.write_text("")
  for act in (
    lambda f: f.exists(),
    lambda f: f.read_config(),
    lambda f: f.write_classes(["a"]),
  ):
    with pytest.raises(UserError, match=r"model\.txt: is a file; give a folder"):
      act(RunFolder(file))
  with pytest.raises(UserError, match=r"can't be written"):
    RunFolder(file / "below").write_classes(["a"])


@pytest.mark.skipif(
  not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_may_not_be_written_is_refused(tmp_path):
  (tmp_path / "run").mkdir(mode=0o500)
  with pytest.raises(UserError, match=r"can't be written \(Permission denied\); .*--workdir"):
    RunFolder(tmp_path / "run").write_classes(["a"])


@pytest.mark.skipif(not os.path.isdir("/proc/1"), reason="needs Linux's /proc")
def test_a_folder_that_can_not_be_made_is_refused():
  with pytest.raises(UserError, match=r"/proc/run/classes\.json: can't be written"):
    RunFolder("/proc/run").write_classes(["a"])
