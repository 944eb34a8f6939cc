"""Two classifiers on the same examples: is one of them right more often? Knows no model and no
file.
"""

import numpy as np


def counts(this: np.ndarray, other: np.ndarray) -> tuple[int, int, int, int]:
  """Returns how many examples both, only this, only the other, and neither of two classifiers gets
  right.

  Args:
    this, other: [n] bool, whether the answer to each example is right.
  """
  both, either = int((this & other).sum()), int((this | other).sum())
  only_this = int(this.sum()) - both
  return both, only_this, either - both - only_this, len(this) - either


def mcnemar(only_this: int, only_other: int) -> float:
  """Returns the p-value of McNemar's exact test, two-sided, that two classifiers are right equally
  often.

  Only examples that one of them alone gets right tell them apart. Were they equally good, each of
  those would be either's like the toss of a coin: the p-value is twice the smaller tail of the
  binomial distribution with 1/2, at most 1 (McNemar, "Note on the sampling error of the difference
  between correlated proportions or percentages", 1947; in its exact form). In whole numbers, so
  that neither many examples nor a tiny p-value loses a digit.

  Args:
    only_this, only_other: numbers of examples.
  """
  n = only_this + only_other
  term = tail = 1
  for k in range(min(only_this, only_other)):
    term = term * (n - k) // (k + 1)
    tail += term
  return min(1.0, 2 * tail / 2**n)
