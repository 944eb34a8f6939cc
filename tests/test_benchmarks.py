"""The scripts in benchmarks/: what they say where a peer is missing, or something is too slow."""

import contextlib
import json
import subprocess
import sys
import types

from fresh import ROOT, fresh_environment
import numpy as np
from PIL import Image
import pytest
from scipy import stats

from imgclf.timing import Rate


@pytest.fixture
def script(monkeypatch):
  """Imports a script of benchmarks/ as it imports itself: its own folder comes first."""
  monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

  def load(name):
    monkeypatch.delitem(sys.modules, name, raising=False)
    return __import__(name)

  return load


def test_a_peer_that_is_not_installed_is_skipped_by_its_name(tmp_path):
  (tmp_path / "timm.py").write_text("raise ImportError('no', name='timm')")
  done = subprocess.run(
    [sys.executable, ROOT / "benchmarks" / "peers.py", "torch step", "cnn-28"],
    env=fresh_environment(PYTHONPATH=str(tmp_path)),
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert json.loads(done.stdout) == {"skipped": "timm is not installed"}


ANSWER = {
  "images_per_second": 100.0,
  "images_per_cpu_second": 60.0,
  "parameters": 5,
  "versions": "v",
}


def test_the_ratio_of_a_peer_is_that_of_the_medians(script, monkeypatch, capsys):
  train = script("train")
  rates = {
    "imgclf step": [100.0, 400.0, 200.0],
    "imgclf loop": [190.0] * 3,
    "torch step": [50.0] * 3,
  }
  rounds = {peer: iter(of_peer) for peer, of_peer in rates.items()}

  def measured(peer, case):
    if peer not in rounds:
      return {"skipped": "keras is not installed"}
    return ANSWER | {"images_per_second": next(rounds[peer])}

  monkeypatch.setattr(train, "measured", measured)
  train.compare("cnn-28", rounds=3)
  assert capsys.readouterr().out.splitlines() == [
    "| cnn-28 | imgclf step | 200 | 1.00 | 60 | 1.00 | v |",
    "| cnn-28 | imgclf loop | 190 | 0.95 | 60 | 1.00 | v |",
    "| cnn-28 | torch step | 50 | 0.25 | 60 | 1.00 | v |",
    "| cnn-28 | keras fit | skipped |  |  |  | keras is not installed |",
  ]


def test_peers_that_train_another_network_are_no_comparison(script, monkeypatch):
  train = script("train")
  monkeypatch.setattr(
    train, "measured", lambda peer, case: ANSWER | {"parameters": 5 + (peer == "keras fit")}
  )
  with pytest.raises(SystemExit, match="do not train the same network"):
    train.compare("cnn-28", rounds=1)


def test_each_part_of_predict_works_on_every_file_and_is_told_by_decode(
  script, monkeypatch, tmp_path, capsys
):
  predict = script("predict")
  (tmp_path / "photos").mkdir()
  for name in ("a.jpg", "b.jpg"):
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "photos" / name)
  arguments = {"count": "5", "rounds": "1", "size": "32", "batch_size": "4"}
  options = [f"--{name}={value}" for name, value in arguments.items()]
  monkeypatch.setattr(sys, "argv", ["predict.py", str(tmp_path / "photos"), *options])
  lines = []
  monkeypatch.setattr(
    predict,
    "whole",
    lambda given, whole=predict.whole: (
      whole(given) or lines.append((given.folder / "labels.csv").read_text().count("\n"))
    ),
  )
  monkeypatch.setitem(predict.PARTS, "predict", predict.whole)
  predict.main()
  # The five best classes of the first batch, then of all files, below a head.
  assert lines == [4 * 5 + 1, 5 * 5 + 1]
  said = capsys.readouterr().out.splitlines()
  assert said[0].startswith("5 files of ") and "to 32 px, batches of 4" in said[0]
  cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in said[3:]]
  assert [row[0] for row in cells] == ["decode", "input", "predict"]
  assert cells[0][2] == cells[0][4] == "1.00"


@pytest.mark.parametrize(("trained", "code"), [(26.0, 0), (24.0, 1)])
def test_the_guard_fails_with_the_ratio_and_its_bound(script, monkeypatch, capsys, trained, code):
  guard = script("guard")
  small = types.SimpleNamespace(
    compile=lambda: types.SimpleNamespace(seconds_cold=2.0, seconds_warm=1.0),
    step=lambda: Rate(100.0, 0.0, 50.0),
    train=lambda log_steps: (Rate(trained, 0.0, 50.0), 0.0),
    log_steps=lambda step, made: 1,
  )
  monkeypatch.setattr(guard, "bench", lambda held: small)
  monkeypatch.setattr(guard, "input_ratio", lambda small: 0.6)
  monkeypatch.setattr(guard.compilation, "temporary_cache", contextlib.nullcontext)
  assert guard.main() == code
  said = capsys.readouterr().out
  assert f"training on digits by the bare step: {trained / 100:.2f}, at least 0.25" in said
  assert said.count("TOO SLOW") == code


def test_the_table_of_explanations_has_a_row_for_each_method(script, monkeypatch, trained, capsys):
  table = script("explain")
  methods = {name: table.explain.METHODS[name] for name in ("gradcam", "integrated_gradients")}
  monkeypatch.setattr(table.explain, "METHODS", methods)
  monkeypatch.setattr(table, "DRAWS", 1)
  table.main([f"--workdir={trained}", "--images=2"])
  said = capsys.readouterr().out.splitlines()
  assert said[0].startswith("lenet5, step ") and ", 2 images of test at 32 px; JAX " in said[0]
  rows = [line.split("|")[1:-1] for line in said if line.startswith("| `")]
  assert [cells[0].strip(" `") for cells in rows] == list(methods)
  assert {len(cells) for cells in rows} == {len(said[2].split("|")) - 2}
  assert said[-1].endswith("complete within 1%: 2 of 2")


def test_correlations_are_told_of_whole_maps_of_their_middle_and_of_those_that_are_empty(script):
  before = np.arange(64.0).reshape(1, 8, 8)
  same, turned = before.copy(), -before
  turned[:, 2:6, 2:6] = before[:, 2:6, 2:6]
  whole, middle, empty = script("explain").correlations(
    before, np.stack([same, turned, np.zeros_like(before)])
  )
  expected = stats.spearmanr(before.ravel(), turned.ravel()).statistic
  assert whole == pytest.approx((1 + expected) / 2)
  assert middle == pytest.approx(1)
  assert empty == pytest.approx(1 / 3)


# What airbench94_muon.py prints: of a warm-up, then of two runs.
TABLE = """\
---------------------------------------------------------------------------------
|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |
---------------------------------------------------------------------------------
|  warmup  |      0  |     0.1010  |   0.1000  |               |        0.5000  |
|          |   eval  |     0.1010  |   0.1000  |       0.1001  |        9.0000  |
|       0  |      7  |     0.9700  |   0.9380  |               |        2.5000  |
|          |   eval  |     0.9700  |   0.9380  |       0.9400  |        2.6000  |
|       1  |      7  |     0.9700  |   0.9390  |               |        2.5000  |
|          |   eval  |     0.9700  |   0.9390  |       0.9420  |        2.4000  |
"""


def test_the_peer_of_the_speed_run_is_stopped_after_as_many_runs(script, tmp_path):
  speedrun = script("speedrun")
  (tmp_path / speedrun.SCRIPT).write_text(
    f"import time\nprint({TABLE!r}, flush=True)\ntime.sleep(600)"
  )
  told = speedrun.run_peer(tmp_path, seeds=2)
  assert told["runs"] == 2 and told["accuracy"] == [0.94, 0.942] and told["seconds"] == [2.6, 2.4]
  assert told["accuracy_mean"] == pytest.approx(0.941)
  # Of two values the sample deviation is their distance by the root of 2.
  assert told["seconds_std"] == pytest.approx(0.2 / 2**0.5)
  assert speedrun.line("peer", told).split() == (
    "peer 94.10% +- 0.14% in 2.500 +- 0.141 s, 2 seeds".split()
  )


def test_a_peer_that_does_not_run_is_skipped_with_its_last_line(script, tmp_path):
  speedrun = script("speedrun")
  assert speedrun.run_peer(tmp_path, seeds=2) == {
    "skipped": f"there is no airbench94_muon.py in {tmp_path}"
  }
  (tmp_path / speedrun.SCRIPT).write_text("import no_such_module")
  told = speedrun.run_peer(tmp_path, seeds=2)
  assert told == {"skipped": "ModuleNotFoundError: No module named 'no_such_module'"}


def test_what_is_made_ahead_keeps_its_order_and_its_errors(script):
  speedrun = script("speedrun")
  assert list(speedrun.ahead(iter("abc"))) == ["a", "b", "c"]

  def failing():
    yield "a"
    raise OSError("gone")

  with pytest.raises(OSError, match="gone"):
    list(speedrun.ahead(failing()))
