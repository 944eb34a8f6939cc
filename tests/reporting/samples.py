"""Reports made by hand, for tests of the page: from one like a real run's to ones that hold almost
nothing."""

import base64
import io
import math
import pathlib
import random

import numpy as np
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from imgclf.reporting.contents import (
  Bin,
  Calibration,
  ClassRow,
  Comparison,
  Confusion,
  Curve,
  Example,
  Figure,
  Report,
  Series,
)

ANIMALS = "airplane automobile bird cat deer dog frog horse ship truck".split()


def picture(colour=(120, 80, 40), size=8, kind="JPEG"):
  """The data: URI of a picture: of one colour, or of a file where a path is given."""
  if isinstance(colour, pathlib.Path):
    image = Image.open(colour).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((size, size))
  else:
    image = Image.new("RGB", (size, size), colour)
  file = io.BytesIO()
  image.save(file, kind)
  return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def heated(path, size):
  """A picture of a file with a warm spot over it, as Grad-CAM gives one."""
  image = Image.open(path).convert("RGB").resize((size, size))
  across, down = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
  heat = np.exp(-3 * ((across - 0.2) ** 2 + (down + 0.1) ** 2))[..., None]
  mixed = np.asarray(image) * (1 - 0.6 * heat) + np.array([255, 120, 0]) * 0.6 * heat
  file = io.BytesIO()
  Image.fromarray(mixed.astype(np.uint8)).save(file, "JPEG", quality=80)
  return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def bins(confidences, right):
  """Fifteen bins of equal width."""
  found = []
  for number in range(15):
    low, high = number / 15, (number + 1) / 15
    inside = (confidences > low) & (confidences <= high)
    means = (None, None)
    if inside.any():
      means = (float(confidences[inside].mean()), float(right[inside].mean()))
    found.append(Bin(low, high, int(inside.sum()), *means))
  return found


def thinned(points, most=100):
  places = np.linspace(0, len(points) - 1, min(most, len(points))).round().astype(int)
  return [float(points[place]) for place in places]


def ranking_curves(names, seed=0):
  """Precision-recall and ROC curves of scores that separate the classes more or less well."""
  rng = np.random.default_rng(seed)
  precision_recall, roc = [], []
  for number, name in enumerate(names):
    truth = rng.random(400) < 0.3
    scores = rng.normal(size=400) + truth * (3.2 - 0.2 * number)
    precision, recall, _ = precision_recall_curve(truth, scores)
    area = -np.sum(np.diff(recall) * precision[:-1])
    precision_recall.append(Curve(name, thinned(recall), thinned(precision), float(area)))
    false, true, _ = roc_curve(truth, scores)
    roc.append(Curve(name, thinned(false), thinned(true), float(roc_auc_score(truth, scores))))
  return precision_recall, roc


def matrix_of(count, each=100, seed=1):
  """Counts of a classifier that is right four times in five and confuses neighbours."""
  rng = np.random.default_rng(seed)
  counts = np.zeros((count, count), int)
  for row in range(count):
    weights = 0.02 * rng.random(count) ** 6 / max(1, count / 10)
    weights[row] = 0.8 + 0.15 * rng.random()
    weights[(row + 1) % count] += 0.08
    counts[row] = rng.multinomial(each, weights / weights.sum())
  return counts


def rows_of(names, counts):
  """The table of classes of a matrix."""
  rows = []
  for label, name in enumerate(names):
    hit, actual, said = counts[label, label], counts[label].sum(), counts[:, label].sum()
    off = counts[label].copy()
    off[label] = 0
    precision, recall = hit / max(said, 1), hit / max(actual, 1)
    rows.append(
      ClassRow(
        *(
          name,
          int(actual),
          float(precision),
          float(recall),
          float(2 * hit / max(actual + said, 1)),
        ),
        *(0.9 * float(precision), 0.99),
        names[int(off.argmax())] if off.any() else None,
      )
    )
  return rows


def confusions_of(counts, examples_of):
  """Cells off the diagonal, the largest first, at most 200; `examples_of(truth, predicted)` are
  their pictures."""
  cells = [
    (int(counts[row, column]), row, column)
    for row, column in zip(*np.nonzero(counts))
    if row != column
  ]
  cells.sort(key=lambda cell: (-cell[0], cell[1:]))
  return [
    Confusion(int(row), int(column), n, n / int(counts[row].sum()), examples_of(row, column)[:n])
    for n, row, column in cells[:200]
  ]


def report(
  names=ANIMALS, *, photographs=(), size=8, pictures=60, heat=True, seed=0, with_other=True
):
  """A report like that of a real run.

  Args:
    names: of the classes.
    photographs: paths of pictures; left out, they are of one colour.
    size: of pictures, in pixels.
    pictures: how many examples are shown.
    heat: whether they have a heat map.
    seed: of all numbers.
    with_other: whether there is a comparison.
  """
  draw = random.Random(seed)
  rng = np.random.default_rng(seed)
  names = list(names)
  counts = matrix_of(len(names))
  confidences = 1 - 0.75 * rng.random(counts.sum()) ** 3
  right = rng.random(counts.sum()) < 1.1 * confidences - 0.15
  examples = {}
  wrong = [(r, c) for r, c in zip(*np.nonzero(counts)) if r != c]
  wrong = sorted(wrong, key=lambda cell: -counts[cell]) or [(0, 0)]
  numbers_of = {}
  for index in range(pictures):
    row, column = wrong[index % len(wrong)]
    number = 37 * index + 5
    truth, said = names[row], names[column if index % 5 else row]
    if photographs:
      path = photographs[index % len(photographs)]
      shown, heatmap = picture(path, size), heated(path, size) if heat else None
    else:
      shown = picture((draw.randrange(256), draw.randrange(256), 90), size)
      heatmap = picture((200, draw.randrange(256), 0), size) if heat else None
    confidence = 0.5 + draw.random() / 2
    own = confidence if said == truth else (1 - confidence) * draw.random()
    examples[number] = Example(
      *(number, f"test/{truth}/{number:05}.jpg", truth, said, confidence, own, shown, heatmap)
    )
    if said != truth:
      numbers_of.setdefault((row, column), []).append(number)
  listed = list(examples)
  precision_recall, roc = ranking_curves(["all classes", *names[:9]])
  steps = list(range(50, 4051, 50))
  accuracy = float(right.mean())
  summary = [
    Figure("accuracy", accuracy, accuracy - 0.021, accuracy + 0.019),
    Figure("top5_accuracy", 0.9912, 0.985, 0.996),
    Figure("loss", 0.5312, 0.4821, 0.5903),
    Figure("precision_macro", accuracy - 0.002, accuracy - 0.023, accuracy + 0.018),
    Figure("recall_macro", accuracy, accuracy - 0.021, accuracy + 0.019),
    Figure("f1_macro", accuracy - 0.003, accuracy - 0.024, accuracy + 0.017),
    Figure("ece", 0.0431, 0.031, 0.058),
  ]
  before = bins(confidences, right)
  after = bins(np.clip(confidences * 0.93, 0, 1), right)
  curves = {
    "train loss": Series(
      steps, [2.3 * math.exp(-s / 900) + 0.25 + 0.04 * draw.random() for s in steps]
    ),
    "validation loss": Series(steps[9::10], [2.2 * math.exp(-s / 800) + 0.5 for s in steps[9::10]]),
    "train accuracy": Series(steps, [0.93 - 0.8 * math.exp(-s / 800) for s in steps]),
    "validation accuracy": Series(
      steps[9::10], [0.86 - 0.7 * math.exp(-s / 800) for s in steps[9::10]]
    ),
    "learning_rate": Series(steps, [0.05 * (1 + math.cos(math.pi * s / 4050)) for s in steps]),
    "images_per_second": Series(steps, [None, *(4000 + 300 * draw.random() for _ in steps[1:])]),
  }
  other = Comparison(
    "runs/resnet18-cifar10-no-mixup",
    4050,
    [
      (figure, Figure(figure.name, figure.value - 0.0125, figure.low - 0.012, figure.high - 0.013))
      for figure in summary[:3]
    ],
    *(771, 53, 28, 148),
    p_value=0.00731,
    better=listed[:4],
    worse=listed[4:7],
  )
  return Report(
    title="resnet18 on cifar10",
    workdir="runs/cifar10",
    split="test",
    step=4050,
    n=len(right),
    unreadable=0,
    made="2026-11-25T22:19:41+00:00",
    command="python launch.py --config=configs/cifar10.py --workdir=runs/cifar10 \\\n  --config.dataset.data_dir='/data/tfds sets'",
    report_command="python launch.py --mode=report --workdir=runs/cifar10 --split=test",
    versions={"imgclf": "0.1.0", "Python": "3.11.9", "JAX": "0.10.2"},
    facts=[
      ("Data set", "cifar10"),
      ("Training images", "45,000 of train[:90%]"),
      ("Model", "resnet18, stem cifar, 11,173,962 parameters, bfloat16"),
    ],
    config={
      "seed": 0,
      "dataset": {"name": "cifar10", "data_dir": "/data/tfds sets", "image_size": 32},
      "augment": {"mean": [0.4914, 0.4822, 0.4465], "flip": True},
      "train": {"batch_size": 512, "total_epochs": 100.0, "total_steps": None},
    },
    curves=curves,
    summary=summary,
    calibration=Calibration(
      1.42, "validation", 5000, 0.0431, 0.0112, 0.5312, 0.4987, before, after
    ),
    precision_recall=precision_recall,
    roc=roc,
    classes=names,
    class_rows=rows_of(names, counts),
    matrix=counts.tolist() if len(names) <= 60 else None,
    confusions=confusions_of(counts, lambda row, column: numbers_of.get((row, column), [])),
    mistakes=[number for number in listed if examples[number].truth != examples[number].predicted][
      :12
    ],
    uncertain=listed[-12:],
    label_errors=listed[8:14],
    examples=examples,
    comparison=other if with_other else None,
    notes=[],
  )


def bare():
  """The least that can be: one image of one of two classes, nothing worked out, nothing to draw."""
  nothing = Bin(0.0, 1.0, 0, None, None)
  return Report(
    title="",
    workdir="",
    split="test",
    step=0,
    n=1,
    unreadable=0,
    made="",
    command="",
    report_command="",
    versions={},
    facts=[],
    config={},
    curves={},
    summary=[Figure("accuracy", 1.0, None, None), Figure("loss", None, None, None)],
    calibration=Calibration(1.0, None, 0, 0.0, 0.0, 0.0, 0.0, [nothing], [nothing]),
    precision_recall=[],
    roc=[],
    classes=["a", "b"],
    class_rows=[
      ClassRow("a", 1, 1.0, 1.0, 1.0, None, None, None),
      ClassRow("b", 0, 0.0, 0.0, 0.0, None, None, None),
    ],
    matrix=[[1, 0], [0, 0]],
    confusions=[],
    mistakes=[],
    uncertain=[],
    label_errors=[],
    examples={},
    comparison=None,
    notes=[],
  )
