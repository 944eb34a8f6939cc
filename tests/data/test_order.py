import numpy as np

from imgclf.data.order import BalancedOrder, Order


def test_every_example_comes_once_an_epoch_and_each_epoch_has_an_order_of_its_own():
  epochs = Order(97, seed=0).at(np.arange(97 * 20)).reshape(20, 97)
  assert (np.sort(epochs, axis=1) == np.arange(97)).all()
  assert len({tuple(epoch) for epoch in epochs}) == 20


def test_any_part_of_the_stream_is_the_same_whatever_was_asked_for_before():
  whole = Order(10, seed=3).at(np.arange(100))
  order = Order(10, seed=3)
  for places in (
    np.arange(95, 100),
    np.arange(7, 13),
    np.arange(29, 3, -1),
    np.array([[5, 88], [41, 0]]),
  ):
    np.testing.assert_array_equal(order.at(places), whole[places])


def test_seeds_have_orders_of_their_own():
  orders = [tuple(Order(50, seed).at(np.arange(50))) for seed in range(20)]
  assert len(set(orders)) == 20


def test_the_order_is_that_of_sorted_draws_of_philox():
  """Written out: a run that was begun with one version of numpy goes on with another."""
  # Philox 4x64 with key (7, 2) and counter (0, 0, 0, 1): numpy increments the counter before the
  # first block.
  draws = np.random.Philox(key=[7, 2], counter=[0, 0, 0, 1]).random_raw(6)
  expected = sorted(range(6), key=lambda i: draws[i])
  assert Order(6, seed=7).at(np.arange(12, 18)).tolist() == expected


def test_every_place_is_equally_likely_for_an_example():
  size, epochs = 8, 4000
  order = Order(size, seed=1).at(np.arange(size * epochs)).reshape(epochs, size)
  for example in range(size):
    counts = (order == example).sum(axis=0)
    # 500 expected, standard deviation 20.9: five of them either way.
    assert abs(counts - epochs / size).max() < 105, counts


def test_an_example_is_mirrored_every_other_time_that_it_is_shown():
  size, epochs, order = 31, 6, Order(31, seed=4)
  places = np.arange(size * epochs)
  examples, mirrored = order.at(places), order.mirrored(places)
  first = {}
  for example in range(size):
    shown = mirrored[examples == example]
    assert (shown[1:] != shown[:-1]).all() and len(shown) == epochs
    first[example] = shown[0]
  assert 5 < sum(first.values()) < 26  # of 31 coins; five standard deviations either way
  assert any(Order(31, seed=5).mirrored(places) != mirrored)
  np.testing.assert_array_equal(order.mirrored(places[40:50]), mirrored[40:50])


def test_times_within_an_epoch_alternate_too():
  """Three times an epoch: a copy is another time, and the next epoch goes on where this one
  ended."""
  order, places = Order(7, seed=0), np.arange(14)
  times = np.stack([order.mirrored(places, copy, 3) for copy in range(3)])
  np.testing.assert_array_equal(times[0], ~times[1])
  np.testing.assert_array_equal(times[0], times[2])
  by_example = {e: times[:, order.at(places) == e].T.reshape(-1) for e in range(7)}
  for shown in by_example.values():
    assert (shown[1:] != shown[:-1]).all() and len(shown) == 6


SKEWED = np.array([2] * 3 + [0] * 20 + [2] * 2 + [4] * 1)  # no 1 and no 3


def test_a_balanced_stream_is_rounds_of_each_class_once_in_orders_of_their_own():
  rounds = SKEWED[BalancedOrder(SKEWED, seed=1).at(np.arange(3 * 400))].reshape(400, 3)
  np.testing.assert_array_equal(np.sort(rounds, axis=1), [[0, 2, 4]] * 400)
  orders, counts = np.unique(rounds, axis=0, return_counts=True)
  assert len(orders) == 6
  # Of 400 draws of a sixth each: 67 on average, with a standard deviation of 7.5.
  assert np.abs(counts - 400 / 6).max() < 4 * 7.5


def test_of_each_class_every_example_comes_once_before_one_comes_again():
  stream = BalancedOrder(SKEWED, seed=1).at(np.arange(3 * 100))
  for label, size in ((0, 20), (2, 5), (4, 1)):
    own = stream[SKEWED[stream] == label].reshape(-1, size)
    np.testing.assert_array_equal(
      np.sort(own, axis=1), [np.flatnonzero(SKEWED == label)] * (100 // size)
    )
    assert size == 1 or len({tuple(one) for one in own}) > 100 // size / 2


def test_any_part_of_a_balanced_stream_is_the_same_whatever_was_asked_for_before():
  whole = BalancedOrder(SKEWED, seed=3).at(
    np.arange(60_000)
  )  # over the end of what is drawn at once
  order = BalancedOrder(SKEWED, seed=3)
  for places in (np.arange(59_990, 60_000), np.array([[5, 16_384], [41, 0]]), np.arange(99, 3, -7)):
    np.testing.assert_array_equal(order.at(places), whole[places])
  assert (BalancedOrder(SKEWED, seed=4).at(np.arange(60)) != whole[:60]).any()


def test_an_example_of_a_balanced_stream_is_mirrored_every_other_time_that_it_is_shown():
  order, places = BalancedOrder(SKEWED, seed=1), np.arange(3 * 60)
  stream, mirrored = order.at(places), order.mirrored(places)
  for example in range(len(SKEWED)):
    ways = mirrored[stream == example]
    assert len(ways) >= 3
    assert (ways[1:] != ways[:-1]).all()
  assert 0 < mirrored[:3].sum() + mirrored[3:6].sum() < 6
