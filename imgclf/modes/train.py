"""From a config to a run folder with checkpoints, resumed by itself where one was begun."""

import contextlib
import os
import shlex
from typing import Any

from imgclf import beginning, models, parallel, progress, state, steps
from imgclf import config as configs
from imgclf.checkpoint import Checkpoints
from imgclf.errors import Stopped
from imgclf.identity import refuse_other_run
from imgclf.interrupt import Interrupt
from imgclf.loop import Loop
from imgclf.plan import Plan, prepare
from imgclf.run import retention


def run(
  config: configs.ConfigDict,
  workdir: str | os.PathLike,
  *,
  quiet: bool = False,
  interrupt: Interrupt | None = None,
) -> dict[str, Any]:
  """Trains a classifier, or goes on where the run in `workdir` stopped.

  Args:
    config: as from `imgclf.default_config` or a config file.
    workdir: the run folder, made if it is not there.
    quiet: print nothing.
    interrupt: an entered one that is already looking after signals; left out, one is made for the
      run.

  Returns:
    `step`, the last step; `best_step`; and `validation`, that step's figures on the validation
    split (see `imgclf.metrics.figures`).

  Raises:
    UserError: for what is wrong with the config, the data set or the folder, or too large for the
      memory.
    Diverged: if the loss or gradient becomes NaN or infinite.
    Stopped: after SIGINT or SIGTERM, once the state is saved.
  """
  with contextlib.ExitStack() as held:
    interrupt = interrupt or held.enter_context(Interrupt())
    return _run(prepare(config, workdir, held), interrupt, quiet)


def _run(plan: Plan, interrupt: Interrupt, quiet: bool) -> dict[str, Any]:
  config, every, folder = plan.config, plan.every, plan.folder
  first = parallel.process_index() == 0
  model = models.create(config["model"], len(plan.source.classes), axis_name=parallel.AXIS)
  optimizer, learning_rate = plan.optimizer(model)
  begin = state.create(
    model,
    optimizer,
    seed=config["seed"],
    image_size=config["dataset"]["image_size"],
    ema=config["optimizer"]["ema_decay"] is not None,
  )
  with Checkpoints(
    folder.checkpoints, run=plan.identity, keep_every=every.keep, **retention(config)
  ) as checkpoints:
    begun = parallel.of_first(checkpoints.newest_sound() if first else 0)
    plan.notes.extend(checkpoints.set_aside(above=begun))
    if begun:
      refuse_other_run(checkpoints.run(begun), plan.identity, folder.path)
      begin = checkpoints.restore(begun, begin)
    else:
      begin = beginning.begun(plan, model, begin)
    if first and not quiet:
      _introduce(plan, begin, begun)
    with progress.Progress(
      total_steps=every.total,
      first_step=begun,
      batch_size=config["train"]["batch_size"],
      tensorboard_dir=folder.tensorboard if first and config["log"]["tensorboard"] else None,
      metrics_file=folder.metrics if first else None,
      quiet=quiet or not first,
    ) as shown:
      loop = Loop(
        plan,
        plan.train_step(model, optimizer, learning_rate),
        steps.make_eval_step(model, config),
        checkpoints,
        shown,
        interrupt,
      )
      stopped = loop.run(begin, begun)
    checkpoints.wait()
    best, last = checkpoints.best(), checkpoints.latest() or 0
  if stopped:
    saved = f"step {last} of {every.total} is saved" if last else "nothing was to be saved"
    raise Stopped(f"{saved}; the same command goes on from there")
  result: dict[str, Any] = {"step": last, "best_step": best, "validation": None}
  if best is not None:
    result["validation"] = folder.read_evaluation("validation", best)
    if first and not quiet:
      _conclude(plan, result)
  return result


def _introduce(plan: Plan, begin: state.TrainState, begun: int) -> None:
  """Prints what is about to run, on what, and with which parameters."""
  config, every = plan.config, plan.every
  progress.parameter_table(begin.params)
  test = plan.roles["test"] or "none"
  lines = [
    f"data      {plan.source.name}: {len(plan.source.classes)} classes; train {plan.roles['train']} "
    f"({len(plan.train_records):,}), validation {plan.roles['validation']} "
    f"({len(plan.validation_records):,}), test {test}",
    f"model     {config['model']['name']}, {config['model']['dtype']}, "
    f"{config['dataset']['image_size']} px",
    f"devices   {parallel.describe_devices()}",
    f"run       {plan.folder.path}: {every.total:,} steps of {config['train']['batch_size']:,} images",
    *(f"note      {note}" for note in plan.notes),
  ]
  if begun:
    lines.append(f"resumed   from the checkpoint of step {begun}")
  for line in lines:
    progress.print_line(line)


def _conclude(plan: Plan, result: dict[str, Any]) -> None:
  """Prints the figures of the best checkpoint and the next command to type."""
  progress.evaluation_summary(result["validation"], "validation", result["best_step"])
  split = "test" if plan.roles["test"] else "validation"
  progress.print_line("These are the figures of the best checkpoint. Evaluate it with:")
  workdir = shlex.quote(str(plan.folder.path))
  progress.print_line(f"  python launch.py --mode=eval --workdir={workdir} --split={split}")
