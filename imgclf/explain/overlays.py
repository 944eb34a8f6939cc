"""Heat maps as pictures. Knows no model.

Both scales of colour grow lighter from end to end, so that they read the same to the colour-blind
and on a grey print; the picture below is grey and of little contrast, so that it does not pass for
heat.
"""

import numpy as np
from PIL import Image

# From no heat to most of it: black, violet, red, orange, pale yellow.
SEQUENTIAL = ((0, 0, 10), (80, 18, 123), (182, 54, 121), (251, 136, 97), (252, 253, 191))
# From against to for: dark blue, grey, light orange. Blue and orange are apart for every kind of
# colour blindness.
DIVERGING = ((0, 30, 105), (32, 84, 158), (128, 128, 128), (240, 164, 64), (255, 224, 150))

# How much of a pixel is heat. The rest is the picture, its levels from these two.
_HEAT, _DARK, _LIGHT = 0.65, 40, 215
SIDE, GAP = 224, 8


def overlay(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
  """Lays a heat map over its image.

  A map without negative values runs from black to pale yellow, another from blue (against the
  class) over grey to orange (for it). The scale ends at the heat that 99% of the pixels do not
  exceed, lest a single one leave all others dark.

  Args:
    image: [size, size, 3] uint8.
    heatmap: [size, size] floats.

  Returns:
    [size, size, 3] uint8.

  Raises:
    ValueError: if the two are of different sizes.
  """
  image, heatmap = np.asarray(image), np.asarray(heatmap, np.float64)
  if image.shape != (*heatmap.shape, 3):
    raise ValueError(f"heatmap: got {list(heatmap.shape)} for an image of {list(image.shape)}")
  signed = heatmap.min() < 0
  end = np.percentile(np.abs(heatmap), 99) or np.abs(heatmap).max() or 1.0
  share = np.clip(heatmap / end, -1, 1)
  colours = np.array(DIVERGING if signed else SEQUENTIAL, np.float64)
  stops = np.linspace(-1 if signed else 0, 1, len(colours))
  colour = np.stack([np.interp(share, stops, channel) for channel in colours.T], axis=-1)
  # Luma of ITU-R BT.601, as Pillow's grey images have it.
  grey = _DARK + image @ np.array([0.299, 0.587, 0.114]) / 255 * (_LIGHT - _DARK)
  return np.round(_HEAT * colour + (1 - _HEAT) * grey[..., None]).astype(np.uint8)


def beside(image: np.ndarray, heatmap: np.ndarray) -> Image.Image:
  """Draws an image and its overlay side by side, small ones enlarged by a whole number.

  Args:
    image: [size, size, 3] uint8.
    heatmap: [size, size] floats.

  Returns:
    An RGB picture.
  """
  side = len(image) * -(-SIDE // len(image))
  page = Image.new("RGB", (2 * side + GAP, side), "white")
  for number, pixels in enumerate((image, overlay(image, heatmap))):
    shown = Image.fromarray(np.asarray(pixels)).resize((side, side), Image.Resampling.NEAREST)
    page.paste(shown, (number * (side + GAP), 0))
  return page
