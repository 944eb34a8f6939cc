"""`digits`: scikit-learn's handwritten digits as a TFDS set that is prepared without TensorFlow or
network.

1,797 scans of 43 people's digits, 8 x 8 pixels of 17 grey values, from the UCI repository's
"Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998; the part that UCI
calls test); they ship in scikit-learn's wheel.
"""

from collections.abc import Iterator
import contextlib
import io
import os
import pathlib
import shutil
import tempfile
from typing import Any, ClassVar

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

from imgclf.errors import UserError

NAME, VERSION = "digits", "1.0.0"
TEST_SIZE = 360


def arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Returns `train` (1,437) and `test` (360) as (images [n, 8, 8] uint8, labels [n] int64).

  The split is drawn once and for all: stratified by class, `random_state=0`. Values 0..16 are
  scaled to 0..255 and rounded.
  """
  # scikit-learn takes a second to import, and is needed only while there is no prepared set.
  from sklearn.datasets import load_digits
  from sklearn.model_selection import train_test_split

  images, labels = load_digits(return_X_y=True)
  images = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
  train, test = train_test_split(
    np.arange(len(labels)), test_size=TEST_SIZE, stratify=labels, random_state=0
  )
  return {"train": (images[train], labels[train]), "test": (images[test], labels[test])}


class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """The TFDS builder; `prepare` runs it."""

  VERSION = tfds.core.Version(VERSION)
  # TFDS would look for a file of download checksums beside this module, with a package that may be
  # absent.
  url_infos: ClassVar[dict[str, Any]] = {}

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="Handwritten digits, 8 x 8 pixels, as they ship with scikit-learn.",
      homepage="https://archive.ics.uci.edu/dataset/80",
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(8, 8, 1)),
          "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
        }
      ),
      supervised_keys=("image", "label"),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    del dl_manager  # nothing is downloaded
    return {split: self._generate_examples(*pair) for split, pair in arrays().items()}

  def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator:
    for key, (image, label) in enumerate(zip(images, labels)):
      file = io.BytesIO()
      Image.fromarray(image).save(file, "png")
      file.seek(0)
      # TFDS encodes arrays with TensorFlow, and passes files through.
      yield key, {"image": file, "label": int(label)}


def prepare(data_dir: pathlib.Path) -> None:
  """Writes the set below `data_dir`, unless it is there. Takes under a second.

  Several processes may do so at once: each writes into a folder of its own, the first to finish
  moves it into place, and the others find it there.

  Raises:
    UserError: if `data_dir` can't be written.
  """
  place = data_dir / NAME / VERSION
  if place.exists():
    return
  try:
    place.parent.mkdir(parents=True, exist_ok=True)
    own = pathlib.Path(tempfile.mkdtemp(prefix="incomplete.", dir=place.parent))
    try:
      builder = Digits(data_dir=str(own), file_format="array_record")
      # TFDS speaks of a download of unknown size, which would only puzzle.
      with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder.download_and_prepare(
          download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
      try:
        os.rename(builder.data_path, place)
      except OSError:
        if not place.exists():  # a full folder in its place can't be replaced, which is as well
          raise
    finally:
      shutil.rmtree(own, ignore_errors=True)
  except OSError as error:
    raise UserError(
      f"{data_dir}: the digits can't be written there ({error.strerror or error}); give a folder that "
      "can, --config.dataset.data_dir=DIR"
    ) from error
