"""What is told of a run is so, and the commands are what a shell runs."""

import shlex

import pytest

import imgclf
from imgclf import command_line
from imgclf.reporting import facts, judging
from imgclf.run_folder import RunFolder


class Stub:
  """Of a run, what the commands are made of."""

  def __init__(self, workdir, dataset="digits"):
    self.folder = RunFolder(workdir)
    self.config = {"dataset": {"name": dataset}, "model": {"name": "lenet5"}}


def test_facts_are_those_of_the_set_and_the_model(trained):
  judge = judging.Judge(imgclf.load(trained, calibrated=False))
  found = dict(facts.facts(judge, "test", "test", 360, 0))
  assert found["data set"] == "digits"
  assert found["classes"] == "10"
  assert found["train"] == "train[:90%]: 1,293 images"
  assert found["validation"] == "train[90%:]: 144 images"
  assert found["test"] == found["judged"] == "test: 360 images"
  assert found["unreadable"] == "0"
  assert found["image"] == "32 x 32 px, the middle 100%, bilinear"
  assert found["views of an image (eval.tta)"] == "none"
  assert found["parameters"] == "62,006"  # LeCun's 1998 paper, by hand in README's table
  assert found["length of the run"] == "40 steps of 32 images, 1 epoch"
  assert found["checkpoint"].startswith("step ") and judge.run.checkpoint in found["checkpoint"]
  other = dict(facts.facts(judge, "validation", "train[90%:]", 144, 2))
  assert other["judged"] == "validation, train[90%:]: 144 images"
  assert other["unreadable"] == "2, counted as wrong"


@pytest.mark.parametrize(
  ("dataset", "title"),
  [
    ("cifar10:3.0.2", "lenet5 on cifar10"),
    ("folder:/data/of/flowers", "lenet5 on folder:flowers"),
    ("csv:/data/all.csv", "lenet5 on csv:all.csv"),
  ],
)
def test_the_title_names_model_and_set_without_a_path(dataset, title):
  assert facts.title(Stub("runs/x", dataset)) == title


@pytest.mark.parametrize("name", ["runs/digits", "runs/a b; rm -rf $HOME 'x'", "runs/-x"])
def test_commands_are_read_by_a_shell_and_by_the_command_line(name):
  command = shlex.split(facts.train_command(Stub(name)))
  assert command[:2] == ["python", "launch.py"]
  values, _ = command_line.parse(command[2:])
  assert (values.mode, values.config, values.workdir) == (
    *("train", f"{name}/config.json"),
    f"{name}-again",
  )
  told = facts.report_command(Stub(name), split="test[:5]", step=40, output=None, compare=name)
  values, _ = command_line.parse(shlex.split(told)[2:])
  assert (values.mode, values.workdir, values.split) == ("report", name, "test[:5]")
  assert (values.step, values.compare, values.output) == ("40", name, None)


def test_the_versions_are_those_that_are_installed():
  import flax
  import jax

  found = facts.versions()
  assert (found["jax"], found["flax"]) == (jax.__version__, flax.__version__)
  assert found["Python"].count(".") == 2
