"""Each primitive against numpy, and each family of networks against itself, through ONNX
Runtime."""

import dataclasses
import importlib
import math

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import config as configs
from imgclf import models

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra `export`: onnxruntime")
pytest.importorskip("onnx", reason="needs the extra `export`: onnx")

from imgclf.exporting import exportable, onnx_operators  # noqa: E402
from imgclf.exporting.onnx_graph import Unsupported  # noqa: E402

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (3, 6, 5, 4), dtype=np.uint8)
X = PIXELS.astype(np.float64) / 255 + 0.1
WEIGHTS = {"w": RNG.uniform(0.5, 1.5, (4, 4)).astype(np.float32)}
W = WEIGHTS["w"].astype(np.float64)
ERF = np.vectorize(math.erf)(X)


def answer(function, weights, pixels):
  """What ONNX Runtime makes of a converted function, whose batch is not known when it is
  converted."""
  (batch,) = export.symbolic_shape("batch")
  spec = jax.ShapeDtypeStruct((batch, *pixels.shape[1:]), pixels.dtype)
  model = onnx_operators.convert(function, weights, spec, {})
  session = onnxruntime.InferenceSession(
    model.SerializeToString(), providers=["CPUExecutionProvider"]
  )
  return session.run(None, {"pixels": pixels})[0]


def floats(pixels):
  return pixels.astype(jnp.float32) / 255 + 0.1


def windows(array, fill):
  """[3, 3, 3, 4, 3, 3]: windows of 3 x 3 every second pixel, with one pixel of `fill` on each
  side."""
  padded = np.pad(array, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=fill)
  every = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
  return every[:, ::2, ::2]


def softmax(array):
  exponentials = np.exp(array)
  return exponentials / exponentials.sum(-1, keepdims=True)


def reduce_windows(x, initial, operation):
  padding = ((0, 0), (1, 1), (1, 1), (0, 0))
  return jax.lax.reduce_window(x, initial, operation, (1, 3, 3, 1), (1, 2, 2, 1), padding)


def convolve(w, x, **options):
  kernel = jnp.broadcast_to(w["w"] / 9, (3, 3, 4, 4))
  return jax.lax.conv_general_dilated(
    *(x, kernel, (2, 2), ((1, 1), (1, 1))), dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
  )


CASES = {
  "arithmetic": (lambda w, x: (x * 2 - w["w"][0]) / w["w"][1] + 1, (X * 2 - W[0]) / W[1] + 1),
  "extremes": (
    lambda w, x: jnp.minimum(jnp.maximum(x, 0.5), w["w"][0]),
    np.minimum(np.maximum(X, 0.5), W[0]),
  ),
  "relu": (lambda w, x: jax.nn.relu(x - 0.5), np.maximum(X - 0.5, 0)),
  "functions": (
    lambda w, x: jnp.exp(-x) + jnp.log(x) + jnp.sqrt(x) + jnp.tanh(x) + jnp.abs(x - 0.5),
    np.exp(-X) + np.log(X) + np.sqrt(X) + np.tanh(X) + np.abs(X - 0.5),
  ),
  "powers": (
    lambda w, x: x**3 + jnp.square(x) + jnp.power(x, w["w"][0]) + jax.lax.rsqrt(x),
    X**3 + X**2 + X ** W[0] + X**-0.5,
  ),
  "sigmoid": (lambda w, x: jax.nn.sigmoid(x), 1 / (1 + np.exp(-X))),
  "error function": (lambda w, x: jax.lax.erf(x), ERF),
  "softmax": (lambda w, x: jax.nn.softmax(x), softmax(X)),
  "matrix product": (lambda w, x: x.sum((1, 2)) @ w["w"], X.sum((1, 2)) @ W),
  "attention": (
    lambda w, x: jnp.einsum("bijc,bikc->bijk", x, x @ w["w"]),
    np.einsum("bijc,bikc->bijk", X, X @ W),
  ),
  "reshape and slice": (
    lambda w, x: jax.lax.slice_in_dim(x.reshape(x.shape[0], 30, 4), 3, 29, 2, axis=1),
    X.reshape(3, 30, 4)[:, 3:29:2],
  ),
  "padding": (
    lambda w, x: jnp.pad(x, ((0, 0), (1, 0), (2, 3), (0, 0)), constant_values=7),
    np.pad(X, ((0, 0), (1, 0), (2, 3), (0, 0)), constant_values=7),
  ),
  "reversal": (lambda w, x: jax.lax.rev(x, (1, 3)), X[:, ::-1, :, ::-1]),
  "transpose": (
    lambda w, x: x.transpose(0, 3, 1, 2) + x.sum((1, 2))[:, :, None, None],
    X.transpose(0, 3, 1, 2) + X.sum((1, 2))[:, :, None, None],
  ),
  "concatenation of a broadcast": (
    lambda w, x: jnp.concatenate([x, jnp.broadcast_to(x.sum(-1, keepdims=True), x.shape)], 2),
    np.concatenate([X, np.broadcast_to(X.sum(-1, keepdims=True), X.shape)], 2),
  ),
  "stack": (lambda w, x: jnp.stack([x, x * 2], 1), np.stack([X, X * 2], 1)),
  "reductions after a convolution": (
    lambda w, x: convolve(w, x).sum((1, 3)) + convolve(w, x).max((1, 3)),
    np.einsum("bijckl,cd->bijd", windows(X, 0), W / 9).sum((1, 3))
    + np.einsum("bijckl,cd->bijd", windows(X, 0), W / 9).max((1, 3)),
  ),
  "sum of a broadcast": (
    lambda w, x: jnp.broadcast_to(x.sum(2, keepdims=True), x.shape).sum((1, 2)),
    5 * X.sum((1, 2)),
  ),
  "convolution": (convolve, np.einsum("bijckl,cd->bijd", windows(X, 0), W / 9)),
  "maxima of windows": (
    lambda w, x: reduce_windows(x - 9, -jnp.inf, jax.lax.max),
    windows(X - 9, -np.inf).max((-2, -1)),
  ),
  "sums of windows": (
    lambda w, x: reduce_windows(x, 0.0, jax.lax.add),
    windows(X, 0).sum((-2, -1)),
  ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_primitive_gives_what_numpy_gives(case):
  function, expected = CASES[case]
  found = answer(lambda w, pixels: function(w, floats(pixels)), WEIGHTS, PIXELS)
  np.testing.assert_allclose(found, expected, rtol=3e-6, atol=1e-6)


def test_each_group_of_channels_has_its_own_kernel():
  def function(w, pixels):
    kernel = jnp.broadcast_to(w["w"][:, :1].T, (1, 1, 1, 4))
    return jax.lax.conv_general_dilated(
      *(floats(pixels), kernel, (1, 1), "VALID"),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=4,
    )

  np.testing.assert_allclose(answer(function, WEIGHTS, PIXELS), X * W[:, 0], rtol=1e-6)


@pytest.mark.parametrize(
  ("function", "words"),
  [
    (lambda w, x: jnp.sort(x), "the primitive sort of JAX"),
    (lambda w, x: jax.lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))), "a padding of"),
    (lambda w, x: (x.sum((1, 2)) @ x.sum((1, 2)).T)[:, None], "a reshape"),
    (lambda w, x: jax.lax.slice_in_dim(x, 0, x.shape[0] - 1), "a slice of the batch"),
    (lambda w, x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 1, 2), (1,) * 4, "VALID"), "a window"),
    (lambda w, x: convolve(w, x, lhs_dilation=(2, 2)), "a transposed convolution"),
  ],
)  # fmt: skip
def test_what_no_node_stands_for_is_refused_by_its_name(function, words):
  with pytest.raises(Unsupported, match=words):
    answer(lambda w, pixels: function(w, floats(pixels)), WEIGHTS, PIXELS)


def test_what_follows_from_weights_alone_is_worked_out_while_converting():
  (batch,) = export.symbolic_shape("batch")
  spec = jax.ShapeDtypeStruct((batch, 4), np.uint8)
  model = onnx_operators.convert(
    lambda w, pixels: pixels.astype(jnp.float32) @ jnp.tanh(w["w"] @ w["w"]), WEIGHTS, spec, {}
  )
  assert [node.op_type for node in model.graph.node] == ["Cast", "MatMul", "Identity"]


def test_weights_keep_their_names():
  (batch,) = export.symbolic_shape("batch")
  spec = jax.ShapeDtypeStruct((batch, 4), np.uint8)
  model = onnx_operators.convert(
    lambda w, pixels: pixels.astype(jnp.float32) @ w["w"] + w["w"][None, 0],
    WEIGHTS,
    spec,
    {"a": "b"},
  )
  assert "w" in [tensor.name for tensor in model.graph.initializer]
  assert {prop.key: prop.value for prop in model.metadata_props} == {"a": "b"}


# Few channels and units, and a block a stage: the operations are the same, and quickly compiled.
# EfficientNets and RegNets have none besides.
NARROW = {
  "cnn": {"HIDDEN": 16},
  "alexnet": {"HIDDEN": 16},
  "vgg11_bn": {"HIDDEN": 16, "WIDTHS": (4, 8, 8, 8, 8)},
  "resnet50": {"WIDTHS": (4, 4, 8, 8)},
  "resnet50d": {"WIDTHS": (4, 4, 8, 8)},
  "densenet121": {},
  "mobilenet_v3_small": {
    "V3_STAGES": {"small": (((3, 8, 8, True, True, 2), (5, 12, 8, True, False, 1)),)}
  },
  "convnext_atto": {},
  "vit_ti_16": {},
  "airbench94": {},
}
SHALLOW = {
  "vgg11_bn": models._vgg(True, 1, 1, 1, 1, 1),
  "resnet50": models._resnet(True, 1, 1, 1, 1),
  "resnet50d": models._resnet(True, 1, 1, 1, 1, deep=True),
  "densenet121": dataclasses.replace(
    models._MODELS["densenet121"], fields={"stage_sizes": (1, 2, 1, 1), "growth": 4}
  ),
  "convnext_atto": models._convnext((4, 8, 8, 8), 1, 1, 1, 1),
  "vit_ti_16": models._vit(24, 2, 3),
  "airbench94": dataclasses.replace(models._MODELS["airbench94"], fields={"widths": (4, 8, 8)}),
}


@pytest.mark.parametrize("name", NARROW)
def test_every_family_answers_as_it_does_in_jax(name, monkeypatch):
  family = importlib.import_module(f"imgclf.models.{models._MODELS[name].module}")
  for constant, value in NARROW[name].items():
    monkeypatch.setattr(family, constant, value)
  monkeypatch.setitem(models._MODELS, name, SHALLOW.get(name, models._MODELS[name]))
  config = configs.default_config()
  config.model.name = name
  config.eval.tta = "flip_translate" if name == "airbench94" else "none"
  # Not a whole number of windows: what is left over is cut off.
  config.dataset.image_size = size = 67 if name == "alexnet" else 37
  rng = np.random.default_rng(1)

  def draw(spec):
    if len(spec.shape) == 1:  # positive, as variances are
      return rng.uniform(0.5, 1.5, spec.shape).astype(np.float32)
    spread = 1.5 / np.sqrt(np.prod(spec.shape[:-1]))
    return rng.normal(0, spread, spec.shape).astype(np.float32)

  shapes = models.shapes(models.create(config.model, 5, axis_name=None), size)
  temperature = 1.0 if name == "airbench94" else 20.0  # its logits are means
  carried = exportable.exportable(config, list("abcde"), jax.tree.map(draw, shapes), temperature)
  pixels = rng.integers(0, 256, (3, size, size, 3), dtype=np.uint8)
  expected = np.asarray(jax.jit(carried.probabilities)(carried.weights, pixels))
  assert expected.std(axis=0).max() > 1e-3  # images differ in it, so it tells something
  found = answer(carried.probabilities, carried.weights, pixels)
  np.testing.assert_allclose(found, expected, atol=2e-6)
