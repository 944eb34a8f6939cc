import math
import re

import pytest

from imgclf.reporting import charts
from imgclf.reporting.contents import Bin, Curve, Series


def points(path):
  """The polylines of a path as lists of places."""
  return [
    [tuple(map(float, each.split())) for each in piece.split("L")] for piece in path.split("M")[1:]
  ]


def test_splits_of_a_figure_share_a_drawing_and_a_curve_alone_is_named_by_its_title():
  curves = {
    "train loss": Series([1, 2], [2.0, 1.0]),
    "validation loss": Series([2], [1.5]),
    "learning_rate": Series([1, 2], [0.1, 0.0]),
    "images_per_second": Series([1, 2], [None, 900.0]),
  }
  loss, rate, speed = charts.training(curves, step=2)
  assert [line.name for line in loss.lines] == ["train", "validation"]
  assert [line.style for line in loss.lines] == [0, 1]
  assert (loss.title, loss.y.label) == ("Loss", "nats")
  assert [line.name for line in rate.lines] == [""] and rate.title == "Learning rate"
  assert (speed.title, speed.y.label, speed.y.low) == ("Speed", "images per second", 0)


def test_a_line_goes_through_the_places_of_its_values():
  (chart,) = charts.training({"loss": Series([0, 50, 100], [4.0, 1.0, 0.0])}, step=50)
  assert (chart.y.low, chart.y.high) == (0, 4)
  (found,) = points(chart.lines[0].path)
  middle = (chart.x.start + chart.x.end) / 2
  quarter = chart.y.start + (chart.y.end - chart.y.start) / 4
  assert found[0] == (chart.x.start, chart.y.end) and found[2] == (chart.x.end, chart.y.start)
  assert found[1] == pytest.approx((middle, quarter), abs=0.06)
  assert chart.guide == pytest.approx((middle, chart.y.start, middle, chart.y.end), abs=0.06)


def test_what_is_not_finite_is_a_gap_and_a_value_alone_between_gaps_is_a_dot():
  values = [1.0, 2.0, None, 3.0, math.nan, 4.0, 5.0, math.inf]
  (chart,) = charts.training({"loss": Series(range(8), values)}, step=99)
  assert [len(piece) for piece in points(chart.lines[0].path)] == [2, 2]
  assert chart.lines[0].dots == ((chart.x.place(3), chart.y.place(3.0)),)
  assert chart.guide is None


def test_a_curve_without_a_finite_value_is_not_drawn():
  curves = {"train loss": Series([1, 2], [None, math.nan]), "empty": Series([], [])}
  assert charts.training(curves, step=1) == []


def test_a_long_curve_keeps_its_peaks_its_gaps_and_its_ends():
  values = [1.0] * 10_000
  values[3333], values[7777], values[5000] = 90.0, 0.5, None
  (chart,) = charts.training({"loss": Series(range(10_000), values)}, step=1)
  pieces = points(chart.lines[0].path)
  heights = [y for piece in pieces for _, y in piece]
  assert len(heights) < 500 and len(pieces) == 2
  assert min(heights) == chart.y.place(90.0) and max(heights) == chart.y.place(0.5)
  assert (pieces[0][0][0], pieces[-1][-1][0]) == (chart.x.start, chart.x.end)
  across = [x for piece in pieces for x, _ in piece]
  assert across == sorted(across)


def test_the_description_tells_the_course_in_words():
  (chart,) = charts.training({"train accuracy": Series([50, 100, 400], [0.1, 0.98, 0.9])}, step=1)
  assert chart.description == (
    "train: 10.00% at step 50, 90.00% at step 400, between 10.00% and 98.00%."
  )


def test_names_at_the_ends_of_lines_do_not_lie_on_one_another():
  curves = {f"split{i} loss": Series([0, 9], [1.0, 0.001 * i]) for i in range(5)}
  (chart,) = charts.training(curves, step=0)
  places = [line.label[1] for line in chart.lines]
  assert places == sorted(places, reverse=True)  # the first line is the lowest
  assert all(a - b >= charts.LABEL_HEIGHT - 0.01 for a, b in zip(places, places[1:]))  # noqa: RUF007
  assert max(places) <= chart.y.start


def test_a_bar_is_as_high_as_the_accuracy_and_hangs_as_far_as_there_are_examples():
  bins = [Bin(0.0, 0.5, 0, None, None), Bin(0.5, 0.75, 10, 0.7, 0.5), Bin(0.75, 1.0, 40, 0.9, 1.0)]
  chart = charts.reliability("As trained", bins)
  height = chart.y.start - chart.y.end
  assert [bar.height for bar in chart.bars] == pytest.approx([height / 2, height], abs=0.1)
  assert [bar.height / chart.counts[1].height for bar in chart.counts] == pytest.approx(
    [0.25, 1], abs=0.01
  )
  quarter = (chart.x.end - chart.x.start) / 4
  assert chart.bars[1].x - chart.bars[0].x == pytest.approx(quarter, abs=0.1)
  assert (
    "50.00% to 75.00%: accuracy 50.00%, mean confidence 70.00%, 10 examples" in chart.description
  )
  assert charts.reliability("", [Bin(0.0, 1.0, 0, None, None)]).description == "No examples."


def test_each_of_ten_curves_has_colour_and_dashes_of_its_own_and_an_area():
  curves = [Curve(f"class {i}", [0.0, 1.0], [0.0, 1.0], 0.5 + i / 100) for i in range(10)]
  chart = charts.ranking("ROC", "false", "true", curves, roc=True)
  # What the templates make of a style: one of six colours, one of four dashes.
  assert len({(line.style % 6, line.style % 4) for line in chart.lines}) == 10
  assert [line.value for line in chart.lines][:2] == ["0.5000", "0.5100"]
  assert chart.guide == (chart.x.start, chart.y.start, chart.x.end, chart.y.end)


def test_a_curve_keeps_its_finite_points_and_one_without_any_is_left_out():
  curves = [
    Curve("a", [], [], 0.0),
    Curve("b", [math.nan], [0.5], math.nan),
    Curve("c", [0.0, math.nan, 1.0], [1.0, 0.5, 0.0], math.nan),
  ]
  chart = charts.ranking("", "", "", curves, roc=False)
  assert [line.name for line in chart.lines] == ["c"] and chart.guide is None
  assert re.fullmatch(r"M[\d. ]+L[\d. ]+", chart.lines[0].path)
