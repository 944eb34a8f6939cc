"""Numbers, names and p-values in the words of the report's page.

Knows no markup: what it returns is plain text, which the templates escape.
"""

from collections.abc import Mapping
import datetime
import json
import math
from typing import Any

from imgclf.reporting.contents import Comparison, Figure
from imgclf.tables import percent as as_percent
from imgclf.text import printable

NOT_DEFINED = "\N{EN DASH}"

# Letters and symbols that count as printable and show nothing: braille blank, Hangul fillers, a
# combining joiner.
_BLANKS = "\u2800\u3164\u115f\u1160\uffa0\u034f"

# Of `imgclf.metrics.figures`: what a person calls it, whether it is a share, and whether more of it
# is better.
_FIGURES = {
  "accuracy": ("Accuracy", True, True),
  "top5_accuracy": ("Top-5 accuracy", True, True),
  "loss": ("Loss (nats)", False, False),
  "precision_macro": ("Macro precision", True, True),
  "recall_macro": ("Macro recall", True, True),
  "f1_macro": ("Macro F1", True, True),
  "ece": ("Calibration error (ECE)", True, False),
}


def name(text: str, width: int = 60) -> str:
  r"""Returns a name as it can be shown: escaped, at most `width` characters, never without a
  visible one.

  Args:
    text: of a class or a file, whatever is in it. Control characters, overrides of the direction of
      writing and bytes that are no text become escapes such as `\u202e`.
    width: characters; what is longer is cut in the middle, because names that share a beginning
      differ at their end.
  """
  safe = printable(text)
  if not safe.strip(" " + _BLANKS):
    return "(blank)"
  if len(safe) > width:
    end = (width - 1) // 2
    safe = f"{safe[: width - 1 - end]}…{safe[len(safe) - end :]}"
  return safe


def count(number: int) -> str:
  """Returns 12345 as `12,345`."""
  return f"{number:,}"


def percent(share: float | None) -> str:
  """Returns 0.98611 as `98.61%`; a dash for what is not defined."""
  return NOT_DEFINED if share is None or not math.isfinite(share) else as_percent(share)


def bar(share: float) -> int:
  """Returns the whole percent of a share, from 0 to 100, that the bar in its cell has for its
  width.
  """
  return round(100 * min(max(share, 0.0), 1.0)) if math.isfinite(share) else 0


def significant(number: float | None, digits: int = 4) -> str:
  """Returns a number with so many significant digits, such as `0.2162` or `1.2e-05`."""
  if number is None or not math.isfinite(number):
    return NOT_DEFINED
  if number and (abs(number) < 1e-3 or abs(number) >= 1e7):
    return f"{number:.{max(digits - 2, 1)}g}"
  if abs(number) >= 10 ** (digits - 1):
    return f"{number:,.0f}"
  decimals = digits - 1 - (math.floor(math.log10(abs(number))) if number else 0)
  return f"{number:.{min(decimals, digits)}f}"


def area(value: float | None) -> str:
  """Returns an area under a curve with four decimals; a dash for what is not defined."""
  return NOT_DEFINED if value is None or not math.isfinite(value) else f"{value:.4f}"


def date(made: str) -> str:
  """Returns an ISO 8601 time as `25 November 2026, 22:19 UTC`; as it is where it is none."""
  try:
    time = datetime.datetime.fromisoformat(made)
  except ValueError:
    return name(made)
  # Not by strftime: its names of months follow the machine's language.
  months = "January February March April May June July August September October November December"
  month = months.split()[time.month - 1]
  return f"{time.day} {month} {time.year}, {time.hour:02}:{time.minute:02} UTC"


def figure_name(key: str) -> str:
  """Returns what a person calls a figure, with the unit of one that is no share: `Loss (nats)` for
  `loss`.
  """
  if key in _FIGURES:
    return _FIGURES[key][0]
  words = name(key).replace("_", " ")
  return words[:1].upper() + words[1:]


def is_share(key: str) -> bool:
  """Whether a figure is a share from 0 to 1, to be shown in percent."""
  return key in _FIGURES and _FIGURES[key][1]


def figure_value(key: str, value: float | None) -> str:
  """Returns the value of a figure, such as `93.75%` of accuracy or `0.2162` of loss."""
  return percent(value) if is_share(key) else significant(value)


def interval(figure: Figure) -> str | None:
  """Returns the ends of a figure's interval, such as `91.20% to 93.40%`; None where there is
  none.
  """
  if any(end is None or not math.isfinite(end) for end in (figure.low, figure.high)):
    return None
  text = percent if is_share(figure.name) else significant
  return f"{text(figure.low)} to {text(figure.high)}"


def difference(this: Figure, other: Figure) -> tuple[str, str]:
  """Returns this run's figure less the other's, in percentage points for shares, and what that
  means.

  The second text is `better`, `worse`, `equal` or, where that can't be said, empty.
  """
  if any(f.value is None or not math.isfinite(f.value) for f in (this, other)):
    return NOT_DEFINED, ""
  assert this.value is not None and other.value is not None
  apart = this.value - other.value
  share = is_share(this.name)
  text = f"{abs(100 * apart):.2f} points" if share else significant(abs(apart))
  if not any(digit in text.partition("e")[0] for digit in "123456789"):
    return text, "equal"
  sign = "+" if apart > 0 else "\N{MINUS SIGN}"
  if this.name not in _FIGURES:
    return sign + text, ""
  return sign + text, "better" if (apart > 0) == _FIGURES[this.name][2] else "worse"


def p_value(p: float) -> str:
  """Returns `p = 0.031`, or `p < 0.0001` for less."""
  return "p < 0.0001" if p < 1e-4 else f"p = {min(p, 1.0):.2g}"


def verdict(comparison: Comparison) -> str:
  """Returns McNemar's test in words: what differs, how likely that is by chance, and what it
  says.
  """
  ours, theirs = comparison.only_this, comparison.only_other
  apart = ours + theirs
  if apart == 0:
    return "Both are right and wrong on the same examples, so there is no difference to test."
  ahead, n = ("This run", ours) if ours >= theirs else ("The other run", theirs)
  examples = "example" if apart == 1 else "examples"
  opening = f"Of the {count(apart)} {examples} that only one of the two gets right, "
  opening += f"{ahead.lower()} has {count(n)}" if ours != theirs else "each has half"
  chance = p_value(comparison.p_value)
  rest = (
    f"Were the two equally accurate, a split at least as uneven would come by chance with {chance}"
  )
  if comparison.p_value >= 0.05:
    return f"{opening}. {rest}: no evidence that one is more accurate, nor that they are equal."
  strength = "very strong" if comparison.p_value < 0.001 else "strong"
  strength = strength if comparison.p_value < 0.01 else "some"
  return f"{opening}. {rest}: {strength} evidence that {ahead.lower()} is more accurate."


def lines(text: str) -> str:
  """Returns a text of several lines, such as a command, with all but the ends of its lines
  escaped.
  """
  return "\n".join(map(printable, text.split("\n")))


def config_lines(config: Mapping[str, Any]) -> str:
  """Returns a config as lines `section.field = value`, values as in JSON, in the order of the
  tree.
  """
  return "\n".join(_fields(config, ""))


def _fields(tree: Mapping[str, Any], prefix: str) -> list[str]:
  found = []
  for key, value in tree.items():
    path = prefix + printable(key)
    if isinstance(value, Mapping) and value:
      found += _fields(value, f"{path}.")
    else:
      # Not only ASCII, so that names stay readable; what can't be shown is escaped after.
      found.append(f"{path} = {printable(json.dumps(value, ensure_ascii=False, default=str))}")
  return found
