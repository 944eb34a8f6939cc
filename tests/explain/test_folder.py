import os
import re

import numpy as np
from PIL import Image
import pytest

import imgclf
from imgclf import app, command_line, explain
from imgclf.data import datasets
from imgclf.errors import UserError
from imgclf.explain import folder as folders
from imgclf.explain.folder import Pictures, file_name


def test_names_never_collide_and_never_leave_the_folder(tmp_path):
  names = [
    *("cat.png", "a/cat.png", "b/cat.jpg", "../../cat.png", "/etc/passwd", "..", "", ".", "a/.."),
    *("x" * 300 + ".png", "山" * 300, "\udcff\x1b[2J\n.png", "con", "a\\b:c*?.png", "images[3]"),
  ]
  found = [file_name(place, name) for place, name in enumerate([*names, *names])]
  assert len({name.lower() for name in found}) == 2 * len(names)
  for place, name in enumerate(found):
    assert re.fullmatch(rf"{place:06}-[\w-]*\.png", name)
    # As it is while it is written.
    (tmp_path / f"{name}.unfinished").touch()
  assert len(os.listdir(tmp_path)) == len(found)
  assert file_name(3, "photos/cat 1.tar.png") == "000003-cat_1_tar.png"


@pytest.fixture(scope="module")
def digit(tmp_path_factory, trained):
  """Two test digits of one name, in folders of their own, beside a file that is no image."""
  root = tmp_path_factory.mktemp("digits")
  records = datasets.open(imgclf.load(trained).config["dataset"]).records("test")
  for i, name in enumerate("ab"):
    (root / name).mkdir()
    (root / name / "digit.png").write_bytes(records[i].data)
  (root / "a" / "broken.png").write_bytes(b"none")
  return root


@pytest.mark.parametrize("method", ["gradcam", "integrated_gradients"])
def test_prediction_leaves_a_picture_of_each_image_that_could_be_read(
  trained, digit, tmp_path, capsys, method
):
  why = tmp_path / "deep" / "why"
  command = [
    *("--mode=predict", f"--workdir={trained}", f"--images={digit}"),
    *(f"--output={tmp_path / 'out.csv'}", f"--explain={method}", f"--explain_dir={why}"),
  ]
  assert app.main(command) == 0
  # Places are those of the rows: the file that can't be read has the first.
  assert sorted(os.listdir(why)) == ["000001-digit.png", "000002-digit.png"]
  said = capsys.readouterr().out.splitlines()
  assert said[-1] == f"2 explained by {method}; pictures in {why}"
  run = imgclf.load(trained)
  answers = run.predict([str(digit / name / "digit.png") for name in "ab"])
  for picture, answer, name in zip(sorted(why.iterdir()), answers, "ab"):
    image = np.asarray(Image.open(digit / name / "digit.png").convert("RGB").resize((32, 32), 2))
    label = np.array([run.classes.index(answer.label)])
    heatmap = explain.heatmaps(run, image[None], label, method)[0]
    found = np.asarray(Image.open(picture), float)
    expected = np.asarray(explain.beside(image, heatmap), float)
    assert found.shape == expected.shape == (224, 2 * 224 + 8, 3)
    # The two are explained in batches of other sizes, which may add in another order.
    assert np.abs(found - expected).max() <= 1


def test_sums_that_are_off_are_told(trained, tmp_path, monkeypatch):
  run = imgclf.load(trained)
  images, probabilities = np.zeros((3, 32, 32, 3), np.uint8), np.eye(10, dtype=np.float32)[:3]
  gaps = np.array([0.02, 0.001, np.nan])
  found = explain.Integrated(np.zeros((3, 32, 32), np.float32), gaps, gaps, gaps)
  monkeypatch.setattr(folders.explain, "integrated", lambda *_: found)
  pictures = Pictures("integrated_gradients", tmp_path / "why")
  pictures.write(run, images, probabilities, np.arange(3), ["a", "b", "c"])
  assert pictures.summary() == (
    f"3 explained by integrated_gradients; pictures in {tmp_path / 'why'}; "
    "the sums of 2 are more than 1% off the logits"
  )


def test_what_is_missing_or_wrong_is_told_before_anything_is_read(tmp_path):
  (tmp_path / "file").touch()
  for method, folder, words in (
    ("gradcm", tmp_path / "why", "--explain=gradcm: no such method .* did you mean gradcam"),
    ("gradcam", None, "--explain=gradcam: needs a folder for the pictures"),
    (None, tmp_path / "why", r"--explain_dir=\S*why: needs a method; add --explain=gradcam"),
    ("gradcam", tmp_path / "file", r"--explain_dir=\S*file: no folder, and can't be made one"),
    ("gradcam", tmp_path / "file" / "why", r"can't be made one \(Not a directory\)"),
  ):
    with pytest.raises(UserError, match=words):
      imgclf.predict(
        tmp_path / "no run", images=[str(tmp_path / "file")], explain=method, explain_dir=folder
      )
  assert not (tmp_path / "why").exists()


def test_a_picture_that_can_not_be_written_leaves_none(trained, tmp_path, monkeypatch):
  def full(*_):
    raise OSError(28, "No space left on device")

  pictures = Pictures("gradcam", tmp_path)
  monkeypatch.setattr(os, "replace", full)
  images, probabilities = np.zeros((1, 32, 32, 3), np.uint8), np.eye(10, dtype=np.float32)[:1]
  with pytest.raises(
    UserError, match=r"--explain_dir=\S*000000-a\.png: can't be written \(No space"
  ):
    pictures.write(imgclf.load(trained), images, probabilities, np.arange(1), ["a"])
  assert os.listdir(tmp_path) == [] and pictures.written == 0


def test_the_help_names_the_methods():
  meaning = command_line.define_flags()["explain"].help
  assert all(method in meaning for method in explain.METHODS)
