"""What a step takes of a device, and what batch is said to fit where that is too much."""

import re
import types

import jax
import jax.numpy as jnp
import pytest

import imgclf
from imgclf import memory, parallel
from imgclf.errors import UserError

# What XLA makes of a program is what is tested here.
pytestmark = pytest.mark.optimized

TRAIN, EVAL = "config.train.batch_size", "config.eval.batch_size"


class Step:
  """A step of which the compiler says what it takes: 700 bytes that stay, 1,600 that come and
  go."""

  def lower(self, *arguments):
    return self

  def compile(self):
    return self

  def memory_analysis(self):
    return types.SimpleNamespace(
      argument_size_in_bytes=600,
      output_size_in_bytes=500,
      alias_size_in_bytes=400,  # results in the place of arguments count once
      temp_size_in_bytes=1600,
    )


@pytest.fixture
def accelerator(monkeypatch):
  """Makes the CPU go by the name of what runs the parts of a batch one after the other."""
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.fixture
def limit(monkeypatch):
  """Sets what a device is said to have."""
  return lambda size: monkeypatch.setattr(memory, "device_bytes", lambda: size)


def refused(*arguments):
  with pytest.raises(UserError) as caught:
    memory.check(*arguments)
  return str(caught.value)


@pytest.mark.parametrize("size", [2300, 10**12, None])
def test_what_fits_is_told_in_bytes(limit, size):
  limit(size)
  assert memory.check(Step(), (), 16, TRAIN, 1) == 2300


def test_of_a_real_function_arguments_copies_and_results_count(limit):
  """32 rows of 1,000 float32: in, sorted, and one float of each row out."""
  middle = parallel.pmap(lambda rows: jnp.sort(rows, axis=1)[:, 500])
  rows = jnp.ones((1, 32, 1000), jnp.float32)
  limit(None)
  needed = memory.check(middle, (rows,), 32, TRAIN, 1)
  assert needed == 32 * 4000 + 32 * 4000 + 32 * 4
  limit(needed)
  assert memory.check(middle, (rows,), 32, TRAIN, 1) == needed
  # 90% of 231,000 less what stays, 128,128, are 79,772 bytes, and each row takes another 4,000.
  limit(231_000)
  assert "set it to 19 or less" in refused(middle, (rows,), 32, TRAIN, 1)


@pytest.mark.parametrize(
  ("size", "examples", "field", "parts", "devices", "mend"),
  [
    # 90% of 2,000 less 700 leave 1,100 for examples of 100 bytes: 11 of 16, or two parts of 8.
    (2000, 16, TRAIN, 1, 1, f"set {TRAIN} to 11 or less, or keep it: accumulate_steps=2"),
    # 400: 4 of 16, or four parts of 4.
    (1223, 16, TRAIN, 1, 1, f"set {TRAIN} to 4 or less, or keep it: accumulate_steps=4"),
    # 100 are one, or one by one.
    (889, 16, TRAIN, 1, 1, f"set {TRAIN} to 1 or less, or keep it: accumulate_steps=16"),
    # Not even one.
    (880, 16, TRAIN, 1, 1, "take a smaller model or image size"),
    (600, 16, TRAIN, 1, 1, "take a smaller model or image size"),
    # Evaluation has no parts.
    (2000, 16, EVAL, 1, 1, f"set {EVAL} to 11 or less"),
    # In two parts of 8, an example of the batch is 100 bytes all the same: 11, of which two parts
    # take 10.
    (2000, 16, TRAIN, 2, 1, f"set {TRAIN} to 10 or less, or keep it: accumulate_steps=4"),
    # Four devices have 16 of 64 each.
    (2000, 64, TRAIN, 1, 4, f"set {TRAIN} to 44 or less, or keep it: accumulate_steps=2"),
    # Of 15, two parts can't be made: three of 5 (1,600 / 15 are 106.7 a piece; 10.3 fit).
    (2000, 15, TRAIN, 1, 1, f"set {TRAIN} to 10 or less, or keep it: accumulate_steps=3"),
    # 1,600 / 7 are 228.6 a piece: 4.8 of 7 fit, or seven parts of one.
    (2000, 7, TRAIN, 1, 1, f"set {TRAIN} to 4 or less, or keep it: accumulate_steps=7"),
  ],
)
@pytest.mark.usefixtures("accelerator")
def test_what_does_not_fit_is_refused_with_what_would(
  limit, monkeypatch, size, examples, field, parts, devices, mend
):
  limit(size)
  monkeypatch.setattr(parallel, "device_count", lambda: devices)
  told = refused(Step(), (), examples, field, parts)
  assert told.startswith(f"{field}: {examples} images take 0.0 GB on each device")
  found = told.partition("; ")[2]
  found = found.replace("set it", f"set {field}").replace("it with config.optimizer.", "it: ")
  assert found == mend


def test_on_cpus_parts_are_not_told_to_save_memory(limit):
  limit(2000)
  assert refused(Step(), (), 16, TRAIN, 1).endswith("; set it to 11 or less")


def test_sizes_are_told_in_gigabytes(limit):
  class Large(Step):
    def memory_analysis(self):
      stats = super().memory_analysis()
      stats.temp_size_in_bytes = 123_400_000_000
      return stats

  limit(80_000_000_000)
  assert "16 images take 123.4 GB on each device, which has 80.0 GB; " in refused(
    Large(), (), 16, TRAIN, 1
  )


def test_a_step_without_copies_that_does_not_fit_is_refused_too(limit):
  step = parallel.pmap(lambda rows: rows + 1)
  limit(1000)
  told = refused(step, (jnp.ones((1, 32, 1000), jnp.float32),), 32, TRAIN, 1)
  assert told.endswith("take a smaller model or image size")


@pytest.mark.usefixtures("accelerator")
def test_memory_that_runs_out_while_compiling_is_refused_alike():
  class Exhausted(Step):
    def compile(self):
      raise RuntimeError("RESOURCE_EXHAUSTED: Ran out of\nmemory in memory space hbm")

  assert refused(Exhausted(), (), 16, TRAIN, 2) == (
    f"{TRAIN}: the memory does not suffice for 16 images (Ran out of memory in memory space hbm); "
    "set it to 8 or less, or keep it with config.optimizer.accumulate_steps=4"
  )


def test_another_error_of_the_compiler_is_let_through():
  class Broken(Step):
    def compile(self):
      raise RuntimeError("INTERNAL: a bug")

  with pytest.raises(RuntimeError, match="a bug"):
    memory.check(Broken(), (), 16, TRAIN, 1)


@pytest.mark.parametrize(
  ("examples", "parts", "devices", "mend"),
  [
    (16, 1, 1, "set it to 8 or less, or keep it with config.optimizer.accumulate_steps=2"),
    (1, 1, 1, "take a smaller model or image size"),
    # Half of it is no batch that the devices can share: 12 of 24 are not, 8 are.
    (24, 1, 8, "set it to 8 or less, or keep it with config.optimizer.accumulate_steps=3"),
    (8, 1, 8, "take a smaller model or image size"),
    # What is in two parts already is not told to be put into two.
    (16, 2, 1, "set it to 8 or less, or keep it with config.optimizer.accumulate_steps=4"),
  ],
)
@pytest.mark.usefixtures("accelerator")
def test_where_only_the_failure_is_known_half_is_told_to_fit(
  monkeypatch, examples, parts, devices, mend
):
  monkeypatch.setattr(parallel, "device_count", lambda: devices)
  error = memory.refusal(MemoryError(), examples, TRAIN, parts)
  assert str(error) == f"{TRAIN}: the memory does not suffice for {examples} images; {mend}"


def test_the_words_of_the_error_are_one_short_line():
  told = str(memory.refusal(RuntimeError("RESOURCE_EXHAUSTED: a\n b " + "x" * 500), 4, EVAL))
  assert told.startswith(f"{EVAL}: the memory does not suffice for 4 images (a b xxx")
  assert "\n" not in told and len(told) < 300


@pytest.mark.parametrize(
  ("error", "is_it"),
  [
    (MemoryError(), True),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), True),
    (RuntimeError("RESOURCE_EXHAUSTED: x"), True),
    (RuntimeError("INTERNAL: x"), False),
    (UserError("memory"), False),
  ],
)
def test_only_a_lack_of_memory_is_taken_for_one(error, is_it):
  assert memory.exhausted(error) is is_it


def test_devices_of_one_machine_share_its_memory(run_python):
  code = "from imgclf import memory; print(memory.device_bytes())"
  assert int(run_python(code, devices=8)) == memory.device_bytes() // 8


def test_the_machines_memory_is_that_of_the_container_where_it_has_less(monkeypatch):
  class Files:
    def __init__(self, path):
      self.path = path

    def read_text(self):
      return "5000\n" if self.path == "/sys/fs/cgroup/memory.max" else "max\n"

  monkeypatch.setattr(memory.pathlib, "Path", Files)
  assert memory.device_bytes() == 5000


@pytest.mark.usefixtures("accelerator")
def test_a_run_that_does_not_fit_is_refused_and_what_it_is_told_leads_to_one_that_does(
  small_config, tmp_path, monkeypatch, limit
):
  small_config.train.batch_size, small_config.train.total_steps = 64, 1
  small_config.eval.batch_size = 8
  small_config.augment.rotation = 0.0
  taken = []
  check = memory.check

  def noted(*arguments):
    taken.append(check(*arguments))
    return taken[-1]

  monkeypatch.setattr(memory, "check", noted)
  limit(None)
  imgclf.train(small_config, tmp_path / "free", quiet=True)
  whole = taken[0]
  assert whole > taken[1]  # else it would be evaluation that does not fit
  limit(int(0.6 * whole))

  told_parts = [1]
  while len(told_parts) < 4:
    small_config.optimizer.accumulate_steps = told_parts[-1]
    try:
      imgclf.train(small_config, tmp_path / "run", quiet=True)
      break
    except UserError as error:
      told = str(error)
    batch, parts = re.fullmatch(
      rf"{TRAIN}: 64 images take 0\.0 GB on each device, which has 0\.0 GB; set it to (\d+) or less, "
      r"or keep it with config\.optimizer\.accumulate_steps=(\d+)",
      told,
    ).groups()
    assert int(batch) < 64
    told_parts.append(int(parts))
  # What the parts leave is known once they were compiled, so more of them may be told a second
  # time.
  assert 2 <= len(told_parts) <= 3 and told_parts == sorted(set(told_parts))
  assert max(taken[2:]) <= 0.6 * whole and len(taken) == 4


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize(
  ("where", "told"),
  [
    (
      "imgclf.loop.Loop._wait",
      f"{TRAIN}: the memory does not suffice for 16 images (Out of memory); set it to 8 or less, "
      "or keep it with config.optimizer.accumulate_steps=4",
    ),
    (
      "imgclf.validation.judged",
      "config.eval.batch_size: the memory does not suffice for 64 images (Out of memory); set it to "
      "32 or less",
    ),
  ],
)
def test_memory_that_runs_out_during_the_run_is_the_users_to_mend(
  small_config, tmp_path, monkeypatch, where, told
):
  small_config.optimizer.accumulate_steps = 2

  def full(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

  monkeypatch.setattr(where, full)
  with pytest.raises(UserError) as caught:
    imgclf.train(small_config, tmp_path, quiet=True)
  assert str(caught.value) == told
