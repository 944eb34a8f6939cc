import numpy as np
import pytest
from scipy import special, stats
from toys import SIZE, linear_run, pixels

from imgclf import explain
from imgclf.errors import UserError


def one_pixel_run():
  """The corner pixel alone counts, by its red: black has a logit of 2 in class 1 and white one of
  -2."""
  kernel = np.zeros((SIZE, SIZE, 3, 2))
  kernel[0, 0, 0, 1] = -2
  return linear_run(kernel, bias=(0, 0), temperature=2.0)


# Divided by the temperature, against the other class's 0.
BLACK, WHITE = special.expit([1, -1])


def areas(batch, corner_place, **options):
  """Of black images that become white, and the other way round, 16 pixels at a time."""
  heat = np.full(SIZE * SIZE, -1.0)
  heat[np.delete(np.arange(64), 0)] = -np.delete(np.arange(64), corner_place)
  heat[0] = -corner_place
  maps = np.tile(heat.reshape(SIZE, SIZE), (batch, 1, 1))
  images = np.zeros((batch, SIZE, SIZE, 3), np.uint8)
  classes = np.ones(batch, int)
  options = {"deleted": "white", "canvas": "white"} | options
  return explain.deletion_insertion(one_pixel_run(), images, classes, maps, steps=4, **options)


@pytest.mark.parametrize(("place", "before"), [(0, 1), (15, 1), (16, 2), (63, 4)])
def test_areas_are_those_of_the_curve_by_hand(place, before):
  found = areas(2, place)
  # The first `before` of five points have the old corner, and the end points count half, of four.
  old, new = before - 0.5, 4 - (before - 0.5)
  np.testing.assert_allclose(found.deletion, [(old * BLACK + new * WHITE) / 4] * 2, rtol=1e-5)
  np.testing.assert_allclose(found.insertion, [(old * WHITE + new * BLACK) / 4] * 2, rtol=1e-5)


def test_a_random_order_takes_the_pixel_that_matters_at_any_time():
  found = areas(100, 0)
  # In the mean the corner goes half way; the old corner stands for 0.5, 1.5, 2.5 or 3.5 of 4
  # points, each as often: a spread of 0.28 of the distance, a tenth of that for 100 images.
  error = 4 * 0.028 * (BLACK - WHITE)
  for area in (found.random_deletion, found.random_insertion):
    assert len(np.unique(np.round(area, 5))) == 4
    assert np.mean(area) == pytest.approx((BLACK + WHITE) / 2, abs=error)
  # What goes early comes early.
  np.testing.assert_allclose(
    found.random_deletion + found.random_insertion, BLACK + WHITE, rtol=1e-5
  )
  np.testing.assert_array_equal(areas(3, 0).random_deletion, found.random_deletion[:3])
  assert np.any(areas(100, 0, seed=1).random_deletion != found.random_deletion)


def test_maps_and_steps_that_do_not_fit_are_refused():
  run, images, classes = linear_run(), pixels(2), np.array([0, 1])
  with pytest.raises(ValueError, match=r"heatmaps: got \[2, 4, 4\], needs one for each image"):
    explain.deletion_insertion(run, images, classes, np.zeros((2, 4, 4)))
  for steps in (0, 65):
    with pytest.raises(UserError, match=f"steps={steps}: needs 1 to 64"):
      explain.deletion_insertion(run, images, classes, np.zeros((2, 8, 8)), steps)


def test_rank_correlation_is_scipys():
  draw = np.random.default_rng(0)
  first, second = draw.integers(0, 5, (2, 6, 4, 4)).astype(np.float32)  # many ties
  second[1], second[2] = np.exp(first[1]), -first[2]
  found = explain.rank_correlation(first, second)
  expected = [stats.spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(first, second)]
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  np.testing.assert_allclose(found[1:3], [1, -1])
  assert np.isnan(explain.rank_correlation(first[:1], np.ones((1, 4, 4)))).all()


def test_redrawn_weights_are_the_same_numbers_in_other_places():
  run = linear_run()
  before = run.variables["params"]["head"]["kernel"].copy()
  after = explain.redrawn(run).variables["params"]["head"]["kernel"]
  np.testing.assert_array_equal(run.variables["params"]["head"]["kernel"], before)
  np.testing.assert_array_equal(np.sort(after, axis=None), np.sort(before, axis=None))
  assert np.mean(after == before) < 0.05
  other = explain.redrawn(run, seed=1).variables["params"]["head"]["kernel"]
  assert np.mean(after == other) < 0.05
