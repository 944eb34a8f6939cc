"""A look over a whole data set before a run: what is in it, what is odd, and what would stop the
run.
"""

from collections.abc import Iterator, Mapping
import contextlib
import io
import json
import os
import pathlib
import time
from typing import Any

from PIL import Image

from imgclf import config as configs
from imgclf import findings, parallel, plan, progress, tables
from imgclf import preview as previews
from imgclf import teacher as teachers
from imgclf.data import datasets
from imgclf.data import survey as surveys
from imgclf.data.files import some
from imgclf.errors import UserError
from imgclf.output import checked, whole_file, write_whole
from imgclf.pretrained import start as starts

# Lines that are printed of each list, and rows of classes; the JSON file has them all.
SHOWN = 10


def run(
  config: configs.ConfigDict,
  *,
  output: str | os.PathLike | None = None,
  preview: str | os.PathLike | None = None,
  quiet: bool = False,
) -> dict[str, Any]:
  """Looks every record of every split over once, and tells what it found as text and as JSON.

  Args:
    config: the config of the run to come.
    output: a file to write the report to, ending in .json; none: nowhere.
    preview: a file to write a contact sheet of augmented training examples to, ending in .png;
      none: nowhere. There is none where the config is refused.
    quiet: print nothing.

  Returns:
    The report, as README.md describes it: the same on any number of threads.

  Raises:
    UserError: for a config or a set that can't be opened; and, after the report was printed and
      written, if something in it would stop a training or evaluation run with this config.
  """
  path = None if output is None else checked(output, (".json",))
  sheet_path = None if preview is None else checked(preview, (".png",), "--preview")
  if parallel.process_count() > 1:
    raise UserError("--mode=check: runs in one process; start it without a cluster's environment")
  config = configs.resolve(config)
  dataset = datasets.open(config["dataset"])
  refusals: list[str] = []
  roles: dict[str, str | None] = {}
  with _noted(refusals):
    plan.check_config(config)
  with _noted(refusals):
    roles, train_records, _ = plan.check_set(config, dataset)
    starts.prepare(config, dataset.classes)
    teachers.prepare(config, dataset.classes)
    if sheet_path is not None and not refusals:
      _write_sheet(sheet_path, previews.sheet(train_records, dataset.classes, config))
      if not quiet:
        tables.print_line(f"written to {sheet_path}")
  if not roles:
    # Were it for the classes alone, the roles are known all the same.
    with _noted([]):
      roles = datasets.roles(config["dataset"], dataset)
  parts = findings.Parts(dataset, roles)
  total = sum(dataset.splits.values())
  began = time.perf_counter()
  with contextlib.ExitStack() as stack:
    advance = (lambda count: None) if quiet else stack.enter_context(progress.counting(total))
    survey = surveys.survey(dataset, config, parts.members("train"), advance)
  seconds = time.perf_counter() - began
  report = findings.report(dataset, config, roles, parts, survey, refusals)
  if not quiet:
    _print(report, seconds, tables.make_console())
  if path is not None:
    with whole_file(path) as file:
      file.write(json.dumps(report, indent=2, allow_nan=False) + "\n")
    if not quiet:
      tables.print_line(f"written to {path}")
  if report["stops"]:
    more = f" (and {len(report['stops']) - 1} more)" if len(report["stops"]) > 1 else ""
    raise UserError(f"this would stop a run with this config{more}: {report['stops'][0]}")
  return report


def _write_sheet(path: pathlib.Path, sheet: Image.Image) -> None:
  data = io.BytesIO()
  sheet.save(data, "PNG")
  write_whole(path, data.getvalue(), "--preview")


@contextlib.contextmanager
def _noted(refusals: list[str]) -> Iterator[None]:
  """Takes down what is refused inside, and goes on after it."""
  try:
    yield
  except UserError as error:
    refusals.append(" ".join(str(error).split()))


def _print(report: Mapping[str, Any], seconds: float, console: tables.Console) -> None:
  """Prints a report in 80 columns."""

  def say(text: str) -> None:
    tables.print_paragraph(text, console=console)

  total = sum(report["splits"].values())
  classes = report["images_per_class"]
  say(
    f"{'data':<12}{report['dataset']}: {len(classes):,} classes; "
    + ", ".join(f"{name} {size:,}" for name, size in report["splits"].items())
  )
  for role, expression in report["roles"].items():
    say(f"{role:<12}{expression or 'none'} ({report['parts'].get(role, 0):,})")
  for note in report["notes"]:
    say(f"{'note':<12}{note}")
  say(f"looked at {total:,} images in {seconds:.1f} s, {total / max(seconds, 1e-9):,.0f} images/s")
  for name, words in (("formats", report["formats"]), ("colours", report["modes"])):
    say(f"{name:<12}" + (", ".join(f"{word} {n:,}" for word, n in words.items()) or "none"))
  for name in ("width", "height"):
    if report[name]["min"] is not None:
      values = (f"{key} {report[name][key]:,g}" for key in ("min", "median", "max"))
      say(f"{name:<12}" + ", ".join(values))
  if report["smaller_than_image_size"]:
    say(
      f"{'small':<12}{report['smaller_than_image_size']:,} have a side below "
      f"config.dataset.image_size={report['image_size']}"
    )
  train = report["train"]
  if train["images"]:
    say(
      f"mean, std of {train['images']:,} train images as evaluation would show them to the model:"
    )
    for name in ("mean", "std"):
      numbers = ", ".join(f"{value:.4f}" for value in train[name])
      say(f"  config.augment.{name} = ({numbers})")
  _print_classes(report, console)
  for part, labels in report.get("labels_per_image", {}).items():
    say(
      f"classes an image in {part}: {labels['mean']:.2f} in the mean; "
      + ", ".join(f"{size} in {n:,}" for size, n in labels["images"].items())
    )
  _print_list(
    "files whose ending is that of another format",
    [f"{_shown(report, row)} ({row['format']})" for row in report["misnamed"]],
    console,
  )
  for part in report["parts"]:
    lacking = [row["class"] for row in report["missing"] if row["part"] == part]
    if lacking:
      say(f"classes without an image in {part}: {len(lacking):,} ({some(lacking)})")
  _print_copies(report, console)
  _print_list(
    "unreadable",
    [(f"{_shown(report, row)} ({row['part']})", row["reason"]) for row in report["unreadable"]],
    console,
  )
  if report["stops"]:
    say("This would stop a run with this config:")
  for line in report["stops"]:
    say(f"- {line}")


def _shown(report: Mapping[str, Any], row: Mapping[str, Any]) -> str:
  """A record's name for the screen: a file's path from the folder, or from that of the table."""
  kind, _, path = report["dataset"].partition(":")
  root = os.path.dirname(path) if kind == "csv" else path
  return row["name"].removeprefix(root + os.sep) if kind in datasets.KINDS else row["name"]


def _print_classes(report: Mapping[str, Any], console: tables.Console) -> None:
  """A table of the classes; of many, those with the fewest images in the first part, which is
  train.
  """
  parts, classes = list(report["parts"]), report["images_per_class"]
  rows = [(name, [counts[part] for part in parts]) for name, counts in classes.items()]
  if len(rows) > tables.MAX_CLASSES:
    rows = sorted(rows, key=lambda row: row[1][0])[:SHOWN]
    line = f"The {SHOWN} of {len(classes):,} classes with the fewest images in {parts[0]}:"
    tables.print_line(line, console=console)
  tables.count_table(["class", *parts], rows, console=console)


def _print_list(title: str, rows: list[Any], console: tables.Console) -> None:
  """Prints how many there are, and the first; of a pair, the second stands in a line of its own."""
  if not rows:
    return
  tables.print_line(f"{title}: {len(rows):,}", console=console)
  for row in rows[:SHOWN]:
    lines = row if isinstance(row, tuple) else (row,)
    for depth, text in enumerate(lines, 1):
      room = tables.WIDTH - 2 * depth
      shown = tables.printable(text, console.encoding)
      cut = tables.shorten_start if depth == 1 else tables.shorten
      tables.print_line("  " * depth + cut(shown, room), console=console)
  if len(rows) > SHOWN:
    tables.print_line(f"  and {len(rows) - SHOWN:,} more", console=console)


def _print_copies(report: Mapping[str, Any], console: tables.Console) -> None:
  """Prints groups of equal files, those that matter most first."""
  copies = report["copies"]
  if not copies:
    return
  across = report["copies_across_parts"]
  if across:
    tables.print_paragraph(
      "warning: images that stand in more than one part, so that figures of one rest on another: "
      f"{across:,}",
      console=console,
    )
  if report["copies_of_other_class"]:
    tables.print_paragraph(
      f"warning: images with a copy under another class: {report['copies_of_other_class']:,}",
      console=console,
    )
  ordered = sorted(copies, key=lambda copy: (-len(copy["classes"]), -len(copy["parts"])))
  _print_list(
    f"images with copies ({sum(len(copy['images']) for copy in copies):,} files)",
    [
      tuple(
        f"{_shown(report, image)} ({image['class']}, {image['part']})"
        for image in copy["images"][:2]
      )
      for copy in ordered
    ],
    console,
  )
