"""Every example of a split once, judged by a restored checkpoint or by a live state; and which
examples a split has.

Training, `--mode=eval` and `--mode=report` count by this, so their figures are the same. Knows no
file.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import logging
from typing import Any

import numpy as np

from imgclf import config as configs
from imgclf import metrics, multilabel, multilabel_metrics, parallel
from imgclf.data import datasets, label_sets, loader
from imgclf.data.images import ImageError
from imgclf.errors import UserError
from imgclf.interrupt import Abandoned
from imgclf.text import printable

_log = logging.getLogger("imgclf")


def judge(
  eval_step: Callable,
  variables: Mapping[str, Any],
  batches: Iterable[loader.Batch],
  total: int,
  label_map: np.ndarray | None = None,
  *,
  keep_logits: bool = False,
) -> metrics.Predictions:
  """Runs the model over the batches of a split and collects what it said of every example.

  Args:
    eval_step: pmapped `imgclf.steps.make_eval_step`; its result may have `stop`, see Raises.
    variables: replicated.
    batches: this process's share, as `imgclf.data.loader.eval_batches` makes them.
    total: examples in the split.
    label_map: [labels of the set] -> labels of the run, where another set is evaluated.
    keep_logits: keep every example's logits too: 4 bytes a class, 0.2 GB for 50,000 examples of
      1,000 classes, and three times that for a moment.

  Returns:
    The predictions of all processes, the same on each: one for each example of the split.

  Raises:
    Abandoned: at the first batch whose `stop` is more than 0, in all processes alike.
  """
  names = ("loss", "predicted", "in_top5", "confidence", *["logits"] * keep_logits)
  rows = _collect(eval_step, variables, batches, total, names, _mapped(label_map))
  read = rows.pop("read")
  rows["predicted"] = np.where(read, rows["predicted"], -1)
  return metrics.Predictions(**rows)


def judge_sets(
  eval_step: Callable,
  variables: Mapping[str, Any],
  batches: Iterable[loader.Batch],
  total: int,
  classes: int,
  label_map: np.ndarray | None = None,
) -> multilabel_metrics.Answers:
  """Does what `judge` does for images of several classes each.

  It keeps every example's logits, as average precision is of all of them: 4 bytes a class and one
  for the label, 0.02 GB for 50,000 examples of 80 classes.

  Args:
    eval_step: see `judge`.
    variables: see `judge`.
    batches: see `judge`.
    total: see `judge`.
    classes: how many the run has.
    label_map: see `judge`.

  Raises:
    Abandoned: as `judge`.
  """
  relabel = _mapped(label_map, classes)
  rows = _collect(eval_step, variables, batches, total, ("loss", "logits"), relabel)
  return multilabel_metrics.Answers(**rows)


def figures(
  config: Mapping[str, Any],
  classes: Sequence[str],
  eval_step: Callable,
  variables: Mapping[str, Any],
  batches: Iterable[loader.Batch],
  total: int,
  label_map: np.ndarray | None = None,
) -> dict[str, Any]:
  """Judges a split and counts: `imgclf.metrics.figures` or, of several classes an image,
  `imgclf.multilabel_metrics`'s.

  Args:
    config: the run's.
    classes: the run's, by label.
    eval_step: see `judge`.
    variables: see `judge`.
    batches: see `judge`.
    total: see `judge`.
    label_map: see `judge`.

  Raises:
    Abandoned: as `judge`.
  """
  if multilabel.is_on(config):
    answers = judge_sets(eval_step, variables, batches, total, len(classes), label_map)
    return multilabel_metrics.figures(answers, classes)
  return metrics.figures(judge(eval_step, variables, batches, total, label_map), classes)


def _mapped(
  label_map: np.ndarray | None, classes: int = 0
) -> Callable[[np.ndarray], np.ndarray] | None:
  if label_map is None:
    return None
  return lambda label: label_sets.relabelled(label, label_map, classes)


def _collect(
  eval_step: Callable,
  variables: Mapping[str, Any],
  batches: Iterable[loader.Batch],
  total: int,
  names: Sequence[str],
  relabel: Callable[[np.ndarray], np.ndarray] | None,
) -> dict[str, np.ndarray]:
  """The index, the label, whether it was read and the named results of every example, of all
  processes.
  """
  columns: dict[str, list[np.ndarray]] = collections.defaultdict(list)

  def start(batch: loader.Batch) -> tuple[np.ndarray, dict[str, Any]]:
    label = batch["label"] if relabel is None else relabel(batch["label"])
    passed: loader.Batch = {key: batch[key] for key in ("image", "stop") if key in batch}
    return label, eval_step(variables, parallel.shard(passed | {"label": label}))

  for batch, (label, result) in parallel.run_ahead(start, batches):
    if "stop" in result and parallel.scalar(result["stop"]) > 0:
      raise Abandoned
    columns["index"].append(batch["index"].astype(np.int32))
    columns["label"].append(label)
    columns["read"].append(batch["mask"])
    for name in names:
      columns[name].append(parallel.unshard(result[name]))
  gathered = {key: parallel.gather(np.concatenate(parts)) for key, parts in columns.items()}
  seen = gathered["index"] >= 0
  if np.count_nonzero(seen) != total:
    raise RuntimeError(f"{np.count_nonzero(seen)} of {total} examples were evaluated")
  return {key: rows[seen] for key, rows in gathered.items()}


def refuse_changed(source: datasets.Dataset, then: Mapping[str, int]) -> None:
  """Refuses a set whose splits are not as large as when the run was begun.

  Args:
    source: the run's data set as it is now.
    then: examples in each split when the run was begun.

  Raises:
    UserError: if they differ.
  """
  if source.splits != then:
    raise UserError(
      f"{source.name}: the run was trained when it had {then} examples and now it has "
      f"{source.splits}, so train and validation would be other images; restore it, or judge it "
      f"as another set: --mode=eval --dataset={source.name}"
    )


def split_records(
  config: Mapping[str, Any], source: datasets.Dataset, split: str
) -> datasets.Records:
  """Returns what `--split` means: a role that the config gives a split, else a split expression.

  Raises:
    UserError: for a role that the set has no split for, or a wrong expression.
  """
  expression = split_expression(config, source, split)
  try:
    return source.records(expression)
  except UserError as error:
    raise UserError(f"--split={error}") from None


def split_expression(config: Mapping[str, Any], source: datasets.Dataset, split: str) -> str:
  """Returns the split expression of a role, or what is no role as it is; raises as `split_records`
  does.
  """
  if not split:
    raise UserError("--split: is empty; give test, validation, train or a split such as test[:50%]")
  expression = datasets.roles(config["dataset"], source).get(split, split)
  if expression is None:
    sizes = ", ".join(f"{name} ({size})" for name, size in source.splits.items())
    raise UserError(
      f"--split={split}: {source.name} has no {split} split; give one that it has: {sizes}"
    )
  return expression


def split_batches(records: Any, config: Mapping[str, Any]) -> Iterator[loader.Batch]:
  """Returns this process's batches of a split, made ahead of need.

  An image that can't be decoded is an error, or told in the log and masked, as `eval.bad_images`
  says.
  """

  def tell(index: int, error: ImageError) -> None:
    _log.warning("counted as wrong: %s", printable(error))

  batches = loader.eval_batches(
    records,
    config,
    configs.eval_batch_size(config),
    process_index=parallel.process_index(),
    process_count=parallel.process_count(),
    on_error=tell if config["eval"]["bad_images"] == "wrong" else None,
  )
  return loader.prefetch(batches, config)
