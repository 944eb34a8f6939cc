"""A good learning rate for a config, by a short run in which it rises from next to nothing until
training is lost.
"""

import contextlib
import io
import json
import os
import tempfile
from typing import Any

import jax.numpy as jnp
import numpy as np

from imgclf import (
  beginning,
  feeds,
  memory,
  models,
  optim,
  parallel,
  plan,
  rules,
  state,
  sweep,
  sweep_picture,
  tables,
)
from imgclf import config as configs
from imgclf.data.bad_images import BadImages
from imgclf.errors import UserError
from imgclf.output import checked, whole_file, write_whole
from imgclf.parts import endless
from imgclf.stoppable import with_stop

# Adam's good rates and plain gradient descent's lie within; 29 steps to a power of ten.
LOW, HIGH, STEPS = 1e-6, 10.0, 200
# Lines of the table.
_ROWS = 12


def run(
  config: configs.ConfigDict,
  *,
  output: str | os.PathLike | None = None,
  plot: str | os.PathLike | None = None,
  quiet: bool = False,
  low: float = LOW,
  high: float = HIGH,
  count: int = STEPS,
) -> dict[str, Any]:
  """Trains for a few hundred steps at rising learning rates, and suggests the one at which the loss
  fell fastest.

  It begins as the run would, on its first batches, and stops where the loss is four times the least
  so far or no number. Rules hold but for their `from` and `until`. No run folder is read or
  written.

  Args:
    config: the config of the run to come.
    output: a file to write what is returned to, ending in .json; none: nowhere.
    plot: a picture to write, ending in .png; none: nowhere.
    quiet: print nothing.
    low: the first value of `optimizer.learning_rate`.
    high: the last one.
    count: how many steps.

  Returns:
    `suggested` and `lowest` (of the least loss), values of `optimizer.learning_rate`, both None
    where the loss did not fall; `stopped_at`, the one at which training was lost, or None;
    `learning_rates`, `losses` and `smoothed`, of each step up to there; `batch_size`.

  Raises:
    UserError: for a config or a set that can't be trained on, or arguments that are none.
  """
  file = None if output is None else checked(output, (".json",))
  picture = None if plot is None else checked(plot, (".png",), "--plot")
  if parallel.process_count() > 1:
    raise UserError("--mode=find_lr: runs in one process; start it without a cluster's environment")
  with contextlib.ExitStack() as held:
    folder = held.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
    planned = plan.prepare(_swept(config), os.path.join(folder, "run"), held)
    tried = sweep.rates(low, high, count)
    losses, lost = _losses(planned, tried)
  finding = sweep.find(tried, losses)
  rates = tried[: len(losses)]
  report = {
    "suggested": finding.suggested,
    "lowest": finding.lowest,
    "stopped_at": float(tried[len(losses)]) if lost else None,
    "batch_size": planned.config["train"]["batch_size"],
    "learning_rates": rates.tolist(),
    "losses": losses,
    "smoothed": finding.smoothed.tolist(),
  }
  if not quiet:
    _print(report)
  if file is not None:
    with whole_file(file) as opened:
      opened.write(json.dumps(report, indent=2, allow_nan=False) + "\n")
  if picture is not None:
    if len(losses) < 2:
      raise UserError("--plot: training was lost in its first steps, so there is nothing to draw")
    drawn = io.BytesIO()
    sweep_picture.draw(rates, losses, finding).save(drawn, "png")
    write_whole(picture, drawn.getvalue(), "--plot")
  for path in (file, picture):
    if path is not None and not quiet:
      tables.print_line(f"written to {path}")
  return report


def _swept(config: configs.ConfigDict) -> configs.ConfigDict:
  config = endless(config)
  config.optimizer.rules = rules.timeless(config.optimizer.rules)
  config.optimizer.ema_decay = None
  config.train.max_bad_steps = 0
  return config


def _losses(planned: plan.Plan, tried: np.ndarray) -> tuple[list[float], bool]:
  """The loss of each step as far as training is not lost, and whether it is."""
  config = planned.config
  # A field that is scaled with the batch size is tried as a field, and so is what is suggested.
  scale = optim.peak_learning_rate(config) / config["optimizer"]["learning_rate"]
  values = jnp.asarray(tried * scale, jnp.float32)
  model = models.create(config["model"], len(planned.source.classes), axis_name=parallel.AXIS)
  optimizer, learning_rate = planned.optimizer(model, lambda step: values[step])
  fresh = state.create(
    model,
    optimizer,
    seed=config["seed"],
    image_size=config["dataset"]["image_size"],
    ema=False,
  )
  bad = None
  if config["dataset"]["bad_images"] == "skip":
    bad = BadImages(
      planned.folder.bad_images,
      total=len(planned.train_records),
      max_share=config["dataset"]["max_bad_share"],
    )
  feed = feeds.Streamed(planned.train_records, config, bad)
  made = planned.train_step(model, optimizer, learning_rate)
  held = {"teacher": planned.teacher.place()} if planned.teacher else {}
  call = parallel.pmap(feed.call(made), donate_argnums=(0,))
  current = parallel.replicate(beginning.begun(planned, model, fresh))
  losses: list[float] = []
  try:
    for batch in feed.batches(0, len(tried), ()):
      current, result = call(current, held, parallel.shard(with_stop(batch, 0)))
      losses.append(float(parallel.first(result["loss"])[0]))
      if sweep.is_lost(losses):
        return losses[:-1], True
  except Exception as error:
    if isinstance(error, UserError) or not memory.exhausted(error):
      raise
    size, parts = config["train"]["batch_size"], config["optimizer"]["accumulate_steps"]
    raise memory.refusal(error, size, "config.train.batch_size", parts) from error
  return losses, False


def _print(report: dict[str, Any]) -> None:
  """Prints a report in 80 columns."""
  rates, curve = report["learning_rates"], report["smoothed"]
  chosen = sorted({round(place) for place in np.linspace(0, len(rates) - 1, _ROWS)})
  tables.text_table(
    ("learning rate", "loss"), [(f"{rates[i]:.2g}", f"{curve[i]:.4f}") for i in chosen if rates]
  )
  if report["stopped_at"] is not None:
    tables.print_paragraph(
      f"stopped     after {len(rates)} steps: training is lost at {report['stopped_at']:.2g}"
    )
  if report["suggested"] is None:
    tables.print_paragraph(
      "suggested   nothing, since the loss did not fall; look whether labels fit their images, or sweep other "
      "rates: imgclf.find_lr(config, low=A, high=B)"
    )
    return
  tables.print_paragraph(f"lowest      the loss is least at {report['lowest']:.2g}")
  tables.print_paragraph(
    f"suggested   --config.optimizer.learning_rate={report['suggested']:.2g}, where it falls fastest"
  )
