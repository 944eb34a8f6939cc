"""Evaluation counts the same, whatever the batch, the devices and the processes: identical
integers."""

import json
import pathlib
import subprocess
import sys

from fresh import free_port, fresh_environment
import numpy as np
from PIL import Image
import pytest

import imgclf

SIZES = (1, 7, 63, 1001)

# Every size and batch size in one process (or one of several): all that differs is how the split is
# cut.
EVALUATE = """
import json, sys
import jax
from imgclf import app, parallel
from imgclf.modes import evaluate
from imgclf.run import load
workdir, sets, out, port, count, index = *sys.argv[1:4], *map(int, sys.argv[4:])
if count > 1:
  parallel.start(f"localhost:{port}", count, index)
run, told = load(workdir, "latest"), {}
for size in (1, 7, 63, 1001):
  for batch_size in (8, 16, 64, 1024):
    # The first examples of each set; the run's own classes by name.
    figures = evaluate.evaluate_run(run, f"train[:{size}]", f"folder:{sets}", None, batch_size)
    told[f"{size}"] = told.get(f"{size}", []) + [
      [figures["n"], figures["confusion_matrix"], figures["loss"]]
    ]
if parallel.process_index() == 0:
  open(out, "w").write(json.dumps([jax.device_count(), told]))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """1,001 small pictures of ten classes, of odd shapes, as a folder with a train split alone."""
  root = tmp_path_factory.mktemp("pictures")
  rng = np.random.default_rng(0)
  for number in range(1001):
    folder = root / "train" / str(number % 10)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (8 + number % 5, 8 + number % 3, 3), np.uint8)
    Image.fromarray(pixels).save(folder / f"{number}.png")
  return root


def evaluations(trained, pictures, tmp_path, devices, processes):
  out, port = tmp_path / f"{devices}-{processes}.json", free_port()
  running = [
    subprocess.Popen(
      [
        *(sys.executable, "-c", EVALUATE, trained, pictures, out),
        *(str(port), str(processes), str(index)),
      ],
      env=fresh_environment(devices // processes),
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(processes)
  ]
  for process in running:
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-2000:]
  used, told = json.loads(pathlib.Path(out).read_text())
  assert used == devices
  return told


@pytest.mark.parametrize(
  "layouts",
  [
    [(2, 2)],
    pytest.param([(1, 1), (2, 1), (8, 1), (2, 2), (8, 2)], marks=pytest.mark.faults),
  ],
  ids=["quick", "all"],
)
def test_every_way_to_cut_a_split_gives_the_same_confusion_matrix(
  tmp_path, trained, pictures, layouts
):
  first = None
  for devices, processes in layouts:
    told = evaluations(trained, pictures, tmp_path, devices, processes)
    for size in SIZES:
      for n, confusion, _ in told[str(size)]:
        assert n == size == np.sum(confusion)
        assert confusion == told[str(size)][0][1]
    counts = {size: rows[0][1] for size, rows in told.items()}
    first = first or counts
    assert counts == first, (devices, processes)


def test_class_folders_that_are_not_the_runs_are_never_scored_silently(tmp_path, trained, pictures):
  """Missing, extra, renamed, empty, of another case: refused by name, or right."""

  def folder(name, classes):
    for label, name_of_class in classes.items():
      target = tmp_path / name / "train" / name_of_class
      target.mkdir(parents=True)
      for number in range(label, 60, 10):
        source = pictures / "train" / str(label) / f"{number}.png"
        (target / source.name).write_bytes(source.read_bytes())
    return f"folder:{tmp_path / name}"

  def evaluate(dataset):
    return imgclf.evaluate(
      trained, dataset=dataset, split="train[:100%]", step="latest", quiet=True
    )

  own = {label: str(label) for label in range(10)}
  whole = evaluate(folder("own", own))
  # A class that is missing is no mistake: its rows are empty, and all others stay where they are.
  missing = evaluate(folder("missing", {k: v for k, v in own.items() if k != 3}))
  expected = [
    row if label != 3 else [0] * 10 for label, row in enumerate(whole["confusion_matrix"])
  ]
  assert missing["confusion_matrix"] == expected
  for name, classes, word in (
    ("extra", own | {9: "9", 8: "8b"}, "'8b'"),
    ("renamed", own | {4: "four"}, "'four'"),
    ("case", own | {4: "Four"}, "'Four'"),
  ):
    with pytest.raises(imgclf.UserError, match=f"does not know the class {word}"):
      evaluate(folder(name, classes))
  empty = folder("empty", own)
  (tmp_path / "empty" / "train" / "ten").mkdir()
  assert evaluate(empty)["confusion_matrix"] == whole["confusion_matrix"]
