"""A report as one HTML page that needs nothing else: no network, no other file, and no script to be
read.

Knows the values of `imgclf.reporting.contents` alone. Class names, file names and configs in them
come from others, so they reach the page only as text that Jinja2 escapes: never as an element, an
attribute's name, an id, a style or a script. The page's policy lets a browser run and style by
nothing but the two files beside the templates, by hash, and load nothing but the pictures within
it.
"""

import base64
from collections.abc import Iterable
import functools
import hashlib
import re
from typing import Any

import jinja2

from imgclf.reporting import charts, heat, wording
from imgclf.reporting.contents import ClassRow, Example, Report

# Of more classes, those that do worst: a table of 20,000 rows opens on no phone.
MOST_ROWS = 1000

_PICTURE = re.compile(r"data:image/(?:jpeg|png|webp);base64,[A-Za-z0-9+/]+={0,2}")


def render(report: Report) -> str:
  """Returns the page.

  Args:
    report: what to show. Its texts may hold anything.

  Returns:
    HTML to be written as UTF-8, the same for the same report. Its size is bounded by that of the
    pictures and the config: tables, lists and lines are cut, and say so where rows are missing.

  Raises:
    ValueError: for a picture that is no `data:` URI of a JPEG, PNG or WebP file in base64.
    KeyError: for an example that is named and not there.
  """
  environment = _environment()
  # The hashes are of these very texts, so nothing may be put into them or cut off them.
  style = _source(environment, "page.css") + _shares()
  script = _source(environment, "page.js")
  shown = _shown(report)
  training, ranking = charts.training(report.curves, report.step), _ranking(report)
  return environment.get_template("page.html").render(
    report=report,
    style=style,
    script=script,
    policy=_policy(style, script),
    sections=_sections(report, training, ranking),
    training=training,
    reliability=_reliability(report),
    ranking=ranking,
    rows=_rows(report),
    matrix=heat.matrix(report),
    pairs=heat.pairs(report)[: heat.MOST_PAIRS],
    beside=heat.PAIRS_BESIDE_MATRIX,
    numbered=len(report.classes) <= heat.MOST_WITH_NUMBERS,
    pictures=_pictures(shown),
    heated=any(example.heatmap is not None for example in shown),
    calibrated=_calibrated(report),
    short=max(map(len, report.classes), default=0) <= 3,
  )


@functools.cache  # templates are compiled once a process
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("imgclf.reporting"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {
    "name": wording.name,
    "count": wording.count,
    "percent": wording.percent,
    "significant": wording.significant,
    "area": wording.area,
    "date": wording.date,
    "interval": wording.interval,
    "lines": wording.lines,
    "bar": wording.bar,
  }
  environment.globals |= {"wording": wording, "legend": heat.legend}
  return environment


def _source(environment: jinja2.Environment, name: str) -> str:
  assert environment.loader is not None
  return environment.loader.get_source(environment, name)[0]


def _shares() -> str:
  """The widths of bars in tables, as classes: the policy forbids styles on single elements."""
  return "".join(f".b{share}{{--share:{share}}}" for share in range(101))


def _policy(style: str, script: str) -> str:
  def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

  return (
    f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
    f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
  )


def _sections(
  report: Report, training: list[charts.Chart], ranking: list[charts.Chart]
) -> list[tuple[str, str]]:
  """The sections that there is something to show in: the file of the template, which is the id, and
  the title.
  """
  there: list[tuple[str, str, Any]] = [
    ("summary", "Summary", True),
    ("comparison", "Comparison", report.comparison),
    ("training", "Training", training),
    ("classes", "Classes", True),
    ("confusions", "Confusions", True),
    ("calibration", "Calibration", True),
    ("ranking", "Precision, recall and ROC", ranking),
    ("mistakes", "Most confident mistakes", True),
    ("uncertain", "Least certain", True),
    ("label-errors", "Likely label errors", True),
    ("facts", "Data and model", report.facts),
    ("reproduce", "Reproduce", True),
  ]
  return [(name, title) for name, title, shown in there if shown]


def _shown(report: Report) -> list[Example]:
  """The examples that some section shows, each once."""
  numbers: dict[int, None] = {}

  def add(more: Iterable[int]) -> None:
    numbers.update(dict.fromkeys(more))

  add(report.mistakes)
  add(report.uncertain)
  add(report.label_errors)
  if report.comparison is not None:
    add(report.comparison.better)
    add(report.comparison.worse)
  for confusion in report.confusions[: heat.MOST_PAIRS]:
    add(confusion.examples)
  return [report.examples[number] for number in numbers]


def _pictures(examples: Iterable[Example]) -> list[tuple[str, str]]:
  """(id, address) of each picture once, however often it is shown."""
  found = []
  for example in examples:
    for kind, address in (("picture", example.picture), ("heatmap", example.heatmap)):
      if address is not None:
        if not _PICTURE.fullmatch(address):
          raise ValueError(f"the {kind} of example {example.number} is no picture's data: URI")
        found.append((f"{kind}-{example.number}", address))
  return found


def _rows(report: Report) -> list[tuple[int, ClassRow]]:
  """(label, row) of the classes that the table shows, by label."""
  rows = list(enumerate(report.class_rows))
  if len(rows) > MOST_ROWS:
    with_examples = [(label, row) for label, row in rows if row.n]
    rows = sorted(sorted(with_examples, key=lambda each: each[1].f1)[:MOST_ROWS])
  return rows


def _calibrated(report: Report) -> bool:
  """Whether there is an after beside the before."""
  return report.calibration.fitted_on is not None and report.calibration.temperature != 1


def _reliability(report: Report) -> list[charts.Chart]:
  calibration = report.calibration
  if not _calibrated(report):
    return [charts.reliability("As trained", calibration.before)]
  return [
    charts.reliability("Before temperature scaling", calibration.before),
    charts.reliability("After temperature scaling", calibration.after),
  ]


def _ranking(report: Report) -> list[charts.Chart]:
  found = (
    charts.ranking(
      "Precision and recall", "recall", "precision", report.precision_recall, roc=False
    ),
    charts.ranking("ROC", "false positive rate", "true positive rate", report.roc, roc=True),
  )
  return [chart for chart in found if chart.lines]
