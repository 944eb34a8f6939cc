import pytest

from imgclf import rules
from imgclf.errors import UserError
from imgclf.rules import Rule


def test_a_rule_is_a_pattern_and_any_of_four_factors():
  text = "stem/kernel: lr=0; */bias:decay=0.5 lr=2e1 from=0.25 until=0.375 ;"
  assert rules.parse(text) == (
    Rule("stem/kernel", lr=0.0, decay=1.0, until=1.0),
    Rule("*/bias", lr=20.0, decay=0.5, start=0.25, until=0.375),
  )
  assert rules.parse("") == rules.parse(" ; ") == ()


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("head", "'head' is no rule; write PATTERN: lr=2"),
    ("head: lr=1; tail:", "'tail:' is no rule"),
    (": lr=1", "': lr=1' is no rule"),
    ("head: lr", "got 'lr', allowed are"),
    ("head: rate=1", "got 'rate=1', allowed are"),
    ("head: lr=-1", "got 'lr=-1'"),
    ("head: lr=nan", "got 'lr=nan'"),
    ("head: decay=inf", "got 'decay=inf'"),
    ("head: until=0", "got 'until=0'"),
    ("head: until=1.1", "got 'until=1.1'"),
    ("head: from=1", "got 'from=1'"),
    ("head: start=0.5", "got 'start=0.5'"),
    ("head: from=0.5 until=0.5", "'head: from=0.5 until=0.5', which begins when it is over"),
  ],
)
def test_what_is_no_rule_is_refused_by_its_words(text, words):
  with pytest.raises(UserError, match=r"^config\.optimizer\.rules: ") as refused:
    rules.parse(text)
  assert words in str(refused.value)


def test_the_first_rule_that_fits_a_name_counts():
  known = rules.parse("*/norm?/bias: lr=2; */bias: lr=3")
  assert rules.of_name(known, "block1/norm2/bias").lr == 2
  assert rules.of_name(known, "block1/conv/bias").lr == 3
  assert rules.of_name(known, "block1/conv/kernel") == Rule("*")
  assert rules.of_name(known, "bias") == Rule("*")


def test_a_rule_that_decides_about_nothing_is_refused_with_the_reason():
  names = ["conv/kernel", "conv/bias", "head/kernel"]
  rules.refuse_idle(rules.parse("head/*: lr=2; *: decay=0"), names)
  with pytest.raises(
    UserError, match=r"'haed/\*' decides about no parameter; there are conv/kernel"
  ):
    rules.refuse_idle(rules.parse("haed/*: lr=2"), names)
  with pytest.raises(UserError, match=r"'head/\*' .*; a rule before it takes head/kernel"):
    rules.refuse_idle(rules.parse("*/kernel: lr=3; head/*: lr=2"), names)


def test_rules_without_times_are_the_same_rules_otherwise():
  text = "a: from=0.5; b/*: lr=1e-5 until=0.25 decay=0.1"
  assert rules.parse(rules.timeless(text)) == (Rule("a"), Rule("b/*", lr=1e-5, decay=0.1))
  assert rules.timeless("") == ""
