import hashlib
import json
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from imgclf import safetensors_file
from imgclf.errors import UserError


def written(path, entries):
  """A file by the format's own description: the header's length, the header, the bytes of the
  arrays."""
  header, data = {}, b""
  for name, (kind, shape, raw) in entries.items():
    header[name] = {
      "dtype": kind,
      "shape": shape,
      "data_offsets": [len(data), len(data) + len(raw)],
    }
    data += raw
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + data)
  return path


@pytest.fixture
def file(tmp_path):
  halves = np.array([1.5, -2.0, 0.1], np.float16)
  brains = np.array([3.0, 1e30], ml_dtypes.bfloat16)
  return written(
    tmp_path / "weights.safetensors",
    {
      "a": ("F16", [3, 1], halves.tobytes()),
      "b": ("BF16", [2], brains.tobytes()),
      "n": ("I64", [], np.int64(7).tobytes()),
    },
  )


def test_a_file_is_read_as_the_format_is_described(file):
  assert safetensors_file.header(file, "file") == {
    "a": ((3, 1), "F16"),
    "b": ((2,), "BF16"),
    "n": ((), "I64"),
  }
  arrays, digest = safetensors_file.read(file, "file")
  assert sorted(arrays) == ["a", "b"]
  # The nearest numbers to 0.1 and 1e30 with 11 and 8 binary digits.
  np.testing.assert_array_equal(arrays["a"].astype(float), [[1.5], [-2.0], [0.0999755859375]])
  np.testing.assert_array_equal(arrays["b"].astype(float), [3.0, 202 * 2.0**92])
  assert digest == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_is_written_is_read_back_to_the_bit(tmp_path):
  x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  safetensors_file.write(tmp_path / "w.safetensors", {"x": x.T, "n": np.int64(0)[None][0:1]})
  arrays, _ = safetensors_file.read(tmp_path / "w.safetensors", "w")
  np.testing.assert_array_equal(arrays["x"], x.T)
  # PyTorch's programs look for it.
  assert b'"format":"pt"' in (tmp_path / "w.safetensors").read_bytes()[:200]


def test_a_pickle_is_not_opened_whatever_it_is_called(tmp_path):
  path = tmp_path / "weights.safetensors"
  for protocol in (2, 5):
    path.write_bytes(pickle.dumps({"a": np.ones(3)}, protocol))
    with pytest.raises(UserError, match=r"^it: is a pickle.*weights_only=True"):
      safetensors_file.header(path, "it")
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", b"cos\nsystem\n(S'touch /tmp/x'\ntR.")
  with pytest.raises(UserError, match="is a pickle"):
    safetensors_file.read(path, "it")


@pytest.mark.parametrize("cut", [0, 5, 40, -1])
def test_a_cut_file_is_refused(file, cut):
  file.write_bytes(file.read_bytes()[:cut])
  with pytest.raises(UserError, match=r"^it: is no whole safetensors file \(.*\); fetch it anew"):
    safetensors_file.header(file, "it")


def test_another_file_and_none_are_refused(tmp_path):
  (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" * 50)
  with pytest.raises(UserError, match="is no whole safetensors file"):
    safetensors_file.header(tmp_path / "photo.jpg", "it")
  with pytest.raises(UserError, match=r"^it: can't be read \(No such file or directory\)"):
    safetensors_file.header(tmp_path / "none", "it")
  with pytest.raises(UserError, match=r"^it: can't be read \(Is a directory\)"):
    safetensors_file.header(tmp_path, "it")
