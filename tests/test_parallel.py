"""Several devices in this machine, and several processes over gloo, against one."""

import json
import pathlib
import signal
import subprocess
import sys

from fresh import free_port, fresh_environment
import numpy as np
import pytest

from imgclf import parallel
from imgclf.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent


class Job:
  """launch.py in several processes that form one job."""

  def __init__(self, count, *arguments):
    address = f"localhost:{free_port()}"
    self.processes = [
      subprocess.Popen(
        [
          sys.executable,
          ROOT / "launch.py",
          *map(str, arguments),
          f"--coordinator_address={address}",
          f"--num_processes={count}",
          f"--process_id={number}",
        ],
        env=fresh_environment(1),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      for number in range(count)
    ]

  def finish(self):
    """Returns the exit codes and what the processes printed on stdout and stderr."""
    told = [process.communicate(timeout=240) for process in self.processes]
    return [process.returncode for process in self.processes], told


def digits_arguments(workdir, digits_dir, *more):
  return [
    f"--config={ROOT / 'configs' / 'digits.py'}",
    f"--workdir={workdir}",
    f"--config.dataset.data_dir={digits_dir}",
    "--config.model.name=lenet5",
    "--config.train.total_steps=24",
    "--config.checkpoint.every_steps=8",
    "--config.eval.every_steps=12",
    "--config.log.every_steps=1",
    "--config.eval.batch_size=50",
    *more,
  ]


def losses(workdir):
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [row["loss"] for row in rows if row["split"] == "train"]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory, launch, digits_dir):
  """The run that a job of several processes must repeat."""
  workdir = tmp_path_factory.mktemp("one")
  done = launch(*digits_arguments(workdir, digits_dir))
  assert done.returncode == 0, done.stderr
  return workdir


def test_two_processes_train_and_evaluate_as_one_does(tmp_path, one_process, digits_dir):
  codes, told = Job(2, *digits_arguments(tmp_path, digits_dir)).finish()
  assert codes == [0, 0], told
  # The same examples in every batch: float32 sums of another order are all that differs.
  np.testing.assert_allclose(losses(tmp_path), losses(one_process), rtol=2e-4)
  names = ["validation-12.json", "validation-24.json"]
  for name in names:
    one, two = (json.loads((d / "eval" / name).read_text()) for d in (one_process, tmp_path))
    assert two["n"] == one["n"] == 144
    assert two["loss"] == pytest.approx(one["loss"], rel=2e-3)
  # Process 0 speaks for the job.
  assert "validation @ step 24" in told[0][0]
  assert "step" not in told[1][0]


def test_two_processes_count_what_one_counts(tmp_path, one_process, digits_dir):
  for workdir, processes in ((one_process, 1), (one_process, 2)):
    codes, told = Job(processes, "--mode=eval", f"--workdir={workdir}").finish()
    assert set(codes) == {0}, told
    result = json.loads(next((workdir / "eval").glob("test-*.json")).read_text())
    assert result["n"] == np.sum(result["confusion_matrix"]) == 360
    if processes == 1:
      alone = result
  assert result["confusion_matrix"] == alone["confusion_matrix"]


def test_a_run_of_two_processes_goes_on_in_one(tmp_path, one_process, digits_dir, launch):
  """Stopped by a signal to one process only; both save the same step and leave."""
  endless = digits_arguments(tmp_path, digits_dir, "--config.train.total_steps=100000")
  job = Job(2, *endless)
  for line in job.processes[0].stdout:
    if line.startswith("step 9/"):
      job.processes[1].send_signal(signal.SIGTERM)
      break
  codes, told = job.finish()
  assert codes == [75, 75], told
  assert "is saved" in told[0][1]
  step = int(told[0][1].split("step ")[1].split()[0])
  done = launch(*endless, f"--config.train.total_steps={step + 2}")
  assert done.returncode == 0, done.stderr
  assert f"resumed   from the checkpoint of step {step}" in done.stdout


def test_rows_come_back_in_the_order_they_were_sharded(run_python):
  code = """
import numpy as np
from imgclf import parallel
rows = np.arange(24, dtype=np.float32).reshape(8, 3)
on_devices = parallel.shard({"x": rows})
doubled = parallel.pmap(lambda batch: batch["x"] * 2)(on_devices)
assert doubled.shape == (4, 2, 3)
np.testing.assert_array_equal(parallel.unshard(doubled), rows * 2)
tree = {"w": np.ones((2, 2), np.float32), "n": np.int32(3)}
copies = parallel.replicate(tree)
assert copies["w"].shape == (4, 2, 2)
again = parallel.unreplicate(copies)
assert again["n"] == 3 and again["n"].dtype == np.int32
np.testing.assert_array_equal(again["w"], tree["w"])
assert parallel.scalar(copies["n"]) == 3
# What every device holds whole, each reads its own rows of.
held = parallel.place({"x": rows})["x"]
assert held.shape == (4, 8, 3)
index = parallel.shard({"index": np.arange(7, -1, -1)})["index"]
picked = parallel.pmap(lambda held, index: held[index])(held, index)
np.testing.assert_array_equal(parallel.unshard(picked), rows[::-1])
np.testing.assert_array_equal(parallel.first(held), rows)
"""
  run_python(code, devices=4)


def test_a_tree_of_process_0_arrives_bit_by_bit(monkeypatch):
  first = {"wide": np.array([[1 / 3, np.pi]]), "n": np.array(7, np.int32), "x": np.zeros((2, 0, 3))}
  other = {"wide": np.zeros((1, 2)), "n": np.array(1, np.int32), "x": np.zeros((2, 0, 3))}
  monkeypatch.setattr(parallel, "process_count", lambda: 2)
  sent = []
  monkeypatch.setattr(parallel, "gather", lambda rows: sent.append(rows) or rows)
  parallel.tree_of_first(first)
  assert {rows.dtype for rows in sent} == {np.dtype(np.uint8)}  # 64 bits do not get through
  monkeypatch.setattr(parallel, "gather", lambda rows: np.concatenate([sent.pop(0), rows]))
  got = parallel.tree_of_first(other)
  for name, expected in first.items():
    assert got[name].dtype == expected.dtype and got[name].shape == expected.shape
    np.testing.assert_array_equal(got[name], expected)


def test_what_is_ahead_is_bounded_and_results_keep_their_order():
  started = []
  results = parallel.run_ahead(lambda item: started.append(item) or item * 10, range(9))
  for number, (item, result) in enumerate(results):
    assert (item, result) == (number, number * 10)
    assert len(started) <= number + 1 + parallel.IN_FLIGHT
  assert number == 8


def test_a_batch_that_devices_cannot_share_is_refused_with_sizes_that_fit(run_python):
  code = """
from imgclf import parallel
parallel.check_batch_size("config.train.batch_size", 64)
for size, parts in ((60, 1), (7, 1), (72, 2)):
  try:
    parallel.check_batch_size("config.train.batch_size", size, parts)
  except parallel.UserError as error:
    print(error)
"""
  assert run_python(code, devices=8).splitlines() == [
    "config.train.batch_size: 60 can't be shared equally by 8 devices; 56 or 64 can",
    "config.train.batch_size: 7 can't be shared equally by 8 devices; 8 can",
    "config.train.batch_size: 72 can't be shared equally by 8 devices x 2 accumulation steps; "
    "64 or 80 can",
  ]


@pytest.mark.parametrize(
  ("environment", "expected"),
  [
    ({}, False),
    ({"SLURM_STEP_NUM_TASKS": "1"}, False),
    ({"SLURM_STEP_NUM_TASKS": "4"}, True),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),
    ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, True),
  ],
)
def test_a_cluster_is_known_by_its_environment(environment, expected):
  assert parallel._in_cluster(environment) is expected


def test_a_job_that_is_half_described_is_refused():
  with pytest.raises(UserError, match="all three"):
    parallel.start("localhost:1", 2, None)
