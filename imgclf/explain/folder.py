"""The explanations of images that are predicted, as pictures in a folder: one PNG file for each
image.
"""

from collections.abc import Sequence
import io
import os
import pathlib
import re

import numpy as np

from imgclf import explain, output
from imgclf.errors import UserError
from imgclf.explain.gradients import TOLERANCE
from imgclf.run import Run

# Of a name within a folder 255 bytes are allowed, of which a letter may take four.
_LONGEST_STEM = 50


class Pictures:
  """Writes an image beside its heat map, for the class that is most probable.

  Attributes:
    method: of `imgclf.explain.METHODS`.
    folder: where the pictures go.
    written: how many there are by now.
    incomplete: of how many the integrated gradients miss the difference of the logits by more than
      1%.
  """

  def __init__(self, method: str | None, folder: str | os.PathLike | None):
    """Makes the folder, if it is not there.

    Raises:
      UserError: if one of the two is missing, or there is no such method, or the folder can't be
        made.
    """
    if method is None:
      raise UserError(f"--explain_dir={folder}: needs a method; add --explain=gradcam")
    self.method = explain.checked_method(method, "--explain")
    if not folder:
      raise UserError(
        f"--explain={method}: needs a folder for the pictures, such as --explain_dir=why"
      )
    self.folder = pathlib.Path(folder).expanduser()
    self.written = self.incomplete = 0
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise UserError(
        f"--explain_dir={self.folder}: no folder, and can't be made one ({error.strerror}); give another"
      ) from error

  def write(
    self,
    run: Run,
    images: np.ndarray,
    probabilities: np.ndarray,
    index: np.ndarray,
    names: Sequence[str],
  ) -> None:
    """Explains a batch and writes its pictures, each whole or not at all.

    Args:
      run: whose answers to explain.
      images: [n, size, size, 3] uint8, as the model saw them.
      probabilities: [n, classes] float32.
      index: [n] int, the places of the images among all.
      names: of all images, by place.

    Raises:
      UserError: if a picture can't be written.
    """
    classes = probabilities.argmax(axis=1)
    if self.method == "integrated_gradients":
      found = explain.integrated(run, images, classes)
      heatmaps = found.heatmaps
      self.incomplete += int(np.sum(~(found.gaps <= TOLERANCE)))
    else:
      heatmaps = explain.heatmaps(run, images, classes, self.method)
    for place, image, heatmap in zip(index.tolist(), images, heatmaps):
      data = io.BytesIO()
      explain.beside(image, heatmap).save(data, "PNG")
      output.write_whole(
        self.folder / file_name(place, names[place]), data.getvalue(), "--explain_dir"
      )
      self.written += 1

  def summary(self) -> str:
    """Returns what was done, in a line."""
    told = f"{self.written:,} explained by {self.method}; pictures in {self.folder}"
    if self.incomplete:
      told += f"; the sums of {self.incomplete:,} are more than 1% off the logits"
    return told


def file_name(place: int, name: str) -> str:
  """Returns a name that no other place has, and that is a plain name within a folder whatever it is
  made from.

  Args:
    place: of the image among all.
    name: of the image, such as its path.
  """
  stem = re.sub(r"[^\w-]", "_", pathlib.PurePath(name).stem)[:_LONGEST_STEM]
  return f"{place:06}-{stem}.png"
