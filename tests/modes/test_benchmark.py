"""What the benchmark says of a small run, and that its words follow from its figures."""

import collections
import json
import pathlib
import time

import jax
import pytest

from imgclf import app
from imgclf.data import loader
from imgclf.errors import UserError
from imgclf.modes import benchmark

RATES = [f"{part}_images_per_second" for part in benchmark.PARTS]


def test_all_parts_are_measured_and_nothing_is_left_behind(
  small_config, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(tmp_path)
  events, compilations = collections.Counter(), []
  jax.monitoring.register_event_listener(lambda event, **_: events.update([event]))
  compile_once = benchmark.Bench._compile

  def noted(bench):
    events.clear()
    compiled = compile_once(bench)
    compilations.append(
      [events[f"/jax/compilation_cache/cache_{end}"] for end in ("hits", "misses")]
    )
    return compiled

  monkeypatch.setattr(benchmark.Bench, "_compile", noted)
  before = small_config.to_json()
  output = tmp_path / "report.json"
  report = benchmark.run(small_config, output=output, trace=tmp_path / "trace", seconds=0.3)
  assert json.loads(output.read_text()) == report
  compile_seconds = ("compile_seconds_cold", "compile_seconds_warm")
  for name in (*RATES, "input_images_per_cpu_second", *compile_seconds):
    assert report[name] > 0, name
  assert 0 <= report["data_wait_share"] <= 1
  # The first time nothing is found on the disk, the second time all is.
  (hits_cold, misses_cold), (hits_warm, misses_warm) = compilations
  assert (hits_cold, misses_warm) == (0, 0)
  assert hits_warm == misses_cold > 0
  # LeNet-5 by hand, multiply-adds of an image: convolutions 28 x 28 x 6 x 75 and 10 x 10 x 16 x
  # 150, dense 400 x 120, 120 x 84 and 84 x 10. Backward each takes twice as many, but for the first
  # one's input.
  layers = [28 * 28 * 6 * 75, 10 * 10 * 16 * 150, 400 * 120, 120 * 84, 84 * 10]
  flops = 2 * (3 * sum(layers) - layers[0])
  # Pooling, augmentation and the optimizer's update of 61,706 parameters for 16 images come on top.
  assert flops < report["flops_per_image"] < 1.5 * flops
  # Parameters and Adam's two moments, 4 bytes each, at the least.
  assert report["peak_memory_bytes"] > 3 * 4 * 61_706
  assert report["peak_memory_source"] == "compiled step"
  assert report["bottleneck"] in ("input", "step")
  assert {path.name for path in tmp_path.iterdir()} == {"report.json", "trace"}
  assert list((tmp_path / "trace").rglob("*.xplane.pb"))  # what TensorBoard opens
  assert list((tmp_path / "trace").rglob("*.trace.json.gz"))  # what Perfetto opens
  assert small_config.to_json() == before
  said = capsys.readouterr().out
  assert max(map(len, said.replace(str(output), "").splitlines())) <= 80
  assert f"bottleneck  {report['bottleneck']}: " in said


def test_only_the_parts_that_were_asked_for_are_measured(small_config, monkeypatch, capsys):
  def compiled(*_):
    raise AssertionError("nothing is to be compiled")

  monkeypatch.setattr(benchmark.Bench, "compile", compiled)
  report = benchmark.run(small_config, parts=["input"], quiet=True, seconds=0.1)
  assert report["input_images_per_second"] > 0
  for name in (*RATES, "data_wait_share", "compile_seconds_cold", "compile_seconds_warm"):
    assert report[name] is None or name == "input_images_per_second"
  for name in ("flops_per_image", "peak_memory_bytes", "bottleneck", "peak_flops_share"):
    assert report[name] is None
  assert capsys.readouterr().out == ""


def test_slow_data_is_seen_by_every_figure_that_it_governs(small_config, monkeypatch):
  train_crop = loader.train_crop

  def slow(*known):
    crop = train_crop(*known)

    def crop_slowly(*arguments):
      time.sleep(0.01)
      return crop(*arguments)

    return crop_slowly

  monkeypatch.setattr(loader, "train_crop", slow)
  report = benchmark.run(small_config, parts=["input", "step", "train"], quiet=True, seconds=0.8)
  # Two threads that need 10 ms an image make no more than 200 a second; a buffer that was full
  # gives a few more.
  for part in ("input", "train"):
    assert report[f"{part}_images_per_second"] < 240, part
  assert report["step_images_per_second"] > 240
  assert report["data_wait_share"] > 0.4
  assert report["bottleneck"] == "input"
  # Sleeping takes no CPU time.
  assert report["input_images_per_cpu_second"] > report["input_images_per_second"]


GPU = {
  "decode_images_per_second": 2000.0,
  "input_images_per_second": 1900.0,
  "step_images_per_second": 1000.0,
  "train_images_per_second": 980.0,
  "dtype": "float32",
  "threads": 8,
  "workers": 0,
  "cpus": 8,
  "resident": False,
  "region_decoder": None,
  "shared_cores": False,
}


@pytest.mark.parametrize(
  ("figures", "name", "words"),
  [
    ({}, "step", "try config.model.dtype=bfloat16"),
    ({"dtype": "bfloat16"}, "step", "try a larger config.train.batch_size"),
    ({"shared_cores": True}, "step", "or a GPU"),
    ({"train_images_per_second": 700.0}, "loop", "raise config.log.every_steps"),
    ({"train_images_per_second": None}, "step", "the host could feed 1,900"),
    ({"step_images_per_second": 2500.0}, "input", "try smaller images on the disk, or more CPU"),
    (
      {"step_images_per_second": 2500.0, "region_decoder": False},
      "input",
      "disk, for JPEGs the extra crops (pip install 'imgclf[crops]'), or more CPU cores",
    ),
    (
      {"step_images_per_second": 2500.0, "region_decoder": True},
      "input",
      "try smaller images on the disk, or more CPU",
    ),
    ({"step_images_per_second": 2500.0, "threads": 2}, "input", "threads=8 (2 now)"),
    ({"step_images_per_second": 2500.0, "workers": 4}, "input", "workers=8 (4 now)"),
    ({"step_images_per_second": 2500.0, "resident": True}, "loop", "raise config.log.every_steps"),
    (
      {"step_images_per_second": 2500.0, "decode_images_per_second": 9000.0},
      "input",
      "put the data on a faster disk",
    ),
    ({"step_images_per_second": None}, None, None),
    ({"input_images_per_second": None}, None, None),
  ],
)
def test_the_bottleneck_is_the_slowest_part_and_comes_with_its_mend(figures, name, words):
  told, advice = benchmark.bottleneck(GPU | figures)
  assert told == name
  assert advice is None if words is None else words in advice


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--parts=input,stpe"], "--parts: 'stpe' is no part; there are decode, input, step, train"),
    (["--parts=input", "--trace=unused"], "--trace: records training; add train to --parts"),
    (["--output=report.txt"], "let it end in .json"),
    (["--workdir=unused"], "--mode=benchmark does not read it"),
  ],
)
def test_a_wrong_command_is_one_line(capsys, arguments, words):
  config = pathlib.Path(__file__).parents[2] / "configs" / "digits.py"
  assert app.main(["--mode=benchmark", f"--config={config}", *arguments]) == 2
  told = capsys.readouterr().err
  assert words in told and told.count("\n") == 1


def test_several_processes_are_refused(small_config, monkeypatch):
  monkeypatch.setattr(benchmark.parallel, "process_count", lambda: 2)
  with pytest.raises(UserError, match="runs in one process"):
    benchmark.run(small_config)
