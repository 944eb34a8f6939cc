"""Text and tables for a person's screen: 80 columns wide, safe to print whatever a name contains.

Knows no run: numbers and names come in, lines go out. The bar and the log are in
imgclf/progress.py.
"""

from collections.abc import Iterable, Mapping, Sequence
import math
import os
import sys
from typing import Any

import jax
from rich import box, cells
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imgclf.text import printable

WIDTH = 80
MAX_MODULES = 36
MAX_CLASSES = 20
WORST_CLASSES = 10


class _Console(Console):
  def on_broken_pipe(self) -> None:
    """Goes on in silence when the reader has left, as `| head` does: a run is not its output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_console(*, quiet: bool = False) -> Console:
  """Returns a console on stdout that styles its output only where a person watches it; or one that
  prints nothing.
  """
  if quiet:
    return Console(quiet=True, force_terminal=False)
  # Said outright, because rich takes FORCE_COLOR in the environment for a terminal, and would draw
  # a bar into the log file of a CI job.
  return _Console(force_terminal=sys.stdout.isatty())


def shorten(text: str, width: int) -> str:
  """Returns the text, cut to `width` screen columns with `...` at its end where it is longer."""
  if cells.cell_len(text) <= width:
    return text
  return cells.set_cell_size(text, width - 3).rstrip() + "..."


def shorten_start(text: str, width: int) -> str:
  """Returns the text, cut to `width` screen columns with `...` at its start where it is longer."""
  if cells.cell_len(text) <= width:
    return text
  text = text[-width:]  # a character takes a column or more, but for the few that take none
  while cells.cell_len(text) > width - 3:
    text = text[1:]
  return "..." + text


def print_paragraph(text: str, *, console: Console | None = None) -> None:
  """Prints text in lines of up to 80 columns, all but the first set in; escapes control
  characters.
  """
  console = console or make_console()
  for number, line in enumerate(_wrapped(text, WIDTH - 2, console)):
    console.print(Text("  " * (number > 0) + line), soft_wrap=True)


def _wrapped(text: str, width: int, console: Console) -> list[str]:
  lines = Text(printable(text, console.encoding)).wrap(console, width)
  return [line.plain.rstrip() for line in lines]


def count_table(
  headers: Sequence[str],
  rows: Iterable[tuple[str, Sequence[int]]],
  *,
  console: Console | None = None,
) -> None:
  """Prints names with a number for each header but the first."""
  console = console or make_console()
  table = _table(console, *headers)
  for name, numbers in rows:
    name = shorten(printable(name, console.encoding), WIDTH - 12 * len(headers))
    table.add_row(Text(name), *(f"{number:,}" for number in numbers))
  console.print(table)


def text_table(
  headers: Sequence[str], rows: Iterable[Sequence[str]], *, console: Console | None = None
) -> None:
  """Prints rows of plain words; all columns but the first are set to the right."""
  console = console or make_console()
  table = _table(console, *headers)
  for row in rows:
    table.add_row(*map(Text, row))
  console.print(table)


class PredictionTable:
  """Predictions in columns, as lines that are printed when they are known: image, label,
  probability, other classes.
  """

  def __init__(
    self, names: Iterable[str], labels: Iterable[str], *, console: Console | None = None
  ):
    """Finds the columns' widths and prints their names.

    Args:
      names: of all images.
      labels: that there may be.
      console: where to print; left out: stdout.
    """
    self._console = console or make_console()
    self._lines: list[str] = []
    self._name = self._width(("image", *names), 30)
    self._label = self._width(("label", *labels), 18)
    self._add("image", "label", "prob.", "then")
    self.print()

  def add(
    self, name: str, label: str, probability: float | None, others: Iterable[tuple[str, float]]
  ) -> None:
    """Adds an image, with as many of the other classes as there is room for.

    Args:
      name: of the image; of a long one the end is shown.
      label: what it is said to be.
      probability: of that, if it has one.
      others: label and probability of the other classes, best first.
    """
    share = "" if probability is None else percent(probability)
    room, rest = WIDTH - self._name - self._label - 13, ""
    for other, value in others:
      longer = f"{rest}{', ' if rest else ''}{self._safe(other)} {percent(value)}"
      if cells.cell_len(longer) > room:
        break
      rest = longer
    self._add(name, label, share, rest)

  def add_error(self, name: str, error: str) -> None:
    """Adds an image that there is no answer for, and below it why."""
    self._add(name, "-", "", "")
    self._lines.extend(f"  {line}" for line in _wrapped(error, WIDTH - 4, self._console))

  def print(self) -> None:
    """Prints what was added since the last time: all at once, as a bar below is drawn anew each
    time.
    """
    if self._lines:
      self._console.print(Text("\n".join(self._lines)), soft_wrap=True)
      self._lines.clear()

  def _safe(self, text: str) -> str:
    return printable(text, self._console.encoding)

  def _width(self, texts: Iterable[str], most: int) -> int:
    return min(most, max(cells.cell_len(self._safe(text)) for text in texts))

  def _add(self, name: str, label: str, share: str, rest: str) -> None:
    name = cells.set_cell_size(shorten_start(self._safe(name), self._name), self._name)
    label = cells.set_cell_size(shorten(self._safe(label), self._label), self._label)
    self._lines.append(f"{name}  {label}  {share:>7}  {rest}".rstrip())


def print_line(text: str, *, console: Console | None = None) -> None:
  """Prints text as one line, never wrapped by us, and flushes it; escapes control characters.

  Args:
    text: what to print; a newline in it is shown as an escape too.
    console: where to print; left out: stdout.
  """
  console = console or make_console()
  console.print(Text(printable(text, console.encoding)), soft_wrap=True)


def percent(share: float) -> str:
  """Returns 0.98611 as `98.61%`."""
  return f"{100 * share:.2f}%"


def evaluation_line(split: str, step: int, figures: Mapping[str, Any]) -> str:
  """Returns an evaluation in a line, the same in training as in `--mode=eval`.

  Args:
    split: the split's name.
    step: training steps behind the evaluated weights.
    figures: as `imgclf.metrics.figures` returns them, or `imgclf.multilabel_metrics.figures`.
  """
  if "mAP" in figures:
    return (
      f"{split} @ step {step}: mAP {percent(_number(figures['mAP']))}  "
      f"exact match {percent(figures['exact_match'])}  loss {_number(figures['loss']):.4f}  n {figures['n']}"
    )
  return (
    f"{split} @ step {step}: accuracy {percent(figures['accuracy'])}  "
    f"top-5 {percent(figures['top5_accuracy'])}  loss {figures['loss']:.4f}  n {figures['n']}"
  )


def evaluation_summary(
  figures: Mapping[str, Any], split: str, step: int, *, console: Console | None = None
) -> None:
  """Prints an evaluation: its line, the averages, and a table of the classes.

  Of more than 20 classes it shows the 10 with the lowest F1 among those that have examples, or
  those with the lowest average precision where images have several classes.

  Args:
    figures: as `imgclf.metrics.figures` returns them, or `imgclf.multilabel_metrics.figures`.
    split: the split's name.
    step: training steps behind the evaluated weights.
    console: where to print; left out: stdout.
  """
  console = console or make_console()
  print_line(evaluation_line(split, step, figures), console=console)
  if "mAP" in figures:
    _set_summary(figures, console)
    return
  print_line(
    f"macro precision {percent(figures['precision_macro'])}  "
    f"recall {percent(figures['recall_macro'])}  F1 {percent(figures['f1_macro'])}  "
    f"calibration error (ECE) {percent(figures['ece'])}",
    console=console,
  )
  rows = figures["per_class"]
  if len(rows) > MAX_CLASSES:
    seen = [row for row in rows if row["n"] > 0]
    rows = sorted(seen, key=lambda row: row["f1"])[:WORST_CLASSES]
    print_line(
      f"The {len(rows)} classes with the lowest F1, of {len(seen)} with examples:", console=console
    )
  table = _table(console, "class", "n", "precision", "recall", "F1")
  for row in rows:
    name = shorten(printable(row["name"], console.encoding), WIDTH - 44)
    shares = (percent(row[key]) for key in ("precision", "recall", "f1"))
    table.add_row(Text(name), f"{row['n']:,}", *shares)
  console.print(table)


def _set_summary(figures: Mapping[str, Any], console: Console) -> None:
  """The rest of a summary, of images with several classes each."""
  print_line(
    f"F1 micro {percent(figures['f1_micro'])}  macro {percent(figures['f1_macro'])}  "
    f"macro precision {percent(figures['precision_macro'])}  recall {percent(figures['recall_macro'])}",
    console=console,
  )
  rows = figures["per_class"]
  if len(rows) > MAX_CLASSES:
    seen = [row for row in rows if row["n"] > 0]
    # What is no number is the worst.
    known = [(_number(row["average_precision"]), row) for row in seen]
    worst = sorted(known, key=lambda pair: -1.0 if math.isnan(pair[0]) else pair[0])
    rows = [row for _, row in worst[:WORST_CLASSES]]
    print_line(
      f"The {len(rows)} classes with the lowest average precision (AP), of {len(seen)} with examples:",
      console=console,
    )
  table = _table(console, "class", "n", "AP", "precision", "recall", "F1")
  for row in rows:
    name = shorten(printable(row["name"], console.encoding), WIDTH - 53)
    ap = "-" if row["average_precision"] is None else percent(row["average_precision"])
    shares = (percent(row[key]) for key in ("precision", "recall", "f1"))
    table.add_row(Text(name), f"{row['n']:,}", ap, *shares)
  console.print(table)


def _number(value: float | None) -> float:
  """What was NaN before it was written as JSON."""
  return math.nan if value is None else value


def parameter_table(parameters: Any, *, console: Console | None = None) -> None:
  """Prints a row for each top-level module of a model, and the total with its size in memory.

  Args:
    parameters: a pytree of arrays or jax.ShapeDtypeStruct whose first level is the modules.
    console: where to print; left out: stdout.
  """
  console = console or make_console()
  modules: dict[str, list[tuple[str, Any]]] = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
    names = [jax.tree_util.keystr((key,), simple=True) for key in path]
    modules.setdefault(names[0], []).append((names[-1], leaf))
  table = _table(console, "module", "", "parameters", text_columns=2)
  shown = list(modules.items())
  # One module too many is shown as itself, not as "1 more".
  rest = shown[MAX_MODULES:] if len(shown) > MAX_MODULES + 1 else []
  for name, leaves in shown[: len(shown) - len(rest)]:
    name = shorten(printable(name, console.encoding), 24)
    table.add_row(Text(name), Text(_shapes(leaves)), f"{_size(leaves):,}")
  if rest:
    leaves = [leaf for _, module in rest for leaf in module]
    table.add_row(f"{len(rest)} more", Text(_shapes(leaves)), f"{_size(leaves):,}")
  leaves = [leaf for module in modules.values() for leaf in module]
  megabytes = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for _, leaf in leaves) / 1e6
  table.add_row("total", f"{megabytes:,.1f} MB", f"{_size(leaves):,}")
  console.print(table)


def _table(console: Console, *headers: str, text_columns: int = 1) -> Table:
  """A table whose first columns hold text and the others numbers; without rules off a terminal."""
  # On a terminal the rule below the head is one line; in a file it is noise, and not ASCII.
  table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
  for position, header in enumerate(headers):
    table.add_column(header, justify="left" if position < text_columns else "right", no_wrap=True)
  return table


def _size(leaves: list[tuple[str, Any]]) -> int:
  return sum(math.prod(leaf.shape) for _, leaf in leaves)


def _shapes(leaves: list[tuple[str, Any]], width: int = 36) -> str:
  """The arrays of a module with their shapes; where that is too long, their number and the
  largest.
  """

  def shape(leaf: Any) -> str:
    return "x".join(map(str, leaf.shape)) or "scalar"

  text = ", ".join(printable(f"{name} {shape(leaf)}", "ascii") for name, leaf in leaves)
  if len(text) > width:
    largest = max((leaf for _, leaf in leaves), key=lambda leaf: math.prod(leaf.shape))
    text = f"{len(leaves)} array{'s' * (len(leaves) > 1)}, largest {shape(largest)}"
  return shorten(text, width)
