import numpy as np
import pytest
from toys import MEAN, SIZE, STD, linear_run, pixels, weights_of

from imgclf import explain
from imgclf.errors import UserError

CLASSES = np.array([1, 0, 1])


def test_occlusion_finds_the_one_patch_that_matters():
  kernel = np.zeros((SIZE, SIZE, 3, 2))
  kernel[4:6, 2:4, :, 1] = 1
  images = np.zeros((1, SIZE, SIZE, 3), np.uint8)
  options = {"patch": 2, "stride": 2, "baseline": "white"}
  maps = explain.heatmaps(linear_run(kernel), images, np.array([1]), "occlusion", **options)
  # White for black is 1 / std more in each channel, at four pixels: the logit rises by 4 * (2 + 4 +
  # 8).
  expected = np.zeros((SIZE, SIZE))
  expected[4:6, 2:4] = -4 * np.sum(1 / STD)
  np.testing.assert_allclose(maps[0], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("patch", "stride"), [(3, 2), (3, 3), (1, 1), (8, 1)])
def test_a_pixel_has_the_mean_of_the_squares_that_cover_it(patch, stride):
  run, images = linear_run(), pixels(3)
  options = {"patch": patch, "stride": stride}
  maps = explain.heatmaps(run, images, CLASSES, "occlusion", **options)
  fall = (weights_of(run, CLASSES) * (images - 255 * MEAN)).sum(axis=-1)
  corners = sorted({*range(0, SIZE - patch + 1, stride), SIZE - patch})
  total, times = np.zeros_like(fall), np.zeros((SIZE, SIZE))
  for row in corners:
    for column in corners:
      square = slice(row, row + patch), slice(column, column + patch)
      total[:, *square] += fall[:, *square].sum(axis=(1, 2))[:, None, None]
      times[square] += 1
  assert times.min() > 0
  np.testing.assert_allclose(maps, total / times, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("options", [{"patch": 9}, {"patch": 2, "stride": 3}, {"stride": 0}])
def test_squares_that_would_leave_pixels_out_are_refused(options):
  with pytest.raises(UserError, match="needs 1 <= stride <= patch <= 8, the image's side"):
    explain.heatmaps(linear_run(), pixels(1), np.array([0]), "occlusion", **options)
