"""Files of arrays in the safetensors format, read as data: names, shapes and numbers, nothing that
could run.

Knows no network. Other formats of weights are pickles, which are programs, and are refused by their
first bytes.
"""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import pathlib
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from imgclf.errors import UserError

# As the format calls them: those that become float32 or float64 without loss.
FLOATS = ("F16", "BF16", "F32", "F64")

CONVERT = (
  "convert it where you trust it: safetensors.torch.save_file(torch.load(PATH, weights_only=True), "
  "'PATH.safetensors')"
)

Leaf = tuple[tuple[int, ...], str]  # shape, and type as the format calls it


def header(path: pathlib.Path, where: str) -> dict[str, Leaf]:
  """Returns shape and type of each array in a file, without reading any.

  Args:
    path: the file.
    where: how an error calls it.

  Raises:
    UserError: if it is not there, or no whole file of this format.
  """
  with _opened(path, where) as file:
    slices = {name: file.get_slice(name) for name in file.keys()}
    return {name: (tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()}


def read(path: pathlib.Path, where: str) -> tuple[dict[str, np.ndarray], str]:
  """Returns the arrays of floats in a file, and the SHA-256 of the file in hexadecimal.

  Raises:
    UserError: see `header`.
  """
  with _opened(path, where) as file:
    arrays = {
      name: file.get_tensor(name)
      for name in file.keys()
      if file.get_slice(name).get_dtype() in FLOATS
    }
  with open(path, "rb") as raw:
    return arrays, hashlib.file_digest(raw, "sha256").hexdigest()


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes arrays by name, marked as PyTorch's programs expect it.

  Raises:
    OSError: if the file can't be written.
  """
  whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
  save_file(whole, path, metadata={"format": "pt"})


@contextlib.contextmanager
def _opened(path: pathlib.Path, where: str) -> Iterator[Any]:
  try:
    with open(path, "rb") as raw:
      start = raw.read(8)
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or error
    raise UserError(f"{where}: can't be read ({reason}); give a file that is there") from None
  # A zip, as torch.save writes it; or a bare pickle of protocol 2 or later, as it did before.
  if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
    raise UserError(
      f"{where}: is a pickle, which could run anything, and is never opened; {CONVERT}"
    )
  try:
    with safe_open(path, framework="numpy") as file:
      yield file
  except SafetensorError as error:
    raise UserError(
      f"{where}: is no whole safetensors file ({error}); fetch it anew, or give one"
    ) from None
