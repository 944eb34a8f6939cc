"""How long things last: a total, a warm-up, an interval; given in steps, epochs or examples, used
in steps.

A duration is a name such as `train.total`; the config has it in a field a unit, `train.total_steps`
and so on.
"""

from collections.abc import Mapping
import math

from imgclf.errors import UserError

# What a run does when no unit of a duration is given, in the unit that suits it.
DEFAULTS: dict[str, tuple[str, float]] = {
  "train.total": ("epochs", 10.0),
  "schedule.warmup": ("steps", 0),
  "eval.every": ("epochs", 1.0),
  "checkpoint.every": ("epochs", 1.0),
  "log.every": ("steps", 50),
}
UNITS = ("steps", "epochs", "examples")
NAMES = (*DEFAULTS, "checkpoint.keep_every", "train.patience")


def check(config: Mapping) -> None:
  """Refuses a duration that is given in two units.

  Raises:
    UserError: naming both.
  """
  for name in NAMES:
    given = {unit: value for unit in UNITS if (value := _value(config, name, unit)) is not None}
    if len(given) > 1:
      words = " and ".join(f"{name}_{unit}={value:g}" for unit, value in given.items())
      raise UserError(f"config.{name}: {words} are both set; set one and leave the other none")


def steps(config: Mapping, name: str, num_examples: int) -> int:
  """Turns a duration into steps, rounding up to whole ones.

  Args:
    config: a validated config.
    name: a duration's, such as `train.total` or `log.every`.
    num_examples: examples in the train split, which is what an epoch is.

  Returns:
    The number of steps, at least 1 where the duration is more than nothing; that of
    `DEFAULTS` where the config sets none.
  """
  found = optional_steps(config, name, num_examples)
  if found is None:
    unit, value = DEFAULTS[name]
    found = _in_steps(unit, value, config["train"]["batch_size"], num_examples)
  return found


def optional_steps(config: Mapping, name: str, num_examples: int) -> int | None:
  """Like `steps`, but returns None where the config sets no unit of the duration."""
  for unit in UNITS:
    value = _value(config, name, unit)
    if value is not None:
      return _in_steps(unit, value, config["train"]["batch_size"], num_examples)
  return None


def _in_steps(unit: str, value: float, batch_size: int, num_examples: int) -> int:
  examples = {"steps": batch_size, "epochs": num_examples, "examples": 1}[unit] * value
  # A product such as 0.1 * 30 carries a rounding error that must not become a step.
  return max(math.ceil(examples / batch_size - 1e-9), 1 if value else 0)


def _value(config: Mapping, name: str, unit: str) -> float | None:
  section, _, field = name.partition(".")
  return config[section][f"{field}_{unit}"]
