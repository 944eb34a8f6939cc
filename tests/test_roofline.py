import importlib.util
import pathlib
import sys

import jax
import jax.numpy as jnp
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def roofline():
  # As it is when the script is run: the folder of the script is the first to be searched.
  sys.path.insert(0, str(FOLDER))
  try:
    spec = importlib.util.spec_from_file_location("roofline", FOLDER / "roofline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
  finally:
    sys.path.remove(str(FOLDER))
  return module


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_two_gradients_cost_the_same(roofline, stride):
  def convolved(x, kernel):
    y = jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.sum(y**2)

  x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
  length = 8 // stride
  # Of each output value, 27 products and as many sums.
  expected = 2 * (2 * length * length * 5) * 27
  program = jax.make_jaxpr(convolved)(x, kernel).jaxpr
  assert roofline.operations(program) == expected
  program = jax.make_jaxpr(jax.grad(convolved, (0, 1)))(x, kernel).jaxpr
  assert roofline.operations(program) == 3 * expected


def test_a_matrix_product_costs_two_operations_for_each_product(roofline):
  program = jax.make_jaxpr(lambda a, b: a @ b)(jnp.ones((4, 5)), jnp.ones((5, 6))).jaxpr
  assert roofline.operations(program) == 2 * 4 * 5 * 6


def test_what_is_kept_for_the_backward_pass_is_counted_by_type_for_each_image(roofline):
  def loss(scale, images):
    return jnp.sum(jnp.sin(images * scale))

  images = jax.ShapeDtypeStruct((7, 4, 4, 3), jnp.bfloat16)
  found = roofline.kept(loss, jax.ShapeDtypeStruct((3,), jnp.bfloat16), images, batch=7)
  # The images, and the cosine.
  assert found == {"bfloat16": 2 * 48 * 2}


def test_a_network_is_told_by_its_work_and_what_it_keeps(roofline, monkeypatch, capsys):
  monkeypatch.setattr("sys.argv", ["roofline.py", "--model=regnet_y_400mf", "--size=224"])
  roofline.main()
  before, after, work, *_ = capsys.readouterr().out.splitlines()
  assert before.startswith("flax's batch norm: kept an image: bfloat16 ")
  assert "float32" in before
  assert after.startswith("as it is: kept an image: bfloat16 ")
  # Forward and two gradients of torchvision's 0.402 billion multiply-adds, two operations each; its
  # convolutions in groups are counted as such.
  assert work.startswith("2.4 GFLOP an image")
