"""Which file lies where in a run folder.

Touches no file, and knows nothing of what is in one.
"""

import dataclasses
import hashlib
import os
import pathlib
import urllib.parse


@dataclasses.dataclass(frozen=True, init=False)
class RunPaths:
  """Paths in the folder that `--workdir` names. Making them touches no file; `~` is the home.

  Attributes:
    path: the folder.
  """

  path: pathlib.Path

  def __init__(self, path: str | os.PathLike[str]):
    object.__setattr__(self, "path", pathlib.Path(path).expanduser())

  @property
  def config(self) -> pathlib.Path:
    """The run's resolved config, JSON."""
    return self.path / "config.json"

  @property
  def classes(self) -> pathlib.Path:
    """Names of the classes by label, a JSON list."""
    return self.path / "classes.json"

  @property
  def dataset(self) -> pathlib.Path:
    """Number of examples in each split of the data set as the run found it, a JSON object."""
    return self.path / "dataset.json"

  @property
  def checkpoints(self) -> pathlib.Path:
    """The folder of checkpoints, one folder a step."""
    return self.path / "checkpoints"

  @property
  def lock(self) -> pathlib.Path:
    """Who trains in this folder; see `imgclf.lock`."""
    return self.path / "lock"

  @property
  def bad_images(self) -> pathlib.Path:
    """Images that could not be decoded and were skipped, one JSON object a line."""
    return self.path / "bad_images.jsonl"

  @property
  def diverged(self) -> pathlib.Path:
    """The step at which the run diverged and the examples of its batch, JSON."""
    return self.path / "diverged.json"

  @property
  def metrics(self) -> pathlib.Path:
    """Figures of the run, one JSON object a line."""
    return self.path / "metrics.jsonl"

  @property
  def weights(self) -> pathlib.Path:
    """Where the weights that the run began with came from, JSON."""
    return self.path / "weights.json"

  @property
  def teacher(self) -> pathlib.Path:
    """Which checkpoint of another run teaches this one, JSON."""
    return self.path / "teacher.json"

  @property
  def tensorboard(self) -> pathlib.Path:
    """The folder of TensorBoard event files."""
    return self.path / "tensorboard"

  @property
  def report(self) -> pathlib.Path:
    """The page on the run that `--mode=report` writes unless another file is named."""
    return self.path / "report.html"

  def evaluation(self, split: str, step: int) -> pathlib.Path:
    """Where the evaluation of a split at a step lies.

    Characters of a split expression that a file name can't hold are written as in a URL, so that
    two splits never share a file: `train[:90%]` at step 300 is `eval/train%5B%3A90%25%5D-300.json`.
    """
    name = urllib.parse.quote(split, safe="")
    if len(name) > 150:  # file systems stop at 255 bytes; the hash keeps two long names apart
      name = f"{name[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return self.path / "eval" / f"{name}-{step}.json"

  def calibration(self, step: int) -> pathlib.Path:
    """Where the temperature that was fitted to a step's checkpoint lies."""
    return self.path / "calibration" / f"{step}.json"
