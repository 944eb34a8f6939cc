"""The order in which a run sees its examples: endless, and any part of it at hand at once.

Knows no record.
"""

import functools

import numpy as np


class Order:
  """The split shuffled by the seed, then shuffled anew, and so on; every example comes once an
  epoch.

  Each epoch is a permutation that follows from (seed, epoch) alone, by sorting raw draws of Philox:
  numpy promises those for good, and not what its `permutation` makes of them. An epoch of 1.28
  million examples takes 0.2 s once and 10 MB, and then 20 ns an example, where a shuffle that is
  worked out place by place takes 9 us.

  Args:
    size: examples of the split, at least 1.
    seed: of the run.
  """

  def __init__(self, size: int, seed: int):
    self._size, self._seed = size, seed

  def at(self, places: np.ndarray) -> np.ndarray:
    """Returns which examples stand at these places of the stream.

    Safe to call from several threads.

    Args:
      places: [...] integers from 0 on.

    Returns:
      [...] int64 from 0 to size - 1.
    """
    epochs, within = np.divmod(np.asarray(places, np.int64), self._size)
    found = np.empty_like(within)
    for epoch in np.unique(epochs):
      chosen = epochs == epoch
      found[chosen] = _permutation(self._size, self._seed, int(epoch))[within[chosen]]
    return found

  def mirrored(
    self, places: np.ndarray, showing: np.ndarray | int = 0, showings: int = 1
  ) -> np.ndarray:
    """Returns which images are mirrored where each example is so every other time that it is shown.

    A coin by (seed, example) says which way it is shown first (Jordan 2024,
    https://arxiv.org/abs/2404.00498): after two epochs each way was seen once, where coins alone
    show half of the examples one way twice.

    Args:
      places: [...] integers from 0 on, of the stream.
      showing: of the times that an example is shown in an epoch, the how manieth this is, from 0
        on.
      showings: how many there are.

    Returns:
      [...] bool.
    """
    times = np.asarray(places, np.int64) // self._size * showings + showing
    return (_coins(self._size, self._seed)[self.at(places)] + times) % 2 == 1


class BalancedOrder:
  """Every class as often as every other: rounds of one example of each, in an order that each round
  has of its own.

  The k-th example of a class is that of round k, from the class's own endless stream: its examples
  shuffled, then shuffled anew, and so on. All of it follows from (labels, seed, place) alone. In
  any stretch of the stream two classes differ by two examples at most.

  Args:
    labels: [n] integers, the class of each example of the split; classes without one are left out.
    seed: of the run.
  """

  def __init__(self, labels: np.ndarray, seed: int):
    self._size, self._seed = len(labels), seed
    _, counts = np.unique(labels, return_counts=True)
    self._members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    self._rows = max(1, _BLOCK // len(counts))
    # Of each class, as of the whole split in `Order`: read-ahead crosses into the next one.
    self._passes = functools.lru_cache(maxsize=3 * len(counts))(self._shuffled)
    self._blocks = functools.lru_cache(maxsize=3)(self._rounds)

  def at(self, places: np.ndarray) -> np.ndarray:
    """Returns which examples stand at these places of the stream; see `Order.at`."""
    return self._look_up(places)[0]

  def mirrored(
    self, places: np.ndarray, showing: np.ndarray | int = 0, showings: int = 1
  ) -> np.ndarray:
    """Returns which images are mirrored where each example is so every other time; see
    `Order.mirrored`.
    """
    examples, passes = self._look_up(places)
    times = passes * showings + showing
    return (_coins(self._size, self._seed)[examples] + times) % 2 == 1

  def _look_up(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The examples, and how often the class of each was gone through before."""
    rounds, turns = np.divmod(np.asarray(places, np.int64), len(self._members))
    blocks, rows = np.divmod(rounds, self._rows)
    classes = np.empty_like(turns)
    for block in np.unique(blocks):
      chosen = blocks == block
      classes[chosen] = self._blocks(int(block))[rows[chosen], turns[chosen]]
    found, passes = np.empty_like(turns), np.empty_like(turns)
    for number in np.unique(classes):
      chosen, members = classes == number, self._members[number]
      passes[chosen], within = np.divmod(rounds[chosen], len(members))
      found[chosen] = [
        members[self._passes(int(number), int(one))[place]]
        for one, place in zip(passes[chosen], within)
      ]
    return found, passes

  def _shuffled(self, number: int, one: int) -> np.ndarray:
    draws = np.random.Philox(key=[self._seed, one], counter=[0, 0, number, 3])
    return np.argsort(draws.random_raw(len(self._members[number])), kind="stable")

  def _rounds(self, block: int) -> np.ndarray:
    draws = np.random.Philox(key=[self._seed, block], counter=[0, 0, 0, 4])
    shape = self._rows, len(self._members)
    return np.argsort(draws.random_raw(shape[0] * shape[1]).reshape(shape), axis=1, kind="stable")


# Places whose rounds are drawn at once: a generator costs 10 us.
_BLOCK = 1 << 14


# Read-ahead crosses from one epoch into the next, and the report on a divergence looks back.
@functools.lru_cache(maxsize=3)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
  # The counter keeps away from what the crops draw, whose keys are (seed, place).
  draws = np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, 1]).random_raw(size)
  return np.argsort(draws, kind="stable")


@functools.lru_cache(maxsize=1)
def _coins(size: int, seed: int) -> np.ndarray:
  # The counter keeps away from the orders'.
  draws = np.random.Philox(key=[seed, 0], counter=[0, 0, 0, 2]).random_raw(size)
  return (draws >> 63).astype(np.uint8)
