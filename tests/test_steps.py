"""Loss, gradients and updates: against ln(classes), numpy, and one device against eight."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import imgclf
from imgclf import augment, models, optim, parallel, state, steps
from imgclf.models import resnet

CLASSES = 10


def make(config, total_steps=100, class_weights=None):
  model = models.create(config["model"], CLASSES, axis_name=parallel.AXIS)
  learning_rate = optim.schedule(config, total_steps=total_steps, warmup_steps=0)
  optimizer = optim.create(config, learning_rate)
  begin = state.create(
    model,
    optimizer,
    seed=config["seed"],
    image_size=config["dataset"]["image_size"],
    ema=config["optimizer"]["ema_decay"] is not None,
  )
  step = parallel.pmap(
    steps.make_train_step(model, config, optimizer, learning_rate, class_weights)
  )
  return model, begin, step


def random_batch(size, image_size, seed=0):
  rng = np.random.default_rng(seed)
  return {
    "image": rng.integers(0, 256, (size, image_size, image_size, 3), np.uint8),
    "label": rng.integers(0, CLASSES, size).astype(np.int32),
    "position": np.arange(size, dtype=np.int32),
    "stop": np.zeros(size, np.int32),
  }


def lenet_config(**optimizer):
  config = imgclf.default_config()
  config.dataset.image_size = 32
  config.model.name = "lenet5"
  config.optimizer.update(optimizer)
  return config


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_first_loss_is_the_logarithm_of_the_number_of_classes(smoothing):
  config = lenet_config()
  config.train.label_smoothing = smoothing
  _, begin, step = make(config)
  _, result = step(parallel.replicate(begin), parallel.shard(random_batch(8, 32)))
  assert parallel.scalar(result["loss"]) == pytest.approx(math.log(CLASSES), abs=1e-6)


def test_an_example_counts_by_the_weight_of_its_class():
  weights = np.arange(CLASSES) / 2
  _, begin, step = make(lenet_config(), class_weights=weights)
  batch = random_batch(8, 32)
  _, result = step(parallel.replicate(begin), parallel.shard(batch))
  expected = math.log(CLASSES) * weights[batch["label"]].mean()
  assert parallel.scalar(result["loss"]) == pytest.approx(expected, rel=1e-6)


def test_one_batch_is_learned_by_heart():
  config = lenet_config(learning_rate=3e-3)
  config.schedule.name = "constant"
  config.augment.flip = False
  _, begin, step = make(config)
  current, batch = parallel.replicate(begin), parallel.shard(random_batch(32, 32))
  for _ in range(150):
    current, result = step(current, batch)
    parallel.scalar(result["loss"])
  assert parallel.scalar(result["accuracy"]) == 1.0
  assert parallel.scalar(result["loss"]) < 0.05


def test_penalties_are_part_of_the_loss():
  config = lenet_config(l2=1e-2)
  _, begin, step = make(config)
  _, result = step(parallel.replicate(begin), parallel.shard(random_batch(8, 32)))
  kernels = [np.asarray(x, np.float64) for x in jax.tree.leaves(begin.params) if x.ndim > 1]
  penalty = 0.5 * 1e-2 * sum((kernel**2).sum() for kernel in kernels)
  assert parallel.scalar(result["loss"]) == pytest.approx(math.log(CLASSES) + penalty, rel=1e-5)


def test_the_reported_figures_are_those_of_the_update():
  config = lenet_config(name="sgd", momentum=0.0, weight_decay=0.0, learning_rate=0.5)
  config.schedule.name = "constant"
  _, begin, step = make(config)
  after, result = step(parallel.replicate(begin), parallel.shard(random_batch(8, 32)))
  after = parallel.unreplicate(after)
  moved = optax.tree.norm(jax.tree.map(lambda a, b: a - b, after.params, begin.params))
  assert parallel.scalar(result["learning_rate"]) == pytest.approx(0.5)
  # Plain gradient descent moves by the learning rate times the gradient.
  assert 0.5 * parallel.scalar(result["gradient_norm"]) == pytest.approx(float(moved), rel=1e-5)
  assert after.step == 1


def test_accumulated_parts_give_the_gradient_of_the_whole_batch():
  """LeNet has no batch norm, so the parts' mean gradient is the batch's."""
  after = {}
  for parts in (1, 4):
    config = lenet_config(name="sgd", momentum=0.0, accumulate_steps=parts, learning_rate=0.1)
    _, begin, step = make(config)
    current = parallel.replicate(begin)
    for seed in range(2):
      current, _ = step(current, parallel.shard(random_batch(16, 32, seed)))
    after[parts] = parallel.unreplicate(current).params
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), after[1], after[4]
  )


def kept_for_the_gradient(config, monkeypatch):
  """Bytes an example that the backward pass is handed by the forward pass; nothing is computed."""
  kept, batch = [], 8
  grad = jax.value_and_grad

  def noting(function, has_aux):
    def value_and_grad(params, *rest):
      _, pullback, _ = jax.vjp(lambda p: function(p, *rest), params, has_aux=has_aux)
      arrays = [x for x in jax.tree.leaves(pullback) if x.ndim and x.shape[0] == batch]
      kept.append(sum(x.size * x.dtype.itemsize for x in arrays) / batch)
      return grad(function, has_aux=has_aux)(params, *rest)

    return value_and_grad

  with monkeypatch.context() as patch:
    patch.setattr(steps.jax, "value_and_grad", noting)
    _, begin, step = make(config)
    jax.eval_shape(step, *jax.tree.map(lambda x: x[None], (begin, random_batch(batch, 224))))
  return kept[0] / 1e6


def test_remat_keeps_less_for_the_gradient(monkeypatch):
  config = imgclf.default_config()
  config.model.update(name="resnet18", dtype="bfloat16", sync_batch_norm=False)
  kept = {}
  for remat in ("none", "elementwise", "blocks"):
    config.model.remat = remat
    kept[remat] = kept_for_the_gradient(config, monkeypatch)
  # The results of the 20 convolutions of He et al. 2015, table 1, 2.48 million, two bytes each. And
  # the images.
  assert kept["elementwise"] == pytest.approx(2 * 2.484 + 2 * 0.151, rel=0.02)
  # What goes from block to block: three times 56 px of 64 channels, and so on; of the stem its
  # convolution's result and, of the maxima, the place of each; the images.
  between = 2 * (3 * 0.2007 + 2 * 0.1004 + 2 * 0.0502 + 0.0251)
  assert kept["blocks"] == pytest.approx(between + 2 * 0.803 + 0.2007 + 2 * 0.151, rel=0.02)
  assert kept["blocks"] < kept["elementwise"] < 0.8 * kept["none"]


def test_sharpness_aware_minimisation_takes_the_gradient_from_up_the_hill():
  config = lenet_config(name="sgd", momentum=0.0, weight_decay=0.0, learning_rate=0.5, sam_rho=0.2)
  config.optimizer.accumulate_steps = 2
  config.dataset.image_size = 16
  config.augment.update(flip=False, crop="center")
  config.schedule.name = "constant"
  model, begin, step = make(config)
  rng = np.random.default_rng(0)
  begin = begin.replace(
    params=jax.tree.map(lambda x: x + rng.normal(0, 0.1, x.shape), begin.params)
  )
  batch = random_batch(8, 16)
  images = augment.eval_transform(jnp.asarray(batch["image"]), config["augment"], jnp.float32)

  @jax.jit
  @jax.value_and_grad
  def slope(params):
    log_p = jax.nn.log_softmax(model.apply({"params": params}, images))
    return -jnp.mean(jnp.sum(jax.nn.one_hot(batch["label"], CLASSES) * log_p, axis=1))

  loss, gradient = slope(begin.params)
  leaves = [np.asarray(x, np.float64) for x in jax.tree.leaves(gradient)]
  norm = math.sqrt(sum((x**2).sum() for x in leaves))
  up = slope(jax.tree.map(lambda p, g: p + 0.2 * g / norm, begin.params, gradient))[1]
  expected = jax.tree.map(lambda p, g: p - 0.5 * g, begin.params, up)
  after, result = step(parallel.replicate(begin), parallel.shard(batch))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    parallel.unreplicate(after).params,
    expected,
  )
  # Which is another than that of the hill's foot, whose loss is told.
  assert norm > 0.1
  assert abs(float(optax.tree.norm(up)) - norm) > 0.01 * norm
  assert parallel.scalar(result["loss"]) == pytest.approx(float(loss), rel=1e-5)


def test_remat_makes_the_same_update(monkeypatch):
  monkeypatch.setattr(resnet, "WIDTHS", (4, 5))
  monkeypatch.setitem(models._MODELS, "resnet18", models._resnet(False, 1, 1))
  config = imgclf.default_config()
  config.dataset.image_size = 16
  config.model.update(name="resnet18", stem="cifar")
  config.optimizer.update(name="sgd", weight_decay=0.0)
  states = {}
  for remat in ("none", "elementwise", "blocks"):
    config.model.remat = remat
    _, begin, step = make(config)
    begin = begin.replace(params=jax.tree.map(lambda x: x + 0.1, begin.params))
    after, _ = step(parallel.replicate(begin), parallel.shard(random_batch(8, 16)))
    states[remat] = parallel.unreplicate(after)
  for remat in ("elementwise", "blocks"):
    for one, other in zip(jax.tree.leaves(states["none"]), jax.tree.leaves(states[remat])):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("which", "remat"), [("rules", "blocks"), ("all", "none")])
def test_a_frozen_batch_norm_normalises_by_its_running_statistics_which_stay(
  monkeypatch, which, remat
):
  monkeypatch.setattr(resnet, "WIDTHS", (4, 5))
  monkeypatch.setitem(models._MODELS, "resnet18", models._resnet(False, 1, 1))
  config = imgclf.default_config()
  config.dataset.image_size = 16
  config.augment.flip, config.augment.crop = False, "center"
  config.model.update(name="resnet18", stem="cifar", frozen_batch_norm=which, remat=remat)
  config.optimizer.update(
    name="sgd", weight_decay=0.0, rules="head/*: lr=2; stage2*: lr=1; *: lr=0"
  )
  model, begin, step = make(config)
  rng = np.random.default_rng(0)
  begin = begin.replace(
    params=jax.tree.map(lambda x: x + rng.normal(0, 0.3, x.shape), begin.params),
    batch_stats=jax.tree.map(lambda x: x + rng.uniform(0, 0.5, x.shape), begin.batch_stats),
  )
  batch = random_batch(8, 16)
  after, result = step(parallel.replicate(begin), parallel.shard(batch))
  after = parallel.unreplicate(after)
  images = augment.eval_transform(jnp.asarray(batch["image"]), config["augment"], jnp.float32)
  if which == "all":
    # Then training sees what evaluation does.
    logits = np.asarray(model.apply(begin.variables(), images, train=False), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -log_p[np.arange(8), batch["label"]].mean()
    assert parallel.scalar(result["loss"]) == pytest.approx(expected, rel=1e-5)
  for name, old in begin.batch_stats.items():
    same = jax.tree.map(np.array_equal, old, after.batch_stats[name])
    stays = which == "all" or not name.startswith("stage2")
    assert set(jax.tree.leaves(same)) == {stays}, name
  assert np.array_equal(begin.params["stem_norm"]["bias"], after.params["stem_norm"]["bias"])
  moved = begin.params["stage2_block1"]["norm1"], after.params["stage2_block1"]["norm1"]
  assert not np.array_equal(moved[0]["bias"], moved[1]["bias"])


def test_the_average_of_the_weights_is_kept_and_evaluated():
  config = lenet_config(ema_decay=0.5)
  _, begin, step = make(config)
  after, _ = step(parallel.replicate(begin), parallel.shard(random_batch(8, 32)))
  after = parallel.unreplicate(after)
  # At the first update the decay is min(0.5, 1 / 10).
  expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, begin.params, after.params)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8),
    after.variables()["params"],
    expected,
  )


def test_keys_are_distinct_and_follow_from_seed_step_and_position_alone():
  def key_data(seed, step, positions):
    keys = steps.example_keys(seed, jnp.int32(step), jnp.array(positions))
    return [tuple(row) for row in np.asarray(jax.random.key_data(keys))]

  together = key_data(0, 3, [0, 1, 2, 3])
  assert key_data(0, 3, [2]) == together[2:3]
  others = [*together, *key_data(1, 3, [0, 1, 2, 3]), *key_data(0, 4, [0, 1, 2, 3])]
  assert len(set(others)) == 12


def test_an_evaluation_step_says_what_numpy_says():
  config = lenet_config()
  model, begin, _ = make(config)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), begin.params)
  batch = random_batch(16, 32)
  result = parallel.pmap(steps.make_eval_step(model, config))(
    parallel.replicate({"params": params}), parallel.shard(batch)
  )
  result = {name: parallel.unshard(value) for name, value in result.items()}
  mean, std = (np.array(config.augment[name]) for name in ("mean", "std"))
  images = (batch["image"] / 255 - mean) / std
  logits = np.asarray(model.apply({"params": params}, images.astype(np.float32)), np.float64)
  p = np.exp(logits - logits.max(axis=1, keepdims=True))
  p /= p.sum(axis=1, keepdims=True)
  top5 = np.argsort(-p, axis=1)[:, :5]
  np.testing.assert_allclose(result["probabilities"], p, rtol=1e-4)
  np.testing.assert_allclose(result["loss"], -np.log(p[np.arange(16), batch["label"]]), rtol=1e-4)
  np.testing.assert_array_equal(result["predicted"], p.argmax(axis=1))
  np.testing.assert_array_equal(result["in_top5"], (top5 == batch["label"][:, None]).any(axis=1))
  np.testing.assert_allclose(result["confidence"], p.max(axis=1), rtol=1e-4)


def test_an_evaluation_step_of_several_classes_says_the_sigmoids_of_the_mean_view():
  config = lenet_config()
  config.dataset.label_separator, config.eval.tta = "|", "flip"
  model, begin, _ = make(config)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), begin.params)
  label = rng.integers(0, 2, (4, CLASSES)).astype(np.uint8)
  batch = random_batch(4, 32) | {"label": label}
  result = steps.make_eval_step(model, config, 1.5)({"params": params}, batch)
  mean, std = (np.array(config.augment[name]) for name in ("mean", "std"))
  images = (batch["image"] / 255 - mean) / std
  views = [images, images[:, :, ::-1]]
  logits = [model.apply({"params": params}, view.astype(np.float32)) for view in views]
  p = 1 / (1 + np.exp(-np.mean(np.asarray(logits, np.float64), axis=0) / 1.5))
  assert set(result) == {"loss", "probabilities", "logits"}
  np.testing.assert_allclose(result["probabilities"], p, rtol=1e-4)
  expected = -np.where(label, np.log(p), np.log1p(-p)).mean(axis=1)
  np.testing.assert_allclose(result["loss"], expected, rtol=1e-4)


def test_features_are_handed_out_only_where_they_are_asked_for():
  config = lenet_config()
  model, begin, _ = make(config)
  batch, variables = random_batch(4, 32), {"params": begin.params}
  plain = steps.make_eval_step(model, config)(variables, batch)
  more = steps.make_eval_step(model, config, features=True)(variables, batch)
  assert set(more) - set(plain) == {"features"}
  images = augment.eval_transform(jnp.asarray(batch["image"]), config.augment, jnp.float32)
  _, state = model.apply(variables, images, mutable=["intermediates"])
  assert more["features"].shape == (4, 84) and more["features"].dtype == jnp.float32
  expected = state["intermediates"]["pre_logits"]
  np.testing.assert_allclose(more["features"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("tta", "shifts"), [("flip", [1]), ("flip_translate", [1, 0, 2])])
def test_test_time_augmentation_is_the_weighted_mean_of_explicit_views(tta, shifts):
  """Weights of Jordan 2024: half for what is not shifted, a quarter for each shift; half of it for
  each mirror image."""
  config = lenet_config()
  model, begin, _ = make(config)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), begin.params)
  variables, batch = parallel.replicate({"params": params}), random_batch(8, 32)

  def judged(pixels, tta="none"):
    config.eval.tta = tta
    result = parallel.pmap(steps.make_eval_step(model, config, 1.0))(
      variables, parallel.shard({**batch, "image": np.ascontiguousarray(pixels)})
    )
    return {name: parallel.unshard(value) for name, value in result.items()}

  padded = np.pad(batch["image"], ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
  logits = np.zeros((8, CLASSES))
  for weight, shift in zip([1.0] if tta == "flip" else [0.5, 0.25, 0.25], shifts):
    view = padded[:, shift : shift + 32, shift : shift + 32]
    for side in (view, view[:, :, ::-1]):
      # A softmax is the logits' but for a constant of each example.
      logits += weight / 2 * np.log(judged(side)["probabilities"])
  p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  result = judged(batch["image"], tta)
  np.testing.assert_allclose(result["probabilities"], p, rtol=1e-4)
  np.testing.assert_allclose(result["loss"], -np.log(p[np.arange(8), batch["label"]]), rtol=1e-4)
  assert np.abs(p - judged(batch["image"])["probabilities"]).max() > 1e-3


# Two updates of a network with batch norm (resnet18; airbench94 by Muon) or dropout (cnn) and
# random augmentation, in a fresh process.
PARITY = """
import json, sys
import jax, numpy as np
sys.path.insert(0, "tests")
import imgclf
from imgclf import models, parallel
from imgclf.models import resnet
from quick_programs import quick_programs
import test_steps

config = imgclf.default_config()
config.model.name, config.model.dtype = sys.argv[1], sys.argv[2]
size = int(sys.argv[4])
if config.model.name == "resnet18":
  config.model.stem = "cifar"
  # Two blocks, the second with a shortcut of its own, compile in seconds.
  models._MODELS["resnet18"], resnet.WIDTHS = models._resnet(False, 1, 1), (16, 32)
elif config.model.name == "cnn":
  config.model.dropout_rate, config.optimizer.sam_rho = 0.5, 0.05
config.dataset.image_size = size
config.augment.rotation = 20.0
config.augment.update(json.loads(sys.argv[5]))
config.optimizer.update(name="sgd", learning_rate=0.05, weight_decay=1e-4, clip_norm=5.0)
if config.model.name == "airbench94":
  fields = {"widths": (8, 16, 16)}
  models._MODELS["airbench94"] = models._Entry("airbench", "Airbench", 9, fields, batch_norm=True)
  config.optimizer.update(name="muon", muon_steps=2, muon_unit_filters=True)
  config.optimizer.rules = "whitening/*: lr=0; */bias: lr=9"
with quick_programs():
  _, begin, step = test_steps.make(config)
  current, losses = parallel.replicate(begin), []
  for seed in range(2):
    current, result = step(current, parallel.shard(test_steps.random_batch(16, size, seed)))
    losses.append(parallel.scalar(result["loss"]))
after = parallel.unreplicate(current)
np.savez(sys.argv[3], *jax.tree.leaves((after.params, after.batch_stats)))
copies = jax.tree.leaves((current.params, current.batch_stats))
same = all(np.array_equal(s.data, x.addressable_shards[0].data) for x in copies for s in x.addressable_shards)
print(json.dumps({"losses": losses, "devices": jax.device_count(), "same": same}))
"""


@pytest.mark.parametrize(
  ("model", "size", "dtype", "tolerance", "augment"),
  [
    ("resnet18", 8, "float64", 1e-12, {}),
    ("resnet18", 8, "float32", 1e-5, {}),
    ("airbench94", 9, "float64", 1e-12, {}),
    (
      *("cnn", 24, "float64", 1e-12),
      {
        **{"policy": "randaugment", "brightness": 0.4, "hue": 0.1, "blur": 0.5, "erasing": 0.5},
        **{"cutout": 4, "mixup": 0.2, "cutmix": 1.0, "mix_per_example": True},
      },
    ),
  ],
)
def test_one_device_and_eight_make_the_same_updates(
  run_python, tmp_path, model, size, dtype, tolerance, augment
):
  """Losses, gradients (as the parameters' moves) and statistics; also dropout and augmentation."""
  told, arrays = {}, {}
  for devices in (1, 8):
    path = tmp_path / f"{devices}.npz"
    x64 = str(int(dtype == "float64"))
    out = run_python(
      *(PARITY, model, dtype, path, size, json.dumps(augment)), devices=devices, JAX_ENABLE_X64=x64
    )
    told[devices] = json.loads(out)
    with np.load(path) as saved:
      arrays[devices] = [saved[name] for name in saved.files]
  assert [told[d]["devices"] for d in (1, 8)] == [1, 8]
  assert told[8]["same"]
  np.testing.assert_allclose(told[1]["losses"], told[8]["losses"], rtol=tolerance)
  norm = math.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays[1]))
  apart = math.sqrt(
    sum(float(((a - b).astype(np.float64) ** 2).sum()) for a, b in zip(arrays[1], arrays[8]))
  )
  assert apart / norm < tolerance


def one_step(config, batch, begin=None):
  _, fresh, step = make(config)
  after, result = step(parallel.replicate(begin or fresh), parallel.shard(batch))
  return parallel.unreplicate(after), {name: parallel.scalar(v) for name, v in result.items()}


def test_a_masked_example_is_as_if_the_batch_lacked_it():
  """LeNet has no batch norm, so loss, accuracy and update are those of the other examples alone."""
  config = lenet_config(name="sgd", momentum=0.0, learning_rate=0.5)
  config.train.label_smoothing = 0.1
  batch = random_batch(8, 32)
  batch["label"][:] = 0  # so that the accuracy is not 0
  mask = np.array([1, 0, 1, 1, 0, 1, 1, 1], bool)
  without = {name: rows[mask] for name, rows in batch.items()}
  noise = {**batch, "image": np.where(mask[:, None, None, None], batch["image"], 77), "mask": mask}
  _, begin, _ = make(config)
  rng = np.random.default_rng(0)
  begin = begin.replace(
    params=jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), begin.params)
  )
  expected, told = one_step(config, without, begin)
  found, masked = one_step(config, noise, begin)
  for name in ("loss", "accuracy", "gradient_norm"):
    assert masked[name] == pytest.approx(told[name], rel=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    found.params,
    expected.params,
  )


def test_a_batch_of_masked_examples_alone_moves_nothing_by_its_loss():
  config = lenet_config(name="sgd", momentum=0.0, weight_decay=0.0, learning_rate=0.5)
  _, begin, _ = make(config)
  after, told = one_step(config, random_batch(8, 32) | {"mask": np.zeros(8, bool)})
  assert (told["loss"], told["gradient_norm"], after.step) == (0, 0, 1)
  jax.tree.map(np.testing.assert_array_equal, after.params, begin.params)


def test_a_step_that_is_to_be_stopped_before_is_not_made():
  config = lenet_config(ema_decay=0.5)
  _, begin, _ = make(config)
  batch = random_batch(8, 32)
  batch["stop"][5] = 1
  after, told = one_step(config, batch)
  assert told["stop"] == 1
  jax.tree.map(np.testing.assert_array_equal, after, jax.device_get(begin))
  after, told = one_step(config, random_batch(8, 32))
  assert (told["stop"], after.step) == (0, 1)


def test_a_bad_step_changes_the_counts_alone_where_it_is_left_out():
  config = lenet_config(ema_decay=0.5)
  _, begin, _ = make(config)
  broken = begin.replace(
    params=jax.tree.map(lambda x: np.full(x.shape, np.nan, np.float32), begin.params)
  )
  after, told = one_step(config, random_batch(8, 32), broken)
  assert math.isnan(told["loss"]) and (after.step, after.bad_steps) == (1, 0)
  assert after.opt_state[0].count == 1
  config.train.max_bad_steps = 2
  after, told = one_step(config, random_batch(8, 32), broken)
  assert math.isnan(told["loss"]) and (after.step, after.bad_steps) == (1, 1)
  jax.tree.map(np.testing.assert_array_equal, after.params, broken.params)
  jax.tree.map(np.testing.assert_array_equal, after.opt_state, jax.device_get(begin.opt_state))
  jax.tree.map(np.testing.assert_array_equal, after.ema, jax.device_get(begin.ema))
  # A step that is good is made, and the learning rate is that of the updates so far.
  config.schedule.name = "linear"
  _, late = one_step(config, random_batch(8, 32), begin.replace(step=np.int32(50)))
  _, later = one_step(
    config, random_batch(8, 32), begin.replace(step=np.int32(51), bad_steps=np.int32(1))
  )
  assert late["learning_rate"] == later["learning_rate"] == pytest.approx(5e-4)


# Two labels.


def test_the_first_binary_loss_is_ln_2_and_a_step_of_mixed_examples_is_repeatable():
  config = lenet_config()
  config.train.loss = "binary"
  config.augment.update(mixup=0.2, cutmix=1.0)
  batch = random_batch(8, 32) | {"mask": np.array([1, 1, 1, 0, 1, 1, 1, 1], bool)}
  first, told = one_step(config, batch)
  again, _ = one_step(config, batch)
  assert told["loss"] == pytest.approx(math.log(2), abs=1e-6)
  jax.tree.map(np.testing.assert_array_equal, first.params, again.params)


def test_a_batch_is_mixed_by_a_draw_of_its_seed_and_step_and_labels_go_along():
  section = imgclf.default_config().augment
  section.update(flip=False, mixup=1.0)
  batch = random_batch(8, 4)

  def weights(seed, step, rows=slice(None)):
    part = {name: column[rows] for name, column in batch.items()}
    _, targets, _ = steps.augmented(part, seed, jnp.int32(step), section, jnp.float32)
    assert targets.label.tolist() == part["label"].tolist()
    pairs = part["label"].reshape(-1, 2)
    assert targets.partner.label.tolist() == pairs[:, ::-1].ravel().tolist()
    return np.asarray(targets.partner.weight).tolist()

  whole = weights(0, 3)
  assert len(set(whole)) == 1
  assert weights(0, 3, slice(4, 8)) == whole[:4]  # another device's share
  assert len({whole[0], weights(0, 4)[0], weights(1, 3)[0]}) == 3
