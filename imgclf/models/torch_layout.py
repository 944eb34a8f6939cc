"""How a library lays a network out: what its modules are called for the paths of our layers.

Knows no network.
"""

from collections.abc import Callable, Mapping
import dataclasses
import re

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a library lays a network out.

  Attributes:
    library: `torchvision`, `timm`, or both where they agree.
    module: path of a layer, or of an array that belongs to none -> its name there; one that ends in
      `_` is joined without a dot to what its arrays are called.
    sides: dense layers that are given a flattened map, and its height and width. It is flattened as
      [height, width, channels] here, as [channels, height, width] there.
    convolutions: dense layers that are convolutions there, over the whole map or a single pixel.
    ones: arrays by their last name, and how many axes of length 1 they have there before and after
      ours.
    epsilon: what batch norm adds to the variance there, where `config.model.batch_norm_epsilon` can
      say so; none: what ours adds.
  """

  library: str
  module: Callable[[Path], str]
  sides: Mapping[str, int] = dataclasses.field(default_factory=dict)
  convolutions: tuple[str, ...] = ()
  ones: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
  epsilon: float | None = None


def place(name: str) -> tuple[int, int]:
  """Returns stage and number, from 1, of a block: (2, 3) for `stage2_block3` or `stage2_layer3`."""
  stage, number = re.fullmatch(r"stage(\d+)_[a-z]+(\d+)", name).groups()  # type: ignore[union-attr]
  return int(stage), int(number)


def between(name: str) -> tuple[int, str]:
  """Returns the stage and the kind of a layer between two stages: (2, `norm`) for `stage2_norm`."""
  stage, kind = re.fullmatch(r"stage(\d+)_([a-z]+)", name).groups()  # type: ignore[union-attr]
  return int(stage), kind
