"""What goes to the screen is exact, 80 columns wide, and safe whatever a name contains."""

import io
import math

import jax
import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from imgclf import tables

FIGURES = {
  "n": 360,
  "loss": 0.05124,
  "accuracy": 355 / 360,
  "top5_accuracy": 359 / 360,
  "precision_macro": 0.98625,
  "recall_macro": 0.986,
  "f1_macro": 0.9859,
  "ece": 0.0123,
}


def console(*, terminal=False, width=80):
  return Console(file=io.StringIO(), force_terminal=terminal, width=width)


def printed(show, *args, terminal=False):
  out = console(terminal=terminal)
  show(*args, console=out)
  return out.file.getvalue()


def rows(count):
  """Class i has i examples and F1 i / count."""
  return [
    {"name": f"name{i}", "n": i, "precision": 0.5, "recall": 1.0, "f1": i / count}
    for i in range(count)
  ]


def array(*shape, dtype=np.float32):
  return jax.ShapeDtypeStruct(shape, dtype)


def test_the_evaluation_line_to_the_digit():
  # 355/360 = 0.98611, 359/360 = 0.99722.
  assert tables.evaluation_line("test", 300, FIGURES) == (
    "test @ step 300: accuracy 98.61%  top-5 99.72%  loss 0.0512  n 360"
  )


def test_a_summary_of_few_classes_shows_them_all_in_order():
  text = printed(tables.evaluation_summary, FIGURES | {"per_class": rows(20)}, "test", 300)
  lines = text.splitlines()
  assert lines[0] == tables.evaluation_line("test", 300, FIGURES)
  assert lines[1] == (
    "macro precision 98.62%  recall 98.60%  F1 98.59%  calibration error (ECE) 1.23%"
  )
  assert lines[2].split() == ["class", "n", "precision", "recall", "F1"]
  assert [line.split()[0] for line in lines[3:]] == [f"name{i}" for i in range(20)]
  assert lines[8].split() == ["name5", "5", "50.00%", "100.00%", "25.00%"]


def test_a_summary_of_many_classes_shows_the_ten_worst_that_have_examples():
  text = printed(tables.evaluation_summary, FIGURES | {"per_class": rows(50)[::-1]}, "test", 300)
  lines = text.splitlines()
  assert lines[2] == "The 10 classes with the lowest F1, of 49 with examples:"
  # Class 0 has no example, so its F1 of 0 says nothing.
  assert [line.split()[0] for line in lines[4:]] == [f"name{i}" for i in range(1, 11)]


SETS = {
  **{"n": 360, "loss": 0.05124, "mAP": 0.98611, "exact_match": 0.5, "f1_micro": 0.75},
  **{"f1_macro": 0.7, "precision_macro": 0.8, "recall_macro": 0.6},
}


def test_a_summary_of_several_classes_an_image_tells_average_precisions():
  aps = [None, math.nan, *(i / 50 for i in range(2, 50))]
  per_class = [row | {"average_precision": ap} for row, ap in zip(rows(50), aps)]
  few = printed(tables.evaluation_summary, SETS | {"per_class": per_class[:4]}, "test", 300)
  assert few.splitlines() == [
    "test @ step 300: mAP 98.61%  exact match 50.00%  loss 0.0512  n 360",
    "F1 micro 75.00%  macro 70.00%  macro precision 80.00%  recall 60.00%",
    "class  n     AP  precision   recall     F1",
    "name0  0      -     50.00%  100.00%  0.00%",
    "name1  1   nan%     50.00%  100.00%  2.00%",
    "name2  2  4.00%     50.00%  100.00%  4.00%",
    "name3  3  6.00%     50.00%  100.00%  6.00%",
  ]
  many = printed(tables.evaluation_summary, SETS | {"per_class": per_class[::-1]}, "test", 300)
  assert "The 10 classes with the lowest average precision (AP), of 49 with examples:" in many
  assert [line.split()[0] for line in many.splitlines()[4:]] == [f"name{i}" for i in range(1, 11)]
  null = tables.evaluation_line("test", 3, SETS | {"mAP": None, "loss": None})
  assert null == "test @ step 3: mAP nan%  exact match 50.00%  loss nan  n 360"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", ["a" * 200, "\u9f20" * 100, "[bold]" * 30, "\x1b[31m" * 30])
def test_tables_fit_80_columns_with_any_name(terminal, name):
  row = {"name": name, "n": 1234567, "precision": 1.0, "recall": 1.0, "f1": 1.0}
  figures = FIGURES | {"per_class": [row]}
  for text in (
    printed(tables.evaluation_summary, figures, "test", 300),
    printed(tables.parameter_table, {name: {"kernel": array(512, 1000)}}),
  ):
    assert max(cell_len(line) for line in text.splitlines()) <= 80
    assert "..." in text


def test_names_with_markup_and_control_characters_are_shown_and_do_nothing():
  name = "[red]x[/red]\x1b[2J\r\u202e"
  text = printed(
    tables.evaluation_summary,
    FIGURES | {"per_class": [rows(2)[1] | {"name": name}]},
    "te\x07st",
    300,
    terminal=True,
  )
  assert r"[red]x[/red]\x1b[2J\r\u202e" in text
  assert r"te\x07st @ step 300" in text
  assert "\x1b[2J" not in text and "\x07" not in text and "\r" not in text


def predictions(names, labels, *rows, terminal=False):
  out = console(terminal=terminal)
  table = tables.PredictionTable(names, labels, console=out)
  for row in rows:
    (table.add_error if len(row) == 2 else table.add)(*row)
  head = out.file.getvalue()
  table.print()
  return head, out.file.getvalue()


def test_predictions_stand_in_columns_and_are_printed_together():
  head, text = predictions(
    ["a.png", "cats/b.png"],
    ["cat", "hamster"],
    ("a.png", "hamster", 0.98611, [("cat", 0.01389)]),
    ("cats/b.png", "none of these", None, [("cat", 0.5), ("hamster", 0.4)]),
  )
  assert head == "image       label      prob.  then\n"
  # The width of a column is that of the widest name that was announced.
  assert text.splitlines()[1:] == [
    "a.png       hamster   98.61%  cat 1.39%",
    "cats/b.png  none...           cat 50.00%, hamster 40.00%",
  ]


def test_as_many_classes_are_told_as_80_columns_have_room_for():
  others = [("c" * 15, 0.01)] * 9
  _, text = predictions(["x" * 50], ["l" * 50], ("x" * 50, "l" * 50, 1.0, others))
  line = text.splitlines()[1]
  assert line == "..." + "x" * 27 + "  " + "l" * 15 + "...  100.00%"
  _, text = predictions(["x"], ["l"], ("x", "l", 1.0, others))
  line = text.splitlines()[1]
  assert line.count("1.00%") == 2 and len(line) <= 80


def test_an_image_without_an_answer_says_why_below_it():
  reason = "a.png: cannot be decoded as an image (" + "word " * 30 + "\x1b[2J)"
  _, text = predictions(["a.png"], ["cat"], ("a.png", reason), terminal=True)
  lines = text.splitlines()
  assert lines[1].split() == ["a.png", "-"]
  assert "".join(text.split()).endswith(r"word\x1b[2J)") and "\x1b[2J" not in text
  assert all(line.startswith("  ") for line in lines[2:]) and max(map(len, lines)) <= 80


def test_without_a_terminal_tables_are_ascii_without_escape_codes():
  text = printed(tables.evaluation_summary, FIGURES | {"per_class": rows(30)}, "test", 300)
  text += printed(tables.parameter_table, {"conv": {"kernel": array(3, 3, 3, 32)}})
  assert text.isascii() and text.replace("\n", "").isprintable()


def test_what_an_encoding_lacks_is_escaped():
  out = Console(
    file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), force_terminal=False, width=80
  )
  figures = FIGURES | {"per_class": [rows(2)[1] | {"name": "caf\u00e9"}]}
  tables.evaluation_summary(figures, "test", 300, console=out)
  tables.print_line("na\u00efve \udcff", console=out)
  out.file.flush()
  text = out.file.buffer.getvalue().decode("ascii")
  assert r"caf\xe9" in text and r"na\xefve \udcff" in text


def test_lines_are_never_wrapped():
  out = console()
  tables.print_line("word " * 60, console=out)
  assert out.file.getvalue().count("\n") == 1


def test_shortening_counts_screen_columns():
  assert tables.shorten("abcdef", 6) == "abcdef"
  assert tables.shorten("abcdefg", 6) == "abc..."
  # Each of these characters is two columns wide: one fits beside the dots, and half of the next
  # does not.
  assert tables.shorten("\u9f20\u9f20\u9f20\u9f20", 6) == "\u9f20..."


def test_the_parameter_table_counts_lenet5():
  # LeCun et al. 1998, fully connected form: 156 + 2,416 + 48,120 + 10,164 + 850 = 61,706
  # parameters.
  shapes = {
    "conv1": {"kernel": array(5, 5, 1, 6), "bias": array(6)},
    "conv2": {"kernel": array(5, 5, 6, 16), "bias": array(16)},
    "dense1": {"kernel": array(400, 120), "bias": array(120)},
    "dense2": {"kernel": array(120, 84), "bias": array(84)},
    "head": {"kernel": array(84, 10), "bias": array(10)},
  }
  found = [line.split() for line in printed(tables.parameter_table, shapes).splitlines()]
  assert found[1] == ["conv1", "bias", "6,", "kernel", "5x5x1x6", "156"]
  assert [row[-1] for row in found[1:]] == ["156", "2,416", "48,120", "10,164", "850", "61,706"]
  # 61,706 float32 numbers are 246,824 bytes.
  assert found[-1] == ["total", "0.2", "MB", "61,706"]


def test_the_size_of_parameters_goes_by_their_type():
  shapes = {"a": array(10**6), "b": array(10**6, dtype=np.float16)}
  assert "6.0 MB" in printed(tables.parameter_table, shapes)


def test_a_module_of_many_arrays_is_summed_up():
  stage = {f"block{i}": {"kernel": array(3, 3, 512, 512), "bias": array(512)} for i in range(9)}
  text = printed(tables.parameter_table, {"stage1": stage, "scale": array()})
  # 9 x (3 x 3 x 512 x 512 + 512) = 21,238,272
  assert "18 arrays, largest 3x3x512x512  21,238,272" in text
  assert "scale scalar" in text


def test_a_network_of_many_modules_has_a_row_for_the_rest():
  shapes = {f"layer{i:03}": {"kernel": array(2, 5)} for i in range(100)}
  text = printed(tables.parameter_table, shapes, terminal=True)
  assert len(text.splitlines()) <= 42
  lines = printed(tables.parameter_table, shapes).splitlines()
  assert lines[-2].split()[:2] == ["64", "more"] and lines[-2].split()[-1] == "640"
  assert lines[-1].split()[-1] == "1,000"


def test_the_default_console_is_no_terminal_in_a_ci_job_that_forces_colour(monkeypatch, capsys):
  monkeypatch.setenv("FORCE_COLOR", "1")
  assert not tables.make_console().is_terminal


def test_the_end_of_a_long_name_is_what_is_kept_of_a_path():
  assert tables.shorten_start("a/b/c.png", 9) == "a/b/c.png"
  assert tables.shorten_start("/data/cats/c.png", 9) == ".../c.png"
  # Two columns a character: three of them and the dots make nine.
  assert tables.shorten_start("\u9f20" * 50, 10) == "..." + "\u9f20" * 3


def test_a_paragraph_is_set_in_and_fits_80_columns():
  text = printed(tables.print_paragraph, "word " * 40 + "x" * 100 + " \u9f20" * 30 + "\x1b[2J")
  lines = text.splitlines()
  assert max(cell_len(line) for line in lines) <= 80
  assert not lines[0].startswith(" ") and all(line.startswith("  ") for line in lines[1:])
  assert "".join(text.split()) == "word" * 40 + "x" * 100 + "\u9f20" * 30 + r"\x1b[2J"


def test_a_table_of_counts_shows_each_number_below_its_name():
  text = printed(
    tables.count_table, ["class", "train", "test"], [("cat", (1234, 0)), ("dog" * 40, (5, 6))]
  )
  lines = [line.split() for line in text.splitlines()]
  assert lines[:2] == [["class", "train", "test"], ["cat", "1,234", "0"]]
  assert lines[2][0].endswith("...") and lines[2][1:] == ["5", "6"]
  assert max(map(len, text.splitlines())) <= 80
