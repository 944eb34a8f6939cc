"""README.md and CONTRIBUTING.md hold: their commands, names, numbers and examples are those of the
code."""

import importlib
import pathlib
import re
import sys
import types
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_architecture as architecture

import imgclf
from imgclf import app, augment, command_line, config_file, models, schema
from imgclf import config as configs
from imgclf.data import files
from imgclf.errors import UserError

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {
  name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")
}
README, CONTRIBUTING = PAGES.values()
EVERYTHING = README + CONTRIBUTING

COMMANDS = (
  "python3 -m venv .venv && .venv/bin/pip install -e . && "
  ".venv/bin/python launch.py --config=configs/digits.py",
  "python3 -m venv .venv && .venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest -n auto",
)

# Flags of other commands: tfds, srun, ruff, XLA, pip, uv, the speed run.
FOREIGN_FLAGS = {
  *("file_format", "dataset_version_dir", "out_file_format"),
  *("nodes", "ntasks-per-node", "gpus-per-node", "signal"),
  *("check", "xla_gpu_deterministic_ops"),
  *("require-hashes", "no-deps", "no-build-isolation"),
  *("seeds", "peer"),
  *("universal", "python-version", "extra", "group", "generate-hashes", "upgrade"),
}
# Files that CONTRIBUTING.md tells how to add.
EXAMPLE_FILES = {
  "imgclf/models/mlp.py",
  "tests/models/test_mlp.py",
  "imgclf/data/zip_files.py",
  "configs/cifar100.py",
}


def blocks(page, language=""):
  """The fenced blocks of a page that are marked with this language."""
  found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
  return [text for marked, text in found if marked == language]


def example(words):
  """The one Python block of CONTRIBUTING.md that has these words."""
  (found,) = [text for text in blocks(CONTRIBUTING, "python") if words in text]
  return found


def rows(page, header):
  """The cells of each row of the table whose header starts with these words, without backquotes."""
  table = page[page.index(f"| {header} |") :].split("\n\n")[0].splitlines()[2:]
  return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in table]


def test_the_two_commands_stand_alone_in_code_blocks():
  assert [text.strip() for text in blocks(README)[:2]] == list(COMMANDS)


def test_the_ci_runs_the_test_command_of_the_readme():
  # .ci/run takes the first line that this matches.
  assert re.search(r"^python3 -m venv .*pytest -n auto$", README, re.MULTILINE)[0] == COMMANDS[1]


def test_every_flag_is_one_of_the_command_line():
  named = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)(?!\w*\.)", EVERYTHING))
  assert named - set(command_line.define_flags()) - {"config"} == FOREIGN_FLAGS


def test_the_flags_of_each_command_are_read_by_its_mode():
  commands = [
    line.partition("launch.py ")[2].partition("#")[0]
    for block in blocks(EVERYTHING)
    for line in block.replace("\\\n", " ").splitlines()
    if "python launch.py " in line and "venv" not in line
  ]
  assert len(commands) > 8
  for command in commands:
    values, overrides = command_line.parse(command.replace("'", "").split())
    if values.mode == "train":
      config = config_file.load(ROOT / values.config)
      configs.apply_overrides(config, overrides)
      configs.validate(config)


def test_every_field_is_one_of_the_schema():
  named = set(re.findall(r"\bconfig\.([a-z]\w*(?:\.\w+)*)", EVERYTHING)) - {"py", "json"}
  assert len(named) > 20
  # Sections and fields as they are, and the one that the error message under "Configs" is about.
  assert (
    named - set(schema.FIELDS) - set(schema.SCHEMA)
    == {"optimizer.lerning_rate"} | {"default_config"} & named
  )


def test_every_path_is_in_the_repository():
  pattern = (
    r"(?<![\w/.])(?:imgclf|configs|tests|\.ci)/[\w./-]*\w|\b(?:launch\.py|LICENSE|\w+\.md)\b"
  )
  named = set(re.findall(pattern, EVERYTHING))
  assert len(named) > 40
  assert {path for path in named if not (ROOT / path).exists()} == EXAMPLE_FILES


def test_every_public_name_exists():
  named = set(re.findall(r"\bimgclf((?:\.(?!py\b)[A-Za-z]\w*)+)", EVERYTHING))
  assert len(named) > 10
  for path in named:
    target = imgclf
    for name in path.split(".")[1:]:
      if not hasattr(target, name):
        importlib.import_module(f"{target.__name__}.{name}")
      target = getattr(target, name)


def test_the_error_lines_are_what_is_printed(capsys):
  lines = [line for block in blocks(README) for line in block.splitlines() if "error: " in line]
  assert len(lines) == 2
  config = ["--config=" + str(ROOT / "configs/digits.py"), "--workdir=unused"]
  for line, wrong in zip(lines, ["optimizer.lerning_rate=1e-3", "model.name=resnet19"]):
    assert app.main([*config, f"--config.{wrong}"]) == 2
    assert capsys.readouterr().err.strip() == line


def test_the_table_of_models_holds():
  table = rows(README, "models | smallest")
  families = [re.findall(r"[a-z]\w*", row[0].replace("`", "")) for row in table]
  assert [name for family in families for name in family] == models.names()
  section = configs.default_config().model
  for family, (_, smallest, told) in zip(families, table):
    options = told.replace("`", "").split(", ") if told else []
    for section.name in family:
      models.check(section, int(smallest))
      with pytest.raises(UserError, match="image_size"):
        models.check(section, int(smallest) - 1)
      for field, value in (("dropout_rate", 0.5), ("drop_path_rate", 0.1), ("stem", "cifar")):
        section[field] = value
        if field in options:
          models.check(section, 224)
        else:
          with pytest.raises(UserError, match=f"config.model.{field}"):
            models.check(section, 224)
        section[field] = None


def test_every_recipe_has_a_row_of_results():
  recipes = {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
  assert {row[0] for row in rows(README, "recipe | data")} == recipes


def test_every_module_is_on_the_map():
  there = {str(path.relative_to(ROOT)) for path in (ROOT / "imgclf").rglob("*.py")}
  there -= {f"imgclf/{name}/__init__.py" for name in ("data", "modes", "reporting")}
  assert there - set(re.findall(r"`(imgclf/[\w/]+\.py)`", CONTRIBUTING)) == set()


def test_the_layers_are_those_that_the_imports_are_held_against():
  told = blocks(CONTRIBUTING)[0].replace("launch.py", "launch").splitlines()
  (modes,) = [line.partition(":")[2].split() for line in told if line.startswith("modes:")]
  there = {path.stem for path in (ROOT / "imgclf" / "modes").glob("*.py")} - {"__init__"}
  assert sorted(modes) == sorted(there)
  layers = [set(line.partition(":")[0].split()) for line in told]
  expected = [{name.removeprefix("imgclf.") for name in layer} for layer in architecture.LAYERS]
  assert layers == expected


def test_the_notebook_trains_evaluates_and_restores(tmp_path, digits_dir, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("TFDS_DATA_DIR", str(digits_dir))
  cells = blocks(README, "python")
  assert len(cells[0].splitlines()) == 12  # ten, the import and a blank one
  names = {}
  for cell in cells:
    exec(cell, names)
  assert names["figures"]["accuracy"] > 0.85  # a tenth would be chance
  said = capsys.readouterr().out.splitlines()
  assert f"{names['figures']['accuracy']:.1%} of 360 digits are right" in said
  assert said[-1] in list("0123456789")


def test_the_model_that_is_added_works(monkeypatch):
  module = types.ModuleType("imgclf.models.mlp")
  exec(example("class MLP"), module.__dict__)
  monkeypatch.setitem(sys.modules, "imgclf.models.mlp", module)
  for name, entry in eval("{" + example('_Entry("mlp"') + "}", vars(models)).items():
    monkeypatch.setitem(models._MODELS, name, entry)
  test = {}
  exec(example("def test_parameters"), test)
  test["test_parameters_are_those_of_two_dense_layers"]()
  section = configs.default_config().model
  section.name, section.dropout_rate = "mlp", 0.5
  model = models.create(section, 10, axis_name=None)
  images, keys = jnp.ones((2, 8, 8, 3)), jax.random.split(jax.random.key(1), 2)
  variables = model.init(jax.random.key(0), images)
  logits, features = model.apply(
    variables, images, train=True, keys=keys, mutable=["intermediates"]
  )
  np.testing.assert_array_equal(logits, np.zeros((2, 10)))  # the head starts at zero
  assert features["intermediates"]["pre_logits"].shape == (2, 256)


def test_the_augmentation_that_is_added_works():
  names = dict(vars(augment))
  exec(example("def random_gamma"), names)
  images = np.full((64, 2, 2, 3), 100, np.float32)
  keys = jax.random.split(jax.random.key(0), 64)
  result = np.asarray(names["random_gamma"](images, keys, 0.5))
  # 100 / 255 to the powers 1.5 and 0.5.
  assert result.min() >= 62.6 and result.max() <= 159.7
  assert np.std(result, axis=(1, 2, 3)).max() < 1e-4 < np.std(result[:, 0, 0, 0])
  np.testing.assert_allclose(names["random_gamma"](images[3:5], keys[3:5], 0.5), result[3:5])
  np.testing.assert_allclose(names["random_gamma"](images, keys, 0.0), images, rtol=1e-6)
  assert names["random_gamma"](images * 2.55, keys, 0.9).max() <= 255.001


def test_the_data_source_that_is_added_works(tmp_path):
  names = {}
  exec(example("class ZipSource"), names)
  path = tmp_path / "images.zip"
  inside = [f"{'cat' if i % 2 else 'dog'}/{i}.png" for i in range(60)]
  with zipfile.ZipFile(path, "w") as archive:
    for name in [*inside, "cat/notes.txt", "loose.png"]:
      archive.writestr(name, f"pixels of {name}")
  classes, found, _ = names["read"](str(path))
  assert classes == ("cat", "dog")
  seen = {}
  for split, source in found.items():
    for record in source.read(range(source.shard_lengths[0])):
      name = record.name.rpartition(":")[2]
      assert record.data == f"pixels of {name}".encode()
      assert classes[record.label] == name.split("/")[0]
      seen[name] = split
  expected = files.split_numbers(files.digests(inside))
  assert seen == {name: files.SPLITS[number] for name, number in zip(inside, expected)}
  path.write_bytes(path.read_bytes().replace(b"pixels of cat/1.png", b"pixels of cat/2.png"))
  damaged = names["read"](str(path))[1][seen["cat/1.png"]]
  with pytest.raises(UserError, match=r"cat/1\.png: can't be read"):
    damaged.read(range(damaged.shard_lengths[0]))
  path.write_bytes(b"no archive")
  with pytest.raises(UserError, match="zip archive"):
    names["read"](str(path))


def test_the_recipe_that_is_added_is_a_config():
  names = {}
  exec(example("configs/cifar100.py"), names)
  config = names["get_config"]()
  configs.validate(config)
  models.check(config.model, config.dataset.image_size)
