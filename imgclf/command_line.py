"""The flags of the command line: which there are, which mode reads which, and what the arguments
say. Runs no mode.
"""

from collections.abc import Sequence
import difflib
import textwrap

from absl import flags

from imgclf import config as configs
from imgclf.errors import UserError

USAGE = """\
Train:    launch.py --config=configs/digits.py [--workdir=DIR] [--config.KEY=X]
Evaluate: launch.py --mode=eval --workdir=DIR [--split=test] [--step=best]
Predict:  launch.py --mode=predict --workdir=DIR --images=PATH [--output=FILE]
Report:   launch.py --mode=report --workdir=DIR [--compare=DIR] [--split=test]
Check:    launch.py --mode=check --config=configs/digits.py [--output=FILE.json]
Tune:     launch.py --mode=find_lr --config=configs/digits.py [--plot=F.png]
Export:   launch.py --mode=export --workdir=DIR --format=onnx --output=FOLDER
Measure:  launch.py --mode=benchmark --config=configs/digits.py [--parts=step]
Networks: launch.py --mode=models

A run is the folder --workdir; the same command again goes on where it stopped.
"""

# The flags that each mode reads, besides mode and those of a job of several processes.
MODES = {
  "train": ("config", "workdir"),
  "eval": ("workdir", "step", "split", "dataset", "data_dir", "batch_size", "bad_images", "tta"),
  "predict": (
    "workdir",
    "step",
    "images",
    "output",
    "top_k",
    "threshold",
    "features",
    "explain",
    "explain_dir",
  ),
  "report": ("workdir", "step", "split", "compare", "output", "data_dir", "bad_images"),
  "export": ("workdir", "step", "format", "output", "images"),
  "check": ("config", "output", "preview"),
  "benchmark": ("config", "output", "parts", "trace"),
  "find_lr": ("config", "output", "plot"),
  "models": (),
}
_COMMON = ("mode", "help", "coordinator_address", "num_processes", "process_id")


def define_flags() -> flags.FlagValues:
  """Returns the flags of the command line, in a set of their own."""
  values = flags.FlagValues()

  def string(name: str, default: str | None, meaning: str) -> None:
    flags.DEFINE_string(name, default, meaning, flag_values=values)

  def integer(name: str, default: int | None, meaning: str) -> None:
    flags.DEFINE_integer(name, default, meaning, flag_values=values)

  flags.DEFINE_boolean("help", False, "Show this text.", flag_values=values)
  string("mode", "train", f"What to do: {', '.join(MODES)}.")
  string(
    "config",
    None,
    "train, check, benchmark, find_lr: config file; --config.KEY=VALUE overrides a field.",
  )
  string("workdir", None, "The run folder; train: runs/<the config file's name> if left out.")
  string("step", "best", "Checkpoint to use: best, latest or a step's number.")
  string("split", "test", "eval, report: test, validation, train, or a split such as test[:50%].")
  string("dataset", None, "eval: another data set, as in config.dataset.name.")
  string("data_dir", None, "eval, report: where prepared TFDS sets are.")
  string(
    "bad_images",
    None,
    "eval, report: `error`, or `wrong`: what can't be decoded is a wrong answer.",
  )
  string(
    "tta", None, "eval: views of an image: none, flip or flip_translate; the run's if left out."
  )
  integer("batch_size", None, "eval: global batch size; the run's if left out.")
  string(
    "images",
    None,
    "predict: image files, folders and patterns such as 'photos/**/*.jpg', separated by commas; @FILE: "
    "a list of paths, one a line; -: such a list on standard input. export: what to verify on.",
  )
  string("compare", None, "report: the folder of another run, to judge on the same examples.")
  string(
    "output",
    None,
    "File to write; predict: ends in .csv, .jsonl or .parquet, report: in .html, others: in .json; "
    "export: a new folder.",
  )
  string(
    "format",
    None,
    "export: stablehlo, savedmodel or onnx; timm: weights alone, for timm and torchvision.",
  )
  string("preview", None, "check: a picture of augmented training examples to write, FILE.png.")
  string("plot", None, "find_lr: a picture of the loss by learning rate to write, FILE.png.")
  string(
    "parts", None, "benchmark: what to measure, of decode,input,step,train,eval; all if left out."
  )
  string("trace", None, "benchmark: folder for a profile of training, for TensorBoard or Perfetto.")
  integer("top_k", 5, "predict: classes told for each image.")
  flags.DEFINE_float(
    "threshold",
    None,
    "predict: an image whose best probability is below it is none of these; where it may have several classes it has "
    "those that reach this, left out 0.5.",
    flag_values=values,
  )
  flags.DEFINE_boolean(
    "features",
    False,
    "predict: write the embedding before the head too, to .jsonl or .parquet.",
    flag_values=values,
  )
  string(
    "explain",
    None,
    "predict: why, as pictures of heat over pixels, by gradcam, integrated_gradients, smoothgrad or occlusion.",
  )
  string("explain_dir", None, "predict: folder for these pictures, one for each image.")
  string("coordinator_address", None, "Several machines: HOST:PORT of process 0.")
  integer("num_processes", None, "Several machines: how many processes there are.")
  integer("process_id", None, "Several machines: number of this process, from 0.")
  return values


def help_text() -> str:
  """Returns the usage and every flag, 80 columns wide."""
  values = define_flags()
  lines = [USAGE.rstrip(), "", "Flags:"]
  for name in values:
    flag = values[name]
    default = "" if flag.default in (None, False) else f" [{flag.default}]"
    lines.append(f"  --{name}{default}")
    lines.append(textwrap.fill(flag.help, 80, initial_indent=" " * 6, subsequent_indent=" " * 6))
  lines.append("\nEvery field of a config is explained in imgclf/schema.py.")
  return "\n".join(lines)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
  """Takes `--config.KEY=VALUE` out of the arguments.

  `--config.KEY VALUE` does as well, and `--config.KEY` and `--noconfig.KEY` for what is True or
  False.

  Returns:
    The other arguments, and pairs of field and value.
  """
  others, overrides = [], []
  waiting = list(arguments)
  while waiting:
    argument = waiting.pop(0)
    argument = "--help" if argument == "-h" else argument
    name = argument.lstrip("-")
    if not argument.startswith("-") or not name.startswith(("config.", "noconfig.")):
      others.append(argument)
      continue
    path, equals, value = name.partition("=")
    field = configs.FIELDS.get(path.partition(".")[2])
    if path.startswith("noconfig."):
      value = "False"
    elif not equals and field is not None and field.type is bool:
      value = "True"
    elif not equals:
      if not waiting or waiting[0].startswith("--"):
        raise UserError(f"--{path}: needs a value: --{path}=VALUE")
      value = waiting.pop(0)
    overrides.append((path.partition(".")[2], value))
  return others, overrides


def parse(arguments: Sequence[str]) -> tuple[flags.FlagValues, list[tuple[str, str]]]:
  """Reads the command line's arguments.

  Raises:
    UserError: for an unknown flag, value or mode, or a flag that the mode does not read.
  """
  others, overrides = split_overrides(arguments)
  values = define_flags()
  try:
    rest = values(["launch.py", *others])[1:]
  except flags.Error as error:
    raise UserError(f"{' '.join(str(error).split())}; --help lists the flags") from None
  if rest:
    raise UserError(f"{rest[0]}: every argument is a flag, --NAME=VALUE; --help lists them")
  if values.mode not in MODES:
    near = difflib.get_close_matches(values.mode, MODES, 1, 0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"--mode={values.mode}: no such mode; there are {', '.join(MODES)}{hint}")
  reads = (*_COMMON, *MODES[values.mode])
  for name in values:
    if values[name].present and name not in reads:
      readers = " and ".join(f"--mode={mode}" for mode, known in MODES.items() if name in known)
      raise UserError(
        f"--{name}: --mode={values.mode} does not read it, only {readers} does; leave it out"
      )
  if overrides and "config" not in MODES[values.mode]:
    raise UserError(
      f"--config.{overrides[0][0]}: --mode={values.mode} takes the config from --workdir; leave it out"
    )
  return values, overrides


def required(values: flags.FlagValues, name: str, example: str) -> str:
  """Returns a flag's value.

  Raises:
    UserError: with an example, if it was not given.
  """
  value = values[name].value
  if not value:
    raise UserError(f"--{name}: --mode={values.mode} needs it, such as --{name}={example}")
  return value
