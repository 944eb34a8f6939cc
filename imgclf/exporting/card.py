"""The README of an export: what it is, how good, on what data, how its input is made, and code that
runs it.

All of it from the record that `export.json` holds, and the figures of evaluations. Knows no format.
"""

from collections.abc import Mapping, Sequence
import json
from typing import Any

from imgclf.exporting.export_folder import RECORD
from imgclf.text import printable

# Classes that the card lists; `export.json` has all.
_MOST_CLASSES = 20

# Key of a record: true where an image has several classes, each with a probability of its own; else
# left out.
SEVERAL = "several_classes"


def preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns how evaluation makes pixels of an image file, and what of it is inside the exported
  function.

  Args:
    config: a run's resolved config.
  """
  dataset, augment = config["dataset"], config["augment"]
  size = dataset["image_size"]
  return {
    "before": {
      "colours": "8-bit RGB, upright by its EXIF orientation",
      "background": list(dataset["background"]),
      "resize_short_side": round(size / dataset["crop_fraction"]),
      "interpolation": dataset["interpolation"],
      "antialias": True,
      "center_crop": size,
      "crop_fraction": dataset["crop_fraction"],
    },
    "inside": {
      "scale": 1 / 255,
      "mean": list(augment["mean"]),
      "std": list(augment["std"]),
    },
  }


def script(record: Mapping[str, Any], load: str) -> str:
  """Returns Python that runs an export with its runtime, NumPy and Pillow alone, on `photo.jpg`.

  Args:
    record: what `export.json` holds.
    load: the format's own lines, which define `probabilities(pixels)`.
  """
  before = record["preprocessing"]["before"]
  told = "np.flatnonzero(row >= 0.5)" if record.get(SEVERAL) else "np.argsort(-row)[:5]"
  return f"""\
import json

import numpy as np
from PIL import Image, ImageOps
{load}

def crop(path):
  image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
  short = min(image.size)
  size = [round(side * {before["resize_short_side"]} / short) for side in image.size]
  image = image.resize(size, Image.Resampling.{before["interpolation"].upper()})
  left, top = ((side - {before["center_crop"]}) // 2 for side in size)
  return np.array(image.crop((left, top, left + {before["center_crop"]}, top + {before["center_crop"]})))


pixels = np.stack([crop("photo.jpg")])  # uint8; as many images as you like
with open("{RECORD}", encoding="utf-8") as file:
  classes = json.load(file)["classes"]
for row in probabilities(pixels):
  for label in {told}:
    print(f"{{row[label]:7.2%}}  {{classes[label]}}")
"""


def card(
  record: Mapping[str, Any],
  evaluations: Sequence[Mapping[str, Any]],
  load: str,
  runtime: Sequence[str],
) -> str:
  """Returns the text, in Markdown.

  Args:
    record: what `export.json` holds.
    evaluations: of this step's checkpoint, as `imgclf.metrics.figures` has them, with `split`.
    load: see `script`.
    runtime: the packages that the format needs.
  """
  before, inside = record["preprocessing"]["before"], record["preprocessing"]["inside"]
  model, data = record["model"], record["data"]
  classes, size = record["classes"], before["center_crop"]
  dims = f"{size}, {size}, 3"
  sections = [
    f"# {model['name']} for {len(classes)} classes, as {record['format']}",
    f"A classifier of images that imgclf {record['versions']['imgclf']} trained: the network "
    f"`{model['name']}` with {model['parameters']:,} parameters, the weights of step "
    f"{record['step']:,}. It takes `pixels`, uint8 [batch, {dims}], and returns `probabilities`, "
    f"float32 [batch, {len(classes)}]; the batch may have any size. Normalisation and the temperature "
    f"{record['temperature']:.6g} are inside. `{RECORD}` tells the same to programs.",
    "## Run it",
    f"In this folder, after `pip install {' '.join(runtime)} numpy pillow`, with a picture `photo.jpg`:",
    f"```python\n{script(record, load)}```",
    "## Classes",
    _classes(classes),
    "## Figures",
    _figures(evaluations, record),
    "## Verified",
    f"On {record['images']} images ({_code(record['images_from'])}), alone and in batches, the "
    f"probabilities were at most {record['max_difference']:.1e} from those of imgclf's evaluation in "
    f"float32, and at most {record['evaluation_difference']:.1e} from those of the run's own evaluation, "
    f"which computes in {model['dtype']}. One image took {record['latency_ms']:.2f} ms through this "
    f"format's runtime and {record['imgclf_latency_ms']:.2f} ms in imgclf ({record['device']}).",
    "## Data",
    f"Trained on {_code(data['name'])}: "
    + ", ".join(f"{_code(split)} {count:,}" for split, count in data["splits"].items())
    + " images. What they show and who may use them is for their source to say.",
    "## How an image becomes pixels",
    f"1. Decode to {before['colours']}; transparent parts over the colour {before['background']}.\n"
    f"2. Resize so that the short side has {before['resize_short_side']} pixels and the long side its "
    f"share, rounded, {before['interpolation']} with antialiasing, as Pillow does; an image that has that "
    "size stays as it is.\n"
    f"3. Cut the {size} x {size} pixels in the centre out, the odd pixel being left over at the end.\n"
    f"4. Inside: (pixels / 255 - {inside['mean']}) / {inside['std']}, channel by channel.",
    "## Limits",
    f"- {_ANSWERS[bool(record.get(SEVERAL))]}\n"
    f"- {_confidence(record['temperature'])}\n"
    "- It computes in float32 with products of full precision. It was verified on the machine that "
    "exported it, on no other.",
    "## Licence",
    "Not stated. Whoever publishes this says here on what terms, with those of the data in mind.",
  ]
  return "\n\n".join(sections) + "\n"


def _code(text: object) -> str:
  """Text of others as Markdown shows it unchanged: nothing in it can mark anything up, or end what
  it is in.
  """
  return "`" + printable(text).replace("`", "'").replace("|", "/") + "`"


def _classes(classes: Sequence[str]) -> str:
  names = [printable(json.dumps(name, ensure_ascii=False)) for name in classes[:_MOST_CLASSES]]
  left = len(classes) - len(names)
  listed = "\n".join(f"    {label:3} {name}" for label, name in enumerate(names))
  return listed + (f"\n\nand {left:,} more in `{RECORD}`." if left > 0 else "")


# Of one class an image, and of several: what the card says of answers, and which shares it tells by
# which names.
_ANSWERS = (
  "Every image gets one of the classes; there is no answer for what is none of them.",
  "Every class has a probability of its own, and an image is said to have those of 0.5 or more; none may be.",
)
_SHARES = (
  {"accuracy": "accuracy", "top-5": "top5_accuracy", "macro F1": "f1_macro"},
  {"mAP": "mAP", "exact match": "exact_match", "macro F1": "f1_macro"},
)


def _figures(evaluations: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> str:
  if not evaluations:
    return "None: this step was not evaluated before it was exported (`--mode=eval`)."
  several = bool(record.get(SEVERAL))
  calibration = ("loss",) if several else ("loss", "ECE")
  shares = _SHARES[several]
  head = ("split", "images", *shares, *calibration)
  rows = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
  for found in evaluations:
    # Loss and calibration are those of a temperature; accuracy is the same with any.
    same = found.get("temperature", 1.0) == record["temperature"]
    figures = [
      _figure(found.get("n"), ","),
      *(_figure(found.get(name), ".2%") for name in shares.values()),
      _figure(found.get("loss") if same else None, ".4f"),
    ]
    if not several:
      figures.append(_figure(found.get("ece") if same else None, ".2%"))
    rows.append(f"| {_code(found.get('split'))} | {' | '.join(figures)} |")
  return "\n".join(rows)


def _figure(value: Any, form: str) -> str:
  return format(value, form) if isinstance(value, int | float) else "not known"


def _confidence(temperature: float) -> str:
  if temperature == 1:
    return "No temperature was fitted: the probabilities may be more certain than they are right."
  return (
    "The probabilities are calibrated by one temperature, fitted to images like those of training."
  )
