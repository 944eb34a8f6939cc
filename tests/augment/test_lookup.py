"""Tables of the point operations against Pillow's ImageOps and ImageEnhance."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
import pytest

from imgclf.augment import lookup


def make_images(height=20, width=26):
  """Photograph-like, narrow, with one level only, nearly so, and too small to be equalised."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (5, height, width, 3))
  images[1] = rng.normal(120, 10, images[1].shape).clip(0, 255)
  images[2] = (10, 20, 30)
  images[3] = (10, 20, 30)
  images[3, 0, 0] = (250, 0, 30)
  images[4] = rng.choice([0, 3, 200, 255], images[4].shape, p=[0.1, 0.2, 0.3, 0.4])
  return images.astype(np.uint8)


def of_pillow(images, change):
  return np.stack([np.asarray(change(Image.fromarray(image))) for image in images])


def looked_up(images, tables):
  tables = jnp.asarray(tables)
  assert tables.shape == (len(images), 3, 256)
  return np.asarray(lookup.look_up(images, tables))


def test_inverting_is_pillows():
  images = make_images()
  np.testing.assert_array_equal(
    looked_up(images, lookup.invert(5)), of_pillow(images, ImageOps.invert)
  )


def test_equalising_is_pillows_to_the_level():
  images = make_images()
  np.testing.assert_array_equal(
    looked_up(images, lookup.equalize(images)), of_pillow(images, ImageOps.equalize)
  )
  tiny = images[:, :9, :9]  # fewer than 255 pixels: nothing to share out
  np.testing.assert_array_equal(
    looked_up(tiny, lookup.equalize(tiny)), of_pillow(tiny, ImageOps.equalize)
  )


def test_autocontrast_is_pillows():
  images = make_images()
  found = looked_up(images, lookup.autocontrast(images))
  expected = of_pillow(images, ImageOps.autocontrast)
  # Pillow works in floats, where a whole number may come out just below itself and is cut.
  assert np.abs(found - expected).max() <= 1
  assert (found == expected).mean() > 0.98


@pytest.mark.parametrize("bits", range(9))
def test_posterising_is_pillows(bits):
  images = make_images()
  # Pillow has no 0 bits of its own in all versions: it is black.
  expected = (
    of_pillow(images, lambda i: ImageOps.posterize(i, bits)) if bits else np.zeros_like(images)
  )
  np.testing.assert_array_equal(
    looked_up(images, lookup.posterize(jnp.full(5, bits, jnp.float32))), expected
  )


@pytest.mark.parametrize("threshold", [0, 1, 77, 127.5, 255, 256])
def test_solarising_is_pillows(threshold):
  images = make_images()
  np.testing.assert_array_equal(
    looked_up(images, lookup.solarize(jnp.full(5, threshold, jnp.float32))),
    of_pillow(images, lambda image: ImageOps.solarize(image, threshold)),
  )


def test_adding_solarisation_adds_to_the_darker_half():
  images = np.array([0, 50, 127, 128, 200], np.uint8).repeat(3).reshape(1, 1, 5, 3)
  found = looked_up(images, lookup.solarize_add(jnp.array([110.0])))
  np.testing.assert_array_equal(found[0, 0, :, 0], [110, 160, 237, 128, 200])


@pytest.mark.parametrize("factor", [0.1, 0.7, 1.0, 1.9])
@pytest.mark.parametrize("name", ["brightness", "contrast"])
def test_factors_are_pillows_but_for_rounding(name, factor):
  images, factors = make_images(), jnp.full(5, factor, jnp.float32)
  if name == "brightness":
    found, enhance = lookup.brightness(factors), ImageEnhance.Brightness
  else:
    found, enhance = lookup.contrast(images, factors), ImageEnhance.Contrast
  expected = of_pillow(images, lambda image: enhance(image).enhance(factor)).astype(int)
  assert np.abs(looked_up(images, found) - expected).max() <= 1  # Pillow cuts to whole levels


def test_histograms_are_numpys(monkeypatch):
  images = make_images()
  expected = np.array(
    [[np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)] for image in images]
  )
  np.testing.assert_array_equal(lookup.histograms(images), expected)
  # What accelerators compute, too.
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  np.testing.assert_array_equal(lookup.histograms(images), expected)
