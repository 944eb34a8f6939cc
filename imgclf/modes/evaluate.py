"""Exact evaluation: every example of a split once, judged by a restored checkpoint."""

import os
from typing import Any

from imgclf import config as configs
from imgclf import parallel, progress, steps
from imgclf.data import datasets
from imgclf.errors import UserError
from imgclf.judge import figures, refuse_changed, split_batches, split_records
from imgclf.run import Run, load


def evaluate_run(
  run: Run,
  split: str = "test",
  dataset: str | None = None,
  data_dir: str | None = None,
  batch_size: int | None = None,
  bad_images: str | None = None,
  tta: str | None = None,
) -> dict[str, Any]:
  """Evaluates a restored run on a split; see `run` for the arguments and the result."""
  config = configs.copy(run.config)
  if batch_size is not None:
    parallel.check_batch_size("--batch_size", batch_size)
  else:
    batch_size = parallel.shareable(configs.eval_batch_size(config))
  config["eval"]["batch_size"] = batch_size
  if dataset is not None:
    config["dataset"].update(name=dataset, train_split=None, validation_split=None, test_split=None)
  if data_dir is not None:
    config["dataset"]["data_dir"] = data_dir
  if bad_images is not None:
    config["eval"]["bad_images"] = bad_images
  if tta is not None:
    if not configs.accepts("eval.tta", tta):
      raise UserError(f"--tta={tta}: must be {configs.FIELDS['eval.tta'].allowed}")
    config["eval"]["tta"] = tta
  config = configs.resolve(config)
  source = datasets.open(config["dataset"])
  label_map = datasets.match_classes(run.classes, source.classes, config["dataset"]["name"])
  if dataset is None:
    refuse_changed(source, run.folder.read_splits())
  records = split_records(config, source, split)
  eval_step = parallel.pmap(steps.make_eval_step(run.model, config, run.temperature))
  variables = parallel.replicate(run.variables)
  batches = split_batches(records, config)
  counted = figures(config, run.classes, eval_step, variables, batches, len(records), label_map)
  result = {
    "split": split,
    "step": run.step,
    "temperature": run.temperature,
    "tta": config["eval"]["tta"],
    **counted,
  }
  if dataset is not None:
    result["dataset"] = config["dataset"]["name"]
  return result


def run(
  workdir: str | os.PathLike,
  *,
  split: str = "test",
  step: str | int = "best",
  dataset: str | None = None,
  data_dir: str | None = None,
  batch_size: int | None = None,
  bad_images: str | None = None,
  tta: str | None = None,
  quiet: bool = False,
) -> dict[str, Any]:
  """Evaluates a checkpoint of a run; every example of the split counts once.

  Args:
    workdir: the run folder; `eval/<split>-<step>.json` is written there.
    split: `test`, `validation` or `train` as the run's config means them, or a split expression
      such as `test[:50%]`.
    step: `best`, `latest` or a step's number.
    dataset: another set to evaluate on, as in `config.dataset.name`; its classes are matched by
      name.
    data_dir: where prepared TFDS sets are, if not where they were in training.
    batch_size: global; left out: the run's.
    bad_images: `error`, or `wrong` to count what can't be decoded as wrong; left out: as the run's
      config says.
    tta: views of an image, as in `config.eval.tta`; left out: as the run's config says.
    quiet: print nothing.

  Returns:
    split, step, temperature, tta, n, loss, accuracy, top5_accuracy, precision_macro, recall_macro,
    f1_macro, recall_worst, ece, per_class, confusion_matrix; see `imgclf.metrics.figures`. Of
    several classes an image see `imgclf.multilabel_metrics.figures`. The temperature is that of the
    run's calibration, 1 where there is none; loss and ece are with it.

  Raises:
    UserError: for a folder, checkpoint, set, split or class that is not there.
  """
  restored = load(workdir, step)
  result = evaluate_run(restored, split, dataset, data_dir, batch_size, bad_images, tta)
  if parallel.process_index() == 0:
    # Figures of another set, or by other views, must not pass for the run's own.
    name = split if dataset is None else f"{dataset}-{split}"
    if result["tta"] != restored.config["eval"]["tta"]:
      name = f"{name}-tta={tta}"
    path = restored.folder.write_evaluation(name, restored.step, result)
    if not quiet:
      progress.evaluation_summary(result, split, restored.step)
      print(f"written to {path}", flush=True)
  return result
