"""Rates are those of a clock that is moved by hand."""

import math
import subprocess
import sys

import pytest

from imgclf import timing


class Clock:
  def __init__(self):
    self.now = 0.0

  def __call__(self):
    return self.now


def test_a_rate_is_the_median_of_five_repeats_and_cpu_time_counts_apart():
  clock, cpu, calls = Clock(), Clock(), []

  def work():
    calls.append(1)
    # Ten units in 1 s, but for one call in the middle that takes 2.
    clock.now += 2.0 if len(calls) == 5 else 1.0
    cpu.now += 4.0
    return 10

  rate = timing.measure(work, 10.0, clock, cpu)
  # Repeats of two seconds: 20 in 2 s, 20 in 2 s, 10 in 2 s, 20 in 2 s, 20 in 2 s.
  assert rate.median == 10.0
  assert rate.spread == pytest.approx((10 - 5) / 10)
  assert rate.per_cpu_second == pytest.approx(90 / 36)


def test_one_call_that_takes_longer_than_the_time_is_the_only_one():
  clock, calls = Clock(), []

  def work():
    calls.append(1)
    clock.now += 60.0
    return 30

  rate = timing.measure(work, 5.0, clock, clock)
  assert (rate.median, rate.spread, len(calls)) == (0.5, 0.0, 1)


def test_cpu_time_includes_that_of_children():
  before = timing.cpu_seconds()
  busy = "import time\nwhile time.process_time() < 0.3: pass"
  subprocess.run([sys.executable, "-c", busy], check=True)
  assert timing.cpu_seconds() - before >= 0.3


@pytest.mark.parametrize(
  ("kind", "peak"),
  [
    # The names as JAX gives them; FLOP/s of the data sheets.
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H200", 989e12),
    ("NVIDIA A100-SXM4-40GB", 312e12),
    ("NVIDIA L4", 121e12),
    ("Tesla T4", 65e12),
    ("TPU v4", 275e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5p", 459e12),
    ("TPU v6 lite", 918e12),
    ("NVIDIA L40S", None),
    ("cpu", None),
  ],
)
def test_the_peak_of_a_device_is_that_of_its_data_sheet(kind, peak):
  assert timing.peak_flops(kind) == peak


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of others")
def test_the_cpu_time_of_a_running_process_counts_where_it_is_named():
  spin = (
    "import sys, time\nwhile time.process_time() < 1: pass\nprint(flush=True); sys.stdin.read()"
  )
  with subprocess.Popen([sys.executable, "-c", spin], stdin=-1, stdout=-1) as process:
    process.stdout.readline()
    with_it, without = timing.cpu_seconds([process.pid]), timing.cpu_seconds()
    process.stdin.close()
  assert 0.9 < with_it - without < 2
  assert math.isnan(timing.cpu_seconds([process.pid]))  # gone
