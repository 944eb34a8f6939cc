"""The command line: flags -> mode -> exit code; what a user can mend is one line, not a
traceback.
"""

from collections.abc import Sequence
import os
import pathlib
import sys
import traceback
from typing import NoReturn

from absl import flags

from imgclf import command_line, config_file, lock
from imgclf import config as configs
from imgclf.errors import Diverged, Stopped, UserError
from imgclf.interrupt import EXIT_STOPPED, Interrupt
from imgclf.job import Job
from imgclf.text import printable

EXIT_USER, EXIT_DIVERGED = 2, 3


def _train(values: flags.FlagValues, config: configs.ConfigDict, interrupt: Interrupt) -> None:
  from imgclf.modes import train

  train.run(config, _train_workdir(values), interrupt=interrupt)


def _train_workdir(values: flags.FlagValues) -> str:
  return values.workdir or os.path.join("runs", pathlib.Path(values.config).stem)


def _eval(values: flags.FlagValues) -> None:
  workdir = command_line.required(values, "workdir", "runs/digits")
  from imgclf.modes import evaluate

  evaluate.run(
    workdir,
    split=values.split,
    step=values.step,
    dataset=values.dataset,
    data_dir=values.data_dir,
    batch_size=values.batch_size,
    bad_images=values.bad_images,
    tta=values.tta,
  )


def _images(given: str) -> list[str]:
  # A comma separates paths, unless it is part of the one path that was given.
  return [given] if os.path.exists(given) else given.split(",")


def _predict(values: flags.FlagValues) -> None:
  workdir = command_line.required(values, "workdir", "runs/digits")
  images = _images(command_line.required(values, "images", "photo.jpg"))
  from imgclf.modes import predict

  predict.run(
    workdir,
    images=images,
    output=values.output,
    step=values.step,
    top_k=values.top_k,
    threshold=values.threshold,
    features=values.features,
    explain=values.explain,
    explain_dir=values.explain_dir,
  )


def _report(values: flags.FlagValues) -> None:
  workdir = command_line.required(values, "workdir", "runs/digits")
  from imgclf.modes import report

  report.run(
    workdir,
    split=values.split,
    step=values.step,
    compare=values.compare,
    output=values.output,
    data_dir=values.data_dir,
    bad_images=values.bad_images,
  )


def _export(values: flags.FlagValues) -> None:
  workdir = command_line.required(values, "workdir", "runs/digits")
  chosen = command_line.required(values, "format", "onnx")
  output = command_line.required(values, "output", "exported")
  from imgclf.modes import export

  images = None if values.images is None else _images(values.images)
  export.run(workdir, format=chosen, output=output, step=values.step, images=images)


def _check(values: flags.FlagValues, config: configs.ConfigDict) -> None:
  from imgclf.modes import check

  check.run(config, output=values.output, preview=values.preview)


def _benchmark(values: flags.FlagValues, config: configs.ConfigDict) -> None:
  from imgclf.modes import benchmark

  parts = None if values.parts is None else values.parts.split(",")
  benchmark.run(config, parts=parts, output=values.output, trace=values.trace)


def _find_lr(values: flags.FlagValues, config: configs.ConfigDict) -> None:
  from imgclf.modes import find_lr

  find_lr.run(config, output=values.output, plot=values.plot)


def _models(values: flags.FlagValues) -> None:
  from imgclf.modes import models

  models.run()


def run(arguments: Sequence[str], interrupt: Interrupt, job: Job) -> None:
  """Does what the arguments say; raises what goes wrong."""
  values, overrides = command_line.parse(arguments)
  if values.help:
    print(command_line.help_text())
    return
  config = None
  if "config" in command_line.MODES[values.mode]:
    # A wrong config, or a folder in use, is told before a cluster is waited for.
    config = config_file.load(command_line.required(values, "config", "configs/digits.py"))
    configs.apply_overrides(config, overrides)
    configs.validate(config)
  if values.mode == "train":
    from imgclf.run_folder import RunFolder

    lock.refuse_if_held(RunFolder(_train_workdir(values)).lock)
  from imgclf import compilation, parallel

  compilation.keep_programs()
  client = parallel.start(values.coordinator_address, values.num_processes, values.process_id)
  if client is not None:
    job.join(client, parallel.process_index(), parallel.process_count(), interrupt)
  if config is not None:
    if values.mode == "train":
      _train(values, config, interrupt)
    else:
      plan_run = {"check": _check, "benchmark": _benchmark, "find_lr": _find_lr}
      plan_run[values.mode](values, config)
  else:
    without_config = {
      "eval": _eval,
      "predict": _predict,
      "report": _report,
      "export": _export,
      "models": _models,
    }
    without_config[values.mode](values)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line and returns its exit code.

  0: done. 2: the user's to mend, one line on stderr. 3: training diverged. 75: stopped by a signal
  after saving. Anything else is a bug or a failing machine and leaves as an exception, with code 1.
  In a job of several processes all of them end when one does, and none returns with another code
  than 0.
  """
  job = Job()
  try:
    with Interrupt() as interrupt:
      run(sys.argv[1:] if arguments is None else arguments, interrupt, job)
  except UserError as error:
    return _end(job, EXIT_USER, f"error: {' '.join(str(error).split())}")
  except Diverged as error:
    return _end(job, EXIT_DIVERGED, f"diverged: {error}")
  except Stopped as error:
    return _end(job, EXIT_STOPPED, f"stopped: {error}")
  except BrokenPipeError:
    # Who read the output left, as `| head` does; Python would complain once more at its own exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    job.leave(1, "error: its output was closed")
    return 1
  except KeyboardInterrupt:  # before signals were looked after, or after
    return _end(job, EXIT_STOPPED, "stopped: the same command starts again")
  except Exception as error:
    if job.alone:
      raise
    job.listen()  # what fails here is often what another process broke, which then ends this one
    traceback.print_exc()
    return _end(job, 1, f"error: {type(error).__name__}: {' '.join(str(error).split())}")
  job.leave(0, "")
  return 0


def _end(job: Job, code: int, line: str) -> int:
  line = printable(line)  # file and class names in it may hold what a terminal would obey
  print(line, file=sys.stderr, flush=True)
  job.leave(code, line)
  return code


def command() -> NoReturn:
  """The command line's way in: `main`, and an end that nothing holds up."""
  code = main()
  if code == EXIT_STOPPED:
    # A thread may hang in a read that never ends, and Python would wait for it.
    sys.stdout.flush()
    os._exit(code)
  sys.exit(code)
