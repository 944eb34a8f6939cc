import numpy as np
from PIL import Image
import pytest

from imgclf.data import datasets
from imgclf.data.images import decode
from imgclf.errors import UserError
from imgclf.exporting import pixels


@pytest.fixture
def config(small_config):
  return small_config


def test_images_are_spread_over_the_test_split_as_evaluation_crops_them(config):
  found, role = pixels.of_run(config)
  assert (found.shape, found.dtype, role) == ((64, 32, 32, 3), np.uint8, "test")
  records = datasets.open(config["dataset"]).records("test")
  # 360 images, so every 359 / 63rd: the first, the second at 5.7 and the last.
  for place, index in ((0, 0), (1, 6), (63, 359)):
    record = records[index]
    whole = decode(record.data, record.name, background=(255, 255, 255), max_pixels=10**6)
    expected = Image.fromarray(whole).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[place], expected)


def test_a_set_without_a_test_split_is_taken_at_its_validation_split(config, tmp_path):
  for label in ("a", "b"):
    for split in ("train", "validation"):
      (tmp_path / split / label).mkdir(parents=True)
      Image.new("RGB", (40, 40), (ord(label), 0, 0)).save(tmp_path / split / label / "1.png")
  config.dataset.name = f"folder:{tmp_path}"
  found, role = pixels.of_run(config)
  assert role == "validation"
  assert sorted(found[:, 0, 0, 0].tolist()) == [ord("a"), ord("b")]


def test_data_that_is_gone_names_the_flag_that_helps(config, tmp_path):
  config.dataset.name = f"folder:{tmp_path}/gone"
  with pytest.raises(UserError, match=r"so mend this, or give others: --images=PATH$"):
    pixels.of_run(config)


def test_files_and_those_of_patterns_are_read_up_to_the_limit(config, tmp_path, monkeypatch):
  inside = tmp_path / "photos" / "deep"
  inside.mkdir(parents=True)
  for number in range(3):
    Image.new("RGB", (50, 40), (number, 0, 0)).save(inside / f"{number}.PNG")
  (inside / "notes.txt").write_text("mine")
  outside = tmp_path / "outside.png"
  Image.new("RGB", (50, 40), (9, 0, 0)).save(outside)
  paths = [str(outside), str(tmp_path / "photos/**/*.PNG")]
  assert pixels.of_files(paths, config)[:, 0, 0, 0].tolist() == [9, 0, 1, 2]
  monkeypatch.setattr(pixels, "MOST", 2)
  assert pixels.of_files(paths, config)[:, 0, 0, 0].tolist() == [9, 0]


def test_a_file_that_is_no_image_is_named(config, tmp_path):
  (tmp_path / "text.png").write_text("no image")
  with pytest.raises(UserError, match=r"--images: .*text\.png: cannot be decoded"):
    pixels.of_files([str(tmp_path / "text.png")], config)
  with pytest.raises(UserError, match=r"gone\.png: cannot be read \(No such file"):
    pixels.of_files([str(tmp_path / "gone.png")], config)
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match="no image in this folder"):
    pixels.of_files([str(tmp_path / "empty")], config)
