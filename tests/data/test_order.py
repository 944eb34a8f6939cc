import numpy as np

from imgclf.data.order import Order


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
  # Philox 4x64 with key (7, 2) and counter (0, 0, 0, 1): numpy increments the counter before the first block.
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
  """Three times an epoch: a copy is another time, and the next epoch goes on where this one ended."""
  order, places = Order(7, seed=0), np.arange(14)
  times = np.stack([order.mirrored(places, copy, 3) for copy in range(3)])
  np.testing.assert_array_equal(times[0], ~times[1])
  np.testing.assert_array_equal(times[0], times[2])
  by_example = {e: times[:, order.at(places) == e].T.reshape(-1) for e in range(7)}
  for shown in by_example.values():
    assert (shown[1:] != shown[:-1]).all() and len(shown) == 6
