"""The learning-rate finder on a small run."""

import json
import math

from PIL import Image
import pytest

import imgclf
from imgclf import steps
from imgclf.errors import UserError
from imgclf.modes import find_lr


def test_a_sweep_falls_is_lost_and_leaves_nothing_but_what_was_asked_for(
  small_config, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  small_config.optimizer.rules = "head/*: lr=2 from=0.9; conv1/*: lr=0"
  before = small_config.to_json()
  output, plot = tmp_path / "lr.json", tmp_path / "lr.png"
  report = find_lr.run(small_config, output=output, plot=plot, low=1e-5, high=1e3, count=60)
  assert json.loads(output.read_text()) == report
  assert small_config.to_json() == before
  assert {path.name for path in tmp_path.iterdir()} == {"lr.json", "lr.png"}
  with Image.open(plot) as drawn:
    assert drawn.size == (800, 480)
  # The head starts at zero and is trained from the first step on, whatever its `from`.
  assert report["losses"][0] == pytest.approx(math.log(10), abs=1e-5)
  assert report["losses"][2] != pytest.approx(math.log(10), abs=1e-7)
  assert min(report["smoothed"]) < 0.9 * math.log(10)
  made = len(report["losses"])
  assert made == len(report["learning_rates"]) == len(report["smoothed"]) < 60
  rate = 10 ** (8 / 59)
  assert report["learning_rates"][1] == pytest.approx(1e-5 * rate)
  assert report["stopped_at"] == pytest.approx(1e-5 * rate**made)
  assert 1e-5 < report["suggested"] <= report["lowest"] < report["stopped_at"]
  said = capsys.readouterr().out
  assert max(map(len, said.replace(str(tmp_path), "").splitlines())) <= 80
  assert f"--config.optimizer.learning_rate={report['suggested']:.2g}" in said


def test_what_is_tried_is_the_field_though_the_rate_is_scaled_with_the_batch(
  small_config, monkeypatch
):
  small_config.optimizer.reference_batch_size = 4  # of 16

  class Enough(Exception):
    pass

  def told(model, config, optimizer, learning_rate, class_weights, teacher):
    raise Enough([float(learning_rate(step)) for step in (0, 2)])

  monkeypatch.setattr(steps, "make_train_step", told)
  with pytest.raises(Enough) as rates:
    find_lr.run(small_config, low=1e-3, high=1e-1, count=3)
  assert rates.value.args[0] == pytest.approx([4e-3, 4e-1], rel=1e-6)


@pytest.mark.parametrize(
  ("files", "words"),
  [
    ({"output": "lr.txt"}, r"--output=lr\.txt: ends in"),
    ({"plot": "lr.svg"}, r"--plot=lr\.svg: ends in"),
  ],
)
def test_a_file_that_is_none_is_refused_before_the_work(files, words):
  with pytest.raises(UserError, match=words):
    find_lr.run(imgclf.default_config(), **files)
