import numpy as np
import pytest

from imgclf.data.sources import Record, Records


class Letters:
  """A source whose record i is named after its place, and which counts how often it is read."""

  def __init__(self, split, size):
    self.split, self.shard_lengths, self.calls = split, [size], []

  def read(self, indices):
    self.calls.append(list(indices))
    return [Record(b"", i, f"{self.split}[{i}]") for i in indices]


def names(records, indices):
  return [record.name for record in records.__getitems__(indices)]


def test_parts_follow_each_other_in_order():
  records = Records([(Letters("a", 9), 2, 4), (Letters("b", 9), 7, 9), (Letters("a", 9), 0, 1)])
  assert len(records) == 5
  assert [r.name for r in records] == ["a[2]", "a[3]", "b[7]", "b[8]", "a[0]"]


def test_a_batch_keeps_the_order_asked_for_and_reads_each_part_once():
  first, second = Letters("a", 10), Letters("b", 10)
  records = Records([(first, 0, 3), (second, 5, 8)])
  assert names(records, [4, 0, 3, 0, 2]) == ["b[6]", "a[0]", "b[5]", "a[0]", "a[2]"]
  assert (first.calls, second.calls) == ([[0, 0, 2]], [[6, 5]])


def test_no_indices_are_no_records():
  assert Records([(Letters("a", 3), 0, 3)]).__getitems__([]) == []


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_outside_is_refused(index):
  records = Records([(Letters("a", 10), 4, 7)])
  with pytest.raises(IndexError, match=f"record {index} of 3"):
    records[index]


def test_labels_are_listed_by_the_source_or_read_once():
  read, listed = Letters("a", 700), Letters("b", 4)
  listed.labels = np.array([7, 8, 9, 7])
  records = Records([(read, 10, 600), (listed, 1, 3)])
  assert records.labels().tolist() == [*range(10, 600), 8, 9]
  assert records.labels().dtype == np.int32
  assert [place for call in read.calls for place in call] == list(range(10, 600))
  assert listed.calls == []
