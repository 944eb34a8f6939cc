"""Rules of the optimizer for parameters by their names: `PATTERN: lr=A decay=B from=C until=D;
PATTERN: …`.

Knows the text and names, no array and no optimizer.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import fnmatch
import math

from imgclf.errors import UserError

_WHERE = "config.optimizer.rules"


@dataclasses.dataclass(frozen=True)
class Rule:
  """What is different for some parameters.

  Attributes:
    pattern: of their names, such as `head/*`; a `*` stands for anything, slashes too.
    lr: factor of the learning rate; 0: they stay as they are.
    decay: factor of the weight decay.
    start: share of the run before which they stay as they are (`from`); then they have the learning
      rate of the run. Until then their gradients are computed as well, so that the optimizer's
      moments are there when they are needed.
    until: share of the run in which they go through the whole schedule of the learning rate, to
      stay at its end.
  """

  pattern: str
  lr: float = 1.0
  decay: float = 1.0
  start: float = 0.0
  until: float = 1.0


_USUAL = Rule("*")


def parse(text: str) -> tuple[Rule, ...]:
  """Reads rules as they stand in the config; none in an empty text.

  Raises:
    UserError: for what is no rule, naming the part that is wrong.
  """
  rules = []
  for part in filter(str.strip, text.split(";")):
    pattern, colon, words = part.partition(":")
    if not colon or not pattern.strip() or not words.split():
      raise UserError(
        f"{_WHERE}: {part.strip()!r} is no rule; write PATTERN: lr=2, with any of lr, decay, from and until"
      )
    factors = {}
    for word in words.split():
      name, _, number = word.partition("=")
      factors["start" if name == "from" else name] = _factor(name, number, word)
    rule = Rule(pattern.strip(), **factors)
    if rule.start >= rule.until:
      raise UserError(
        f"{_WHERE}: got {part.strip()!r}, which begins when it is over; take a from below its until"
      )
    rules.append(rule)
  return tuple(rules)


def _factor(name: str, number: str, word: str) -> float:
  try:
    value = float(number)
  except ValueError:
    value = math.nan
  fits = {
    "lr": 0 <= value < math.inf,
    "decay": 0 <= value < math.inf,
    "from": 0 <= value < 1,
    "until": 0 < value <= 1,
  }
  if not fits.get(name, False):
    raise UserError(
      f"{_WHERE}: got {word!r}, allowed are lr=A and decay=B, numbers >= 0, from=C, at least 0 and below 1, and "
      "until=D, above 0 and at most 1"
    )
  return value


def timeless(text: str) -> str:
  """Returns the rules of a text without `from` and `until`, as a text."""
  return "; ".join(f"{rule.pattern}: lr={rule.lr!r} decay={rule.decay!r}" for rule in parse(text))


def of_name(rules: Iterable[Rule], name: str) -> Rule:
  """Returns the first rule that fits a parameter's name, such as `block1/conv1/kernel`; else one
  that changes nothing.
  """
  return next((rule for rule in rules if fnmatch.fnmatchcase(name, rule.pattern)), _USUAL)


def refuse_idle(rules: Sequence[Rule], names: Sequence[str]) -> None:
  """Refuses a rule that decides about no parameter.

  Raises:
    UserError: with its pattern, and some names that there are.
  """
  deciding = {of_name(rules, name) for name in names}
  for rule in rules:
    if rule not in deciding:
      fit = [name for name in names if fnmatch.fnmatchcase(name, rule.pattern)]
      why = f"a rule before it takes {fit[0]}" if fit else f"there are {', '.join(names[:4])}, …"
      raise UserError(f"{_WHERE}: {rule.pattern!r} decides about no parameter; {why}")
