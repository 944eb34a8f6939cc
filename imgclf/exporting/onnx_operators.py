"""A function of JAX as an ONNX graph: each primitive of its trace by a few nodes.

The converter that is kept up, jax2onnx 0.17.1, takes no orbax-checkpoint from 0.11.37 on, brings a
dozen packages besides, and gave ResNet's padded max-pooling another shape without a word; the
networks here need some 35 primitives. What is not among them is refused by its name. What depends
on weights alone is computed while converting, by JAX itself.
"""

from collections.abc import Callable, Mapping, Sequence
import math
import string
from typing import Any

import jax
from jax.extend import core as jax_core
import numpy as np
import onnx
from onnx import helper

from imgclf.exporting.onnx_graph import Graph, Unsupported, Value, constant

Operands = list[Value]
Parameters = Mapping[str, Any]

# Primitives that one node of ONNX is, element by element.
_ELEMENTWISE = {
  **{
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "pow": "Pow",
  },
  **{"tanh": "Tanh", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs"},
  **{"erf": "Erf", "logistic": "Sigmoid"},
}
# Primitives that wrap a function of their own, and the parameter that holds it.
_CALLS = {
  **{"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"},
  **{"custom_vjp_call": "call_jaxpr", "checkpoint": "jaxpr"},
}
_CHANNELS_SECOND = (0, 3, 1, 2)


def convert(
  function: Callable[[dict[str, Any], jax.Array], jax.Array],
  weights: Mapping[str, np.ndarray],
  pixels: jax.ShapeDtypeStruct,
  about: Mapping[str, str],
) -> onnx.ModelProto:
  """Converts a function of weights and pixels to a model from `pixels` to `probabilities`.

  Args:
    function: traced once.
    weights: its first argument; they become constants of the graph.
    pixels: uint8, its second argument, whose first size is symbolic.
    about: the model's metadata.

  Raises:
    Unsupported: naming a primitive that no node stands for.
  """
  specs = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}
  closed = jax.make_jaxpr(function)(specs, pixels)
  graph = Graph()
  names = sorted(weights)  # the order in which JAX takes a dict apart
  shape = tuple(pixels.shape)
  arguments = [constant(weights[name], name) for name in names]
  arguments.append(Value("pixels", shape, shape, tuple(range(len(shape)))))
  (output,) = _inline(graph, closed.jaxpr, closed.consts, arguments)
  sizes = [size if isinstance(size, int) else str(size) for size in shape]
  return graph.model("pixels", tuple(sizes), output, "probabilities", dict(about))


def _inline(graph: Graph, jaxpr: Any, consts: Sequence[Any], arguments: Operands) -> Operands:
  known: dict[Any, Value] = dict(zip(jaxpr.constvars, map(constant, consts), strict=True))
  known.update(zip(jaxpr.invars, arguments, strict=True))

  def read(atom: Any) -> Value:
    if isinstance(atom, jax_core.Literal):
      return constant(np.asarray(atom.val, getattr(atom.aval, "dtype", None)))
    return known[atom]

  for equation in jaxpr.eqns:
    operands = [read(atom) for atom in equation.invars]
    results = _apply(graph, equation, operands)
    known.update(zip(equation.outvars, results, strict=True))
  return [read(atom) for atom in jaxpr.outvars]


def _apply(graph: Graph, equation: Any, operands: Operands) -> Operands:
  name, parameters = equation.primitive.name, equation.params
  if name in _CALLS:
    inner = parameters[_CALLS[name]]
    return _inline(graph, getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)
  shapes = [tuple(out.aval.shape) for out in equation.outvars]
  if all(x.constant is not None and x.dims == x.shape for x in operands) and all(
    isinstance(size, int) for shape in shapes for size in shape
  ):
    if name in _MOVES:  # a parameter that only changes its shape keeps its name
      return [_MOVES[name](graph, operands, parameters, shapes[0])]
    arrays = [np.asarray(x.constant) for x in operands]
    results = equation.primitive.bind(*arrays, **parameters)
    return [constant(x) for x in (results if equation.primitive.multiple_results else [results])]
  if name in _ELEMENTWISE:
    return [_elementwise(graph, _ELEMENTWISE[name], operands, shapes[0])]
  rule = _MOVES.get(name) or _RULES.get(name)
  if rule is None:
    raise Unsupported(f"the primitive {name} of JAX")
  return [rule(graph, operands, parameters, shapes[0])]


def _elementwise(graph: Graph, operation: str, operands: Operands, shape: tuple) -> Value:
  """One node, in the order of axes that its largest operand has; ONNX broadcasts."""
  leader = max(operands, key=lambda x: (x.constant is None, len(x.order)))
  zeros = [x for x in operands if x.constant is not None and not x.shape and not np.any(x.constant)]
  if operation == "Max" and len(zeros) == 1:
    return _like(graph, "Relu", leader, shape)
  names = [
    graph.ordered(x, leader.order if len(x.order) == len(leader.order) else range(len(x.order)))
    for x in operands
  ]
  dims = [x.dims for x in operands if len(x.dims) == len(shape)]
  # Of a size that was put off and one that was not, the latter counts.
  result = tuple(next((s for s in sizes if s != 1), 1) for sizes in zip(*dims)) if shape else ()
  return graph.node(operation, names, shape, leader.order, result)


def _like(graph: Graph, operation: str, x: Value, shape: tuple, **attributes: Any) -> Value:
  return graph.node(operation, [graph.ordered(x, x.order)], shape, x.order, x.dims, **attributes)


def _convert_type(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  kind = helper.np_dtype_to_tensor_dtype(np.dtype(parameters["new_dtype"]))
  return _like(graph, "Cast", operands[0], shape, to=kind)


def _same(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  return operands[0]


def _rsqrt(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  return _like(graph, "Reciprocal", _like(graph, "Sqrt", operands[0], shape), shape)


def _square(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  return _elementwise(graph, "Mul", [operands[0], operands[0]], shape)


def _integer_pow(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  power = constant(np.float32(parameters["y"]))
  return _elementwise(graph, "Pow", [operands[0], power], shape)


def _broadcast(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  (x,) = operands
  dims = [1] * len(shape)
  for axis, target in enumerate(parameters["broadcast_dimensions"]):
    dims[target] = x.dims[axis]
  if tuple(dims) == x.dims:
    return Value(x.name, shape, x.dims, x.order, x.constant)
  return graph.reshaped(x, shape, tuple(dims))


def _reshape(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  return operands[0] if shape == operands[0].shape else graph.reshaped(operands[0], shape)


def _transpose(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  (x,) = operands
  moved = tuple(parameters["permutation"])
  dims = tuple(x.dims[axis] for axis in moved)
  if x.constant is not None:
    return Value(x.name, shape, dims, tuple(range(len(dims))), x.constant.transpose(moved))
  return Value(x.name, shape, dims, tuple(moved.index(axis) for axis in x.order))


def _concatenate(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  names = [graph.plain(x) for x in operands]
  return graph.node("Concat", names, shape, axis=parameters["dimension"])


def _stack(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  axis = parameters["axis"]
  single = (*shape[:axis], 1, *shape[axis + 1 :])
  names = [graph.plain(graph.reshaped(x, single)) for x in operands]
  return graph.node("Concat", names, shape, axis=axis)


def _slice(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  (x,) = operands
  strides = parameters["strides"] or (1,) * len(shape)
  cuts = [
    (start, stop, axis, stride)
    for axis, (start, stop, stride) in enumerate(
      zip(parameters["start_indices"], parameters["limit_indices"], strides)
    )
    if (start, stop, stride) != (0, x.shape[axis], 1)
  ]
  if not cuts:
    return x
  if not all(isinstance(number, int) for cut in cuts for number in cut):
    raise Unsupported("a slice of the batch")
  bounds = [graph.store(np.array(column, np.int64)) for column in zip(*cuts)]
  return graph.node("Slice", [graph.plain(x), *bounds], shape)


def _pad(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  x, value = operands
  low, high, between = zip(*parameters["padding_config"])
  if any(between) or min(low + high) < 0:
    raise Unsupported(f"a padding of {parameters['padding_config']}")
  names = [graph.plain(x), graph.store(np.array(low + high, np.int64)), graph.plain(value)]
  return graph.node("Pad", names, shape)


def _reverse(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  axes = parameters["dimensions"]
  # From the last element backwards to the one before the first, which has no number but a very
  # small one.
  columns = [-1] * len(axes), [np.iinfo(np.int64).min] * len(axes), axes, [-1] * len(axes)
  bounds = [graph.store(np.array(column, np.int64)) for column in columns]
  return graph.node("Slice", [graph.plain(operands[0]), *bounds], shape)


def _reduce(operation: str) -> Callable[[Graph, Operands, Parameters, tuple], Value]:
  def rule(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
    (x,) = operands
    if x.dims != x.shape:
      x = graph.node("Identity", [graph.plain(x)], x.shape)
    axes = [x.order.index(axis) for axis in parameters["axes"]]
    left = [axis for axis in x.order if axis not in parameters["axes"]]
    order = [sorted(left).index(axis) for axis in left]
    name = graph.ordered(x, x.order)
    if operation == "ReduceSum":  # of which alone the axes are an input, in this version
      axes_input = graph.store(np.array(axes, np.int64))
      return graph.node(operation, [name, axes_input], shape, order, keepdims=0)
    return graph.node(operation, [name], shape, order, keepdims=0, axes=axes)

  return rule


def _pool(operation: str) -> Callable[[Graph, Operands, Parameters, tuple], Value]:
  def rule(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
    window, padding = parameters["window_dimensions"], parameters["padding"]
    dilation = (*parameters["base_dilation"], *parameters["window_dilation"])
    if len(shape) != 4 or {window[0], window[3], *dilation} != {1} or any(padding[0] + padding[3]):
      raise Unsupported(f"a window of {window}, dilated {dilation}, padded {padding}")
    low, high = zip(*padding[1:3])
    attributes = {
      "kernel_shape": window[1:3],
      "strides": parameters["window_strides"][1:3],
      "pads": (*low, *high),
    }
    source = [graph.ordered(_broadcast_done(graph, operands[0]), _CHANNELS_SECOND)]
    if operation == "MaxPool":
      return graph.node(operation, source, shape, _CHANNELS_SECOND, **attributes)
    mean = graph.node(operation, source, shape, _CHANNELS_SECOND, count_include_pad=1, **attributes)
    return _elementwise(graph, "Mul", [mean, constant(np.float32(math.prod(window)))], shape)

  return rule


def _broadcast_done(graph: Graph, x: Value) -> Value:
  return x if x.dims == x.shape else graph.node("Identity", [graph.plain(x)], x.shape)


def _convolution(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  image, kernel = (_broadcast_done(graph, x) for x in operands)
  spec = parameters["dimension_numbers"]
  low, high = zip(*parameters["padding"])
  if (
    set(parameters["lhs_dilation"]) != {1}
    or parameters["batch_group_count"] != 1
    or min(low + high) < 0
  ):
    raise Unsupported("a transposed convolution, or one with negative padding")
  return graph.node(
    "Conv",
    [graph.ordered(image, spec.lhs_spec), graph.ordered(kernel, spec.rhs_spec)],
    shape,
    spec.out_spec,
    strides=parameters["window_strides"],
    pads=(*low, *high),
    dilations=parameters["rhs_dilation"],
    group=parameters["feature_group_count"],
    kernel_shape=[kernel.shape[axis] for axis in spec.rhs_spec[2:]],
  )


def _dot(graph: Graph, operands: Operands, parameters: Parameters, shape: tuple) -> Value:
  """A product of matrices, or any other sum of products in Einstein's notation."""
  left, right = operands
  (left_sum, right_sum), (left_batch, right_batch) = parameters["dimension_numbers"]
  names = [graph.plain(left), graph.plain(right)]
  if (left_sum, right_sum, left_batch) == ((1,), (0,), ()) and len(left.shape) == len(
    right.shape
  ) == 2:
    return graph.node("MatMul", names, shape)
  letters = iter(string.ascii_lowercase)
  of_left = [next(letters) for _ in left.shape]
  of_right = [""] * len(right.shape)
  for axis, other in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True):
    of_right[other] = of_left[axis]
  of_right = [letter or next(letters) for letter in of_right]
  # Those of the batch, then what is left of the one and of the other.
  kept = [of_left[axis] for axis in left_batch]
  kept += [s for axis, s in enumerate(of_left) if axis not in (*left_sum, *left_batch)]
  kept += [s for axis, s in enumerate(of_right) if axis not in (*right_sum, *right_batch)]
  equation = f"{''.join(of_left)},{''.join(of_right)}->{''.join(kept)}"
  return graph.node("Einsum", names, shape, equation=equation)


# What only moves elements or keeps them: of a constant it is done without a node, and the name
# stays.
_MOVES: dict[str, Callable[[Graph, Operands, Parameters, tuple], Value]] = {
  "broadcast_in_dim": _broadcast,
  "reshape": _reshape,
  "squeeze": _reshape,
  "expand_dims": _reshape,
  "transpose": _transpose,
  "stop_gradient": _same,
  "copy": _same,
}
_RULES: dict[str, Callable[[Graph, Operands, Parameters, tuple], Value]] = {
  "concatenate": _concatenate,
  "conv_general_dilated": _convolution,
  "convert_element_type": _convert_type,
  "dot_general": _dot,
  "integer_pow": _integer_pow,
  "pad": _pad,
  "reduce_max": _reduce("ReduceMax"),
  "reduce_sum": _reduce("ReduceSum"),
  "reduce_window_max": _pool("MaxPool"),
  "reduce_window_sum": _pool("AveragePool"),
  "rev": _reverse,
  "rsqrt": _rsqrt,
  "slice": _slice,
  "square": _square,
  "stack": _stack,
}
