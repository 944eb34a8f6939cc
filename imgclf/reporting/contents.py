"""What a report tells of a run, as plain values: between who works it out and who draws it.

Knows no model, file, or markup. Every text in it may come from files and class names of others: who
draws it escapes it.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

# A matrix of more classes is no picture any more; the pairs that are confused most take its place.
MOST_IN_MATRIX = 60


@dataclasses.dataclass(frozen=True)
class Series:
  """A figure over the steps of the run, from metrics.jsonl.

  Attributes:
    steps: rising.
    values: one for each step; None where it was not finite.
  """

  steps: Sequence[int]
  values: Sequence[float | None]


@dataclasses.dataclass(frozen=True)
class Figure:
  """One figure of the summary.

  Attributes:
    name: such as `accuracy`, a key of `imgclf.metrics.figures`.
    value: in the figure's own unit; None where it is not defined.
    low, high: ends of the bootstrap's 95% interval; None where there is none.
  """

  name: str
  value: float | None
  low: float | None
  high: float | None


@dataclasses.dataclass(frozen=True)
class Bin:
  """A bin of the reliability diagram: low < confidence <= high.

  Attributes:
    low, high: edges.
    n: examples in it.
    confidence, accuracy: means; None where n is 0.
  """

  low: float
  high: float
  n: int
  confidence: float | None
  accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Confidence against accuracy on the split of the report, before and after temperature scaling.

  Attributes:
    temperature: as fitted.
    fitted_on: the split that it was fitted on, and `fitted_n`, its examples; None where there was
      none to fit on.
    ece_before, ece_after: expected calibration error on the split of the report.
    loss_before, loss_after: in nats, likewise.
    before, after: the bins.
  """

  temperature: float
  fitted_on: str | None
  fitted_n: int
  ece_before: float
  ece_after: float
  loss_before: float
  loss_after: float
  before: Sequence[Bin]
  after: Sequence[Bin]


@dataclasses.dataclass(frozen=True)
class Curve:
  """A precision-recall or ROC curve, thinned to what a drawing shows.

  Attributes:
    name: of the class, or `all classes` for the micro average.
    x: recall, or the false positive rate.
    y: precision, or the true positive rate.
    area: average precision, or the area under the ROC curve.
  """

  name: str
  x: Sequence[float]
  y: Sequence[float]
  area: float


@dataclasses.dataclass(frozen=True)
class ClassRow:
  """A class in the table that sorts.

  Attributes:
    name: of the class.
    n: true examples.
    precision, recall, f1: shares.
    average_precision, roc_auc: one against the rest; None where the class has no example, or every
      one.
    confused_with: the class that its examples are most often taken for; None where none is wrong.
  """

  name: str
  n: int
  precision: float
  recall: float
  f1: float
  average_precision: float | None
  roc_auc: float | None
  confused_with: str | None


@dataclasses.dataclass(frozen=True)
class Example:
  """An image, what it is and what the model said.

  Attributes:
    number: position in the split.
    name: of the record, such as its path.
    truth: its class.
    predicted: the class that was predicted.
    confidence: probability of the predicted class, calibrated.
    truth_probability: probability of the true class, calibrated.
    picture: evaluation's crop, a `data:` URI of a JPEG or WebP file; None where it could not be
      read.
    heatmap: the same under Grad-CAM of the predicted class; None where it was not made.
  """

  number: int
  name: str
  truth: str
  predicted: str
  confidence: float
  truth_probability: float
  picture: str | None
  heatmap: str | None


@dataclasses.dataclass(frozen=True)
class Confusion:
  """A cell off the diagonal of the confusion matrix.

  Attributes:
    truth, predicted: labels.
    n: examples.
    share: of the true class's examples.
    examples: numbers of some of them, keys of `Report.examples`, the most confident first.
  """

  truth: int
  predicted: int
  n: int
  share: float
  examples: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """This run against another, on the same examples.

  Attributes:
    other: the other run's folder.
    other_step: its step.
    figures: of this run and of the other, in the order of names: (this, other).
    both_right, only_this, only_other, both_wrong: numbers of examples.
    p_value: of McNemar's exact test of equal accuracy.
    better, worse: examples that only this run, only the other gets right; keys of
      `Report.examples`.
  """

  other: str
  other_step: int
  figures: Sequence[tuple[Figure, Figure]]
  both_right: int
  only_this: int
  only_other: int
  both_wrong: int
  p_value: float
  better: Sequence[int]
  worse: Sequence[int]


@dataclasses.dataclass(frozen=True)
class Report:
  """The whole of it.

  Attributes:
    title: such as `resnet18 on cifar10`.
    workdir: the run folder, as text.
    split: of the data set that everything but `curves` is about.
    step: the step whose weights were judged.
    n: examples judged; `unreadable` of them could not be read and count as wrong.
    made: time of the report, ISO 8601, UTC.
    command: the shell command that trains the same again; `report_command` makes this page again.
    versions: of imgclf, Python, JAX and so on, by name.
    facts: of the data set and of the model, (name, text).
    config: the resolved config, a tree of plain values.
    curves: by name, such as `train loss`, `validation accuracy`, `learning_rate`,
      `images_per_second`.
    summary: the figures of the split.
    calibration: see there.
    precision_recall, roc: the micro average first, then up to nine classes, those with the smallest
      area.
    classes: names by label.
    class_rows: one for each class.
    matrix: [classes][classes] counts, rows the truth; None for more than `MOST_IN_MATRIX` classes.
    confusions: cells off the diagonal that are not 0, the largest first; at most 200.
    mistakes: the most confident wrong answers.
    uncertain: the answers with the least distance between the two most probable classes.
    label_errors: examples whose label is likely wrong.
    examples: by number: all that is named above, with pictures.
    comparison: with another run; None where none was asked for.
    notes: lines that the reader should see: what was left out or could not be worked out, and why;
      mostly empty.
  """

  title: str
  workdir: str
  split: str
  step: int
  n: int
  unreadable: int
  made: str
  command: str
  report_command: str
  versions: Mapping[str, str]
  facts: Sequence[tuple[str, str]]
  config: Mapping[str, Any]
  curves: Mapping[str, Series]
  summary: Sequence[Figure]
  calibration: Calibration
  precision_recall: Sequence[Curve]
  roc: Sequence[Curve]
  classes: Sequence[str]
  class_rows: Sequence[ClassRow]
  matrix: Sequence[Sequence[int]] | None
  confusions: Sequence[Confusion]
  mistakes: Sequence[int]
  uncertain: Sequence[int]
  label_errors: Sequence[int]
  examples: Mapping[int, Example]
  comparison: Comparison | None
  notes: Sequence[str]
