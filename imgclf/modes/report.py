"""One page on a trained run: what it gets right, how sure it is, where it fails and why, and how to
make it again.
"""

import os
import pathlib

import numpy as np

from imgclf import explain, multilabel, parallel
from imgclf.errors import UserError
from imgclf.output import checked, write_whole
from imgclf.reporting import assembly, facts, page
from imgclf.reporting.contents import Report
from imgclf.run import Run, load
from imgclf.run_folder import RunFolder
from imgclf.tables import percent, print_line, print_paragraph


def run(
  workdir: str | os.PathLike,
  *,
  split: str = "test",
  step: str | int = "best",
  compare: str | os.PathLike | None = None,
  output: str | os.PathLike | None = None,
  data_dir: str | os.PathLike | None = None,
  bad_images: str | None = None,
  quiet: bool = False,
) -> Report:
  """Judges a checkpoint of a run on a split and writes a report, one HTML file that needs no other.

  A temperature is fitted on the validation split and stored in the run folder, where evaluation and
  prediction take it from; the figures of the report are with it.

  Args:
    workdir: the run folder.
    split: `test`, `validation` or `train` as the run's config means them, or a split expression
      such as `test[:50%]`.
    step: `best`, `latest` or a step's number.
    compare: another run's folder; its best checkpoint is judged on the same examples.
    output: ends in .html; left out: `report.html` in the run folder.
    data_dir: where prepared TFDS sets are, if not where they were in training.
    bad_images: `error`, or `wrong` to count what can't be decoded as wrong; left out: as the run's
      config says.
    quiet: print nothing.

  Returns:
    What the page shows, as plain values.

  Raises:
    UserError: for a folder, checkpoint, split or comparison that is not there, or a file that can't
      be written.
  """
  if parallel.process_count() > 1:
    raise UserError("--mode=report: runs in one process; start it without a cluster's environment")
  folder = RunFolder(workdir)
  path = folder.report if output is None else checked(output, [".html"])
  restored = load(workdir, step, calibrated=False)
  multilabel.refuse(
    restored.config, "--mode=report", "--mode=eval tells its figures, of each class as well"
  )
  other = None if compare is None else _other(compare)
  again = {
    "split": split,
    "step": restored.step,
    "compare": compare,
    "output": output,
    "data_dir": data_dir,
    "bad_images": bad_images,
  }
  found = assembly.report(
    restored,
    split,
    other=other,
    data_dir=data_dir,
    bad_images=bad_images,
    explain=_grad_cam,
    report_command=facts.report_command(restored, **again),
    tell=(lambda what, text: None) if quiet else _tell,
  )
  # The name of a class or file need not be text that UTF-8 can hold; what is not is written as
  # escapes.
  text = page.render(found).encode("utf-8", "backslashreplace")
  write_whole(path, text, "--output")
  if not quiet:
    _conclude(found, path, len(text))
  return found


def _grad_cam(run: Run, images: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
  """Returns the images under their heat maps of what speaks for these labels."""
  maps = explain.heatmaps(run, images, labels, method="gradcam")
  return [explain.overlay(image, heat) for image, heat in zip(images, maps, strict=True)]


def _other(compare: str | os.PathLike) -> Run:
  try:
    other = load(compare, calibrated=False)
    multilabel.refuse(other.config, "a comparison", "give a run of one class an image")
    return other
  except UserError as error:
    text = str(error).removeprefix(f"--workdir={RunFolder(compare).path}: ")
    raise UserError(f"--compare={os.fspath(compare)}: {text}") from None


def _tell(what: str, text: str) -> None:
  print_line(f"{what:<11}  {text}")


def _conclude(found: Report, path: pathlib.Path, size: int) -> None:
  """Prints what matters most of the report, what it lacks, and where it is."""
  for figure in found.summary:
    if figure.name == "accuracy" and figure.value is not None:
      ends = ""
      if figure.low is not None and figure.high is not None:
        ends = f" (95%: {percent(figure.low)} to {percent(figure.high)})"
      _tell("accuracy", f"{percent(figure.value)}{ends} of {found.n:,} images")
  if found.comparison is not None:
    compared = found.comparison
    _tell(
      "against",
      f"{compared.other}: {compared.only_this:,} images only this run gets right, {compared.only_other:,} only "
      f"the other; p = {compared.p_value:.2g}",
    )
  for note in found.notes:
    print_paragraph(f"note         {note}")
  print_line(f"written to {path} ({size / 1e6:.1f} MB)")
