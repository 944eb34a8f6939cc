import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgclf import config as config_lib
from imgclf import optim, rates
from imgclf.errors import UserError


def make_config(**fields):
  """The default config with fields set, written `section__name=value`."""
  config = config_lib.default_config()
  for name, value in fields.items():
    section, _, leaf = name.partition("__")
    config[section][leaf] = value
  config_lib.validate(config)
  return config


def run(config, params, gradients, learning_rate=lambda step: 0.1):
  """Applies one update for each of the gradients."""
  optimizer = optim.create(config, learning_rate)
  state = optimizer.init(params)
  for gradient in gradients:
    updates, state = optimizer.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params


@pytest.fixture
def float64():
  with jax.enable_x64(True):
    yield


def random_tree(seed):
  rng = np.random.default_rng(seed)
  return {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=2)}


# Learning rate.


def test_learning_rate_is_used_as_is_without_a_reference_batch_size():
  config = make_config(optimizer__learning_rate=0.3, train__batch_size=512)
  assert optim.peak_learning_rate(config) == 0.3


def test_learning_rate_is_scaled_by_batch_size_over_reference_batch_size():
  config = make_config(
    optimizer__learning_rate=0.1, optimizer__reference_batch_size=256, train__batch_size=1024
  )
  assert optim.peak_learning_rate(config) == pytest.approx(0.4, rel=1e-15)
  schedule = optim.schedule(config, total_steps=10, warmup_steps=2)
  assert schedule(2) == pytest.approx(0.4, rel=1e-6)


def schedule_of(name, total_steps, warmup_steps, **fields):
  config = make_config(schedule__name=name, optimizer__learning_rate=0.4, **fields)
  return optim.schedule(config, total_steps=total_steps, warmup_steps=warmup_steps)


@pytest.mark.parametrize("name", ["cosine", "linear", "step", "constant"])
def test_warmup_is_a_line_from_zero_to_the_peak(name):
  schedule = schedule_of(name, 90, 10)
  assert schedule(0) == 0
  assert schedule(1) == pytest.approx(0.04, rel=1e-6)
  assert schedule(5) == pytest.approx(0.2, rel=1e-6)
  assert schedule(10) == pytest.approx(0.4, rel=1e-6)


@pytest.mark.parametrize("name", ["cosine", "linear", "step", "constant"])
def test_without_warmup_the_first_step_has_the_peak(name):
  assert schedule_of(name, 90, 0)(0) == pytest.approx(0.4, rel=1e-6)


@pytest.mark.parametrize("name", ["cosine", "linear", "step", "constant"])
def test_warmup_may_be_the_whole_run(name):
  assert schedule_of(name, 8, 8)(6) == pytest.approx(0.3, rel=1e-6)


def test_cosine_has_half_the_peak_in_the_middle_and_none_at_the_end():
  schedule = schedule_of("cosine", 90, 10)
  assert schedule(30) == pytest.approx(0.4 * (1 + math.sqrt(0.5)) / 2, rel=1e-6)  # a quarter
  assert schedule(50) == pytest.approx(0.2, rel=1e-6)
  assert schedule(90) == 0


def test_linear_falls_in_equal_steps_to_zero():
  schedule = schedule_of("linear", 90, 10)
  assert schedule(30) == pytest.approx(0.3, rel=1e-6)
  assert schedule(50) == pytest.approx(0.2, rel=1e-6)
  assert schedule(90) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_end_factor_is_the_share_of_the_peak_that_is_left(name):
  schedule = schedule_of(name, 90, 10, schedule__end_factor=0.1)
  assert schedule(10) == pytest.approx(0.4, rel=1e-6)
  assert schedule(50) == pytest.approx((0.4 + 0.04) / 2, rel=1e-6)
  assert schedule(90) == pytest.approx(0.04, rel=1e-5)
  assert schedule(200) == pytest.approx(0.04, rel=1e-5)


def test_step_drops_at_30_60_and_80_of_90_counted_from_step_0():
  schedule = schedule_of("step", 90, 5)
  shares = {29: 1, 30: 0.1, 59: 0.1, 60: 0.01, 79: 0.01, 80: 0.001, 89: 0.001}
  for step, share in shares.items():
    assert schedule(step) == pytest.approx(0.4 * share, rel=1e-5), step


def test_step_factor_and_boundaries_are_the_configs():
  schedule = schedule_of(
    "step", 100, 0, schedule__step_factor=0.5, schedule__step_boundaries=(0.025, 0.07)
  )
  values = [float(schedule(step)) / 0.4 for step in range(10)]
  # 0.025 of 100 steps is rounded up to 3; 0.07 of 100 is 7, though floating point says a little
  # more.
  np.testing.assert_allclose(values, [1] * 3 + [0.5] * 4 + [0.25] * 3, rtol=1e-6)


def test_boundaries_that_fall_on_one_step_both_count():
  schedule = schedule_of("step", 2, 0, schedule__step_boundaries=(0.3, 0.4))
  assert schedule(0) == pytest.approx(0.4, rel=1e-6)
  assert schedule(1) == pytest.approx(0.004, rel=1e-5)


def test_a_boundary_within_the_warmup_takes_effect_at_its_end():
  schedule = schedule_of("step", 10, 5, schedule__step_boundaries=(0.2,))
  assert schedule(4) == pytest.approx(0.4 * 4 / 5, rel=1e-6)
  assert schedule(5) == pytest.approx(0.04, rel=1e-6)


def test_constant_stays_at_the_peak():
  schedule = schedule_of("constant", 90, 10)
  assert schedule(89) == schedule(90) == schedule(10) == pytest.approx(0.4, rel=1e-6)


@pytest.mark.parametrize("name", ["cosine", "linear", "step", "constant"])
def test_a_traced_step_gives_what_an_integer_gives(name):
  schedule = schedule_of(name, 20, 5)
  steps = jnp.arange(21)
  traced = jax.jit(jax.vmap(schedule))(steps)
  np.testing.assert_allclose(traced, [schedule(int(step)) for step in steps], rtol=1e-6, atol=1e-7)


def test_a_warmup_longer_than_the_run_is_refused_by_the_name_of_its_field():
  config = make_config(schedule__warmup_epochs=5.0)
  with pytest.raises(UserError, match=r"config\.schedule\.warmup_epochs: .* 500 steps .* of 100;"):
    optim.schedule(config, total_steps=100, warmup_steps=500)


def test_the_optimizer_uses_the_schedule_at_the_number_of_updates_before():
  config = make_config(
    optimizer__name="sgd",
    optimizer__momentum=0.0,
    optimizer__weight_decay=0.0,
    optimizer__learning_rate=0.4,
  )
  schedule = optim.schedule(config, total_steps=8, warmup_steps=4)
  params, gradient = {"w": jnp.ones(1)}, {"w": jnp.ones(1)}
  after = [run(config, params, [gradient] * n, schedule)["w"][0] for n in (1, 2, 3)]
  np.testing.assert_allclose(after, [1, 1 - 0.1, 1 - 0.1 - 0.2], rtol=1e-6)


# Weight decay.


def test_parameters_of_two_or_more_axes_are_decayed_and_others_not():
  params = {
    "conv": {"kernel": jnp.ones((3, 3, 3, 8)), "bias": jnp.ones(8)},
    "norm": {"scale": jnp.ones(8)},
    "head": {"kernel": jnp.ones((8, 2))},
    "temperature": jnp.ones(()),
  }
  assert optim.decay_mask(params, make_config()) == {
    "conv": {"kernel": True, "bias": False},
    "norm": {"scale": False},
    "head": {"kernel": True},
    "temperature": False,
  }
  everything = make_config(optimizer__decay_bias_and_norm=True)
  assert all(jax.tree.leaves(optim.decay_mask(params, everything)))


@pytest.mark.parametrize("name", ["adam", "sgd", "lamb", "lion"])
@pytest.mark.parametrize("everything", [False, True])
def test_without_a_gradient_only_decayed_parameters_shrink(name, everything):
  config = make_config(
    optimizer__name=name,
    optimizer__weight_decay=0.5,
    optimizer__decay_bias_and_norm=everything,
  )
  params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
  after = run(config, params, [jax.tree.map(jnp.zeros_like, params)])
  # lamb rescales the step to the norm of the weights, so that the decay's size drops out.
  shrunk = 0.9 if name == "lamb" else 1 - 0.1 * 0.5
  np.testing.assert_allclose(after["kernel"], np.full((2, 2), shrunk), rtol=1e-6)
  np.testing.assert_allclose(after["bias"], np.full(2, shrunk if everything else 1), rtol=1e-6)


# Optimizers, against their formulas in float64.


def adam_direction(gradients, b1, b2, epsilon):
  """Kingma & Ba 2015, algorithm 1: the direction of the last of some updates."""
  m = v = 0.0
  for gradient in gradients:
    m = b1 * m + (1 - b1) * gradient
    v = b2 * v + (1 - b2) * gradient**2
  t = len(gradients)
  return (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + epsilon)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("constants", [(0.9, 0.999, 1e-8), (0.8, 0.95, 0.1)])
def test_adam_is_the_papers_with_decay_times_the_learning_rate(constants):
  b1, b2, epsilon = constants
  config = make_config(
    optimizer__name="adam",
    optimizer__weight_decay=0.3,
    optimizer__b1=b1,
    optimizer__b2=b2,
    optimizer__epsilon=epsilon,
  )
  rates = [0.01, 0.02, 0.03]
  params, gradients = random_tree(0), [random_tree(seed) for seed in (1, 2, 3)]
  after = run(config, params, gradients, lambda step: 0.01 * (step + 1))
  for name, decay in (("kernel", 0.3), ("bias", 0.0)):
    expected = params[name]
    for i, rate in enumerate(rates):
      direction = adam_direction([g[name] for g in gradients[: i + 1]], b1, b2, epsilon)
      expected = expected - rate * direction - rate * decay * expected
    np.testing.assert_allclose(after[name], expected, rtol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
  ("momentum", "nesterov", "kernel", "bias"),
  [
    # Two updates with weight 1, gradient 0.5, decay 0.1 (kernel only) and learning rate 0.1.
    # No momentum: 1 - 0.1 * 0.6 = 0.94; 0.94 - 0.1 * 0.594. Bias: 1 - 0.05 - 0.05.
    (0.0, False, 0.8806, 0.9),
    # v = 0.6, w = 0.94; v = 0.9 * 0.6 + 0.594 = 1.134. Bias: v = 0.5, then 0.95.
    (0.9, False, 0.8266, 0.855),
    # Step 0.6 + 0.9 * 0.6 = 1.14, w = 0.886; v = 0.54 + 0.5886, step 0.5886 + 0.9 * 1.1286 =
    # 1.60434. Bias: 0.5 + 0.45 = 0.95; v = 0.95, step 0.5 + 0.855.
    (0.9, True, 0.725566, 0.7695),
  ],
)
def test_sgd_adds_decay_to_the_gradient_before_momentum(momentum, nesterov, kernel, bias):
  config = make_config(
    optimizer__name="sgd",
    optimizer__weight_decay=0.1,
    optimizer__momentum=momentum,
    optimizer__nesterov=nesterov,
  )
  params = {"kernel": np.ones((1, 1)), "bias": np.ones(1)}
  gradient = jax.tree.map(lambda w: 0.5 * w, params)
  after = run(config, params, [gradient, gradient])
  assert float(after["kernel"][0, 0]) == pytest.approx(kernel, rel=1e-7)
  assert float(after["bias"][0]) == pytest.approx(bias, rel=1e-7)


def test_sgd_without_momentum_keeps_no_copy_of_the_parameters():
  params = {"kernel": jnp.ones((2, 2))}
  for momentum, copies in ((0.0, 0), (0.9, 1)):
    config = make_config(optimizer__name="sgd", optimizer__momentum=momentum)
    state = optim.create(config, optax.constant_schedule(0.1)).init(params)
    assert sum(leaf.shape == (2, 2) for leaf in jax.tree.leaves(state)) == copies


@pytest.mark.usefixtures("float64")
def test_lamb_rescales_each_decayed_tensor_to_the_norm_of_its_weights():
  b1, b2, epsilon = 0.8, 0.95, 1e-3
  config = make_config(
    optimizer__name="lamb",
    optimizer__weight_decay=0.3,
    optimizer__b1=b1,
    optimizer__b2=b2,
    optimizer__epsilon=epsilon,
  )
  params, gradients = random_tree(0), [random_tree(1), random_tree(2)]
  kernel, bias = params["kernel"], params["bias"]
  for n in (1, 2):
    # You et al. 2020, algorithm 2, with phi the identity.
    direction = adam_direction([g["kernel"] for g in gradients[:n]], b1, b2, epsilon) + 0.3 * kernel
    ratio = np.linalg.norm(kernel) / np.linalg.norm(direction)
    kernel = kernel - 0.1 * ratio * direction
    bias = bias - 0.1 * adam_direction([g["bias"] for g in gradients[:n]], b1, b2, epsilon)
    after = run(config, params, gradients[:n])
    np.testing.assert_allclose(after["kernel"], kernel, rtol=1e-6)
    np.testing.assert_allclose(after["bias"], bias, rtol=1e-6)


def test_lamb_moves_a_head_that_starts_at_zero():
  config = make_config(optimizer__name="lamb", optimizer__weight_decay=0.0)
  after = run(config, {"w": jnp.zeros((2, 2))}, [{"w": jnp.ones((2, 2))}])
  np.testing.assert_allclose(after["w"], np.full((2, 2), -0.1), rtol=1e-5)


@pytest.mark.parametrize(
  ("clip_norm", "factor"), [(1.0, 1 / 5), (2.5, 1 / 2), (10.0, 1), (None, 1)]
)
def test_gradients_are_scaled_down_to_the_global_norm(clip_norm, factor):
  config = make_config(
    optimizer__name="sgd",
    optimizer__momentum=0.0,
    optimizer__weight_decay=0.1,
    optimizer__clip_norm=clip_norm,
  )
  params = {"kernel": jnp.ones((1, 2)), "bias": jnp.zeros(2)}
  gradient = {"kernel": jnp.array([[3.0, 0.0]]), "bias": jnp.array([0.0, 4.0])}  # of norm 5
  after = run(config, params, [gradient], optax.constant_schedule(1.0))
  # Decay is added after clipping: 0.1 * 1 is not scaled.
  np.testing.assert_allclose(after["kernel"], [[1 - 3 * factor - 0.1, 0.9]], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(after["bias"], [0, -4 * factor], rtol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_scales_each_decayed_tensor_and_its_momentum_keeps_the_learning_rate(nesterov):
  config = make_config(
    optimizer__name="lars",
    optimizer__weight_decay=0.3,
    optimizer__momentum=0.8,
    optimizer__nesterov=nesterov,
    optimizer__trust_coefficient=0.02,
  )
  params, gradients = random_tree(0), [random_tree(1), random_tree(2)]
  after = run(config, params, gradients, lambda step: 0.5 / (step + 1))
  # You et al. 2017, algorithm 1: v <- m v + gamma lambda (g + beta w), w <- w - v.
  for name in ("kernel", "bias"):
    weights, velocity = params[name], 0.0
    for rate, gradient in zip((0.5, 0.25), gradients):
      step = gradient[name]
      if name == "kernel":
        step = step + 0.3 * weights
        step = step * 0.02 * np.linalg.norm(weights) / np.linalg.norm(step)
      velocity = 0.8 * velocity + rate * step
      weights = weights - (rate * step + 0.8 * velocity if nesterov else velocity)
    np.testing.assert_allclose(after[name], weights, rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_lion_is_the_papers():
  config = make_config(
    optimizer__name="lion",
    optimizer__weight_decay=0.5,
    optimizer__b1=0.9,
    optimizer__b2=0.5,
  )
  params = {"kernel": np.array([[1.0, 1.0]]), "bias": np.array([1.0])}
  first = {"kernel": np.array([[2.0, -1.0]]), "bias": np.array([0.0])}
  second = {"kernel": np.array([[-8.0, 20.0]]), "bias": np.array([-3.0])}
  after = run(config, params, [first, second])
  # Signs of 0.2, -0.1; then, with m = 1, -0.5: of 0.9 - 0.8 and -0.45 + 2. Decay is 0.1 * 0.5 of
  # the weight.
  expected = [[(1 - 0.1 - 0.05) * 0.95 - 0.1, (1 + 0.1 - 0.05) * 0.95 - 0.1]]
  np.testing.assert_allclose(after["kernel"], expected, rtol=1e-12)
  np.testing.assert_allclose(after["bias"], [1 + 0.1], rtol=1e-12)  # a sign of nothing is 0


def test_the_way_up_is_as_long_as_rho():
  params, gradient = (
    {"a": jnp.array([1.0, 2.0]), "b": jnp.zeros(1)},
    {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])},
  )
  after = optim.ascended(params, gradient, 0.5)
  np.testing.assert_allclose(after["a"], [1.3, 2.0], rtol=1e-6)
  np.testing.assert_allclose(after["b"], [0.4], rtol=1e-6)
  still = optim.ascended(params, jax.tree.map(jnp.zeros_like, gradient), 0.5)
  np.testing.assert_array_equal(still["a"], params["a"])


# Penalties.


@pytest.mark.parametrize(
  ("l1", "l2", "everything", "expected"),
  [
    (0.0, 0.0, False, 0.0),
    (0.1, 0.0, False, 0.6),  # |1| + |-2| + |3| = 6
    (0.0, 0.1, False, 0.7),  # (1 + 4 + 9) / 2 = 7
    (0.1, 0.2, False, 2.0),
    (0.1, 0.2, True, 2.0 + 0.4 + 1.6),  # a bias of 4: 0.1 * 4 + 0.2 * 16 / 2
  ],
)
def test_penalty_is_the_hand_computed_sum(l1, l2, everything, expected):
  config = make_config(
    optimizer__l1=l1, optimizer__l2=l2, optimizer__decay_bias_and_norm=everything
  )
  params = {"kernel": jnp.array([[1.0, -2.0, 3.0]]), "bias": jnp.array([4.0])}
  value = optim.penalty(params, config)
  assert value.shape == () and value.dtype == jnp.float32
  assert float(value) == pytest.approx(expected, rel=1e-6)


def test_gradient_of_the_penalty_is_l1_sign_plus_l2_w():
  config = make_config(optimizer__l1=0.1, optimizer__l2=0.2)
  params = {"kernel": jnp.array([[1.0, -2.0, 0.0]]), "bias": jnp.array([4.0])}
  gradient = jax.grad(optim.penalty)(params, config)
  np.testing.assert_allclose(gradient["kernel"], [[0.3, -0.5, 0.0]], rtol=1e-6)
  np.testing.assert_array_equal(gradient["bias"], [0.0])


def test_penalty_of_bfloat16_parameters_is_summed_in_float32():
  config = make_config(optimizer__l1=1.0)
  value = optim.penalty({"kernel": jnp.ones((300, 3), jnp.bfloat16)}, config)
  assert value.dtype == jnp.float32 and float(value) == 900  # bfloat16 has 896 and 904


@pytest.mark.usefixtures("float64")
def test_penalty_of_float64_parameters_is_float64():
  config = make_config(optimizer__l1=0.1, optimizer__l2=0.2)
  value = optim.penalty({"kernel": jnp.full((1, 1), 1 / 3)}, config)
  assert value.dtype == jnp.float64
  assert float(value) == pytest.approx(0.1 / 3 + 0.1 / 9, rel=1e-15)


# Moving average.


def test_ema_starts_with_a_decay_of_a_tenth_and_tends_to_its_own():
  average = {"w": jnp.zeros(2)}
  new = {"w": jnp.ones(2)}
  average = optim.update_ema(average, new, 0, 0.99)
  np.testing.assert_allclose(average["w"], [0.9, 0.9], rtol=1e-6)
  average = optim.update_ema(average, new, 1, 0.99)  # d = 2 / 11
  np.testing.assert_allclose(average["w"], np.full(2, 2 / 11 * 0.9 + 9 / 11), rtol=1e-6)
  late = optim.update_ema({"w": jnp.zeros(2)}, new, 10_000, 0.99)
  np.testing.assert_allclose(late["w"], [0.01, 0.01], rtol=1e-6)


def test_ema_never_exceeds_the_configured_decay():
  average = optim.update_ema({"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, 0, 0.05)
  np.testing.assert_allclose(average["w"], [0.95], rtol=1e-6)


def test_ema_keeps_the_small_weight_of_a_long_average_exact():
  average = optim.update_ema({"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, 10**6, 0.9999)
  np.testing.assert_allclose(average["w"], [1e-4], rtol=1e-6)


def test_ema_of_what_does_not_change_does_not_change():
  params = {"w": jnp.array([0.1, -3.7, 1e-9])}
  np.testing.assert_array_equal(optim.update_ema(params, params, 5, 0.999)["w"], params["w"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_ema_keeps_types_with_a_traced_step(dtype):
  average, new = {"w": jnp.zeros(1, dtype)}, {"w": jnp.ones(1, dtype)}
  result = jax.jit(optim.update_ema, static_argnums=3)(average, new, jnp.int32(3), 0.999)
  assert result["w"].dtype == dtype
  np.testing.assert_allclose(result["w"], [9 / 13], rtol=1e-6)


# Rules.


@pytest.mark.usefixtures("float64")
def test_rules_multiply_the_learning_rate_and_the_decay_of_the_parameters_that_they_name():
  config = make_config(
    optimizer__name="sgd",
    optimizer__momentum=0.0,
    optimizer__weight_decay=0.1,
    optimizer__rules="head/*: lr=3 decay=5; conv/bias: lr=0",
  )
  params = {
    "conv": {"kernel": np.ones((1, 1)), "bias": np.ones(1)},
    "head": {"kernel": np.ones((1, 1))},
  }
  after = run(config, params, [jax.tree.map(lambda w: 0.5 * w, params)])
  assert float(after["conv"]["kernel"][0, 0]) == pytest.approx(1 - 0.1 * (0.5 + 0.1), rel=1e-6)
  assert float(after["head"]["kernel"][0, 0]) == pytest.approx(1 - 0.3 * (0.5 + 0.5), rel=1e-6)
  assert float(after["conv"]["bias"][0]) == 1


@pytest.mark.usefixtures("float64")
def test_until_goes_through_the_schedule_in_a_share_of_the_run():
  config = make_config(
    optimizer__name="sgd",
    optimizer__momentum=0.0,
    optimizer__weight_decay=0.0,
    optimizer__learning_rate=0.8,
    schedule__name="linear",
    optimizer__rules="fast: until=0.5",
  )
  schedule = optim.schedule(config, total_steps=8, warmup_steps=0)
  params = {"fast": np.zeros(1), "slow": np.zeros(1)}
  gradient = {"fast": -np.ones(1), "slow": -np.ones(1)}
  # From 0.8 down to 0 in 8 steps, or in 4.
  for made, fast, slow in ((1, 0.8, 0.8), (2, 1.4, 1.5), (4, 2.0, 2.6), (6, 2.0, 3.3)):
    after = run(config, params, [gradient] * made, schedule)
    assert float(after["fast"][0]) == pytest.approx(fast, rel=1e-5)
    assert float(after["slow"][0]) == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "sgd", "lamb", "lars", "lion", "muon"])
def test_what_is_frozen_stays_to_the_bit_and_takes_no_gradient(name):
  config = make_config(
    optimizer__name=name, optimizer__rules="stem/*: lr=0", optimizer__trust_coefficient=1.0
  )
  params = {"stem": {"kernel": jnp.full((2, 2), 1 / 3)}, "body": {"kernel": jnp.eye(2)}}
  after = run(config, params, [jax.tree.map(jnp.ones_like, params)] * 2)
  np.testing.assert_array_equal(after["stem"]["kernel"], params["stem"]["kernel"])
  assert np.abs(after["body"]["kernel"] - np.eye(2)).max() > 0.01
  squares = jax.grad(
    lambda p: sum(jnp.sum(w**2) for w in jax.tree.leaves(rates.without_frozen(p, config)))
  )(params)
  np.testing.assert_array_equal(squares["stem"]["kernel"], np.zeros((2, 2)))
  np.testing.assert_array_equal(squares["body"]["kernel"], 2 * np.eye(2))


@pytest.mark.usefixtures("float64")
def test_rules_without_effect_give_the_updates_of_no_rules():
  gradients = [random_tree(1), random_tree(2)]
  for name in ("adam", "sgd", "lamb"):
    plain = run(make_config(optimizer__name=name), random_tree(0), gradients)
    ruled = make_config(optimizer__name=name, optimizer__rules="kernel: lr=1; *: decay=1")
    for one, other in zip(
      jax.tree.leaves(plain), jax.tree.leaves(run(ruled, random_tree(0), gradients))
    ):
      np.testing.assert_array_equal(one, other)


def test_a_rule_is_held_against_the_parameters():
  config = make_config(optimizer__rules="conv1/*: lr=2; head/kernel: lr=0")
  shapes = {"conv1": {"kernel": jnp.zeros((1, 1))}, "head": {"kernel": jnp.zeros((1, 1))}}
  rates.check_rules(shapes, config)
  with pytest.raises(UserError, match=r"'head/kernel' decides about no parameter"):
    rates.check_rules({"conv1": shapes["conv1"]}, config)


# Muon.


def published_muon(bank, gradients, rate, momentum=0.0):
  """airbench94_muon.py's update of one bank, in float64: norm sqrt(outputs), then three
  Newton-Schulz steps."""
  outputs = bank.shape[-1]
  average = 0.0
  for gradient in gradients:
    average = momentum * average + gradient
    x = (gradient + momentum * average).reshape(-1, outputs).T
    x = x / np.linalg.norm(x)
    wide = x if x.shape[0] <= x.shape[1] else x.T
    for _ in range(3):
      a = wide @ wide.T
      wide = 3.4445 * wide + (-4.7750 * a + 2.0315 * a @ a) @ wide
    x = wide if x.shape[0] <= x.shape[1] else wide.T
    bank = bank * np.sqrt(outputs) / np.linalg.norm(bank) - rate * x.T.reshape(bank.shape)
  return bank


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("shape", [(3, 3, 2, 5), (1, 1, 4, 4)])
def test_muon_of_unit_filters_is_the_published_update(shape):
  config = make_config(
    optimizer__name="muon",
    optimizer__muon_momentum=0.0,
    optimizer__muon_steps=3,
    optimizer__muon_unit_filters=True,
    optimizer__weight_decay=0.0,
  )
  rng = np.random.default_rng(0)
  bank, *gradients = rng.normal(size=(4, *shape))
  after = run(config, {"conv": {"kernel": bank}}, [{"conv": {"kernel": g}} for g in gradients])
  np.testing.assert_allclose(
    after["conv"]["kernel"], published_muon(bank, gradients, 0.1), rtol=1e-6, atol=1e-7
  )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("rest", ["adam", "sgd"])
def test_muon_leaves_biases_norms_and_the_head_to_another(rest):
  fields = {"optimizer__weight_decay": 0.1, "optimizer__decay_bias_and_norm": True}
  if rest == "sgd":
    fields |= {"optimizer__momentum": 0.8, "optimizer__nesterov": True}
  config = make_config(optimizer__name="muon", optimizer__muon_rest=rest, **fields)
  params = {"conv": random_tree(0), "head": random_tree(1)}
  gradients = [{"conv": random_tree(s), "head": random_tree(s + 1)} for s in (2, 3)]
  after = run(config, params, gradients)
  expected = run(make_config(optimizer__name=rest, **fields), params, gradients)
  np.testing.assert_allclose(after["conv"]["bias"], expected["conv"]["bias"], rtol=1e-12)
  for name in ("kernel", "bias"):
    np.testing.assert_allclose(after["head"][name], expected["head"][name], rtol=1e-12)
  assert np.abs(after["conv"]["kernel"] - expected["conv"]["kernel"]).max() > 0.01


@pytest.mark.usefixtures("float64")
def test_muons_own_decay_is_decoupled():
  config = make_config(optimizer__name="muon", optimizer__weight_decay=0.5)
  params = {"conv": {"kernel": np.full((2, 2), 3.0)}}
  gradient = {"conv": {"kernel": np.eye(2)}}
  moved = run(config, params, [gradient])["conv"]["kernel"]
  still = run(make_config(optimizer__name="muon", optimizer__weight_decay=0.0), params, [gradient])
  np.testing.assert_allclose(
    still["conv"]["kernel"] - moved, 0.1 * 0.5 * 3 * np.ones((2, 2)), rtol=1e-9
  )
