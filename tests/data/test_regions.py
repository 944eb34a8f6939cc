"""Windows of JPEGs by nvImageCodec have the pixels of a whole decode, to the bit.

Skipped where it is not installed.
"""

import io
import os
import subprocess
import sys
import tempfile
import types

import numpy as np
from PIL import Image
import pytest

from imgclf.data import images, regions

NOISE = np.random.default_rng(5).integers(0, 256, (157, 203, 3), np.uint8)
y, x = np.mgrid[:157, :203]
SMOOTH = np.stack([y, x, (x + y) // 2], -1).astype(np.uint8)
# Around the edges of blocks of 8 and 16 pixels, whose colours are smoothed with those beside them.
WINDOWS = [
  (0, 0, 157, 203),
  (0, 0, 1, 1),
  (156, 202, 1, 1),
  (15, 15, 2, 2),
  (16, 16, 16, 16),
  (17, 31, 33, 47),
  (100, 150, 57, 53),
]


installed = pytest.mark.skipif(not regions.is_available(), reason="nvImageCodec is not installed")


def jpeg(picture, **options):
  out = io.BytesIO()
  picture.save(out, "JPEG", **options)
  return out.getvalue()


@installed
@pytest.mark.parametrize(
  "options",
  [
    {"subsampling": "4:4:4"},
    {"subsampling": "4:2:2"},
    {"subsampling": "4:2:0"},
    {"progressive": True},
    {"restart_marker_blocks": 5},
    {"quality": 30},
    {"keep_rgb": True},
  ],
  ids=str,
)
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_a_window_has_the_bits_of_the_whole(options, window):
  top, left, height, width = window
  for pixels in (NOISE, SMOOTH, SMOOTH[:, :, 0]):
    data = jpeg(Image.fromarray(pixels), **options)
    part = regions.decode(data, *window)
    assert part is not None
    expected = images.decode(data, "x")[top : top + height, left : left + width]
    np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("cut", [2, 300, 5000])
def test_a_missing_end_is_no_window(cut):
  assert regions.decode(jpeg(Image.fromarray(NOISE))[:-cut], 0, 0, 20, 20) is None


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0"], ids=str)
def test_what_is_no_jpeg_is_no_window(data):
  assert regions.decode(data, 0, 0, 1, 1) is None


@installed
def test_what_lies_beyond_the_picture_is_no_window():
  data = jpeg(Image.fromarray(NOISE))
  assert regions.decode(data, 150, 0, 20, 20) is None


@pytest.mark.parametrize("packages", [[], ["cudnn"]])
def test_where_it_is_not_installed_there_is_no_window(packages, tmp_path, monkeypatch):
  for package in packages:  # as with JAX for GPUs
    (tmp_path / package).mkdir()
  nvidia = types.SimpleNamespace(__path__=[str(tmp_path)]) if packages else None
  monkeypatch.setitem(sys.modules, "nvidia", nvidia)
  monkeypatch.setattr(regions, "_codec", regions._codec.__wrapped__)
  assert not regions.is_available()
  assert regions.decode(jpeg(Image.fromarray(NOISE)), 0, 0, 20, 20) is None


@installed
def test_where_nothing_can_be_written_there_is_no_window(monkeypatch):
  def full():
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(tempfile, "TemporaryDirectory", full)
  monkeypatch.setattr(regions, "_codec", regions._codec.__wrapped__)
  before = dict(os.environ)
  assert regions.decode(jpeg(Image.fromarray(NOISE)), 0, 0, 20, 20) is None
  assert dict(os.environ) == before


@installed
def test_nothing_is_printed_and_the_environment_stays():
  program = """
import io, os, sys
from PIL import Image
from imgclf.data import regions
before = dict(os.environ)
out = io.BytesIO()
Image.new("RGB", (30, 20)).save(out, "JPEG")
assert regions.decode(out.getvalue(), 1, 2, 3, 4).shape == (3, 4, 3)
assert regions.decode(out.getvalue()[:-2], 1, 2, 3, 4) is None
assert regions.decode(b"", 1, 2, 3, 4) is None
assert dict(os.environ) == before
"""
  run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
  assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
