"""The multiply-adds of a function, counted in its trace. Knows no network."""

from collections.abc import Callable
import math
from typing import Any

import jax
from jax.extend import core

from imgclf.models import convolution


def traced(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
  """Traces a function without computing any of it.

  Counted are the products that convolutions and matrix products add up, those with the zeros of a
  padding too: what most published tables call MACs, or FLOPs. Loops are not looked into.

  Args:
    function: of arrays.
    arguments: arrays or jax.ShapeDtypeStruct.

  Returns:
    What it would return, as shapes, and the number of multiply-adds.

  Raises:
    ValueError: if products stand within a loop, where it depends on the run how often they are
      made.
  """
  with convolution.as_written():
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
  return shapes, _products(closed.jaxpr)


def _products(jaxpr: Any) -> int:
  count = 0
  for equation in jaxpr.eqns:
    name, parameters = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
      # A kernel's axis of inputs has those of one group alone.
      kernel = equation.invars[1].aval.shape
      outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
      count += equation.outvars[0].aval.size * math.prod(kernel) // outputs
    elif name == "dot_general":
      (summed, _), _ = parameters["dimension_numbers"]
      left = equation.invars[0].aval.shape
      count += equation.outvars[0].aval.size * math.prod(left[axis] for axis in summed)
    else:
      inner = sum(_products(getattr(part, "jaxpr", part)) for part in _functions(parameters))
      if inner and name in ("scan", "while", "cond"):
        raise ValueError(f"products within {name} can't be counted")
      count += inner
  return count


def _functions(parameters: dict[str, Any]) -> list[Any]:
  """The functions that an operation of JAX applies, such as the inside of a jitted one."""
  found = []
  for value in parameters.values():
    for part in value if isinstance(value, (tuple, list)) else [value]:
      if isinstance(part, (core.Jaxpr, core.ClosedJaxpr)):
        found.append(part)
  return found
