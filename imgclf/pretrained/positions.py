"""Learnt positions of patches for a picture of another size. Knows no network and no file."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def side(tokens: int) -> int | None:
  """Returns how many patches lie along each side of a square picture; None where there is none with
  so many tokens.

  Args:
    tokens: one for the class, and one for each patch.
  """
  found = math.isqrt(max(tokens - 1, 0))
  return found if found and found**2 == tokens - 1 else None


def resample(positions: np.ndarray, tokens: int) -> np.ndarray:
  """Resamples the patches' part as a picture, cubically (Keys 1981, a = -0.5) with antialiasing;
  the class's stays.

  As timm does it, and Pillow's BICUBIC.

  Args:
    positions: [tokens before, width] floats: the class's, then a square picture's row by row.
    tokens: how many there have to be, of a square picture as well.

  Returns:
    [tokens, width] float32.
  """
  before, after, width = side(len(positions)), side(tokens), positions.shape[-1]
  assert before and after, (len(positions), tokens)
  first, rest = jnp.split(jnp.asarray(positions, jnp.float32), [1])
  picture: Any = jax.image.resize(
    rest.reshape(before, before, width), (after, after, width), "cubic", antialias=True
  )
  return np.asarray(jnp.concatenate([first, picture.reshape(-1, width)]))
