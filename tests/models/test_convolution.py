import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf.models import convolution, counting, layers


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def check(ours, x, kernel, stride, padding, groups=1):
  """Holds a function of x and kernel against lax's convolution, with both gradients, in float64."""
  options = {"feature_group_count": groups, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}

  def laxs(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, **options)

  weights = normal(*jax.eval_shape(laxs, x, kernel).shape, seed=2)

  @functools.partial(jax.jit, static_argnums=0)
  def both_ways(function, x, kernel):
    y, pullback = jax.vjp(function, x, kernel)
    return y, *pullback(weights)

  for a, b in zip(both_ways(ours, x, kernel), both_ways(laxs, x, kernel)):
    np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


# The stems of ResNet, of ResNet-D and all that are of MobileNet's kind, of AlexNet, ConvNeXt and
# ViT; and odd ones.
STEMS = [(7, 2, 3), (3, 2, 1), (11, 4, 2), (4, 4, 0), (16, 16, 0), (3, 2, 0), (2, 3, 1), (5, 3, 4)]


@pytest.mark.parametrize(("size", "stride", "padding"), STEMS)
@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 31), (19, 22)])
def test_a_convolution_on_blocks_of_pixels_is_laxs(size, stride, padding, height, width):
  with jax.enable_x64(True):
    x, kernel, sides = normal(2, height, width, 3), normal(size, size, 3, 5), ((padding,) * 2,) * 2
    check(
      lambda x, kernel: convolution.on_pixel_blocks(x, kernel, stride, sides),
      *(x, kernel, stride, sides),
    )


@pytest.mark.parametrize(
  ("size", "stride", "padding", "images", "height", "width"),
  [
    (3, 1, 1, 2, 7, 10),
    (3, 2, 1, 34, 8, 9),  # more images than are added at once
    (5, 1, 2, 2, 7, 10),
    (5, 2, 2, 19, 8, 7),  # a prime number of them
    (7, 1, 3, 2, 7, 7),
    (5, 3, 0, 2, 9, 10),
    (4, 2, 1, 2, 7, 10),
    (7, 4, 1, 2, 8, 9),
  ],
)
def test_a_depthwise_convolution_as_a_sum_is_laxs(size, stride, padding, images, height, width):
  with jax.enable_x64(True):
    x, kernel = normal(images, height, width, 6), normal(size, size, 1, 6)
    sides = ((padding,) * 2,) * 2
    check(
      lambda x, kernel: convolution.depthwise(x, kernel, stride, sides),
      *(x, kernel, stride, sides, 6),
    )


def test_the_gradient_of_a_depthwise_kernel_is_added_up_in_float32():
  x = jnp.asarray(normal(16, 32, 32, 8), jnp.bfloat16)
  kernel, sides = jnp.asarray(normal(3, 3, 1, 8), jnp.bfloat16), ((1, 1),) * 2

  @jax.jit
  def gradient(x, kernel):
    y, pullback = jax.vjp(lambda kernel: convolution.depthwise(x, kernel, 1, sides), kernel)
    return pullback(jnp.ones_like(y))[0]

  found = gradient(x, kernel)
  assert found.dtype == jnp.bfloat16
  expected = gradient(x.astype(jnp.float32), kernel.astype(jnp.float32))
  np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=2**-8)


# 32 channels at a time; a prime number of groups; twice the features; eight parts at most; one
# group a part.
GROUPS = [
  *((32, 4, 4, 4), (13, 8, 8, 1), (6, 8, 16, 1)),
  *((55, 8, 8, 5), (32, 16, 4, 8), (4, 40, 3, 4)),
]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("groups", "inputs", "outputs", "parts"), GROUPS)
def test_a_convolution_in_groups_on_blocks_of_channels_is_laxs(
  groups, inputs, outputs, parts, stride
):
  sides, options = ((1, 1),) * 2, {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

  def ours(x, kernel):
    return convolution.on_channel_blocks(x, kernel, groups, (stride,) * 2, sides, **options)

  with jax.enable_x64(True):
    x, kernel = normal(1, 5, 6, groups * inputs), normal(3, 3, inputs, groups * outputs)
    check(ours, x, kernel, stride, sides, groups)
    assert str(jax.make_jaxpr(ours)(x, kernel)).count("conv_general_dilated[") == parts


@pytest.mark.optimized
@pytest.mark.parametrize(("groups", "inputs", "outputs"), [shape[:3] for shape in GROUPS])
def test_the_gradient_of_blocks_of_channels_is_laxs_as_users_compile_it(groups, inputs, outputs):
  """In float32 some of these shapes crashed JAX 0.10.2 where the zeros' gradient was a
  reduction."""
  options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
  sides = ((1, 1),) * 2

  def ours(x, kernel):
    return convolution.on_channel_blocks(x, kernel, groups, (1, 1), sides, **options)

  def laxs(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), sides, feature_group_count=groups, **options
    )

  def gradients(function, x, kernel):
    return jax.jit(jax.grad(lambda x, kernel: jnp.sum(function(x, kernel) ** 2), (0, 1)))(x, kernel)

  x, kernel = normal(1, 5, 6, groups * inputs), normal(3, 3, inputs, groups * outputs)
  for a, b in zip(gradients(ours, x, kernel), gradients(laxs, x, kernel)):
    assert a.dtype == jnp.float32
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2)


# What a layer's program holds of lax's convolutions, by their strides and groups.
PLAIN = "window_strides=(2, 2)"
SHAPES = {
  ("gpu", 3, 6, 2, 1): ["window_strides=(1, 1)"],
  ("gpu", 64, 6, 2, 1): [PLAIN],
  ("gpu", 8, 8, 2, 8): [PLAIN],
  ("cpu", 3, 6, 2, 1): [PLAIN],
  ("cpu", 8, 8, 2, 8): [],
  ("cpu", 8, 16, 2, 8): [PLAIN],
  ("cpu", 64, 64, 2, 2): [PLAIN, PLAIN],
  ("tpu", 3, 6, 2, 1): [PLAIN],
  ("tpu", 8, 8, 2, 8): [PLAIN],
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_device_has_its_form_and_who_asks_the_one_that_is_written(monkeypatch, shape):
  backend, channels, features, stride, groups = shape
  layer = layers.conv(
    features, 3, stride=stride, padding=1, groups=groups, dtype="float32", name="conv"
  )
  x = jnp.asarray(normal(2, 8, 8, channels), jnp.float32)
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  variables = layer.init(jax.random.key(0), x)

  def program():
    text = str(jax.make_jaxpr(lambda x: layer.apply(variables, x))(x))
    return [part.split("]")[0] for part in text.split("conv_general_dilated[")[1:]]

  found = program()
  assert len(found) == len(SHAPES[shape])
  assert all(wanted in part for wanted, part in zip(SHAPES[shape], found))
  in_groups = backend != "cpu" and groups > 1
  assert all((f"feature_group_count={groups}" in part) == in_groups for part in found if groups > 1)
  y = layer.apply(variables, x)
  with convolution.as_written():
    (plain,) = program()
    assert PLAIN in plain
    assert f"feature_group_count={groups}" in plain
    np.testing.assert_allclose(y, layer.apply(variables, x), rtol=1e-4, atol=1e-5)
  assert program() == found


def test_products_are_counted_as_the_network_is_written():
  layer = layers.conv(64, 3, padding=1, groups=16, dtype="float32", name="conv")
  x = jax.ShapeDtypeStruct((1, 8, 8, 64), jnp.float32)
  variables = jax.eval_shape(layer.init, jax.random.key(0), x)
  assert counting.traced(layer.apply, variables, x)[1] == 8 * 8 * 64 * 3 * 3 * 4
