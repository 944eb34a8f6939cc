import math

import pytest

from imgclf.reporting import wording
from imgclf.reporting.contents import Comparison, Figure

DASH = "\N{EN DASH}"


@pytest.mark.parametrize(
  ("number", "expected"),
  [
    (0.21618, "0.2162"),
    (0.01, "0.0100"),
    (0.000123, "0.00012"),
    (1.234e-5, "1.2e-05"),
    (0, "0.000"),
    (12.3456, "12.35"),
    (-1.5, "-1.500"),
    (12345.6, "12,346"),
    (9999.96, "10,000"),
    (None, DASH),
    (math.nan, DASH),
    (-math.inf, DASH),
  ],
)
def test_numbers_have_four_digits_that_count(number, expected):
  assert wording.significant(number) == expected


def test_shares_counts_and_bars():
  assert wording.percent(0.98611) == "98.61%" and wording.percent(math.nan) == DASH
  assert wording.count(1234567) == "1,234,567"
  assert [wording.bar(x) for x in (0.0, 0.125, 0.996, 1.0, 7.0, -1.0, math.nan)] == [
    *(0, 12, 100, 100, 100, 0, 0)
  ]


def test_areas_have_four_decimals_so_that_they_stand_below_one_another():
  assert [wording.area(x) for x in (1.0, 0.98765, None, math.nan)] == [
    "1.0000",
    "0.9877",
    DASH,
    DASH,
  ]


def test_a_date_is_written_out_whatever_the_machine_speaks():
  assert wording.date("2026-11-05T02:09:41+00:00") == "5 November 2026, 02:09 UTC"
  assert wording.date("2026-11-05T02:09:41Z") == "5 November 2026, 02:09 UTC"
  assert wording.date("yesterday\n") == "yesterday\\n"


def test_names_are_escaped_cut_in_the_middle_and_never_without_a_visible_character():
  assert wording.name("a\u202eb\x00") == "a\\u202eb\\x00"
  assert wording.name("abcdefghij", 7) == "abc…hij" and wording.name("abcdefg", 7) == "abcdefg"
  assert {wording.name(text) for text in ("", "  ", "\u2800", "\u3164 ")} == {"(blank)"}
  assert all(len(wording.name("x" * 99, width)) == width for width in range(5, 60))


def test_intervals_are_in_the_unit_of_their_figure_and_none_is_half_one():
  assert wording.interval(Figure("accuracy", 0.9, 0.88, 0.915)) == "88.00% to 91.50%"
  assert wording.interval(Figure("loss", 0.5, 0.4567, 0.6)) == "0.4567 to 0.6000"
  assert wording.interval(Figure("loss", 0.5, None, 0.6)) is None
  assert wording.interval(Figure("loss", 0.5, 0.1, math.nan)) is None


@pytest.mark.parametrize(
  ("name", "this", "other", "expected"),
  [
    ("accuracy", 0.9, 0.8875, ("+1.25 points", "better")),
    ("accuracy", 0.8875, 0.9, ("\N{MINUS SIGN}1.25 points", "worse")),
    ("loss", 0.5, 0.4, ("+0.1000", "worse")),
    ("ece", 0.01, 0.02, ("\N{MINUS SIGN}1.00 points", "better")),
    ("accuracy", 0.90001, 0.9, ("0.00 points", "equal")),
    ("loss", 1.0, 1.0, ("0.000", "equal")),
    ("own", 2.0, 1.0, ("+1.000", "")),
    ("loss", None, 1.0, (DASH, "")),
    ("loss", math.nan, 1.0, (DASH, "")),
  ],
)
def test_a_difference_has_a_sign_and_says_which_way_is_better(name, this, other, expected):
  figures = (Figure(name, this, None, None), Figure(name, other, None, None))
  assert wording.difference(*figures) == expected


def comparison(ours, theirs, p):
  return Comparison("other", 1, [], 10, ours, theirs, 10, p, [], [])


# p of the exact test is twice the tail of a binomial with 1/2: scipy.stats.binomtest(ours, ours +
# theirs).pvalue.
@pytest.mark.parametrize(
  ("ours", "theirs", "p", "expected"),
  [
    (9, 1, 22 / 1024, "some evidence that this run is more accurate."),
    (10, 0, 2 / 1024, "strong evidence that this run is more accurate."),
    (0, 14, 2 / 2**14, "very strong evidence that the other run is more accurate."),
    (5, 5, 1.0, "no evidence that one is more accurate, nor that they are equal."),
    (8, 2, 112 / 1024, "no evidence that one is more accurate, nor that they are equal."),
    (6, 4, 772 / 1024, "no evidence that one is more accurate, nor that they are equal."),
  ],
)
def test_mcnemars_test_in_words(ours, theirs, p, expected):
  text = wording.verdict(comparison(ours, theirs, p))
  assert text.endswith(expected) and wording.p_value(p) in text
  assert text.startswith(f"Of the {ours + theirs} examples that only one of the two gets right, ")


def test_the_verdict_names_who_is_ahead_by_how_many_and_tells_when_there_is_nothing_to_test():
  assert "right, this run has 9." in wording.verdict(comparison(9, 1, 0.02))
  assert "right, the other run has 14." in wording.verdict(comparison(0, 14, 0.0001))
  assert "right, each has half." in wording.verdict(comparison(5, 5, 1.0))
  assert wording.verdict(comparison(1, 0, 1.0)).startswith("Of the 1 example that ")
  assert "no difference to test" in wording.verdict(comparison(0, 0, 1.0))


def test_p_values_are_short_and_never_zero():
  texts = [wording.p_value(p) for p in (1.0, 0.0312, 0.00012, 1e-9, 0.0, 1.0000001)]
  assert texts == ["p = 1", "p = 0.031", "p = 0.00012", "p < 0.0001", "p < 0.0001", "p = 1"]


def test_a_config_is_lines_of_paths_and_json_values():
  config = {"seed": 0, "a": {"b": {"c": "x\ny"}, "é": [1.5, None]}, "t": True, "empty": {}}
  assert wording.config_lines(config).splitlines() == [
    "seed = 0",
    'a.b.c = "x\\ny"',
    "a.é = [1.5, null]",
    "t = true",
    "empty = {}",
  ]


def test_what_a_person_calls_a_figure():
  names = ("top5_accuracy", "loss", "f1_macro", "learning_rate")
  assert [wording.figure_name(name) for name in names] == [
    *("Top-5 accuracy", "Loss (nats)", "Macro F1", "Learning rate")
  ]
