"""Batch norm that trains by its running statistics, as in evaluation, and leaves them as they are.

Networks need not know of it: the layers are met on their way through `apply`.
"""

from collections.abc import Collection
import contextlib
from typing import Any

from flax import linen as nn

from imgclf.models.fused import BatchNorm

Path = tuple[str, ...]


def statistics_kept(paths: Collection[Path]) -> contextlib.AbstractContextManager[Any]:
  """Returns a context in which a network that is applied in training has these batch norms as in
  evaluation.

  Args:
    paths: of the layers, such as `("stage1_block1", "norm2")`.
  """
  if not paths:
    return contextlib.nullcontext()

  def as_in_evaluation(call, arguments, options, context):
    layer = context.module
    if not (isinstance(layer, BatchNorm) and layer.path in paths):
      return call(*arguments, **options)
    return layer.clone(train=False, parent=None).apply(layer.variables, *arguments, **options)

  return nn.intercept_methods(as_in_evaluation)
