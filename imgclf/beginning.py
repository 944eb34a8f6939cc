"""The weights that a run begins with, where they are not all drawn at random."""

from typing import Any

import jax
import jax.numpy as jnp

from imgclf import augment, models, parallel, state
from imgclf.data import resident
from imgclf.errors import UserError
from imgclf.plan import Plan


def begun(plan: Plan, model: Any, fresh: state.TrainState) -> state.TrainState:
  """Returns the state before the first step, and records what else the run begins with.

  Args:
    plan: the run.
    model: as from `imgclf.models.create`.
    fresh: as from `imgclf.state.create`.

  Raises:
    UserError: where the weights can't be had.
  """
  if plan.teacher is not None and parallel.process_index() == 0:
    plan.folder.write_teacher(plan.teacher.record)
  if plan.start.source is not None:
    return _pretrained(plan, fresh)
  return _fitted(plan, model, fresh) if models.is_fitted(model) else fresh


def _pretrained(plan: Plan, fresh: state.TrainState) -> state.TrainState:
  """Returns the state before the first step with the weights that the config names, and records
  where they came from.
  """
  first = {"params": fresh.params, "batch_stats": fresh.batch_stats}
  found, record = plan.start.variables(jax.device_get(first))
  if parallel.process_index() == 0:
    plan.folder.write_weights(record)
  return parallel.tree_of_first(jax.device_get(state.with_weights(fresh, found)))


def _fitted(plan: Plan, model: Any, fresh: state.TrainState) -> state.TrainState:
  """Returns the state before the first step of a network that takes weights from training images.

  From the first ones of the split, as evaluation shows them: a function of the data set and the
  seed alone. What can't be decoded is left out where training does so as well.
  """
  config = plan.config
  skipping = config["dataset"]["bad_images"] == "skip"
  read = resident.decode(
    plan.train_records,
    config,
    on_error=(lambda error, name: None) if skipping else None,
    first=model.fitted_to,
  )
  rows = read["image"][read["mask"]] if skipping else read["image"]
  if not len(rows):
    raise UserError(
      f"{plan.source.name}: none of the first {len(read['image'])} training images can be decoded, and "
      f"{config['model']['name']} takes its first weights from them; mend them or take another config.model.name"
    )
  images = augment.eval_transform(jnp.asarray(rows), config["augment"], jnp.float32)
  # The last bits may differ between processors of two kinds.
  return parallel.tree_of_first(jax.device_get(state.fitted(fresh, model, images)))
