"""What the drawings of the report's page consist of: places of lines, bars and labels, worked out
from its values.

Knows no markup and no colour: a line has a number, and the style sheet says what the number looks
like.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import itertools
import math

from imgclf.reporting import axes, wording
from imgclf.reporting.axes import Axis
from imgclf.reporting.contents import Bin, Curve, Series

# A drawing is at most some 450 px wide: more points of a line than this can't be seen, and make a
# page of megabytes.
MOST_POINTS = 240
LABEL_HEIGHT = 13.0  # of the text at the end of a line
TOP = 30.0  # above it stands what the y axis measures
# Titles and units of curves that are not figures of an evaluation, or have a unit.
_TITLES = {
  "loss": ("Loss", "nats"),
  "images_per_second": ("Speed", "images per second"),
  "data_wait_share": ("Waiting for data", "share of the time"),
}


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of a drawing.

  Attributes:
    name: of what it shows; empty where the title of the drawing says that.
    style: from 0; colour and dashes.
    path: the `d` of an SVG path; empty where there are no two neighbours to join.
    dots: places of values that have no neighbour.
    label: where its name stands, right of the drawing.
    value: a number that belongs to the line, as text: of a curve its area.
  """

  name: str
  style: int
  path: str
  dots: tuple[tuple[float, float], ...]
  label: tuple[float, float]
  value: str = ""


@dataclasses.dataclass(frozen=True)
class Bar:
  """A bar of a drawing: its corner, its size, and what it says."""

  x: float
  y: float
  width: float
  height: float
  text: str


@dataclasses.dataclass(frozen=True)
class Chart:
  """A drawing.

  Attributes:
    title, description: the second says in words what the drawing shows.
    width, height: of the whole, in the units of all places.
    x, y: the axes.
    lines: to be drawn.
    bars, counts: of a reliability diagram: accuracies, and below them how many examples there are.
    guide: (x, y, x, y) of a line to compare with, such as the diagonal.
    guide_name: what that line is; empty where the text beside the drawing says it.
    guide_place: where that stands: (x, y, SVG's text-anchor).
  """

  title: str
  description: str
  width: float
  height: float
  x: Axis
  y: Axis
  lines: tuple[Line, ...] = ()
  bars: tuple[Bar, ...] = ()
  counts: tuple[Bar, ...] = ()
  guide: tuple[float, float, float, float] | None = None
  guide_name: str = ""
  guide_place: tuple[float, float, str] = (0.0, 0.0, "start")


def training(curves: Mapping[str, Series], step: int) -> list[Chart]:
  """Returns a drawing for each figure of a run's curves; those of several splits share one.

  Args:
    curves: as `Report.curves`. `train loss` and `validation loss` are two lines of the drawing
      `loss`.
    step: the step that the report is about; marked where it is within a drawing.
  """
  groups: dict[str, dict[str, Series]] = {}
  for name, series in curves.items():
    split, _, figure = name.rpartition(" ")
    groups.setdefault(figure, {})[split] = series
  drawn = (_training_chart(figure, group, step) for figure, group in groups.items())
  return [chart for chart in drawn if chart is not None]


def _training_chart(figure: str, group: Mapping[str, Series], step: int) -> Chart | None:
  points = {split: _finite_or_none(series) for split, series in group.items()}
  points = {split: rows for split, rows in points.items() if any(v is not None for _, v in rows)}
  if not points:
    return None
  shown = [value for rows in points.values() for _, value in rows if value is not None]
  steps = [at for rows in points.values() for at, _ in rows]
  share = wording.is_share(figure) or figure == "data_wait_share"
  title, unit = _TITLES.get(
    figure, (wording.figure_name(figure), "share of images" if share else "")
  )
  width, height = 400.0, 240.0
  named = any(
    points
  )  # a curve without a split, such as the learning rate, is named by the title alone
  x = axes.fit([0, *steps], "step", 54, width - (90 if named else 16), tight=True)
  y = axes.fit(
    shown if figure != "images_per_second" else [0.0, *shown],
    unit,
    height - 38,
    TOP,
    percent=share,
    floor=0.0 if min(shown) >= 0 else None,
    ceiling=1.0 if share else None,
  )
  lines = [
    _line(wording.name(split, 10) if split else "", style, _thinned(rows), x, y)
    for style, (split, rows) in enumerate(points.items())
  ]
  described = [_course(figure, split, rows) for split, rows in points.items()]
  inside = x.low <= step <= x.high
  guide = (x.place(step), y.start, x.place(step), y.end) if inside else None
  return Chart(
    title,
    " ".join(described),
    width,
    height,
    x,
    y,
    lines=tuple(_spread(lines, y)),
    guide=guide,
  )


def _course(figure: str, split: str, rows: Sequence[tuple[int, float | None]]) -> str:
  """A curve in a sentence, for who does not see it."""
  there = [(at, value) for at, value in rows if value is not None]
  (first, begin), (last, end) = there[0], there[-1]
  low, high = min(value for _, value in there), max(value for _, value in there)
  text = lambda value: wording.figure_value(figure, value)  # noqa: E731
  named = f"{wording.name(split)}: " if split else ""
  if first == last:
    return f"{named}{text(begin)} at step {first:,}."
  return (
    f"{named}{text(begin)} at step {first:,}, {text(end)} at step {last:,}, "
    f"between {text(low)} and {text(high)}."
  )


def reliability(title: str, bins: Sequence[Bin]) -> Chart:
  """Returns a reliability diagram: the accuracy of each bin of confidence, and how many examples it
  holds.
  """
  width, height, below = 400.0, 350.0, 44.0
  x = axes.fit([0.0, 1.0], "confidence", 60, width - 24, percent=True, floor=0.0, ceiling=1.0)
  y = axes.fit(
    [0.0, 1.0], "accuracy", height - 44 - below, TOP, percent=True, floor=0.0, ceiling=1.0
  )
  most = max((each.n for each in bins), default=0)
  bars, counts = [], []
  for each in bins:
    if each.n == 0 or each.accuracy is None or each.confidence is None:
      continue
    left, right = x.place(each.low), x.place(each.high)
    left, broad = left + 0.75, max(round(right - left - 1.5, 1), 1.0)
    top = y.place(each.accuracy)
    text = (
      f"confidence {wording.percent(each.low)} to {wording.percent(each.high)}: "
      f"accuracy {wording.percent(each.accuracy)}, mean confidence "
      f"{wording.percent(each.confidence)}, {wording.count(each.n)} examples"
    )
    bars.append(Bar(left, top, broad, round(y.start - top, 1), text))
    tall = round(max(below * 0.8 * each.n / most, 1.0), 1)
    counts.append(Bar(left, y.start + 8, broad, tall, text))
  return Chart(
    title,
    " ".join(f"{bar.text}." for bar in bars) or "No examples.",
    width,
    height,
    x,
    y,
    bars=tuple(bars),
    counts=tuple(counts),
    guide=(x.start, y.start, x.end, y.end),
  )


def ranking(title: str, x_label: str, y_label: str, curves: Sequence[Curve], *, roc: bool) -> Chart:
  """Returns precision-recall or ROC curves, one style each.

  Args:
    title: of the drawing.
    x_label, y_label: of the axes.
    curves: as in the report; points that are not finite are left out, and curves without points.
    roc: whether chance is the diagonal, to be drawn.
  """
  width, height = 400.0, 350.0
  x = axes.fit([0.0, 1.0], x_label, 50, width - 24, percent=True, floor=0.0, ceiling=1.0)
  y = axes.fit([0.0, 1.0], y_label, height - 40, TOP, percent=True, floor=0.0, ceiling=1.0)
  lines: list[Line] = []
  for curve in curves:
    rows = [(a, b) for a, b in zip(curve.x, curve.y) if math.isfinite(a) and math.isfinite(b)]
    if rows:
      line = _line(wording.name(curve.name, 40), len(lines), rows, x, y)
      lines.append(dataclasses.replace(line, value=wording.area(curve.area)))
  described = [f"{line.name}: area {line.value}." for line in lines]
  guide = (x.start, y.start, x.end, y.end) if roc else None
  return Chart(
    title,
    " ".join(described) or "No curves.",
    width,
    height,
    x,
    y,
    tuple(lines),
    guide=guide,
    guide_name="chance" if roc else "",
    guide_place=(x.place(0.62), y.place(0.55), "start"),
  )


def _line(
  name: str, style: int, rows: Sequence[tuple[float, float | None]], x: Axis, y: Axis
) -> Line:
  """Joins neighbours; a value between two that are missing becomes a dot."""
  pieces: list[str] = []
  dots: list[tuple[float, float]] = []
  last = y.start
  for missing, run in itertools.groupby(rows, key=lambda row: row[1] is None):
    if missing:
      continue
    places = [(x.place(a), y.place(b)) for a, b in run if b is not None]
    last = places[-1][1]
    if len(places) == 1:
      dots += places
    else:
      pieces.append("M" + "L".join(f"{a:g} {b:g}" for a, b in places))
  return Line(name, style, "".join(pieces), tuple(dots), (x.end + 8, last))


def _finite_or_none(series: Series) -> list[tuple[int, float | None]]:
  return [
    (step, value if value is not None and math.isfinite(value) else None)
    for step, value in zip(series.steps, series.values)
  ]


def _thinned(rows: Sequence[tuple[int, float | None]]) -> Sequence[tuple[int, float | None]]:
  """Leaves of many points the lowest and the highest of each stretch, so that no peak is lost, and
  every gap.
  """
  if len(rows) <= MOST_POINTS:
    return rows
  stretch = math.ceil(2 * len(rows) / MOST_POINTS)
  kept: list[tuple[int, float | None]] = []
  for begin in range(0, len(rows), stretch):
    piece = rows[begin : begin + stretch]
    there = [(step, value) for step, value in piece if value is not None]
    ends = [pick(there, key=lambda row: row[1]) for pick in (min, max)] if there else []
    gap = [row for row in piece if row[1] is None][:1]
    # A step stands once: that of a flat stretch is its lowest and its highest at a time.
    kept += sorted({row[0]: row for row in [*ends, *gap]}.values(), key=lambda row: row[0])
  if rows[-1] not in kept[-1:]:
    kept.append(rows[-1])
  return kept


def _spread(lines: Sequence[Line], y: Axis) -> list[Line]:
  """Moves labels that would lie on one another apart, up and down, within the drawing."""
  order = sorted(range(len(lines)), key=lambda i: lines[i].label[1])
  places = [lines[i].label[1] for i in order]
  for i in range(1, len(places)):
    places[i] = max(places[i], places[i - 1] + LABEL_HEIGHT)
  if places and places[-1] > y.start:
    places[-1] = y.start
    for i in range(len(places) - 2, -1, -1):
      places[i] = min(places[i], places[i + 1] - LABEL_HEIGHT)
  moved = list(lines)
  for i, place in zip(order, places, strict=True):
    moved[i] = dataclasses.replace(lines[i], label=(lines[i].label[0], round(place, 1)))
  return moved
