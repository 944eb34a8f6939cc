import numpy as np
from PIL import Image
import pytest

from imgclf.pretrained import positions


def test_only_a_square_of_patches_and_a_class_have_a_side():
  assert [positions.side(n) for n in (2, 5, 197, 577)] == [1, 2, 14, 24]
  assert [positions.side(n) for n in (0, 1, 3, 196, 198)] == [None] * 5


@pytest.mark.parametrize(("before", "after"), [(14, 24), (24, 14), (3, 4)])
def test_patches_are_resampled_as_pillow_does_it_and_the_class_stays(before, after):
  rng = np.random.default_rng(0)
  given = rng.normal(size=(1 + before**2, 2)).astype(np.float32)
  found = positions.resample(given, 1 + after**2)
  assert found.dtype == np.float32 and found.shape == (1 + after**2, 2)
  np.testing.assert_array_equal(found[0], given[0])
  for channel in range(2):
    picture = Image.fromarray(given[1:, channel].reshape(before, before))
    expected = np.asarray(picture.resize((after, after), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(found[1:, channel].reshape(after, after), expected, atol=1e-5)


def test_as_many_patches_stay_as_they_are():
  given = np.arange(10, dtype=np.float32).reshape(5, 2)
  np.testing.assert_allclose(positions.resample(given, 5), given, atol=1e-6)
