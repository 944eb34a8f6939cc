"""A contact sheet of training examples as the step sees them: augmentations are looked at, not
read.

It goes through the loader's crops and `imgclf.steps.augmented`, which is what the training step
calls.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgclf import augment, losses, steps
from imgclf.data import datasets, images, label_sets, loader
from imgclf.text import printable

ROWS = 8  # examples: an even number, so that each has its partner in a mix
VERSIONS = 7  # of each example

# Pictures are shown within these sides, in pixels: small ones enlarged by a whole number, large
# ones reduced.
_SMALLEST, _LARGEST = 96, 224
_MARGIN, _LINE, _FONT_SIZE = 4, 13, 11


def sheet(
  records: datasets.Records, classes: Sequence[str], config: Mapping[str, Any]
) -> Image.Image:
  """Draws the first examples of the first training batch, a row each.

  A row begins with the example as evaluation would crop it. The others are that example in steps 1,
  2, …: the first of them is what step 1 trains on, and the others are what it would be in later
  steps. Labels stand below, those of a mix with their weights.

  Args:
    records: the train split.
    classes: names by label.
    config: a validated config that a run could have.

  Returns:
    An RGB picture.
  """
  examples = loader.train_examples(records, config, 0, ROWS)
  if augment.mixes(config["augment"]):
    examples = examples[: len(examples) // 2 * 2]
  size = config["dataset"]["image_size"]
  names = [_name(record.label, classes) for record in examples]
  whole = [_cropped(size, loader.eval_crop(config), record) for record in examples]
  columns = [("no augmentation", [pixels for pixels, _ in whole], names)]
  seen_by_step = jax.jit(
    lambda batch, step: steps.augmented(
      batch, config["seed"], step, config["augment"], jnp.dtype(config["model"]["dtype"])
    )[:2]
  )
  crop = loader.train_crop(config)
  label = label_sets.blank(len(examples), loader.label_shape(records))
  label[...] = [record.label for record in examples]
  for step in range(VERSIONS):
    cropped = [
      _cropped(size, crop, record, step * config["train"]["batch_size"] + position)
      for position, record in enumerate(examples)
    ]
    batch = {
      "image": np.stack([pixels for pixels, _ in cropped]),
      "label": label,
      "position": np.arange(len(examples), dtype=np.int32),
      "mask": np.array([readable for _, readable in cropped]),
    }
    if config["augment"]["flip_alternate"]:
      # In step 1 as in training; then the other way each time, as in the epochs after it.
      order = loader.example_order(records, config)
      batch["mirror"] = loader.mirrored(order, config, 0, batch["position"]) ^ bool(step % 2)
    seen, targets = seen_by_step(batch, jnp.int32(step))
    captions = _captions(jax.device_get(targets), classes)
    columns.append((f"step {step + 1}", list(_pixels(seen, config["augment"])), captions))
  return _draw(columns)


def _cropped(
  size: int, crop: Callable, record: datasets.Record, *place: int
) -> tuple[np.ndarray, bool]:
  """The crop of a record, and whether there is one: what can't be decoded is blank, as in
  training.
  """
  try:
    return crop(record, *place), True
  except images.ImageError:
    return np.zeros((size, size, 3), np.uint8), False


def _pixels(seen: jax.Array, augment_config: Mapping[str, Any]) -> np.ndarray:
  """The images of a batch, [batch, height, width, 3], with the normalisation undone."""
  mean, std = (np.array(augment_config[name]) for name in ("mean", "std"))
  levels = (np.asarray(seen, np.float64) * std + mean) * 255
  return np.clip(np.round(levels), 0, 255).astype(np.uint8)


def _captions(targets: losses.Targets, classes: Sequence[str]) -> list[str]:
  """The label of each example; of a mix both, a line each, the shares in per cent."""
  names = [_name(label, classes) for label in targets.label]
  if targets.partner is None:
    return names
  captions = []
  for name, label, share in zip(names, targets.partner.label, targets.partner.weight):
    other = _name(label, classes)
    captions.append(f"{1 - share:.0%} {name}\n{share:.0%} {other}" if share else name)
  return captions


def _name(label: int | np.ndarray, classes: Sequence[str]) -> str:
  return printable(label_sets.words(label, classes), "latin-1")


def _draw(columns: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str]]]) -> Image.Image:
  """Lays columns of a heading, pictures and captions of up to two lines out on a white sheet."""
  side = len(columns[0][1][0])
  shown = min(side * max(1, -(-_SMALLEST // side)), _LARGEST)
  method = Image.Resampling.NEAREST if shown >= side else Image.Resampling.BILINEAR
  lines = max(caption.count("\n") + 1 for _, _, captions in columns for caption in captions)
  width, height = shown + _MARGIN, shown + _MARGIN + lines * _LINE
  top = _LINE + _MARGIN
  page = Image.new(
    "RGB", (len(columns) * width + _MARGIN, len(columns[0][1]) * height + top), "white"
  )
  draw, font = ImageDraw.Draw(page), ImageFont.load_default(_FONT_SIZE)

  def write(x: int, y: int, text: str) -> None:
    while text and draw.textlength(text, font=font) > shown:
      text = text[:-1]
    draw.text((x, y), text, fill="black", font=font)

  for column, (heading, pictures, captions) in enumerate(columns):
    x = _MARGIN + column * width
    write(x, 1, heading)
    for row, (pixels, caption) in enumerate(zip(pictures, captions)):
      y = top + row * height
      page.paste(Image.fromarray(pixels).resize((shown, shown), method), (x, y))
      for number, line in enumerate(caption.split("\n")):
        write(x, y + shown + number * _LINE, line)
  return page
