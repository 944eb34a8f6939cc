import subprocess
import sys

import pytest

from imgclf import app, command_line
from imgclf.errors import Diverged, Stopped, UserError


def error_line(capsys, *arguments):
  """Runs the command line, expecting code 2, and returns its one line on stderr."""
  assert app.main(arguments) == 2
  out = capsys.readouterr()
  assert out.err.count("\n") == 1
  assert "Traceback" not in out.err
  return out.err


def test_overrides_are_taken_out_of_the_arguments():
  others, overrides = command_line.split_overrides(
    [
      *("--config=a.py", "--config.seed=3", "-config.train.batch_size", "7", "--workdir=x"),
      *("--config.augment.flip", "--noconfig.log.tensorboard", "--config.dataset.name=folder:a=b"),
    ]
  )
  assert others == ["--config=a.py", "--workdir=x"]
  assert overrides == [
    ("seed", "3"),
    ("train.batch_size", "7"),
    ("augment.flip", "True"),
    ("log.tensorboard", "False"),
    ("dataset.name", "folder:a=b"),
  ]


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--mode=trian"], "did you mean train?"),
    (["--mode=eval"], "--workdir: --mode=eval needs it"),
    ([], "--config: --mode=train needs it"),
    (["--cnfig=x.py"], "cnfig"),
    (["configs/digits.py"], "every argument is a flag"),
    (["--config=configs/digts.py"], "did you mean configs/digits.py?"),
    (["--config.seed"], "--config.seed: needs a value"),
    (["--mode=eval", "--workdir=x", "--config.seed=3"], "takes the config from --workdir"),
    (["--mode=report"], "--workdir: --mode=report needs it"),
    (["--mode=report", "--workdir=x", "--dataset=y"], "only --mode=eval does"),
    (["--mode=eval", "--workdir=x", "--top_k=3"], "only --mode=predict does"),
    (["--mode=eval", "--workdir=x", "--batch_size=many"], "batch_size"),
    (["--mode=predict", "--workdir=x"], "--images: --mode=predict needs it"),
    (["--mode=predict", "--workdir=x", "--images=a.png"], "--workdir=x: holds no run"),
    (["--mode=predict", "--workdir=x", "--images=a.png", "--threshold=high"], "threshold"),
    (["--config=configs/digits.py", "--num_processes=2"], "give all three or none"),
    (["--config=configs/digits.py", "--config.optimizer.lerning_rate=1"], "learning_rate?"),
  ],
)
def test_a_wrong_command_is_one_line_and_code_2(capsys, arguments, words):
  assert words in error_line(capsys, *arguments)


@pytest.mark.parametrize(
  ("error", "code"), [(UserError("a"), 2), (Diverged("b"), 3), (Stopped("c"), 75)]
)
def test_what_ends_a_run_has_its_exit_code(monkeypatch, error, code):
  def fail(*_):
    raise error

  monkeypatch.setattr(app, "run", fail)
  assert app.main([]) == code


@pytest.mark.parametrize("kind", [UserError, Diverged, Stopped])
def test_what_a_terminal_would_obey_in_a_name_is_escaped(monkeypatch, capsys, kind):
  def fail(*_):
    raise kind("cats\x1b[2J\x07\x9b31m\u202etac\udcff.png: is wrong")

  monkeypatch.setattr(app, "run", fail)
  app.main([])
  said = capsys.readouterr().err.partition(": ")[2]
  assert said == r"cats\x1b[2J\x07\x9b31m\u202etac\udcff.png: is wrong" + "\n"


def test_a_bug_keeps_its_traceback(monkeypatch):
  def fail(*_):
    raise ZeroDivisionError

  monkeypatch.setattr(app, "run", fail)
  with pytest.raises(ZeroDivisionError):
    app.main([])


def test_help_names_every_flag_in_80_columns(capsys):
  assert app.main(["--help"]) == 0
  text = capsys.readouterr().out
  assert all(f"--{name}" in text for name in command_line.define_flags())
  assert max(map(len, text.splitlines())) <= 80


def test_importing_the_package_imports_nothing_heavy():
  code = (
    "import sys, imgclf; print([m for m in ('jax', 'numpy', 'flax', 'absl') if m in sys.modules])"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout == "[]\n"


def test_the_public_names_can_all_be_imported():
  import imgclf

  for name in imgclf._SOURCES:
    assert callable(getattr(imgclf, name)), name
