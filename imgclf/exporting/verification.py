"""Whether an export answers as evaluation does, on real pixels through its own runtime, and how
fast.

Knows no format: both sides are functions from pixels to probabilities.
"""

from collections.abc import Callable, Iterator
import math
import statistics
import time

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]

# Float32 sums in another order differ by some 1e-7 of a probability; what is lost or misplaced, by
# far more.
TOLERANCE = 1e-5
# Images in the larger batch, and how many of the first also come alone.
BATCH = 16
_LATENCY_SECONDS, _SETTLING_SECONDS = 2.0, 0.02
_CALLS, _LEAST_TURNS, _MOST_TURNS = 10, 2, 20


def batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
  """Yields the first images one by one, then all of them in batches of `BATCH`; a single one also
  twice at once.

  Args:
    pixels: [n, size, size, 3] uint8, n at least 1.
  """
  for place in range(min(len(pixels), BATCH)):
    yield pixels[place : place + 1]
  if len(pixels) == 1:
    yield np.repeat(pixels, 2, axis=0)
  for start in range(0, len(pixels), BATCH):
    if len(pixels) > 1:
      yield pixels[start : start + BATCH]


def largest_difference(ours: Function, theirs: Function, pixels: np.ndarray) -> float:
  """Returns the largest difference of two probabilities over `batches`; infinite where one of them
  is no number.

  Raises:
    ValueError: if their results are not of the same shape and type.
  """
  largest = 0.0
  for batch in batches(pixels):
    expected, found = ours(batch), theirs(batch)
    if found.shape != expected.shape or found.dtype != expected.dtype:
      raise ValueError(
        f"gives {found.dtype} {list(found.shape)}, not {expected.dtype} {list(expected.shape)}"
      )
    difference = float(np.abs(found.astype(np.float64) - expected).max())
    largest = max(largest, math.inf if math.isnan(difference) else difference)
  return largest


def latencies(functions: list[Function], image: np.ndarray) -> list[float]:
  """Returns the median milliseconds that each takes for one image; they take turns, so that other
  work hits all alike.

  What is called in the first moments of a turn is not counted: the threads of the other runtime may
  still be spinning, in wait for more work.

  Args:
    functions: called once before they are timed.
    image: [1, size, size, 3] uint8.
  """
  for function in functions:
    function(image)
  times: list[list[float]] = [[] for _ in functions]
  began = time.perf_counter()
  for turn in range(_MOST_TURNS):
    if turn >= _LEAST_TURNS and time.perf_counter() - began > _LATENCY_SECONDS:
      break
    for function, taken in zip(functions, times):
      began_turn = time.perf_counter()
      while True:
        function(image)
        if time.perf_counter() - began_turn > _SETTLING_SECONDS:
          break
      for _ in range(_CALLS):
        start = time.perf_counter()
        function(image)
        taken.append(time.perf_counter() - start)
  return [1000 * statistics.median(taken) for taken in times]
