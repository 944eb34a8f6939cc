import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf.models import layers, space_to_depth

ORDER = ("NHWC", "HWIO", "NHWC")


def normal(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


# The stems of ResNet, of ResNet-D and all that are of MobileNet's kind, of AlexNet, ConvNeXt and ViT; and odd ones.
STEMS = [(7, 2, 3), (3, 2, 1), (11, 4, 2), (4, 4, 0), (16, 16, 0), (3, 2, 0), (2, 3, 1), (5, 3, 4)]


@pytest.mark.parametrize(("size", "stride", "padding"), STEMS)
@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 31), (19, 22)])
def test_a_convolution_on_blocks_and_its_gradients_are_laxs(size, stride, padding, height, width):
  with jax.enable_x64(True):
    x, kernel = normal(2, height, width, 3), normal(size, size, 3, 5, seed=1)
    sides = ((padding, padding),) * 2

    def laxs(x, kernel):
      strides = (stride, stride)
      return jax.lax.conv_general_dilated(x, kernel, strides, sides, dimension_numbers=ORDER)

    expected, pullback = jax.vjp(laxs, x, kernel)
    found, our_pullback = jax.vjp(
      lambda x, kernel: space_to_depth.on_blocks(x, kernel, stride, sides), x, kernel
    )
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)
    weights = normal(*expected.shape, seed=2)
    for a, b in zip(our_pullback(weights), pullback(weights)):
      np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
  ("backend", "channels", "stride", "groups", "blocks"),
  [
    ("gpu", 3, 2, 1, True),
    ("gpu", 1, 4, 1, True),
    ("gpu", 3, 1, 1, False),
    ("gpu", 64, 2, 1, False),
    ("gpu", 4, 2, 2, False),
    ("cpu", 3, 2, 1, False),
    ("tpu", 3, 2, 1, False),
  ],
)
def test_gpus_have_images_in_blocks_and_nothing_else_is(
  monkeypatch, backend, channels, stride, groups, blocks
):
  layer = layers.conv(6, 5, stride=stride, padding=2, groups=groups, dtype="float32", name="conv")
  x = jnp.asarray(normal(2, 12, 12, channels), jnp.float32)
  variables = layer.init(jax.random.key(0), x)
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  expected = layer.apply(variables, x)
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  program = str(jax.make_jaxpr(layer.apply)(variables, x))
  assert ("window_strides=(1, 1)" in program) == (blocks or stride == 1)
  np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-5, atol=1e-5)
