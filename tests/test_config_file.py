import pytest

import imgclf
from imgclf import config as configs
from imgclf import config_file
from imgclf.errors import UserError


def write(tmp_path, body):
  path = tmp_path / "recipe.py"
  path.write_text(
    "import imgclf\n\n\ndef get_config():\n  config = imgclf.default_config()\n" + body
  )
  return path


def test_a_config_file_is_loaded(tmp_path):
  path = write(tmp_path, "  config.train.batch_size = 7\n  return config\n")
  assert config_file.load(path).train.batch_size == 7


@pytest.mark.parametrize(
  ("body", "words"),
  [
    (
      "  config.optimizer.lerning_rate = 1\n  return config\n",
      ["line 6", "did you mean config.optimizer.learning_rate?"],
    ),
    ("  config.train.batch_size = 'x'\n  return config\n", ["line 6", "an integer >= 1"]),
    ("  config.oops.x = 'x'\n  return config\n", ["line 6", "config.oops.x: no such field"]),
    ("  config.seed = 1 / 0\n  return config\n", ["line 6", "ZeroDivisionError"]),
    ("  return 3\n", ["must return a ConfigDict"]),
    ("  return config)\n", ["line 6", "SyntaxError"]),
  ],
)
def test_a_wrong_config_file_is_told_by_line(tmp_path, body, words):
  path = write(tmp_path, body)
  with pytest.raises(UserError) as refused:
    config_file.load(path)
  assert str(refused.value).startswith(str(path))
  for word in words:
    assert word in str(refused.value)


def test_a_relative_path_is_told_by_line_too(tmp_path, monkeypatch):
  write(tmp_path, "  config.optimizer.lerning_rate = 1\n  return config\n")
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError) as refused:
    config_file.load("recipe.py")
  assert str(refused.value) == (
    "recipe.py, line 6: config.optimizer.lerning_rate: no such field; "
    "did you mean config.optimizer.learning_rate?"
  )


def test_a_config_file_that_is_not_there_is_told_with_the_nearest(tmp_path):
  write(tmp_path, "  return config\n")
  with pytest.raises(UserError, match=r"no such file; did you mean .*recipe\.py\?"):
    config_file.load(tmp_path / "recipes.py")


def test_the_config_of_a_run_is_read_as_data(tmp_path):
  """So a run is trained again from its folder, whatever has become of the file that it was begun
  with."""
  config = configs.resolve(imgclf.default_config())
  config.train.batch_size = 7
  path = tmp_path / "config.json"
  path.write_text(configs.to_json(config))
  assert config_file.load(path).to_dict() == config.to_dict()


@pytest.mark.parametrize(
  ("data", "words"),
  [
    (b"import os", "is not JSON"),
    (b'{"sed": 3}', "config.sed: no such field; did you mean config.seed?"),
    (b"\xff", "can't be read"),
  ],
)
def test_a_json_file_that_is_no_config_is_refused(tmp_path, data, words):
  path = tmp_path / "config.json"
  path.write_bytes(data)
  with pytest.raises(UserError) as refused:
    config_file.load(path)
  assert str(path) in str(refused.value) and words in str(refused.value)
