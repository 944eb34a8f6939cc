"""Windows of JPEGs by nvImageCodec, where that is installed: what lies beside one is not made.

libjpeg-turbo can leave out the transform and the colours of rows and columns, and this is the
maintained way there. The pixels are those of a whole decode, to the bit. Damage is not told but for
a missing end, so only files that another decoder has read whole may come here. Knows no config.
"""

import functools
import os
import pathlib
import tempfile
import threading
from typing import Any

import numpy as np

_LOCK = threading.Lock()
# A decoder takes 25 us to make and starts no thread.
_OF_THREAD = threading.local()


def is_available() -> bool:
  """Whether nvImageCodec is installed."""
  with _LOCK:
    return _codec() is not None


def decode(data: bytes, top: int, left: int, height: int, width: int) -> np.ndarray | None:
  """Returns a window of an undamaged baseline or progressive JPEG.

  Args:
    data: the file: grey or RGB, without EXIF orientation.
    top: first row of the window.
    left: its first column.
    height: its rows.
    width: its columns.

  Returns:
    [height, width, 3] uint8 RGB; None where nvImageCodec is not installed or can't tell.
  """
  with _LOCK:
    codec = _codec()
  # A file may have lost its end since it was read whole, which shows in no row above that.
  if codec is None or not data.endswith(b"\xff\xd9"):
    return None
  if not hasattr(_OF_THREAD, "decoder"):
    _OF_THREAD.decoder = codec.Decoder(
      device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY,
      max_num_cpu_threads=1,
      backends=[codec.Backend(codec.CPU_ONLY)],
    )
    _OF_THREAD.params = codec.DecodeParams(apply_exif_orientation=False)
  try:
    region = codec.Region(top, left, top + height, left + width)
    window = codec.CodeStream(data).get_sub_code_stream(region=region)
    image = _OF_THREAD.decoder.decode(window, params=_OF_THREAD.params)
  except RuntimeError:  # a file that its parser does not take
    return None
  pixels = None if image is None else np.asarray(image)
  if pixels is None or pixels.shape != (height, width, 3) or pixels.dtype != np.uint8:
    return None
  return pixels


@functools.cache
def _codec() -> Any:
  """nvImageCodec with libjpeg-turbo alone, or None.

  As it comes it looks for NVIDIA's decoders, too, and prints half a screen on each that is not
  there. What a process has loaded already stays as it is.
  """
  try:
    import nvidia
  except ImportError:
    return None
  found = [
    library
    for path in nvidia.__path__
    for library in pathlib.Path(path, "nvimgcodec", "extensions").glob("libjpeg_turbo_ext*")
  ]
  if not found:
    return None
  before = dict(os.environ)
  try:
    with tempfile.TemporaryDirectory() as folder:
      pathlib.Path(folder, found[0].name).symlink_to(found[0])
      os.environ.update(PYNVIMGCODEC_VERBOSITY="0", NVIMGCODEC_EXTENSIONS_PATH=folder)
      from nvidia import nvimgcodec
  except (ImportError, OSError):  # for another machine, say, or the disk is full
    return None
  finally:
    for name in ("PYNVIMGCODEC_VERBOSITY", "NVIMGCODEC_EXTENSIONS_PATH"):
      os.environ.pop(name, None)
      if name in before:
        os.environ[name] = before[name]
  return nvimgcodec
