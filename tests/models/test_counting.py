import jax
import jax.numpy as jnp
import pytest

from imgclf.models import counting


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, "float32")


def test_a_convolution_in_groups_counts_the_inputs_of_a_group():
  def conv(x, kernel):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
      x, kernel, (2, 2), "SAME", dimension_numbers=numbers, feature_group_count=3
    )

  result, count = counting.traced(conv, shape(1, 8, 8, 6), shape(3, 5, 2, 12))
  assert result.shape == (1, 4, 4, 12)
  # 4 x 4 pixels of 12 channels, each from 3 x 5 pixels of 2 channels.
  assert count == 4 * 4 * 12 * 3 * 5 * 2


def test_matrix_products_count_their_batch_and_those_within_functions_too():
  def attention(q, k):
    return jax.jit(lambda a, b: jnp.einsum("bqhc,bkhc->bhqk", a, b))(q, k) + 1

  result, count = counting.traced(attention, shape(2, 5, 3, 7), shape(2, 4, 3, 7))
  assert result.shape == (2, 3, 5, 4)
  assert count == 2 * 3 * 5 * 4 * 7
  assert (
    counting.traced(jax.checkpoint(attention), shape(2, 5, 3, 7), shape(2, 4, 3, 7))[1] == count
  )


def test_sums_and_activations_count_nothing_and_loops_are_refused():
  assert counting.traced(lambda x: jax.nn.relu(x + x).mean(), shape(4, 4))[1] == 0

  def loop(x):
    return jax.lax.fori_loop(0, 3, lambda _, y: y @ y, x)

  with pytest.raises(ValueError, match="can't be counted"):
    counting.traced(loop, shape(4, 4))
