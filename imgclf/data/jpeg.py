"""JPEG -> RGB pixels by simplejpeg, which is libjpeg-turbo and releases the interpreter's lock; the
only file that touches it.

What libjpeg warns of is told apart here: damage is an error, an oddity is left to another decoder.
"""

import re

import numpy as np
import simplejpeg

from imgclf.data.headers import Header

# libjpeg's warnings that mean pixels are missing or made up. Its others leave the picture whole:
# two files of ImageNet have a stray byte before the end marker, some cameras write odd scan
# parameters.
_DAMAGE = (
  "premature end",
  "bad huffman",
  "bad arithmetic",
  "instead of rst",
  "inconsistent progression",
)
# What libjpeg says of a scan that goes on after the rows it was told of.
_ROWS_LEFT = re.compile(r"Corrupt JPEG data: \d+ extraneous bytes before marker 0xd9")


def decode(data: bytes) -> np.ndarray | None:
  """Decodes a whole file.

  Returns:
    [height, width, 3] uint8 RGB, as stored, not turned upright; None where Pillow may do better.

  Raises:
    ValueError: it is damaged.
  """
  try:
    # Not strict, it would fill what is missing with grey and say nothing.
    return simplejpeg.decode_jpeg(data, "RGB", strict=True)
  except ValueError as error:
    if any(words in str(error).lower() for words in _DAMAGE):
      raise
    return None


def decode_rows(data: bytes, head: Header, rows: int, half: bool) -> tuple[np.ndarray | None, bool]:
  """Decodes the first rows of a file, perhaps at half the size.

  A decoder that reads fewer rows in the header stops after them. What it says then of the bytes
  that are left is expected; only its first warning is told, so that damage before comes out.

  Args:
    data: the encoded file.
    head: what its header says.
    rows: how many of them are needed.
    half: whether height and width are halved, rounded up.

  Returns:
    [some, width, 3] uint8 RGB, where some is `rows` or more, both halved where `half` is; None
    where the whole file must be decoded, which will also tell what is wrong with it. And whether
    libjpeg had nothing to say of them.
  """
  # One row more than needed: a row's colours are smoothed with those of the next.
  told = (rows // head.row_step + 1) * head.row_step if head.rows_at else head.height
  if told < head.height:
    data = data[: head.rows_at] + told.to_bytes(2, "big") + data[head.rows_at + 2 :]
  told, scale = min(told, head.height), 2 if half else 1
  shape = -(-told // scale), -(-head.width // scale)
  pixels = np.empty((*shape, 3), np.uint8)
  pixels[-1] = mark = np.arange(3 * shape[1]).reshape(-1, 3) * 89 % 256
  least = {"min_height": shape[0], "min_width": shape[1], "min_factor": 2} if half else {}
  clean = True
  try:
    found = simplejpeg.decode_jpeg(data, "RGB", strict=True, buffer=pixels, **least)
    if found.shape != pixels.shape:
      return None, False
  except Exception as error:  # what is wrong, decoding the whole will tell
    if not _ROWS_LEFT.fullmatch(str(error)) or (pixels[-1] == mark).all():
      return None, False
    clean = False
  return pixels, clean
