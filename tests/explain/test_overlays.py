import numpy as np
import pytest

from imgclf import explain
from imgclf.explain import overlays


def lightness(colours):
  """CIE 1976 L* of sRGB levels."""
  share = np.asarray(colours, float) / 255
  linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
  luminance = linear @ [0.2126, 0.7152, 0.0722]
  return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)


# Linear RGB as someone without the long, middle or short cones sees it: Machado et al. 2009, table
# 1, severity 1.0.
BLINDNESS = {
  "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                 [-0.003882, -0.048116, 1.051998]],
  "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                   [-0.011820, 0.042940, 0.968881]],
  "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                 [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def seen(colours, matrix):
  share = np.asarray(colours, float) / 255
  linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
  linear = np.clip(linear @ np.transpose(matrix), 0, 1)
  return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def scale(signed):
  """What one row of rising heat looks like on a picture of one grey."""
  heat = np.linspace(-1 if signed else 0, 1, 21)
  image = np.full((21, 21, 3), 128, np.uint8)
  return explain.overlay(image, np.tile(heat, (21, 1)))[0]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", ["print", *BLINDNESS])
def test_more_heat_is_always_lighter(signed, kind):
  colours = scale(signed)
  if kind != "print":
    colours = seen(colours, BLINDNESS[kind])
  steps = np.diff(lightness(colours))
  # One unit of L* is about what an eye can tell apart; the ends are some forty apart.
  assert steps.min() > 0.5
  assert steps.sum() > 40


@pytest.mark.parametrize("kind", BLINDNESS)
def test_for_and_against_differ_in_more_than_lightness(kind):
  against, for_ = seen(scale(True)[[3, 17]], BLINDNESS[kind])
  if kind == "tritanopia":  # who sees no blue sees red
    assert for_[0] - against[0] > 60
  else:
    assert for_[2] - for_[0] < -20 and against[2] - against[0] > 20


def test_no_heat_against_is_the_other_scale():
  image = np.full((4, 4, 3), 128, np.uint8)
  heat = np.zeros((4, 4))
  assert (explain.overlay(image, heat) == explain.overlay(image, heat)[0, 0]).all()
  heat[0, 0] = 1
  dark, neutral = explain.overlay(image, heat)[1, 1], explain.overlay(image, heat - 0.5)[1, 1]
  assert lightness(dark) < 40
  assert neutral[2] > neutral[0]  # half against
  heat[0, 0] = -1
  assert np.ptp(explain.overlay(image, heat)[1, 1]) == 0  # grey


def test_the_picture_shows_through_and_one_pixel_does_not_set_the_scale():
  image = np.zeros((32, 32, 3), np.uint8)
  image[:, 16:] = 255
  heat = np.ones((32, 32))
  heat[0, 0] = 1e6
  picture = explain.overlay(image, heat)
  assert picture.shape == (32, 32, 3) and picture.dtype == np.uint8
  # As hot as it gets, though a millionth of the hottest; a third of the picture's levels is left of
  # it.
  assert lightness(picture[5, 5]) > 60
  assert lightness(picture[5, 20]) - lightness(picture[5, 5]) > 15
  np.testing.assert_array_equal(picture[0, 0], picture[5, 5])


def test_sizes_must_agree():
  with pytest.raises(ValueError, match=r"heatmap: got \[4, 5\] for an image of \[4, 4, 3\]"):
    explain.overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5)))


def test_the_picture_beside_is_the_image_that_the_model_saw():
  image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
  heat = np.random.default_rng(1).normal(size=(100, 100))
  page = np.asarray(explain.beside(image, heat))
  # Enlarged three times: at least 224 pixels.
  assert page.shape == (300, 2 * 300 + overlays.GAP, 3)
  np.testing.assert_array_equal(page[1::3, 1:300:3], image)
  np.testing.assert_array_equal(page[::3, 300 + overlays.GAP :: 3], explain.overlay(image, heat))
