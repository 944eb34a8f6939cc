"""Pictures are evaluation's crops, small enough to be many, and what can't be decoded is told by
its name."""

import base64
import io

import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf.data import datasets, images, loader
from imgclf.data.sources import Record
from imgclf.reporting import pictures


def decoded(uri):
  head, _, data = uri.partition(",")
  assert head == "data:image/webp;base64"
  picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
  assert picture.format == "WEBP"
  return np.asarray(picture.convert("RGB"))


@pytest.fixture
def config():
  config = imgclf.default_config()
  config.dataset.image_size = 24
  return config


class Pictures:
  """A hundred pictures, each of its own grey; the eighth is none."""

  def __getitems__(self, indices):
    return [
      Record(
        b"none" if i == 7 else images.encode_png(np.full((30, 40), i, np.uint8)), 1, f"picture {i}"
      )
      for i in indices
    ]


def test_pictures_are_read_by_number_as_evaluation_crops_them(config):
  found = pictures.read(Pictures(), config, [*range(80, 10, -1), 7])
  assert list(found) == [*range(80, 10, -1), 7]
  for number in range(11, 81):
    name, pixels = found[number]
    assert name == f"picture {number}"
    assert pixels.shape == (24, 24, 3) and (pixels == number).all()
  assert found[7] == ("picture 7", None)


def test_small_pictures_lose_nothing():
  pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
  assert np.array_equal(decoded(pictures.data_uri(pixels)), pixels)


def test_photographs_are_reduced_and_look_the_same(shared_data, config):
  config.dataset.name = f"folder:{shared_data / 'imagenet_photos'}"
  config.dataset.image_size = 224
  records = datasets.open(config.dataset).records("train[:12]")
  sizes = []
  for record in records.__getitems__(range(12)):
    crop = loader.eval_crop(config)(record)
    uri = pictures.data_uri(crop)
    sizes.append(len(uri))
    shown = decoded(uri)
    assert shown.shape == (160, 160, 3)
    expected = np.asarray(Image.fromarray(crop).resize((160, 160), Image.Resampling.LANCZOS))
    assert np.abs(shown.astype(int) - expected).mean() < 8
  # 300 pictures and as many heat maps of this size are below 10 MB.
  assert np.mean(sizes) * 600 < 10e6
