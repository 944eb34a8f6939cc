"""Files, arrays and Pillow images become records with the pixels that evaluation sees, or keep a
reason."""

import io
import os
import pathlib

import jax.numpy as jnp
import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf.data import image_paths, inputs, loader
from imgclf.data.image_paths import Listed
from imgclf.errors import UserError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 12), np.uint8)
COLOUR = RNG.integers(0, 256, (30, 20, 3), np.uint8)


@pytest.fixture
def config():
  config = imgclf.default_config()
  config.dataset.image_size = 8
  config.dataset.crop_fraction = 0.8
  config.dataset.max_pixels = 1000
  config.dataset.background = (10, 20, 30)
  return config


def crops(given, config):
  """The crop of each input, None where there is none; and the errors."""
  batch = loader.eval_batches(given, config, max(len(given), 1), on_error=given.refuse)[0]
  return [
    image if kept else None for image, kept in zip(batch["image"], batch["mask"])
  ], given.errors


def test_arrays_images_and_files_are_cropped_alike_whatever_their_size(tmp_path, config):
  path = tmp_path / "x.png"
  Image.fromarray(COLOUR).save(path)
  each = [COLOUR, str(path), path, Image.open(path), jnp.asarray(COLOUR), Image.fromarray(COLOUR)]
  given, single = inputs.of_python(each, config.dataset)
  found, errors = crops(given, config)
  assert not single and errors == {}
  assert given.names == [*("images[0]", str(path), str(path), str(path), "images[4]", "images[5]")]
  # Resized so that the short side is 8 / 0.8 = 10, then the middle 8 of 15 and 10.
  expected = np.asarray(Image.fromarray(COLOUR).resize((10, 15), Image.Resampling.BILINEAR))
  assert config.dataset.interpolation == "bilinear"
  for image in found:
    np.testing.assert_array_equal(image, expected[3:11, 1:9])


def test_grey_pixels_are_those_of_a_grey_picture(config):
  given, single = inputs.of_python(GREY, config.dataset)
  ((image,), _) = crops(given, config)
  ((other,), _) = crops(inputs.of_python(Image.fromarray(GREY), config.dataset)[0], config)
  assert single and given.names == ["image"]
  np.testing.assert_array_equal(image, other)
  np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_what_is_transparent_lies_on_the_runs_background(config):
  clear = Image.new("RGBA", (8, 8), (200, 200, 200, 0))
  config.dataset.crop_fraction = 1.0
  (image,), _ = crops(inputs.of_python(clear, config.dataset)[0], config)
  assert (image == (10, 20, 30)).all()


def test_a_batch_is_a_list_of_its_images(config):
  batch = np.stack([COLOUR, COLOUR[::-1]])
  for each in (batch, list(batch), tuple(batch), iter(batch), jnp.asarray(batch)):
    given, single = inputs.of_python(each, config.dataset)
    assert not single and given.names == ["images[0]", "images[1]"]
    found, _ = crops(given, config)
    np.testing.assert_array_equal(
      found[0], crops(inputs.of_python([COLOUR], config.dataset)[0], config)[0][0]
    )
    assert (found[0] != found[1]).any()
  for none in ([], np.empty((0, 5, 5, 3), np.uint8)):
    given, single = inputs.of_python(none, config.dataset)
    assert not single and len(given) == 0


@pytest.mark.parametrize(
  ("given", "words"),
  [
    (np.zeros((4, 4, 3)), "image: got float64 4x4x3; give uint8 levels from 0 to 255"),
    (np.zeros((4, 4), bool), "image: got bool 4x4; give uint8"),
    (np.zeros((4, 4, 4), np.uint8), "image: got an array of 4x4x4; give [height, width, 3]"),
    (np.zeros((4, 4, 1), np.uint8), "image: got an array of 4x4x1"),
    (np.zeros((0, 4, 3), np.uint8), "image: got an array of 0x4x3"),
    (np.zeros(3, np.uint8), "image: got an array of 3"),
    (np.zeros((2, 4, 4, 1), np.uint8), "images[0]: got an array of 4x4x1"),
    ([COLOUR, np.zeros((4, 4), np.int64)], "images[1]: got int64 4x4"),
    ([COLOUR, None], "images[1]: got NoneType; give paths, uint8 arrays or Pillow images"),
    ([b"x.png"], "images[0]: got bytes"),
    (5, "images: got int; give paths"),
    (None, "images: got NoneType"),
  ],
)
def test_what_is_no_image_is_refused_before_anything_is_read(config, given, words):
  with pytest.raises(UserError) as refused:
    inputs.of_python(given, config.dataset)
  assert str(refused.value).startswith(words) and "\n" not in str(refused.value)


def test_what_cannot_be_read_keeps_its_place_and_a_reason(tmp_path, config):
  (tmp_path / "text.png").write_text("no image")
  Image.fromarray(GREY).save(tmp_path / "good.png")
  cut = io.BytesIO((tmp_path / "good.png").read_bytes()[:-30])
  each = [
    *("gone.png", tmp_path / "text.png", tmp_path / "good.png", tmp_path, "nul\0.png"),
    *(Image.open(cut), Image.new("RGB", (100, 11)), Image.fromarray(GREY)),
  ]
  given, _ = inputs.of_python(each, config.dataset)
  found, errors = crops(given, config)
  assert [image is not None for image in found] == [i in (2, 7) for i in range(8)]
  assert set(errors) == {0, 1, 3, 4, 5, 6}
  assert errors[0] == "gone.png: cannot be read (No such file or directory)"
  assert errors[1].startswith(f"{tmp_path}/text.png: cannot be decoded as an image (")
  assert errors[3] == f"{tmp_path}: cannot be read (Is a directory)"
  assert errors[4] == "nul\0.png: cannot be read (embedded null byte)"
  assert errors[5].startswith("images[5]: cannot be decoded as an image (")
  assert "it has 100 x 11 pixels, where 1 to 1000 are allowed" in errors[6]


def test_a_link_out_of_a_named_folder_is_not_followed_by_its_folder_or_itself(tmp_path, config):
  outside, inside = tmp_path / "outside", tmp_path / "inside"
  outside.mkdir()
  inside.mkdir()
  Image.fromarray(GREY).save(outside / "x.png")
  Image.fromarray(GREY).save(inside / "y.png")
  (inside / "folder").symlink_to(outside)
  (inside / "link.png").symlink_to(outside / "x.png")
  (inside / "within.png").symlink_to("y.png")
  root = os.path.realpath(inside)
  files = ("folder/x.png", "link.png", "within.png", "y.png")
  listed = [Listed(inside / name, root) for name in files]
  given = inputs.of_files([*listed, Listed(inside / "link.png", None)], config.dataset)
  found, errors = crops(given, config)
  assert [image is not None for image in found] == [False, False, True, True, True]
  for index in (0, 1):
    assert errors[index].endswith("(a link that leads nowhere or out of the folder)")
  assert image_paths.find([f"{inside}/*/x.png"]) == listed[:1]


def test_the_same_opened_image_may_be_there_many_times(tmp_path, config):
  config.dataset.threads, config.dataset.max_pixels = 4, 10**6
  picture = RNG.integers(0, 256, (300, 400, 3), np.uint8)
  Image.fromarray(picture).save(tmp_path / "x.png")
  with Image.open(tmp_path / "x.png") as image:
    given, _ = inputs.of_python([image] * 32, config.dataset)
    batches = list(loader.prefetch(loader.eval_batches(given, config, 1), config))
  ((expected,), _) = crops(inputs.of_python(picture, config.dataset)[0], config)
  for batch in batches:
    np.testing.assert_array_equal(batch["image"][0], expected)


def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch, config):
  monkeypatch.chdir(tmp_path)
  for name in ("-", "@x", "*.png", "~"):
    Image.fromarray(GREY).save(pathlib.Path(name), "PNG")
    given, single = inputs.of_python(name, config.dataset)
    assert single and crops(given, config)[1] == {}
