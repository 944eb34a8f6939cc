"""The contact sheet, read back from its pixels."""

import numpy as np
import pytest

import imgclf
from imgclf import preview
from imgclf.data import images
from imgclf.data.datasets import Record
from imgclf.data.loader import train_batches, train_examples
from imgclf.losses import Partner, Targets

CLASSES = ("cat", "dög\x1b", "a name that is much too long to stand below a picture of that size")


class Noise:
  """Records of noisy pictures, one of which is broken."""

  def __len__(self):
    return 12

  def __getitems__(self, indices):
    rng = np.random.default_rng
    return [
      Record(
        b"none" if i == 7 else images.encode_png(rng(i).integers(0, 256, (16, 16, 3), np.uint8)),
        i % 3,
        f"{i}",
      )
      for i in indices
    ]


@pytest.fixture
def config():
  config = imgclf.default_config()
  config.dataset.image_size = 16
  config.dataset.crop_fraction = 1.0
  config.dataset.bad_images = "skip"
  config.augment.crop = "padded"
  config.train.batch_size = 12
  return config


def pictures(page, lines):
  """The pictures of a sheet, [rows, columns, 16, 16, 3]; they were enlarged six times to 96
  pixels."""
  pixels = np.asarray(page)
  rows = [17 + row * (100 + 13 * lines) for row in range(8)]
  columns = [4 + 100 * column for column in range(8)]
  return np.stack(
    [np.stack([pixels[y : y + 96 : 6, x : x + 96 : 6] for x in columns]) for y in rows]
  )


def test_a_row_is_the_plain_example_and_then_what_the_steps_see(config):
  config.augment.flip, config.augment.crop = False, "random_resized"
  page = preview.sheet(Noise(), CLASSES, config)
  assert page.size == (4 + 8 * 100, 17 + 8 * 113)
  found = pictures(page, 1)
  records = train_examples(Noise(), config, 0)[:8]
  for row, record in zip(found, records):
    plain = np.zeros((16, 16, 3)) if record.name == "7" else images.decode(record.data, "")
    np.testing.assert_array_equal(row[0], plain)
  # The first version is what the loader gives to the first step: without a flip there is nothing
  # else.
  first = train_batches(Noise(), config, on_error=lambda error, name: None)[0]["image"][:8]
  readable = [record.name != "7" for record in records]
  np.testing.assert_array_equal(found[readable, 1], first[readable])
  assert not np.array_equal(found[:, 1], found[:, 2])
  # Something is written below each picture, and no name runs into the next one.
  written = np.asarray(page.convert("L"))
  for row in range(8):
    captions = written[17 + row * 113 + 96 : 17 + row * 113 + 109]
    for column in range(8):
      assert captions[:, 4 + column * 100 : 100 + column * 100].min() < 128
      assert (captions[:, column * 100 : 4 + column * 100] == 255).all()


def test_a_mix_shows_both_pictures_and_its_captions_both_labels_and_shares(config):
  config.augment.update(flip=False, crop="center", mixup=1.0)
  found = pictures(preview.sheet(Noise(), CLASSES, config), 2).astype(float)
  records = train_examples(Noise(), config, 0)[:8]
  partner = np.arange(8) ^ 1
  for row, record in enumerate(records):
    if "7" in (record.name, records[partner[row]].name):
      # Left unmixed; what can't be decoded is a picture of the mean colour to the network.
      plain = found[row, 0] if record.name != "7" else np.round(255 * np.array(config.augment.mean))
      assert (found[row, 1:] == plain).all()
      continue
    own, other = found[row, 0], found[partner[row], 0]
    for mixed in found[row, 1:]:
      share = ((mixed - other) * (own - other)).sum() / ((own - other) ** 2).sum()
      assert np.abs(share * own + (1 - share) * other - mixed).max() < 1.5


def test_captions_are_printable_and_of_a_mix_two_lines():
  def captions(share):
    partner = preview.losses.Partner(np.array([1]), np.array([share]))
    return preview._captions(preview.losses.Targets(np.array([0]), partner), CLASSES)

  assert captions(0.25) == ["75% cat\n25% dög\\x1b"]
  assert captions(0.0) == ["cat"]


def test_flips_that_alternate_begin_as_training_does_and_alternate(config):
  config.augment.crop, config.augment.flip_alternate = "center", True
  found = pictures(preview.sheet(Noise(), CLASSES, config), 1)
  batches = train_batches(Noise(), config, on_error=lambda error, name: None)
  batch = batches[0]
  for row, mirrored, readable in zip(found, batch["mirror"], batch["mask"]):
    if not readable:
      continue
    for step, picture in enumerate(row[1:]):
      side = row[0][:, ::-1] if mirrored ^ (step % 2 == 1) else row[0]
      np.testing.assert_array_equal(picture, side)


def test_captions_name_all_classes_of_an_image_and_of_what_is_mixed_in():
  label = np.array([[1, 1, 0], [0, 0, 0]], np.uint8)
  assert preview._captions(Targets(label), "abc") == ["a, b", "no class"]
  mixed = Targets(label, Partner(label[::-1], np.array([0.25, 0.0], np.float32)))
  assert preview._captions(mixed, "abc") == ["75% a, b\n25% no class", "no class"]
