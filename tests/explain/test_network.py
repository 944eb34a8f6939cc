import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, special
from toys import linear_run, pixels

from imgclf.explain import network as networks


@pytest.mark.parametrize(
  ("count", "size", "length"), [(1, 32, 1), (3, 32, 4), (35, 32, 32), (20, 224, 8), (3, 3000, 1)]
)
def test_groups_have_one_length_and_every_place(count, size, length):
  found = list(networks.groups(count, size))
  assert {len(group) for group in found} == {length}
  assert len(found) == -(-count // length)
  joined = np.concatenate(found)
  assert joined[:count].tolist() == list(range(count))
  assert (joined[count:] == count - 1).all()


@pytest.mark.parametrize("size", [8, 32, 64, 100, 224, 500, 3000])
def test_the_network_never_sees_more_pixels_than_the_bound_at_once(size):
  for count in (1, 5, 1000):
    group = len(next(networks.groups(count, size)))
    rows = group * networks.variants(group, size)
    assert rows <= 256 and (rows == 1 or rows * size**2 <= 8 * 224**2)


def test_values_come_in_parts_of_one_length():
  parts = list(networks.filled(np.arange(5), 2, -1))
  assert [part.tolist() for part in parts] == [[0, 1], [2, 3], [4, -1]]


def test_the_blurred_image_is_scipys_where_the_picture_is_all_there_is():
  images = pixels(2, 24)
  found = networks.baseline_of(images, "blur", None)
  assert found.dtype == np.float32

  def smooth(x):
    return ndimage.gaussian_filter(x, (0, 3, 3, 0), mode="constant", truncate=10)

  expected = smooth(images.astype(float)) / smooth(np.ones(images.shape))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_logits_are_those_of_evaluation():
  run, images = linear_run(temperature=3.0), pixels(2)
  kernel, bias = (run.variables["params"]["head"][name] for name in ("kernel", "bias"))
  mean, std = (np.array(run.config["augment"][name]) for name in ("mean", "std"))
  inputs = ((images / 255 - mean) / std).reshape(2, -1)
  network = networks.Network.of(run)
  logits = network.logits(jnp.asarray(images, jnp.float32))
  np.testing.assert_allclose(logits, inputs @ kernel + bias, rtol=1e-4)
  np.testing.assert_allclose(
    network.logit(jnp.asarray(images, jnp.float32), np.array([1, 0])), [logits[0, 1], logits[1, 0]]
  )
  assert special.softmax(logits / network.temperature, axis=1).dtype == np.float32
