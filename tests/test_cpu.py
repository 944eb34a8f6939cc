import jax
import pytest

from imgclf import cpu

FLAG = (
  "--xla_cpu_experimental_ynn_fusion_type="
  "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
)

# A convolution without padding, which YNNPACK would take, and its gradients.
PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
import imgclf.parallel

jax.config.update("jax_enable_x64", True)

def loss(x, kernel, weights):
  numbers = ("NHWC", "HWIO", "NHWC")
  y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)
  return jnp.sum(y * weights)

draws = np.random.default_rng(0)
wide = [draws.normal(size=shape) for shape in ((8, 66, 66, 8), (3, 3, 8, 16), (8, 64, 64, 16))]
narrow = [jnp.asarray(x, jnp.float32) for x in wide]
wide = [jnp.asarray(x, jnp.float64) for x in narrow]
gradients = jax.jit(jax.grad(loss, (0, 1)))
outside = True
for line in gradients.lower(*narrow).compile().as_text().splitlines():
  if line and line[0] != " ":
    outside = line.startswith("ENTRY")
  if " convolution(" in line:
    print("alone" if outside else "fused", end=" ")
for found, expected in zip(gradients(*narrow), gradients(*wide)):
  print(float(jnp.max(jnp.abs(found - expected)) / jnp.max(jnp.abs(expected))), end=" ")
"""


def test_convolutions_stay_out_of_ynnpack_and_their_gradients_are_those_of_float64(run_python):
  first, second, *errors = run_python(PROGRAM).split()
  assert first == second == "alone"
  # Sums of 32,768 products, of which half a bit each is lost at 2**-24.
  assert len(errors) == 2
  assert max(map(float, errors)) < 3e-6


@pytest.mark.parametrize("version", [(0, 10, 2), (0, 12, 0, 1)])
def test_versions_that_know_the_flag_get_it_beside_what_is_set(version):
  environment = {}
  cpu.choose_libraries(environment, version)
  assert environment == {"XLA_FLAGS": FLAG}
  environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
  cpu.choose_libraries(environment, version)
  assert environment["XLA_FLAGS"] == "--xla_force_host_platform_device_count=8 " + FLAG


@pytest.mark.parametrize("version", [(0, 10, 1), (0, 13)])
def test_other_versions_are_left_alone(version):
  environment = {}
  cpu.choose_libraries(environment, version)
  assert environment == {}


def test_what_the_user_says_of_ynnpack_stays():
  environment = {"XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type="}
  cpu.choose_libraries(environment, jax.__version_info__)
  assert environment["XLA_FLAGS"] == "--xla_cpu_experimental_ynn_fusion_type="


@pytest.mark.parametrize(
  ("platforms", "plugins", "expected"),
  [("", [], True), ("", ["cuda13"], False), ("cpu", ["cuda13"], True), ("cuda,cpu", ["x"], False)],
)
def test_a_process_that_may_have_an_accelerator_is_left_alone(platforms, plugins, expected):
  assert cpu.only_cpus({"JAX_PLATFORMS": platforms}, plugins) == expected
