"""Which operations the policies draw, and strengths worked out by hand."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps
import pytest

import imgclf
from imgclf.augment import operations, policies

DRAWS = 6000
SIZE = (100, 200)


def named(values):
  return dict(zip(operations.NAMES, np.asarray(values).tolist()))


def drawn(draw, seed=0):
  """The operations and values of many keys, [draws, layers], as names and numbers."""
  numbers, values = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(seed), DRAWS))
  return np.array(operations.NAMES)[np.asarray(numbers)], np.asarray(values)


def randaugment(**changes):
  options = {"size": SIZE, "count": 2, "probability": 0.5, "magnitude": 7.0, "std": 0.5, **changes}
  return lambda key: policies.randaugment(key, **options)


@pytest.mark.parametrize(
  ("magnitude", "sign", "expected"),
  [
    # By timm's functions `_*_level_to_arg`, of images of 100 x 200 pixels.
    (
      7,
      1,
      {
        "rotate": 21,
        "shear_x": 0.21,
        "translate_x": 63,
        "translate_y": 31.5,
        "sharpness": 1.63,
        "posterize": 2,  # 4 - int(2.8)
        "solarize": 77,  # 256 - int(179.2)
        "solarize_add": 77,
      },
    ),
    (7, -1, {"rotate": -21, "shear_y": -0.21, "translate_x": -63, "saturation": 0.37}),
    (10, -1, {"brightness": 0.1, "posterize": 0, "solarize": 0, "solarize_add": 110}),
    (0, 1, {"rotate": 0, "contrast": 1, "posterize": 4, "solarize": 256, "solarize_add": 0}),
    (2.5, 1, {"rotate": 7.5, "posterize": 3, "solarize": 192, "solarize_add": 27}),
  ],
)
def test_strengths_of_randaugment_are_timms(magnitude, sign, expected):
  values = named(policies.strengths(jnp.float32(magnitude), jnp.float32(sign), SIZE))
  assert {name: values[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_randaugment_draws_each_of_fifteen_operations_alike_and_half_of_the_time_none():
  names, values = drawn(randaugment())
  assert names.shape == (DRAWS, 2)
  for layer in range(2):
    counts = collections.Counter(names[:, layer])
    # Five standard deviations of 6000 draws of 1/2 and of 1/30: 38.7 and 13.9 each.
    assert abs(counts.pop("identity") - 3000) < 194
    assert set(counts) == set(policies.RANDAUGMENT)
    assert max(abs(count - 200) for count in counts.values()) < 70
  # The second is drawn by itself: of the images whose first is no operation, half have no second.
  both = ((names == "identity").all(axis=1)).sum()
  assert abs(both - 1500) < 168
  turned = values[names == "rotate"]
  assert abs((turned > 0).mean() - 0.5) < 0.13  # some 400 signs
  # 3 degrees a step: mean strength 7, deviation 0.5.
  assert np.abs(turned).mean() == pytest.approx(21, abs=0.4)
  assert np.abs(turned).std() == pytest.approx(1.5, abs=0.3)


def test_the_strength_of_randaugment_stays_below_ten():
  names, values = drawn(randaugment(magnitude=9.5, std=3.0, probability=1.0, count=1))
  assert "identity" not in names
  turned = np.abs(values[names == "rotate"])
  assert turned.max() == pytest.approx(30) and turned.min() < 25


def test_trivialaugment_has_fourteen_operations_and_the_strengths_of_torchvision():
  names, values = drawn(policies.trivialaugment)
  counts = collections.Counter(names[:, 0])
  assert set(counts) == set(policies.TRIVIALAUGMENT)
  assert max(abs(count - DRAWS / 14) for count in counts.values()) < 100  # five of 20
  # k of 30 for k = 0 to 30, of `torchvision.transforms.TrivialAugmentWide._augmentation_space(31,
  # ...)`.
  k = np.arange(31)
  ways = np.concatenate([-k, k]) / 30
  expected = {
    "shear_x": 0.99 * ways,
    "translate_y": 32 * ways,
    "rotate": 135 * ways,
    "contrast": 1 + 0.99 * ways,
    "posterize": [8, 7, 6, 5, 4, 3, 2],
    "solarize": 255 - 8.5 * k,
    "identity": [0],
  }
  for name, allowed in expected.items():
    found = np.unique(np.round(values[names == name], 3))
    np.testing.assert_allclose(found, np.unique(np.round(np.float32(allowed), 3)), atol=2e-3)


def test_autoaugment_draws_its_pairs_with_their_probabilities():
  names, values = drawn(policies.autoaugment)
  first, second = names.T
  # Row 19 of table 9 alone has a shear: 1/25 of the draws, 0.6 of these; after it equalisation
  # always.
  sheared = first == "shear_x"
  assert abs(sheared.sum() - 144) < 60  # five standard deviations of 11.9
  assert set(second[sheared]) == {"equalize"}
  assert set(np.round(values[:, 0][sheared], 4)) == {np.float32(0.15), np.float32(-0.15)}
  # Row 18 alone has sharpness, with 0.4, then inversion with 0.6, independent of it.
  sharp = first == "sharpness"
  assert abs(sharp.sum() - 96) < 49
  assert set(second[sharp]) == {"identity", "invert"}
  assert set(values[:, 0][sharp]) == {np.float32(0.1 + 1.8 * 0.7)}
  # Row 1: posterize 8 is 4 + int(3.2) bits, rotate 9 is 27 degrees; row 8: posterize 5 is 6 bits.
  turned = (first == "posterize") & (second == "rotate")
  assert set(values[:, 0][turned]) == {7} and set(values[:, 1][turned]) == {27, -27}
  before = set(values[:, 0][(first == "posterize") & (second == "equalize")])
  assert before == {6}
  # Solarize: magnitudes 5, 3 in the first place, from int(128) and int(76.8) on.
  assert set(values[:, 0][first == "solarize"]) == {128, 76}


def test_autoaugment_has_the_25_rows_of_the_paper():
  assert len(policies.AUTOAUGMENT) == 25
  assert len(set(policies.AUTOAUGMENT)) == 20
  flat = [entry for pair in policies.AUTOAUGMENT for entry in pair]
  # Sums over timm's copy of the table, `auto_augment_policy_original`.
  assert sum(magnitude for _, _, magnitude in flat) == 287
  assert sum(chance for _, chance, _ in flat) == pytest.approx(31.0)
  assert collections.Counter(name for name, _, _ in flat)["equalize"] == 17


def test_the_operations_of_a_policy_are_applied_one_after_the_other(monkeypatch):
  section = imgclf.default_config().augment
  section.policy = "randaugment"
  images = np.random.default_rng(0).integers(0, 200, (3, 20, 20, 3)).astype(np.uint8)
  # Brightness would undo what inversion did before it in no case.
  layers = [operations.NUMBER["brightness"], operations.NUMBER["invert"]]
  monkeypatch.setattr(
    policies,
    "randaugment",
    lambda key, **options: (jnp.array(layers, jnp.int32), jnp.array([0.5, 0.0], jnp.float32)),
  )
  keys = jax.random.split(jax.random.key(0), 3)
  result = np.asarray(policies.random_policy(images, keys, section)).astype(int)
  dark = [Image.fromarray((image // 2).astype(np.uint8)) for image in images]
  expected = np.stack([np.asarray(ImageOps.invert(image)) for image in dark]).astype(int)
  assert np.abs(result - expected).max() <= 1
