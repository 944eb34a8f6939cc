import numpy as np
import pytest
from scipy import stats

from imgclf.reporting import comparison


def test_the_four_counts_by_hand():
  this = np.array([True, True, True, False, False, False])
  other = np.array([True, False, False, True, False, False])
  assert comparison.counts(this, other) == (1, 2, 1, 2)


@pytest.mark.parametrize(("one", "two"), [(3, 9), (9, 3), (1, 0), (7, 7), (0, 12), (430, 522)])
def test_the_p_value_is_that_of_scipys_binomial_test(one, two):
  expected = stats.binomtest(one, one + two).pvalue
  assert comparison.mcnemar(one, two) == pytest.approx(expected, rel=1e-9)


def test_the_p_value_by_hand():
  """2 against 8: twice (1 + 10 + 45) / 1024."""
  assert comparison.mcnemar(2, 8) == 112 / 1024


def test_answers_that_never_differ_are_no_evidence():
  assert comparison.mcnemar(0, 0) == 1


def test_many_examples_and_tiny_p_values_are_no_trouble():
  assert comparison.mcnemar(20000, 20400) == pytest.approx(
    stats.binomtest(20000, 40400).pvalue, rel=1e-6
  )
  assert comparison.mcnemar(0, 1000) == 2.0**-999
  assert comparison.mcnemar(0, 30000) == 0
