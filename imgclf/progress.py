"""What a person sees of a run while it runs: bar, log lines, TensorBoard, metrics.jsonl.

Knows nothing of models, data or devices: the loop tells it the step, the seconds waited and the
figures.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import math
import os
import pathlib
import time
from typing import IO, Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from imgclf.errors import unwritable
from imgclf.records import json_line, number, truncate_metrics
from imgclf.tables import (
  evaluation_line,
  evaluation_summary,
  make_console,
  parameter_table,
  percent,
  print_line,
)
from imgclf.tensorboard import EventFile

__all__ = [
  "Progress",
  "evaluation_line",
  "evaluation_summary",
  "parameter_table",
  "print_line",
  "truncate_metrics",
]

REFRESHES_PER_SECOND = 2
MIN_BAR_WIDTH = 5


@contextlib.contextmanager
def counting(
  total: int,
  *,
  console: Console | None = None,
  clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Callable[[int], None]]:
  """Shows on a terminal how many of so many images are done, and how fast; elsewhere it shows
  nothing.

  Args:
    total: images.
    console: where to print; none: stdout.
    clock: seconds, rising.

  Yields:
    A function to be told each time that some more images are done.
  """
  console = console or make_console()
  began, done = clock(), 0

  def advance(count: int) -> None:
    nonlocal done
    done += count

  def bar() -> Table:
    rate = done / max(clock() - began, 1e-9)
    left = _time((total - done) / rate) if done else "-:--:--"
    words = f"{rate:,.0f} images/s  left {left}"
    return _bar_line(console, f"{done:,}/{total:,}", done, total, words)

  if not console.is_interactive:
    yield advance
    return
  with Live(
    console=console, get_renderable=bar, refresh_per_second=REFRESHES_PER_SECOND, transient=True
  ):
    yield advance


def _time(seconds: float) -> str:
  minutes, seconds = divmod(math.ceil(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{seconds:02}"


def _bar_line(console: Console, head: str, done: int, total: int, rest: str) -> Table:
  """One line: what is done of how much, a bar where there is room, and the rest."""
  grid = Table.grid(padding=(0, 2), pad_edge=False)
  room = console.width - len(head) - len(rest) - 4
  if room < MIN_BAR_WIDTH:
    grid.add_row(Text(f"{head}  {rest}", no_wrap=True, overflow="crop"))
  else:
    grid.add_row(Text(head), ProgressBar(total=total, completed=done, width=room), Text(rest))
  return grid


class Progress:
  """Shows and records a training run, from entering the `with` block to leaving it.

  On a terminal a live bar stands below the log lines; it is taken down on leaving, also by an
  exception. Without a terminal there are the log lines alone, each flushed at once.

  Images per second and the share of time spent waiting for data are those of the window since the
  last `log` of the train split (or since the end of the first step, so that compilation does not
  count), less the time inside `pause`. Both are true only if the caller has waited for the device
  before it calls `log` and `pause`; fetching the figures to be logged does that.

  Attributes:
    console: where all lines go; what else is printed during the run goes there too, to stand above
      the bar.
  """

  def __init__(
    self,
    *,
    total_steps: int,
    first_step: int,
    batch_size: int,
    tensorboard_dir: str | os.PathLike | None = None,
    metrics_file: str | os.PathLike | None = None,
    quiet: bool = False,
    console: Console | None = None,
    clock: Callable[[], float] = time.perf_counter,
  ):
    """Opens nothing yet.

    Args:
      total_steps: length of the run.
      first_step: steps that are already done; records of later ones, which a killed run may have
        left, are dropped from `metrics_file` and hidden in TensorBoard.
      batch_size: images of one step, over all devices and processes.
      tensorboard_dir: where to write event files; none: no TensorBoard, as in
        processes other than the first.
      metrics_file: where to append one JSON object a line; none: nowhere, as in processes
        other than the first.
      quiet: print nothing; files that are named are written all the same.
      console: where to print; none: stdout.
      clock: seconds, rising.
    """
    self._total_steps = total_steps
    self._first_step = first_step
    self._batch_size = batch_size
    self._tensorboard_dir = tensorboard_dir
    self._metrics_file = metrics_file
    self.console = make_console(quiet=True) if quiet else console or make_console()
    self._clock = clock
    self._open = contextlib.ExitStack()
    self._file: IO[str] | None = None
    self._writer: EventFile | None = None
    self._live: Live | None = None

    self._step = first_step
    self._loss: float | None = None
    self._activity: str | None = "compiling"
    # The window: when it began (none before the first step is done), its steps, the seconds it
    # waited.
    self._began: float | None = None
    self._steps = 0
    self._waited = 0.0
    # Steps per second and data wait share of the last whole window.
    self._last: tuple[float, float] | None = None

  def __enter__(self) -> "Progress":
    """Opens the files.

    Raises:
      UserError: if they can't be written, here or in `log`.
    """
    try:
      return self._enter()
    except OSError as error:
      raise unwritable(error.filename or self._metrics_file or "", error) from error

  def _enter(self) -> "Progress":
    with contextlib.ExitStack() as stack:
      # Nothing lies behind step 0, so not even a record of step 0 itself can stay.
      last = self._first_step or -1
      if self._metrics_file is not None:
        path = pathlib.Path(self._metrics_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        truncate_metrics(path, last)
        self._file = stack.enter_context(path.open("a", encoding="utf-8", newline="\n"))
      if self._tensorboard_dir is not None:
        self._writer = EventFile(self._tensorboard_dir, last + 1)
        stack.callback(self._writer.close)
      if self.console.is_interactive:
        self._live = Live(
          console=self.console,
          get_renderable=self._bar,
          refresh_per_second=REFRESHES_PER_SECOND,
          transient=True,
        )
        stack.enter_context(self._live)
      self._open = stack.pop_all()
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()

  def close(self) -> None:
    """Takes the bar down and closes the files; a second call does nothing."""
    path = self._metrics_file or self._tensorboard_dir
    self._file = self._writer = self._live = None
    try:
      self._open.close()
    except OSError as error:
      raise unwritable(path or "", error) from error

  def step(self, step: int, *, waited: float) -> None:
    """Takes note that a call of one or more steps was dispatched; costs about a microsecond and
    prints nothing.

    Args:
      step: the number of steps done, those of this call included.
      waited: seconds that this call waited for its data.
    """
    if self._began is None:
      self._activity = None
      self._began = self._clock()
    else:
      self._steps += step - self._step
      self._waited += waited
    self._step = step

  def log(self, step: int, split: str, figures: Mapping[str, Any]) -> None:
    """Records figures in metrics.jsonl and TensorBoard, and prints a line.

    Only numbers are recorded: lists such as a confusion matrix belong in a file of their own. For
    `train`, images_per_second and data_wait_share are added (null until a step was timed), and the
    window begins anew.

    Args:
      step: the number of steps done.
      split: `train`, or the split that was evaluated.
      figures: numbers, also of numpy or JAX, by name: for `train` at least `loss`, else
        those of `imgclf.metrics.figures`.
    """
    values: dict[str, Any] = {
      name: number(value) for name, value in figures.items() if name != "step"
    }
    values = {name: value for name, value in values.items() if value is not None}
    if split == "train":
      self._step = step
      self._loss = values["loss"]
      values |= self._close_window()
    record = {"step": int(step), "split": split, **values, "time": time.time()}
    path = self._metrics_file
    try:
      if self._file is not None:
        self._file.write(json_line(record))
        self._file.flush()
      path = self._tensorboard_dir
      if self._writer is not None:
        for name, value in values.items():
          if value is not None:
            self._writer.add(f"{split}/{name}", value, int(step))
    except OSError as error:
      raise unwritable(path or "", error) from error
    if split == "train":
      print_line(self._train_line(values), console=self.console)
    else:
      print_line(evaluation_line(split, step, values), console=self.console)

  def note(self, text: str) -> None:
    """Prints a line above the bar; control characters in it, also newlines, are shown as
    escapes.
    """
    print_line(text, console=self.console)

  @contextlib.contextmanager
  def pause(self, activity: str) -> Iterator[None]:
    """Within it time does not count as training; the bar says `activity`, such as `evaluating`."""
    before, began, since = self._activity, self._began, self._clock()
    self._do(activity)
    try:
      yield
    finally:
      self._do(before)
      if began is not None:
        self._began = began + self._clock() - since

  def _do(self, activity: str | None) -> None:
    self._activity = activity
    if self._live is not None:
      self._live.refresh()

  def _window(self, now: float) -> tuple[float, float] | None:
    """Steps per second and the data wait share since the last log; none before a step was timed."""
    if self._began is None or self._steps == 0 or now <= self._began:
      return None
    elapsed = now - self._began
    return self._steps / elapsed, self._waited / elapsed

  def _close_window(self) -> dict[str, float | None]:
    now = self._clock()
    window = self._window(now)
    self._last = window or self._last
    if self._began is not None:
      self._began, self._steps, self._waited = now, 0, 0.0
    rate, share = window or (None, None)
    return {
      "images_per_second": None if rate is None else rate * self._batch_size,
      "data_wait_share": share,
    }

  def _pace(self) -> list[str]:
    """Images per second, time left and data wait, in words."""
    # The last whole window is preferred: between logs the device may lag behind what was
    # dispatched.
    pace = self._last or self._window(self._clock())
    if pace is None:
      return ["- images/s", "left -:--:--", "data wait -"]
    rate, share = pace
    return [
      f"{rate * self._batch_size:,.0f} images/s",
      f"left {_time((self._total_steps - self._step) / rate)}",
      f"data wait {share:.0%}",
    ]

  def _train_line(self, values: Mapping[str, Any]) -> str:
    """What fits a line of some 80 columns; the rest, such as the learning rate, is in the
    records.
    """
    parts = [f"step {self._step}/{self._total_steps}", f"loss {values['loss']:.4f}"]
    if "accuracy" in values:
      parts.append(f"accuracy {percent(values['accuracy'])}")
    if "exact_match" in values:
      parts.append(f"exact match {percent(values['exact_match'])}")
    return "  ".join(parts + self._pace())

  def _bar(self) -> Table:
    """The live line: step/total, a bar where there is room, and the rest."""
    steps = f"{self._step}/{self._total_steps}"
    loss = "loss -" if self._loss is None else f"loss {self._loss:.4f}"
    rest = "  ".join([self._activity or loss, *self._pace()])
    return _bar_line(self.console, steps, self._step, self._total_steps, rest)
