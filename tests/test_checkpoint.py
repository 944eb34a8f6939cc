import json
import math
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tensorstore

from imgclf.checkpoint import Checkpoints
from imgclf.errors import UserError


@flax.struct.dataclass
class State:
  step: Any
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: Any


def _state(classes: int = 10, *, optimizer=None, ema: bool = False, width: int = 4) -> State:
  rng = np.random.default_rng(0)
  params = {
    "stem": {"kernel": rng.normal(size=(3, 3, 3, width)).astype(np.float32)},
    "head": {
      "kernel": rng.normal(size=(width, classes)).astype(np.float32),
      "bias": np.zeros(classes, np.float32),
    },
  }
  optimizer = optimizer or optax.adamw(1e-3, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
  return State(
    step=np.int32(7),
    params=params,
    batch_stats={"norm": {"mean": np.arange(width, dtype=np.float32)}},
    opt_state=jax.device_get(optimizer.init(params)),
    ema={"params": params} if ema else {},
  )


def _bits(tree):
  return [(x.dtype, x.shape, x.tobytes()) for x in map(np.asarray, jax.tree.leaves(tree))]


def _on_disk(folder: pathlib.Path) -> list:
  """Steps, and all else that lies between them."""
  names = os.listdir(folder)
  return sorted(int(n) for n in names if n.isdecimal()) + [n for n in names if not n.isdecimal()]


def _tiny(step: int) -> dict:
  return {"params": {"w": np.full(2, step, np.float32)}}


def _save_all(folder, metrics: dict, **options) -> list:
  with Checkpoints(folder, **options) as checkpoints:
    for step, figures in metrics.items():
      if isinstance(figures, float):
        figures = {"accuracy": figures}
      checkpoints.save(step, _tiny(step), figures)
  return _on_disk(folder)


# What comes back


def test_a_train_state_comes_back_bit_for_bit_in_its_own_structure(tmp_path):
  state = _state(ema=True)
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(7, state, {"accuracy": 0.5})
    back = checkpoints.restore(7, jax.eval_shape(lambda: state))
  assert jax.tree.structure(back) == jax.tree.structure(state)
  assert isinstance(back, State) and isinstance(back.opt_state[0], optax.ScaleByAdamState)
  assert _bits(back) == _bits(state)
  assert all(type(x) is np.ndarray for x in jax.tree.leaves(back))
  optimizer = optax.adamw(1e-3, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p))
  optimizer.update(back.params, back.opt_state, back.params)  # it is a state that optax takes


def test_every_type_and_shape_comes_back_bit_for_bit(tmp_path):
  assert not jax.config.read("jax_enable_x64")
  rng = np.random.default_rng(0)
  state = {
    "float64": rng.normal(size=(3, 5)),
    "float64_scalar": np.float64(1 / 3),
    "int64": np.array([2**62 + 1]),
    "int32": np.int32(-5),
    "int": 12,
    "float": 0.1,
    "uint8": np.arange(256, dtype=np.uint8),
    "bool": np.array([True, False]),
    "bfloat16": rng.normal(size=(7, 3)).astype(ml_dtypes.bfloat16),
    "float16": rng.normal(size=9).astype(np.float16),
    "nan": np.array([math.nan, -math.nan, math.inf, -0.0, 5e-324]),
    "no_elements": np.zeros((0, 3), np.float32),
    "no_elements_deep": {"x": [np.zeros((2, 0), ml_dtypes.bfloat16)]},
    "column_major": np.asfortranarray(rng.normal(size=(4, 6))),
    "strided": rng.normal(size=(8, 8))[::-2, 1::3],
    "zeros": np.zeros((300, 3)),
    "jax": jnp.arange(3.0),
    "none": None,
    "nothing": {},
    "empty_tuple": (),
  }
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(1, state, None)
  with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
    back = checkpoints.restore(1, state)
  assert jax.tree.structure(back) == jax.tree.structure(state)
  assert _bits(back) == _bits(state)


def test_parts_can_be_restored_without_reading_the_rest(tmp_path):
  rng = np.random.default_rng(0)
  state = _state(ema=True).replace(opt_state={"m": rng.integers(0, 256, 4_000_000, np.uint8)})
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(1, state, None)

  def bytes_read():
    found = tensorstore.experimental_collect_matching_metrics(
      "/tensorstore/kvstore/file/bytes_read"
    )
    return sum(m["values"][0]["value"] for m in found)

  parts = {"params": state.params, "batch_stats": state.batch_stats}
  with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
    start = bytes_read()
    back = checkpoints.restore(1, parts, partial=True)
    assert 0 < bytes_read() - start < 500_000
    assert jax.tree.structure(back) == jax.tree.structure(parts) and _bits(back) == _bits(parts)
    average = checkpoints.restore(1, {"ema": {"params": state.params}}, partial=True)
    assert _bits(average) == _bits(state.params)
    start = bytes_read()
    checkpoints.restore(1, state)
    assert bytes_read() - start > 4_000_000  # the count does count


# Which steps stay


@pytest.mark.parametrize(
  ("accuracies", "options", "kept"),
  [
    # The best is among the latest; then it grows old and stays; then a better one takes its place.
    ({1: 0.1, 2: 0.2, 3: 0.3}, {"keep_latest": 2}, [2, 3]),
    ({1: 0.9, 2: 0.2, 3: 0.3, 4: 0.4}, {"keep_latest": 2}, [1, 3, 4]),
    ({1: 0.9, 2: 0.2, 3: 0.95, 4: 0.4, 5: 0.5, 6: 0.6}, {"keep_latest": 2}, [3, 5, 6]),
    # Once deleted is gone: 2 was not among the two best when 5 and 6 came, though it would be
    # later.
    (
      {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.8, 5: 0.1, 6: 0.2},
      {"keep_latest": 1, "keep_best": 2},
      [3, 4, 6],
    ),
    # The worst of all is the newest, and stays.
    ({1: 0.9, 2: 0.8, 3: 0.1}, {"keep_latest": 1}, [1, 3]),
    ({1: 0.9, 2: 0.8, 3: 0.1}, {"keep_latest": 1, "keep_best": 0}, [3]),
    # Of equals the earlier.
    ({1: 0.5, 2: 0.5, 3: 0.5, 4: 0.1}, {"keep_latest": 1}, [1, 4]),
    # NaN, infinity and no figure never displace the best, nor are kept as if they were it.
    ({1: 0.2, 2: math.nan, 3: math.inf, 4: None, 5: 0.1}, {"keep_latest": 1}, [1, 5]),
    ({1: math.nan, 2: 0.1, 3: math.nan, 4: math.nan}, {"keep_latest": 1}, [2, 4]),
    ({1: math.nan, 2: None, 3: {}, 4: {"loss": 1.0}}, {"keep_latest": 1}, [4]),
    # For good: one per 3 steps, also where the multiples themselves are not saved.
    (
      {s: 0.0 for s in range(1, 11)},
      {"keep_latest": 2, "keep_best": 0, "keep_every": 3},
      [3, 6, 9, 10],
    ),
    (
      {s: 0.0 for s in (2, 4, 6, 8, 10, 12)},
      {"keep_latest": 1, "keep_best": 0, "keep_every": 3},
      [4, 6, 10, 12],
    ),
    (
      {100: 0.1, 200: 0.9, 300: 0.3, 400: 0.4, 500: 0.5},
      {"keep_latest": 1, "keep_best": 1, "keep_every": 300},
      [200, 300, 500],
    ),
  ],
)
def test_the_best_the_latest_and_one_per_interval_stay_on_disk(tmp_path, accuracies, options, kept):
  assert _save_all(tmp_path / "c", accuracies, **options) == kept
  with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
    assert checkpoints.steps() == kept
    assert checkpoints.latest() == kept[-1]
  assert sorted(ocp.utils.checkpoint_steps(tmp_path / "c")) == kept  # plain orbax sees the same


def test_a_lower_loss_or_calibration_error_is_better_and_other_figures_are_better_higher(tmp_path):
  figures = {
    1: {"loss": 0.3, "f1_macro": 0.1, "ece": 0.01},
    2: {"loss": 0.1, "f1_macro": 0.2, "ece": 0.02},
    3: {"loss": math.nan, "f1_macro": 0.3, "ece": 0.03},
    4: {"loss": 0.2, "f1_macro": 0.0, "ece": 0.04},
  }
  for metric, best in (("loss", 2), ("f1_macro", 3), ("ece", 1)):
    kept = _save_all(tmp_path / metric, figures, keep_latest=1, best_metric=metric)
    assert kept == [best, 4]
    with Checkpoints(tmp_path / metric, best_metric=metric, read_only=True) as checkpoints:
      assert checkpoints.best() == best


def test_what_is_kept_is_the_same_when_every_save_is_a_run_of_its_own(tmp_path):
  accuracies = {1: 0.1, 2: 0.9, 3: math.nan, 4: 0.4, 5: 0.5, 6: 0.9, 7: 0.2}
  options = {"keep_latest": 1, "keep_every": 4}
  for step, accuracy in accuracies.items():
    _save_all(tmp_path / "many", {step: accuracy}, **options)
  assert _on_disk(tmp_path / "many") == [2, 4, 7]
  assert _save_all(tmp_path / "one", accuracies, **options) == [2, 4, 7]


def test_figures_come_back_and_are_strict_json_on_disk(tmp_path):
  figures = {"accuracy": np.float32(0.5), "loss": math.nan, "n": 3}
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(1, _tiny(1), figures)
    checkpoints.save(2, _tiny(2), None)
    checkpoints.wait()
  told = json.loads((tmp_path / "c/1/manifest.json").read_text())
  assert told["figures"] == {"accuracy": 0.5, "loss": None, "n": 3.0}
  with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
    back = checkpoints.metrics(1)
    assert (back["accuracy"], back["n"]) == (0.5, 3.0) and math.isnan(back["loss"])
    assert checkpoints.metrics(2) is None
    assert checkpoints.best() == 1


def test_a_step_that_is_there_is_not_written_again(tmp_path):
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(1, _tiny(1), {"accuracy": 0.1})
    checkpoints.save(1, _tiny(99), {"accuracy": 0.9})
    assert checkpoints.steps() == [1]
    checkpoints.save(2, _tiny(2), None)
    checkpoints.save(1, _tiny(99), {"accuracy": 0.9})
    assert checkpoints.steps() == [1, 2]
    assert checkpoints.metrics(1) == {"accuracy": 0.1}
    assert checkpoints.restore(1, _tiny(0))["params"]["w"].tolist() == [1, 1]


def test_a_step_below_the_latest_is_refused_rather_than_dropped(tmp_path):
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(5, _tiny(5), None)
    with pytest.raises(ValueError, match="step 4 can't be saved: step 5 is there already"):
      checkpoints.save(4, _tiny(4), None)


def test_a_folder_may_be_named_relative_to_the_working_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert _save_all(pathlib.Path("a/b"), {1: 0.5}) == [1]
  assert _on_disk(tmp_path / "a/b") == [1]


# What is refused


def test_a_leaf_that_is_no_number_is_named_before_anything_is_written(tmp_path):
  with Checkpoints(tmp_path / "c") as checkpoints:
    with pytest.raises(TypeError, match="opt_state/0/name: str can't be saved"):
      checkpoints.save(1, {"opt_state": [{"name": "adam"}]}, None)
    with pytest.raises(ValueError, match=r"a/b\.c: two leaves of this name"):
      checkpoints.save(1, {"a": {"b": {"c": np.ones(1)}, "b.c": np.ones(1)}}, None)
    assert checkpoints.steps() == []
  assert _on_disk(tmp_path / "c") == []


_SGD = optax.sgd(0.1, momentum=0.9)


@pytest.mark.parametrize(
  ("saved", "wanted", "parts"),
  [
    (
      _state(10),
      _state(12),
      (
        "params/head/bias: checkpoint has [10], this config's model needs [12]; "
        "params/head/kernel: checkpoint has [4, 10], this config's model needs [4, 12]; "
        # The same two once more in each of Adam's moments.
        "opt_state/0/mu/head/bias: checkpoint has [10], this config's optimizer needs [12]; "
        "and 3 more; mend config.dataset.name (another number of classes), or use another --workdir",
      ),
    ),
    (
      _state(width=4),
      _state(width=8),
      ("params/head/kernel: checkpoint has [4, 10]", "mend config.model.name,"),
    ),
    (
      _state(),
      _state().replace(params={"stem": _state().params["stem"], "neck": {"bias": np.zeros(2)}}),
      (
        "params/neck/bias: not in the checkpoint, this config's model needs [2]",
        "params/head/bias: checkpoint has [10], this config's model has no such array",
        "mend config.model.name,",
      ),
    ),
    (_state(), _state(optimizer=_SGD), ("opt_state/0/trace/", "mend config.optimizer.name,")),
    (
      _state(),
      _state(ema=True),
      (
        "ema/params/head/bias: not in the checkpoint, this config's model needs [10]",
        "mend config.optimizer.ema_decay,",
      ),
    ),
    (
      _state(ema=True),
      _state(),
      (
        "ema/params/head/bias: checkpoint has [10], this config's model has no such array",
        "mend config.optimizer.ema_decay,",
      ),
    ),
    (
      {"params": {"w": np.zeros(3, np.float32)}},
      {"params": {"w": np.zeros(3, np.float64)}},
      (
        "params/w: checkpoint has float32 [3], this config's model needs float64 [3]; "
        "mend config.model.dtype,",
      ),
    ),
    (
      {"params": {"w": np.zeros((0, 3)), "b": np.ones(1)}},
      {"params": {"w": np.zeros((0, 4)), "b": np.ones(1)}},
      ("params/w: checkpoint has [0, 3], this config's model needs [0, 4]",),
    ),
  ],
)
def test_a_mismatch_is_refused_by_name_before_anything_is_loaded(
  tmp_path, monkeypatch, saved, wanted, parts
):
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(300, saved, None)
    checkpoints.wait()
    monkeypatch.setattr(ocp.Checkpointer, "restore", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UserError) as caught:
      checkpoints.restore(300, wanted)
  message = str(caught.value)
  assert message.startswith(f"{tmp_path}/c/300: ") and "\n" not in message
  for part in parts:
    assert part in message


def test_parts_that_are_restored_must_match_whole(tmp_path):
  state = _state()
  with Checkpoints(tmp_path / "c") as checkpoints:
    checkpoints.save(1, state, None)
    with pytest.raises(UserError, match=r"batch_stats/norm/mean: checkpoint has .* no such array"):
      checkpoints.restore(1, {"params": state.params, "batch_stats": {}}, partial=True)
    with pytest.raises(UserError, match=r"params/head/bias: checkpoint has .* no such array"):
      checkpoints.restore(1, {"params": {"stem": state.params["stem"]}}, partial=True)
    with pytest.raises(UserError, match=r"ema/head/bias: not in the checkpoint.*ema_decay"):
      checkpoints.restore(1, {"ema": state.params}, partial=True)
    with pytest.raises(UserError, match="opt_state/0/count: checkpoint has"):
      checkpoints.restore(1, {"params": state.params})
    assert checkpoints.restore(1, {"ema": {}}, partial=True) == {"ema": {}}


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path):
  _save_all(tmp_path / "c", {100: 0.9, 200: 0.5, 300: 0.6})
  with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
    with pytest.raises(
      UserError, match="c/400: no such checkpoint; there are the steps 100, 200, 300"
    ):
      checkpoints.restore(400, _tiny(0))
    assert checkpoints.choose("best") == 100
    assert checkpoints.choose("latest") == 300
    assert checkpoints.choose("200") == 200
    for text in ("250", "-1", "last", "", "2e2", "²"):
      with pytest.raises(UserError) as caught:
        checkpoints.choose(text)
      assert str(caught.value) == (
        f"--step={text}: no such checkpoint in {tmp_path}/c; give best, latest or a number; "
        "there are the steps 100, 200, 300"
      )


def test_a_folder_without_checkpoints_is_refused(tmp_path):
  with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
    assert (checkpoints.steps(), checkpoints.latest(), checkpoints.best()) == ([], None, None)
    for text in ("best", "latest", "1"):
      with pytest.raises(UserError, match="there is no sound checkpoint; train first"):
        checkpoints.choose(text)
    with pytest.raises(UserError, match="there is no sound checkpoint; train first"):
      checkpoints.restore(1, _tiny(0))


def test_best_is_refused_where_no_checkpoint_has_the_figure(tmp_path):
  _save_all(tmp_path / "c", {1: None, 2: math.nan})
  with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
    assert checkpoints.best() is None
    with pytest.raises(UserError, match=r"give --step=latest.*there are the steps 1, 2"):
      checkpoints.choose("best")


@pytest.mark.parametrize(
  "lost", ["state/manifest.ocdbt", "state/_METADATA", "state/d", "state", "manifest.json"]
)
def test_a_checkpoint_with_a_lost_file_is_refused_by_name(tmp_path, lost):
  _save_all(tmp_path / "c", {1: 0.1, 2: 0.2})
  path = tmp_path / "c/2" / lost
  shutil.rmtree(path) if path.is_dir() else path.unlink()
  with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
    with pytest.raises(
      UserError, match=rf"c/2: this checkpoint is damaged \({lost}.* is missing\)"
    ):
      checkpoints.restore(2, _tiny(0))
    assert checkpoints.restore(1, _tiny(0))["params"]["w"].tolist() == [1, 1]


def test_a_folder_that_can_not_be_made_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match=r"file/c: a checkpoint can't be written \(Not a directory\)"):
    Checkpoints(tmp_path / "file" / "c")


# What goes wrong on the way


def test_a_save_that_fails_in_the_background_is_told_at_the_next_call(tmp_path, monkeypatch):
  real = ocp.Checkpointer.save
  full = ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")

  def save(self, *args, **kwargs):
    raise full

  with Checkpoints(tmp_path / "c", keep_latest=1) as checkpoints:
    checkpoints.save(1, _tiny(1), None)
    for call in (
      checkpoints.wait,
      checkpoints.latest,
      lambda: checkpoints.save(9, _tiny(9), None),
    ):
      checkpoints.wait()
      monkeypatch.setattr(ocp.Checkpointer, "save", save)
      checkpoints.save(2, _tiny(2), None)
      with pytest.raises(
        UserError, match=r"can't be written \(No space left on device\); make room"
      ):
        call()
      # What the failed save was to replace is still there, and once there is room it goes on.
      assert checkpoints.steps() == [1]
    full = RuntimeError("not the user's to mend")
    checkpoints.save(2, _tiny(2), None)
    with pytest.raises(RuntimeError, match="not the user's"):
      checkpoints.wait()
    monkeypatch.setattr(ocp.Checkpointer, "save", real)
    checkpoints.save(3, _tiny(3), {"accuracy": 0.95})
    assert checkpoints.steps() == [3]
  assert not (tmp_path / "c/1").exists()


def test_a_save_that_fails_is_told_at_the_latest_by_close(tmp_path, monkeypatch):
  def save(self, *args, **kwargs):
    raise RuntimeError("broken")

  monkeypatch.setattr(ocp.Checkpointer, "save", save)
  checkpoints = Checkpoints(tmp_path / "c")
  checkpoints.save(1, _tiny(1), None)
  with pytest.raises(RuntimeError, match="broken"):
    checkpoints.close()


def _tree(folder: pathlib.Path) -> dict:
  return {str(p): p.stat().st_mtime_ns for p in [folder, *folder.rglob("*")]}


def test_reading_makes_and_deletes_nothing(tmp_path):
  Checkpoints(tmp_path / "none" / "c", read_only=True).close()
  assert not (tmp_path / "none").exists()

  folder = tmp_path / "c"
  _save_all(folder, {1: 0.9, 2: 0.5, 3: 0.6, 4: 0.6}, keep_latest=4)
  (folder / ".saving/5").mkdir(parents=True)  # as of a run that is saving at this moment
  (folder / ".deleted/0").mkdir(parents=True)
  before = _tree(folder)
  with Checkpoints(folder, keep_latest=1, read_only=True) as checkpoints:
    assert checkpoints.steps() == [1, 2, 3, 4]
    checkpoints.restore(4, _tiny(0))
    checkpoints.best()
  assert _tree(folder) == before


def test_opening_for_writing_clears_what_a_killed_run_left(tmp_path):
  folder = tmp_path / "c"
  _save_all(folder, {1: 0.1})
  for step in (2, 7):
    (folder / ".saving" / str(step) / "state").mkdir(parents=True)
  (folder / ".deleted/0/state").mkdir(parents=True)
  assert _save_all(folder, {2: 0.2}) == [1, 2]


def test_a_deletion_that_is_cut_short_leaves_no_half_a_checkpoint(tmp_path, monkeypatch):
  folder = tmp_path / "c"
  deleted = []

  def killed(path, **_):
    deleted.append((pathlib.Path(path), (folder / ".deleted/1/state/_METADATA").is_file()))

  with Checkpoints(folder, keep_latest=1) as checkpoints:
    checkpoints.save(1, _tiny(1), None)
    checkpoints.wait()
    monkeypatch.setattr(shutil, "rmtree", killed)
    checkpoints.save(2, _tiny(2), None)
    checkpoints.wait()
  # The step left the list whole, by a rename, before the first of its files was touched.
  assert deleted[-1] == (folder / ".deleted", True)
  monkeypatch.undo()
  with Checkpoints(folder, read_only=True) as checkpoints:
    assert checkpoints.steps() == [2]
  Checkpoints(folder).close()
  assert _on_disk(folder) == [2]


def _start(tmp_path, script: str, *arguments) -> subprocess.Popen:
  file = tmp_path / "script.py"
  file.write_text(script)
  return subprocess.Popen(
    [sys.executable, str(file), *map(str, arguments)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(pathlib.Path(__file__).parents[1])},
  )


_SAVE_FOR_EVER = """
import itertools, sys
import numpy as np
from imgclf.checkpoint import Checkpoints
with Checkpoints(sys.argv[1], keep_latest=1) as checkpoints:
  for step in itertools.count((checkpoints.latest() or 0) + 1):
    state = {"params": {str(i): np.full(50_000, step, np.float32) for i in range(8)}}
    checkpoints.save(step, state, {"accuracy": step % 3})
    print(step, flush=True)
"""


def test_a_kill_at_any_moment_leaves_checkpoints_that_are_whole(tmp_path):
  target = {"params": {str(i): np.zeros(50_000, np.float32) for i in range(8)}}
  delay = random.Random(0)
  for _ in range(4):
    run = _start(tmp_path, _SAVE_FOR_EVER, tmp_path / "c")
    last = 0
    for line in run.stdout:
      last = int(line)
      if last % 5 == 0:
        break
    assert last, run.stderr.read()
    with pytest.raises(subprocess.TimeoutExpired):
      run.wait(delay.uniform(0, 0.05))
    run.send_signal(signal.SIGKILL)
    last = max([last, *map(int, run.communicate()[0].split())])
    with Checkpoints(tmp_path / "c", read_only=True) as checkpoints:
      steps = checkpoints.steps()
      # When the save of a step returns, the one before it is complete.
      assert checkpoints.latest() == steps[-1] >= last - 1
      assert checkpoints.best() % 3 == 2
      for step in steps:
        values = jax.tree.leaves(checkpoints.restore(step, target))
        assert all((x == step).all() for x in values)


_QUIET = """
import logging, sys
import numpy as np
from absl import logging as absl_logging
logging.basicConfig(level=logging.INFO)
absl_logging.set_verbosity(absl_logging.INFO)
logging.getLogger("jax").setLevel(logging.WARNING)
from imgclf.checkpoint import Checkpoints
state = {"params": {"w": np.ones(3)}}
with Checkpoints(sys.argv[1], keep_latest=1) as checkpoints:
  for step in range(1, 5):
    checkpoints.save(step, state, {"accuracy": 1.0} if step % 2 else None)
with Checkpoints(sys.argv[1], read_only=True) as checkpoints:
  checkpoints.restore(4, state)
absl_logging.warning("of another")
"""


def test_nothing_of_orbax_reaches_the_terminal_and_all_of_others_does(tmp_path):
  run = _start(tmp_path, _QUIET, tmp_path / "c")
  out, err = run.communicate(timeout=60)
  assert run.returncode == 0, err
  assert out == "" and err == "WARNING:absl:of another\n"


_PROCESS = """
import sys
import jax
import numpy as np
folder, port, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", 2, index)
from imgclf.checkpoint import Checkpoints
state = {"params": {"w": np.arange(6.0), "none": np.zeros((0, 2))}, "step": np.int32(0)}
with Checkpoints(folder, keep_latest=1) as checkpoints:
  for step, accuracy in ((1, 0.1), (2, 0.9), (3, 0.2), (4, 0.3)):
    checkpoints.save(step, state | {"step": np.int32(step)}, {"accuracy": accuracy})
  assert checkpoints.steps() == [2, 4], checkpoints.steps()
  assert (checkpoints.latest(), checkpoints.best()) == (4, 2)
with Checkpoints(folder, read_only=True) as checkpoints:
  back = checkpoints.restore(checkpoints.choose("best"), state)
  assert back["step"] == 2 and back["params"]["w"].tolist() == [0, 1, 2, 3, 4, 5]
print("done", jax.process_count())
"""


def test_two_processes_write_one_checkpoint_and_both_read_it(tmp_path):
  with socket.socket() as probe:
    probe.bind(("localhost", 0))
    port = probe.getsockname()[1]
  runs = [_start(tmp_path, _PROCESS, tmp_path / "c", port, index) for index in (0, 1)]
  try:
    for run in runs:
      out, err = run.communicate(timeout=60)
      assert run.returncode == 0 and out.endswith("done 2\n"), err
  finally:
    for run in runs:
      run.kill()
  assert _on_disk(tmp_path / "c") == [2, 4]
