"""What holds for every method, on a run that was trained."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from toys import linear_run, pixels

import imgclf
from imgclf import augment, explain
from imgclf.data import datasets, loader
from imgclf.errors import UserError


@pytest.fixture(scope="module")
def run(trained):
  return imgclf.load(trained)


@pytest.fixture(scope="module")
def examples(run):
  """Eight test digits as evaluation crops them, and their classes."""
  records = datasets.open(run.config["dataset"]).records("test")
  crop = loader.eval_crop(run.config)
  taken = [records[i] for i in range(8)]
  return np.stack([crop(record) for record in taken]), np.array([r.label for r in taken])


@pytest.fixture(scope="module")
def maps(run, examples):
  return {method: explain.heatmaps(run, *examples, method) for method in explain.METHODS}


def test_maps_are_those_of_the_methods_as_documented(maps):
  assert list(maps) == ["gradcam", "integrated_gradients", "smoothgrad", "occlusion"]
  for method, heat in maps.items():
    assert heat.shape == (8, 32, 32) and heat.dtype == np.float32, method
    assert np.isfinite(heat).all() and np.ptp(heat, axis=(1, 2)).min() > 0, method
    signed = method in ("integrated_gradients", "occlusion")
    assert (heat.min() < 0) == signed, method
  assert (maps["gradcam"].max(axis=(1, 2)) == 1).all()


def test_integrated_gradients_sum_to_the_difference_of_evaluations_logits(run, examples, maps):
  images, classes = examples
  grey = np.full((1, 1, 1, 3), 255 * np.array(run.config["augment"]["mean"]))

  def logits(levels):
    inputs = augment.eval_transform(levels, run.config["augment"], jnp.float32)
    return np.asarray(run.model.apply(run.variables, inputs), np.float64)

  blank = logits(np.broadcast_to(grey, images.shape).astype(np.float32))
  difference = (logits(images) - blank)[np.arange(8), classes]
  found = explain.integrated(run, images, classes)
  np.testing.assert_array_equal(found.heatmaps, maps["integrated_gradients"])
  np.testing.assert_allclose(found.differences, difference, rtol=1e-3)
  np.testing.assert_allclose(found.heatmaps.sum(axis=(1, 2)), difference, rtol=0.011)
  assert found.gaps.max() <= 0.01 and found.steps.min() >= 16


@pytest.mark.parametrize("method", explain.METHODS)
def test_an_image_has_the_same_map_alone(run, examples, maps, method):
  images, classes = examples
  alone = explain.heatmaps(run, images[5:6], classes[5:6], method)
  spread = np.abs(maps[method][5]).max()
  np.testing.assert_allclose(alone[0], maps[method][5], atol=1e-3 * spread)


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "occlusion"])
def test_pixels_that_are_named_matter_more_than_pixels_by_chance(run, examples, maps, method):
  areas = explain.deletion_insertion(run, *examples, maps[method])
  assert np.mean(areas.deletion) < np.mean(areas.random_deletion)
  assert np.mean(areas.insertion) > np.mean(areas.random_insertion)


@pytest.mark.parametrize("method", explain.METHODS)
def test_maps_of_redrawn_weights_are_others(run, examples, maps, method):
  # In the middle: at the edge few windows see a pixel, so that it matters less with any weights.
  middle = np.s_[:, 8:24, 8:24]
  told = [
    explain.rank_correlation(
      maps[method][middle], explain.heatmaps(explain.redrawn(run, seed), *examples, method)[middle]
    )
    for seed in range(3)
  ]
  # Where no map is left, as it may be of Grad-CAM, there is nothing to compare.
  assert np.isfinite(told).any()
  assert abs(np.nanmean(told)) < 0.5


def test_bfloat16_is_explained_in_float32(run, examples, maps):
  images, classes = examples
  narrow = dataclasses.replace(run, model=run.model.clone(dtype=jnp.bfloat16))
  np.testing.assert_array_equal(explain.heatmaps(narrow, images, classes), maps["gradcam"])


def test_no_image_has_no_map(run):
  nothing = np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, int)
  for method in explain.METHODS:
    maps = explain.heatmaps(run, *nothing, method)
    assert maps.shape == (0, 32, 32) and maps.dtype == np.float32
  assert explain.integrated(run, *nothing).gaps.shape == (0,)
  areas = explain.deletion_insertion(run, *nothing, maps)
  assert areas.random_deletion.shape == (0,)


def test_an_unknown_method_is_told_with_the_one_that_was_likely_meant():
  with pytest.raises(UserError) as caught:
    explain.heatmaps(linear_run(), pixels(1), np.array([0]), "grad-cam")
  assert (
    str(caught.value) == "method=grad-cam: no such method of explanation; did you mean gradcam?"
  )
  with pytest.raises(
    UserError, match=r"--explain=lime: .* there are gradcam, integrated_gradients,"
  ):
    explain.checked_method("lime", "--explain")


@pytest.mark.parametrize(
  ("images", "classes", "words"),
  [
    (pixels(2).astype(np.float32), [0, 1], r"images: got float32 \[2, 8, 8, 3\], needs uint8"),
    (pixels(2, 9), [0, 1], r"images: got uint8 \[2, 9, 9, 3\], needs uint8 \[batch, 8, 8, 3\]"),
    (pixels(2)[0], [0], r"images: got uint8 \[8, 8, 3\]"),
    (pixels(2), [0], r"classes: got int64 \[1\], needs integers \[2\]"),
    (pixels(2), [0.0, 1.0], "classes: got float64"),
    (pixels(2), [0, 2], "classes: got 0 to 2, needs 0 to 1"),
    (pixels(2), [-1, 0], "classes: got -1 to 0"),
  ],
)
def test_arrays_that_do_not_fit_the_run_are_refused(images, classes, words):
  for call in (explain.heatmaps, explain.integrated):
    with pytest.raises(ValueError, match=words):
      call(linear_run(), images, np.array(classes))
