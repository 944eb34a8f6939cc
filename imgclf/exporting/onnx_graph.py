"""An ONNX graph under construction: values, nodes and constants, and how an array of JAX lies in a
tensor of ONNX.

JAX's arrays have the channels last and ONNX's convolutions have them second, and JAX broadcasts by
an operation of its own where ONNX does within arithmetic. So a value knows in which order its axes
lie in the tensor, and which of them are still 1 there; both are made good only where an operation
needs it. Knows no operation of JAX.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Of 2022; ONNX Runtime reads it from 1.12 on, TensorRT from 8.6.
OPSET, IR_VERSION = 17, 8

Shape = tuple[Any, ...]  # of ints and, where the batch is meant, symbolic sizes


class Unsupported(Exception):
  """The graph can't hold what the function does; says what."""


@dataclasses.dataclass(frozen=True)
class Value:
  """An array.

  Attributes:
    name: of its tensor; empty for a constant that no node has used yet.
    shape: of the array.
    dims: those of the tensor in the array's order; 1 where a broadcast was put off.
    order: axis of the array that each axis of the tensor is.
    constant: what it is, in the array's order, if that is known; `dims` is its shape.
  """

  name: str
  shape: Shape
  dims: Shape
  order: tuple[int, ...]
  constant: np.ndarray | None = None


def constant(array: Any, name: str = "") -> Value:
  """Returns an array that is known, to be named when a node uses it."""
  array = np.asarray(array)
  return Value(name, array.shape, array.shape, tuple(range(array.ndim)), array)


class Graph:
  """Nodes in order, and the constants that they use."""

  def __init__(self) -> None:
    self.nodes: list[onnx.NodeProto] = []
    self.initializers: dict[str, onnx.TensorProto] = {}
    self._count = 0
    self._stored: dict[tuple, str] = {}
    self._made: dict[tuple[str, tuple[int, ...]], str] = {}

  def node(
    self,
    operation: str,
    inputs: Sequence[str],
    shape: Shape,
    order: Sequence[int] | None = None,
    dims: Shape | None = None,
    **attributes: Any,
  ) -> Value:
    """Adds a node and returns its one result, an array of this shape; see `Value` for the rest."""
    self._count += 1
    name = f"{operation.lower()}_{self._count}"
    self.nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
    order = tuple(range(len(shape))) if order is None else tuple(order)
    return Value(name, tuple(shape), tuple(shape if dims is None else dims), order)

  def store(self, array: np.ndarray, name: str = "") -> str:
    """Returns the name of a constant tensor; one of the same name and content is stored once."""
    array = np.ascontiguousarray(array)
    key = (name, array.dtype.str, array.shape, array.tobytes() if array.size < 64 else id(array))
    if (
      name and name in self.initializers
    ):  # the same parameter in another order of axes, or broadcast
      known = self.initializers[name]
      if tuple(known.dims) == array.shape and known.raw_data == array.tobytes():
        return name
    elif not name and key in self._stored:
      return self._stored[key]
    self._count += 1
    final = (
      name if name and name not in self.initializers else f"{name or 'constant'}_{self._count}"
    )
    self.initializers[final] = numpy_helper.from_array(array, final)
    if array.size < 64:
      self._stored[key] = final
    return final

  def ordered(self, value: Value, order: Sequence[int]) -> str:
    """Returns the name of a tensor that has the array's axes in this order; broadcasts stay put
    off.
    """
    order = tuple(order)
    if value.constant is not None:
      return self.store(value.constant.transpose(order), value.name)
    if order == value.order:
      return value.name
    key = value.name, tuple(value.order.index(axis) for axis in order)
    if key not in self._made:
      self._made[key] = self.node("Transpose", [value.name], value.shape, order, perm=key[1]).name
    return self._made[key]

  def plain(self, value: Value) -> str:
    """Returns the name of a tensor that is the array itself, broadcast and in its order.

    Raises:
      Unsupported: for a broadcast along the batch.
    """
    identity = tuple(range(len(value.shape)))
    if value.dims == value.shape:
      return self.ordered(value, identity)
    if value.constant is not None and all(isinstance(size, int) for size in value.shape):
      return self.store(np.broadcast_to(value.constant, value.shape), value.name)
    # 1 keeps what is there, so the batch needs not be known.
    target = [1 if have == want else want for have, want in zip(value.dims, value.shape)]
    if not all(isinstance(size, int) for size in target):
      raise Unsupported(f"a broadcast along the batch, to {value.shape}")
    inputs = [self.ordered(value, identity), self.store(np.array(target, np.int64))]
    return self.node("Expand", inputs, value.shape).name

  def reshaped(self, value: Value, shape: Shape, dims: Shape | None = None) -> Value:
    """Returns the array in another shape, of whose sizes at most one is symbolic.

    Args:
      value: to be reshaped; with `dims`, broadcasts that were put off stay so.
      shape: of the result.
      dims: of the result's tensor.
    """
    target = tuple(shape) if dims is None else tuple(dims)
    if value.constant is not None and all(isinstance(size, int) for size in target):
      array = value.constant if dims is not None else np.broadcast_to(value.constant, value.shape)
      folded = constant(array.reshape(target), value.name)
      return dataclasses.replace(folded, shape=tuple(shape))
    sizes = [size if isinstance(size, int) else -1 for size in target]
    if sizes.count(-1) > 1:
      raise Unsupported(f"a reshape to {target}")
    source = self.plain(value) if dims is None else self.ordered(value, range(len(value.shape)))
    return self.node("Reshape", [source, self.store(np.array(sizes, np.int64))], shape, dims=target)

  def model(
    self,
    input_name: str,
    input_shape: Shape,
    output: Value,
    output_name: str,
    about: dict[str, str],
  ) -> onnx.ModelProto:
    """Returns the whole as a model of one input, uint8, and one output, float32, checked by ONNX.

    Args:
      input_name: of the input's tensor.
      input_shape: a name stands for a size that may vary.
      output: the array that is the result.
      output_name: of the result's tensor.
      about: what the model's metadata tell.
    """
    self.nodes.append(
      helper.make_node("Identity", [self.plain(output)], [output_name], output_name)
    )
    sizes = [size if isinstance(size, int) else str(size) for size in output.shape]
    graph = helper.make_graph(
      self.nodes,
      "classifier",
      [helper.make_tensor_value_info(input_name, onnx.TensorProto.UINT8, input_shape)],
      [helper.make_tensor_value_info(output_name, onnx.TensorProto.FLOAT, sizes)],
      list(self.initializers.values()),
    )
    model = helper.make_model(
      graph, producer_name="imgclf", opset_imports=[helper.make_opsetid("", OPSET)]
    )
    model.ir_version = IR_VERSION
    helper.set_model_props(model, about)
    onnx.checker.check_model(model, full_check=True)
    return model
