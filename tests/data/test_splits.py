import pytest

from imgclf.data import splits
from imgclf.data.splits import Span
from imgclf.errors import UserError

# 200 training examples in three record files, 50 test examples in one.
SHARDS = {"train": [80, 80, 40], "test": [50]}
SIZES = {"train": 200, "test": 50}


@pytest.mark.parametrize(
  ("text", "spans"),
  [
    ("train", [("train", 0, 200)]),
    ("train[:90%]", [("train", 0, 180)]),
    ("train[90%:]", [("train", 180, 200)]),
    ("test[:33%]", [("test", 0, 16)]),  # 16.5 to the nearest even number
    ("test[33%:]", [("test", 16, 50)]),
    ("train[10:20]", [("train", 10, 20)]),
    ("train[-5:]", [("train", 195, 200)]),
    ("train[:-5]", [("train", 0, 195)]),
    ("train+test", [("train", 0, 200), ("test", 0, 50)]),
    ("test + train[:50%]+train[90%:]", [("test", 0, 50), ("train", 0, 100), ("train", 180, 200)]),
    ("all", [("train", 0, 200), ("test", 0, 50)]),
    ("train[1shard]", [("train", 80, 160)]),
    ("train[1shard:]", [("train", 80, 200)]),
    ("train[:0]+test", [("test", 0, 50)]),
  ],
)
def test_expressions_select_what_tfds_documents(text, spans):
  assert list(splits.parse(text, SHARDS)) == spans


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "trian[:90%]",
      r"no split is called 'trian'.*train \(200\), test \(50\).*did you mean train\?",
    ),
    ("train+dev", "no split is called 'dev'"),
    ("train++test", "no split is called ''"),
    ("train[", "is not a split expression"),
    ("train[:9o%]", "is not a split expression"),
    ("train[:101%]", "is not a split expression"),
    ("train[7]", "is not a split expression"),
    ("all[:50%]", "is not a split expression"),
    ("train[:201]", r"reaches beyond the end, the set has train \(200\)"),
    ("test[-51:]", "reaches beyond the end"),
    ("train[20:10]", "selects no examples"),
    ("test[:0%]", "selects no examples"),
    ("train+train[:10]", "selects 10 examples more than once"),
    ("test[:30]+test[20:]", "selects 10 examples more than once"),
  ],
)
def test_wrong_expressions_are_refused_with_what_there_is(text, message):
  with pytest.raises(UserError, match=message) as caught:
    splits.parse(text, SHARDS)
  assert str(caught.value).startswith(f"{text}: ")
  assert "\n" not in str(caught.value)


def test_shared_counts_each_common_example_once():
  one = [Span("train", 0, 100), Span("test", 0, 50)]
  two = [Span("train", 90, 150), Span("test", 10, 20), Span("other", 0, 9)]
  assert splits.shared(one, two) == splits.shared(two, one) == 20
  assert splits.shared(one, [Span("train", 100, 200)]) == 0


@pytest.mark.parametrize(
  ("taken", "left"),
  [
    ([Span("train", 180, 200)], "train[:180]"),
    ([Span("train", 0, 20)], "train[20:]"),
    ([Span("train", 30, 40), Span("train", 60, 70)], "train[:30]+train[40:60]+train[70:]"),
    ([Span("test", 0, 50)], "train"),
    ([Span("train", 0, 200)], ""),
    ([], "train"),
  ],
)
def test_the_remainder_is_what_was_not_taken(taken, left):
  spans = splits.remainder([Span("train", 0, 200)], taken)
  assert splits.expression(spans, SIZES) == left


@pytest.mark.parametrize("text", ["train", "train[10:20]+test[:5]", "test[45:]+train[:1]"])
def test_an_expression_of_spans_is_read_back_as_the_same_spans(text):
  spans = splits.parse(text, SHARDS)
  assert splits.expression(spans, SIZES) == text
