"""What a person sees of a run: the bar, the log lines, metrics.jsonl and TensorBoard."""

import io
import json
import math
import re
import struct

import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto import event_pb2

from imgclf import progress, tables

EVALUATION = {
  "n": 360,
  "loss": 0.05,
  "accuracy": 0.5,
  "top5_accuracy": 1.0,
  "f1_macro": math.nan,
  "per_class": [{"name": "cat"}],
  "confusion_matrix": [[1]],
}


class Clock:
  """Seconds that pass only when told."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def make(*, terminal=False, width=80, **options):
  console = Console(file=io.StringIO(), force_terminal=terminal, width=width)
  defaults = {"total_steps": 1000, "first_step": 0, "batch_size": 32, "console": console}
  return progress.Progress(**(defaults | options))


def output(shown):
  return shown.console.file.getvalue()


def records(path):
  def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")

  return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def events(folder):
  """The events of all files in the order in which TensorBoard reads them."""
  found = []
  for path in sorted(folder.iterdir()):
    data, start = path.read_bytes(), 0
    while start < len(data):
      # A record: its length (8 bytes), a checksum (4), itself, a checksum (4).
      (length,) = struct.unpack_from("<Q", data, start)
      found.append(event_pb2.Event.FromString(data[start + 12 : start + 12 + length]))
      start += length + 16
    assert start == len(data)
  return found


def train(shown, clock, steps, *, seconds, waited=0.0):
  for step in steps:
    clock.now += seconds
    shown.step(step, waited=waited)


def test_images_per_second_and_wait_share_are_those_of_the_window(tmp_path):
  clock, path = Clock(), tmp_path / "metrics.jsonl"
  with make(clock=clock, metrics_file=path) as shown:
    clock.now += 60  # compilation, which is not training speed
    shown.step(1, waited=50.0)
    train(shown, clock, range(2, 12), seconds=0.5, waited=0.1)
    shown.log(11, "train", {"loss": 2.0})
    train(shown, clock, range(12, 22), seconds=0.25, waited=0.2)
    shown.log(21, "train", {"loss": 1.0})
  first, second = records(path)
  # 10 steps of 32 images in 5 s, of which 1 s waiting; then 10 in 2.5 s, of which 2 s waiting.
  assert first["images_per_second"] == pytest.approx(64)
  assert first["data_wait_share"] == pytest.approx(0.2)
  assert second["images_per_second"] == pytest.approx(128)
  assert second["data_wait_share"] == pytest.approx(0.8)
  # 989 steps at 2 a second are 495 s, 979 at 4 are 245 s.
  lines = output(shown).splitlines()
  assert lines[0] == "step 11/1000  loss 2.0000  64 images/s  left 0:08:15  data wait 20%"
  assert lines[1] == "step 21/1000  loss 1.0000  128 images/s  left 0:04:05  data wait 80%"


def test_evaluation_and_saving_are_not_training_time(tmp_path):
  clock, path = Clock(), tmp_path / "metrics.jsonl"
  with make(clock=clock, metrics_file=path) as shown:
    with shown.pause("evaluating"):
      clock.now += 1000
    train(shown, clock, range(1, 6), seconds=1)
    with shown.pause("evaluating"):
      clock.now += 300
      with shown.pause("saving"):
        clock.now += 500
    train(shown, clock, range(6, 10), seconds=1)
    shown.log(9, "train", {"loss": 1.0})
  # 8 steps after the first, 1 s each.
  assert records(path)[0]["images_per_second"] == pytest.approx(32)


def test_the_first_step_alone_has_no_speed_yet(tmp_path):
  clock, path = Clock(), tmp_path / "metrics.jsonl"
  with make(clock=clock, metrics_file=path) as shown:
    train(shown, clock, [1], seconds=60)
    shown.log(1, "train", {"loss": 1.0})
    train(shown, clock, [2], seconds=2)
    shown.log(2, "train", {"loss": 1.0})
  first, second = records(path)
  assert first["images_per_second"] is None and first["data_wait_share"] is None
  assert second["images_per_second"] == pytest.approx(16)
  assert output(shown).splitlines()[0] == (
    "step 1/1000  loss 1.0000  - images/s  left -:--:--  data wait -"
  )


def test_large_figures_are_readable():
  clock = Clock()
  with make(clock=clock, total_steps=450_000, batch_size=4096) as shown:
    train(shown, clock, range(1, 12), seconds=0.25)
    shown.log(11, "train", {"loss": 6.9, "accuracy": 0.0123, "learning_rate": 0.00125})
  # 4096 / 0.25 s = 16,384 images/s; 449,989 steps / 4 = 112,498 s = 31 h 14 min 58 s.
  assert output(shown).splitlines() == [
    "step 11/450000  loss 6.9000  accuracy 1.23%  16,384 images/s  left 31:14:58  data wait 0%"
  ]


def test_without_a_terminal_there_are_plain_lines_only():
  with make() as shown:
    shown.step(1, waited=0.0)
    assert output(shown) == ""
    shown.log(1, "train", {"loss": 1.0})
    with shown.pause("evaluating"):
      shown.log(1, "validation", EVALUATION)
    shown.note("saved [red]to[/red] /runs/\x1b[2J\u202e\n")
  lines = output(shown).split("\n")
  assert lines[1] == tables.evaluation_line("validation", 1, EVALUATION)
  assert lines[2:] == [r"saved [red]to[/red] /runs/\x1b[2J\u202e\n", ""]
  assert output(shown).isascii() and output(shown).replace("\n", "").isprintable()


def test_each_line_is_flushed_at_once():
  class Stream(io.StringIO):
    flushed = ""

    def flush(self):
      self.flushed = self.getvalue()

  stream = Stream()
  with make(console=Console(file=stream, force_terminal=False)) as shown:
    shown.note("hello")
    assert stream.flushed == "hello\n"


def frames(shown):
  """The live lines that were drawn, without their escape codes."""
  text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output(shown))
  return [line for line in re.split(r"[\r\n]", text) if re.match(r"\d+/\d+ ", line)]


def test_a_terminal_shows_the_bar_with_its_parts_in_80_columns():
  clock = Clock()
  with make(terminal=True, clock=clock) as shown:
    shown.note("begins")
    train(shown, clock, range(1, 102), seconds=0.5, waited=0.125)
    shown.log(101, "train", {"loss": 0.5})
    shown.note("redraws")
  first, last = frames(shown)[0], frames(shown)[-1]
  assert "0/1000" in first and "compiling" in first and "- images/s" in first
  # 899 steps at 2 a second are 450 s.
  assert re.fullmatch(
    r"101/1000  [^a-z0-9]+  loss 0\.5000  64 images/s  left 0:07:30  data wait 25%", last
  )
  # The bar fills what the other parts leave.
  assert len(last) == 80


def test_the_bar_says_what_a_pause_is_for():
  with make(terminal=True) as shown:
    shown.step(1, waited=0.0)
    with shown.pause("evaluating"):
      during = frames(shown)[-1]
    assert "evaluating" in during and "evaluating" not in frames(shown)[-1]


def test_a_narrow_terminal_gets_one_line_without_a_bar():
  with make(terminal=True, width=30) as shown:
    shown.note("redraws")
  assert frames(shown)[-1] == "0/1000  compiling  - images/s "[:30]


def test_log_lines_stand_above_the_bar():
  with make(terminal=True) as shown:
    shown.step(1, waited=0.0)
    shown.log(1, "validation", EVALUATION)
  text = output(shown)
  line = tables.evaluation_line("validation", 1, EVALUATION)
  assert line in text and "1/1000" in text[text.index(line) :]


def test_the_bar_is_taken_down_when_an_exception_passes(tmp_path):
  path = tmp_path / "metrics.jsonl"
  shown = make(terminal=True, metrics_file=path, tensorboard_dir=tmp_path / "tb")

  def interrupted():
    with shown:
      shown.step(1, waited=0.0)
      shown.log(1, "train", {"loss": 1.0})
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupted()
  # The cursor, hidden under the bar, is shown again, and the bar's line is erased.
  assert output(shown).count("\x1b[?25l") == output(shown).count("\x1b[?25h") == 1
  assert output(shown).endswith("\x1b[2K")
  after = output(shown)
  shown.close()
  assert output(shown) == after
  assert len(records(path)) == 1 and len(events(tmp_path / "tb")) > 1


def test_metrics_are_strict_json_written_at_once(tmp_path):
  path = tmp_path / "new" / "metrics.jsonl"
  with make(metrics_file=path) as shown:
    shown.log(3, "train", {"loss": np.float32(math.nan), "grad_norm": np.array(math.inf)})
    assert len(records(path)) == 1
    shown.log(np.int64(3), "validation", EVALUATION | {"step": 3, "split": "validation"})
    train_record, evaluation = records(path)
  assert train_record.pop("time") > 1.7e9 and evaluation.pop("time") > 1.7e9
  assert train_record == {
    "step": 3,
    "split": "train",
    "loss": None,
    "grad_norm": None,
    "images_per_second": None,
    "data_wait_share": None,
  }
  assert evaluation == {
    "step": 3,
    "split": "validation",
    "n": 360,
    "loss": 0.05,
    "accuracy": 0.5,
    "top5_accuracy": 1.0,
    "f1_macro": None,
  }


def test_a_resumed_run_leaves_no_line_twice(tmp_path):
  path = tmp_path / "metrics.jsonl"
  with make(metrics_file=path) as shown:
    for step in (10, 20, 30):
      shown.log(step, "train", {"loss": 1.0})
  with path.open("a") as file:
    file.write('{"step": 40, "spl')
  with make(metrics_file=path, first_step=20) as shown:
    shown.log(30, "train", {"loss": 0.5})
  assert [(r["step"], r["loss"]) for r in records(path)] == [(10, 1.0), (20, 1.0), (30, 0.5)]


def test_a_run_that_begins_again_at_0_leaves_nothing_of_the_one_before(tmp_path):
  path = tmp_path / "metrics.jsonl"
  for _ in range(2):
    with make(metrics_file=path) as shown:
      shown.log(0, "validation", EVALUATION)
  assert len(records(path)) == 1


def test_tensorboard_files_can_be_read_back(tmp_path):
  with make(tensorboard_dir=tmp_path) as shown:
    shown.log(7, "train", {"loss": 0.25, "accuracy": 0.5})
    shown.log(7, "validation", EVALUATION | {"f1_macro": 0.75})
  values = {
    value.tag: (event.step, value.simple_value)
    for event in events(tmp_path)
    for value in event.summary.value
  }
  # `images_per_second` is not there: no step was timed.
  assert values == {
    "train/loss": (7, 0.25),
    "train/accuracy": (7, 0.5),
    "validation/n": (7, 360),
    "validation/loss": (7, pytest.approx(0.05)),
    "validation/accuracy": (7, 0.5),
    "validation/top5_accuracy": (7, 1.0),
    "validation/f1_macro": (7, 0.75),
  }


def test_a_resumed_run_hides_later_events_and_overwrites_no_file(tmp_path):
  for first, step in ((0, 30), (20, 30)):
    with make(tensorboard_dir=tmp_path, first_step=first) as shown:
      shown.log(step, "train", {"loss": 1.0})
  found = events(tmp_path)
  assert len(list(tmp_path.iterdir())) == 2
  starts = [e.step for e in found if e.session_log.status == event_pb2.SessionLog.START]
  # TensorBoard forgets what lies at or after such a step in earlier files.
  assert starts == [0, 21]
  assert [e.step for e in found if e.summary.value] == [30, 30]


def test_quiet_prints_nothing_and_writes_all_the_same(tmp_path, capsys):
  path = tmp_path / "metrics.jsonl"
  with progress.Progress(
    total_steps=9, first_step=0, batch_size=1, metrics_file=path, quiet=True
  ) as shown:
    shown.step(1, waited=0.0)
    shown.log(1, "train", {"loss": 1.0})
    shown.note("hello")
    progress.parameter_table({"a": np.zeros(3)}, console=shown.console)
  captured = capsys.readouterr()
  assert captured.out + captured.err == ""
  assert len(records(path)) == 1


def test_a_step_costs_microseconds_and_draws_nothing():
  with make() as shown:
    clock, steps = progress.time.perf_counter, 10_000
    best = math.inf
    for _ in range(5):
      begun = clock()
      for step in range(steps):
        shown.step(step, waited=0.0)
      best = min(best, (clock() - begun) / steps)
  assert output(shown) == ""
  assert best < 20e-6


def counted(*, terminal):
  """What the counter prints while 300 of 1,200 images are done in 3 seconds, and after."""
  out, clock = Console(file=io.StringIO(), force_terminal=terminal, width=80), Clock()
  with progress.counting(1200, console=out, clock=clock) as advance:
    clock.now += 3
    advance(100)
    advance(200)
    if terminal:
      out._live_stack[-1].refresh()
  return out.file.getvalue()


def test_the_counter_shows_how_many_how_fast_and_how_long():
  shown = counted(terminal=True)
  assert "300/1,200" in shown and "100 images/s  left 0:00:09" in shown
  # Taken down at the end: the cursor goes up and the line is erased.
  assert shown.rstrip("\n").endswith("\x1b[2K")


def test_the_counter_says_nothing_where_nobody_watches():
  assert counted(terminal=False) == ""
