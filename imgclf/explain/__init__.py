"""Why a model said what it said: heat maps over the pixels of an image, and how far they can be
trusted.

    run = imgclf.load("runs/digits")
    maps = explain.heatmaps(run, images, classes, method="occlusion")
    picture = explain.overlay(images[0], maps[0])

Everything works on a restored run and images as evaluation crops them, on one device, in parts
whose memory is bounded. It computes in float32 also where the run computes in bfloat16, whose
gradients would be noise. What a map is worth is measured by `deletion_insertion`, and by
`rank_correlation` with the map of a `redrawn` run. Knows no mode.
"""

from collections.abc import Callable, Mapping
import difflib
from typing import Any

import numpy as np

from imgclf.errors import UserError
from imgclf.explain.gradcam import gradcam
from imgclf.explain.gradients import Integrated, integrate, integrated_gradients, smoothgrad
from imgclf.explain.network import Network
from imgclf.explain.occlusion import occlusion
from imgclf.explain.overlays import beside, overlay
from imgclf.explain.scores import Areas, deletion_insertion, rank_correlation, redrawn
from imgclf.run import Run

__all__ = [
  "METHODS",
  "Areas",
  "Integrated",
  "beside",
  "checked_method",
  "deletion_insertion",
  "heatmaps",
  "integrated",
  "overlay",
  "rank_correlation",
  "redrawn",
]

METHODS: Mapping[str, Callable[..., np.ndarray]] = {
  "gradcam": gradcam,
  "integrated_gradients": integrated_gradients,
  "smoothgrad": smoothgrad,
  "occlusion": occlusion,
}


def heatmaps(
  run: Run, images: np.ndarray, classes: np.ndarray, method: str = "gradcam", **options: Any
) -> np.ndarray:
  """Returns which pixels made a class's logit what it is, by one of `METHODS`.

  An image's map depends neither on the other images nor on its place among them.

  Args:
    run: as `imgclf.load` restores it.
    images: [batch, size, size, 3] uint8, as evaluation crops them.
    classes: [batch] int, whose logit to explain, for each image.
    method: of `METHODS`.
    **options: keyword arguments of the method's function, such as `baseline` or `patch`.

  Returns:
    [batch, size, size] float32, larger where a pixel speaks for the class. `integrated_gradients`
    and `occlusion` are in units of the logit and negative where a pixel speaks against it;
    `smoothgrad` is a slope and never negative; `gradcam` is in [0, 1].

  Raises:
    UserError: if there is no such method, or for a value that an option can't have.
    ValueError: for images or classes of another shape or type.
  """
  explained = METHODS[checked_method(method)]
  images, classes = _checked(run, images, classes)
  if not len(images):
    return np.zeros(images.shape[:3], np.float32)
  return explained(Network.of(run), images, classes, **options)


def integrated(run: Run, images: np.ndarray, classes: np.ndarray, **options: Any) -> Integrated:
  """Returns integrated gradients with how nearly they are complete.

  Args:
    run: as for `heatmaps`.
    images: as for `heatmaps`.
    classes: as for `heatmaps`.
    **options: of `imgclf.explain.gradients.integrate`: `baseline`, `steps`, `max_steps`,
      `tolerance`.

  Raises:
    UserError: for a value that an option can't have.
    ValueError: for images or classes of another shape or type.
  """
  images, classes = _checked(run, images, classes)
  return integrate(Network.of(run), images, classes, **options)


def checked_method(name: str, where: str = "method") -> str:
  """Returns the name of a method.

  Args:
    name: of `METHODS`.
    where: what the name was given as, for the error.

  Raises:
    UserError: if there is no such method.
  """
  if name in METHODS:
    return name
  near = difflib.get_close_matches(name, METHODS, 1)
  hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(METHODS)}"
  raise UserError(f"{where}={name}: no such method of explanation; {hint}")


def _checked(run: Run, images: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  size = run.config["dataset"]["image_size"]
  images, classes = np.asarray(images), np.asarray(classes)
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3):
    raise ValueError(
      f"images: got {images.dtype} {list(images.shape)}, needs uint8 [batch, {size}, {size}, 3]"
    )
  if classes.shape != images.shape[:1] or not np.issubdtype(classes.dtype, np.integer):
    raise ValueError(
      f"classes: got {classes.dtype} {list(classes.shape)}, needs integers [{len(images)}]"
    )
  if len(classes) and not 0 <= classes.min() <= classes.max() < len(run.classes):
    raise ValueError(
      f"classes: got {classes.min()} to {classes.max()}, needs 0 to {len(run.classes) - 1}"
    )
  return images, classes.astype(np.int32)
