"""Policies: which operations of `imgclf.augment.operations` an image gets, and how strong.

A policy draws; it touches no pixel. Drawn in float32 whatever the type of the model.
"""

from collections.abc import Callable, Mapping
import functools

import jax
import jax.numpy as jnp
import numpy as np

from imgclf.augment import operations
from imgclf.augment.operations import NAMES, NUMBER

# timm's fifteen operations of RandAugment, in its order (`_RAND_INCREASING_TRANSFORMS`).
RANDAUGMENT = (
  *("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add"),
  *("saturation", "contrast", "brightness", "sharpness"),
  *("shear_x", "shear_y", "translate_x", "translate_y"),
)
# The fourteen of TrivialAugment's wide space (Müller & Hutter 2021, table 7).
TRIVIALAUGMENT = (
  *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness"),
  *("saturation", "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize"),
)
# Cubuk et al. 2018 (arXiv:1805.09501), table 9: two operations each, with probability and
# magnitude. Five of the 25 rows stand there twice, and so they do here.
AUTOAUGMENT = (
  (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
  (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
  (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
  (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
  (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
  (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
  (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
  (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
  (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
  (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
  (("rotate", 0.8, 8), ("saturation", 0.4, 0)),
  (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
  (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
  (("invert", 0.6, 4), ("equalize", 1.0, 8)),
  (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
  (("rotate", 0.8, 8), ("saturation", 1.0, 2)),
  (("saturation", 0.8, 8), ("solarize", 0.8, 7)),
  (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
  (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
  (("saturation", 0.4, 0), ("equalize", 0.6, 3)),
  (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
  (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
  (("invert", 0.6, 4), ("equalize", 1.0, 8)),
  (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
  (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)

Drawn = tuple[jax.Array, jax.Array]


def random_policy(images: jax.Array, keys: jax.Array, augment_config: Mapping) -> jax.Array:
  """Augments each image by the policy of the config.

  What comes into view takes the mean colour, `mean` of the config, as in timm.

  Args:
    images: [batch, height, width, 3] uint8.
    keys: [batch] typed PRNG keys.
    augment_config: the section `augment` of a validated config, whose `policy` is not none.

  Returns:
    [batch, height, width, 3] uint8.
  """
  size = (images.shape[1], images.shape[2])
  draw: Callable[[jax.Array], Drawn]
  match augment_config["policy"]:
    case "randaugment":
      draw = functools.partial(
        randaugment,
        size=size,
        count=augment_config["policy_ops"],
        probability=augment_config["policy_probability"],
        magnitude=augment_config["policy_magnitude"],
        std=augment_config["policy_magnitude_std"],
      )
    case "trivialaugment":
      draw = trivialaugment
    case "autoaugment":
      draw = autoaugment
    case name:
      raise ValueError(f"no policy is named {name!r}")
  numbers, values = jax.vmap(draw)(keys)
  fill = [255 * level for level in augment_config["mean"]]

  def layer(images, drawn):
    return operations.apply(images, drawn[0], drawn[1], fill), None

  # A loop, since written out XLA would make the result of one operation anew for each read of the
  # next one: five times the time on CPUs.
  return jax.lax.scan(layer, images, (numbers.T, values.T))[0]


def randaugment(
  key: jax.Array,
  *,
  size: tuple[int, int],
  count: int,
  probability: float,
  magnitude: float,
  std: float,
) -> Drawn:
  """Draws operations as timm's `rand-m{magnitude}-n{count}-mstd{std}-inc1` (Cubuk et al. 2019 with
  its changes).

  Each of `count` operations is one of the fifteen, all alike, and is left out with probability 1 -
  `probability` (0.5 in timm; the paper has 1, and no operation as one of fourteen). Its magnitude
  is normal, cut to [0, 10]; see `strengths`.

  Args:
    key: a typed PRNG key.
    size: height and width of the images, in pixels.
    count: operations of an image.
    probability: of each of them.
    magnitude: mean of the magnitude, of 10.
    std: its standard deviation.

  Returns:
    Places in `operations.NAMES`, [count] int32, and values, [count] float32.
  """

  def draw(key):
    which, whether, level, sign = jax.random.split(key, 4)
    place = jax.random.randint(which, (), 0, len(RANDAUGMENT), jnp.int32)
    number = jnp.array([NUMBER[name] for name in RANDAUGMENT], jnp.int32)[place]
    kept = jax.random.uniform(whether, (), jnp.float32) < probability
    drawn = jnp.clip(magnitude + std * jax.random.normal(level, (), jnp.float32), 0, 10)
    return jnp.where(kept, number, 0), strengths(drawn, _sign(sign), size)[number]

  return jax.vmap(draw)(jax.random.split(key, count))


def strengths(magnitude: jax.Array, sign: jax.Array, size: tuple[int, int]) -> jax.Array:
  """Returns what each operation's value is at a magnitude of RandAugment, by timm's increasing
  scales.

  With m = magnitude / 10: rotate by 30 m degrees; shear by 0.3 m; translate by 0.45 m of the side;
  brightness, contrast, saturation, sharpness 1 ± 0.9 m, at least 0.1; posterize to 4 - floor(4 m)
  bits; solarize from 256 - floor(256 m) on; solarize_add floor(110 m).

  Args:
    magnitude: scalar float32 from 0 to 10.
    sign: scalar float32, 1 or -1, of what goes both ways.
    size: height and width of the images, in pixels.

  Returns:
    [operations] float32, by place in `operations.NAMES`.
  """
  share = magnitude / 10
  factor = jnp.maximum(1 + sign * 0.9 * share, 0.1)
  by_name = {
    "posterize": 4 - jnp.floor(4 * share),
    "solarize": 256 - jnp.floor(256 * share),
    "solarize_add": jnp.floor(110 * share),
    **dict.fromkeys(("brightness", "contrast", "saturation", "sharpness"), factor),
    "rotate": sign * 30 * share,
    **dict.fromkeys(("shear_x", "shear_y"), sign * 0.3 * share),
    "translate_x": sign * 0.45 * share * size[1],
    "translate_y": sign * 0.45 * share * size[0],
  }
  return jnp.stack([by_name.get(name, jnp.zeros((), jnp.float32)) for name in NAMES])


def trivialaugment(key: jax.Array) -> Drawn:
  """Draws one operation and one of 31 strengths, all alike (Müller & Hutter 2021, arXiv:2103.10158,
  wide space).

  The scales are torchvision's `TrivialAugmentWide`: at strength k of 30, with s = k / 30, rotate by
  135 s degrees, shear by 0.99 s, translate by 32 s pixels, brightness, contrast, saturation and
  sharpness 1 ± 0.99 s, posterize to 8 - round(6 s) bits, solarize from 255 (1 - s) on.

  Args:
    key: a typed PRNG key.

  Returns:
    Place in `operations.NAMES`, [1] int32, and value, [1] float32.
  """
  which, level, sign = jax.random.split(key, 3)
  place = jax.random.randint(which, (), 0, len(TRIVIALAUGMENT), jnp.int32)
  share = np.arange(31) / 30
  rows = {
    "shear_x": 0.99 * share,
    "shear_y": 0.99 * share,
    "translate_x": 32 * share,
    "translate_y": 32 * share,
    "rotate": 135 * share,
    **dict.fromkeys(("brightness", "saturation", "contrast", "sharpness"), 0.99 * share),
    "posterize": 8 - np.round(6 * share),
    "solarize": 255 * (1 - share),
  }
  table = np.stack([rows.get(name, 0 * share) for name in TRIVIALAUGMENT]).astype(np.float32)
  value = jnp.asarray(table)[place, jax.random.randint(level, (), 0, 31, jnp.int32)]
  number = jnp.array([NUMBER[name] for name in TRIVIALAUGMENT], jnp.int32)[place]
  return number[None], _signed(number, value, _sign(sign))[None]


def autoaugment(key: jax.Array) -> Drawn:
  """Draws one of the 25 pairs of AutoAugment's ImageNet policy, and which of the two are applied.

  The scales are those of Cubuk et al. 2018, table 6, as timm's policy `original` reads them: with m
  = magnitude / 10, rotate by 30 m degrees and shear by 0.3 m, either way; saturation, contrast and
  sharpness 0.1 + 1.8 m; posterize to 4 + floor(4 m) bits; solarize from floor(256 m) on.

  Args:
    key: a typed PRNG key.

  Returns:
    Places in `operations.NAMES`, [2] int32, and values, [2] float32.
  """
  which, whether, sign = jax.random.split(key, 3)
  pair = jax.random.randint(which, (), 0, len(AUTOAUGMENT), jnp.int32)
  numbers = jnp.array([[NUMBER[name] for name, _, _ in pair] for pair in AUTOAUGMENT], jnp.int32)
  chances = jnp.array([[chance for _, chance, _ in pair] for pair in AUTOAUGMENT], jnp.float32)
  table = [[_autoaugment_value(name, level) for name, _, level in pair] for pair in AUTOAUGMENT]
  values = jnp.array(table, jnp.float32)[pair]
  kept = jax.random.uniform(whether, (2,), jnp.float32) < chances[pair]
  number = numbers[pair]
  signs = jnp.where(jax.random.bernoulli(sign, jnp.float32(0.5), (2,)), 1.0, -1.0)
  both_ways = (number == NUMBER["rotate"]) | (number == NUMBER["shear_x"])
  return jnp.where(kept, number, 0), jnp.where(both_ways, signs * values, values)


def _autoaugment_value(name: str, magnitude: int) -> float:
  match name:
    case "rotate":
      return 3 * magnitude
    case "shear_x":
      return 0.03 * magnitude
    case "posterize":
      return 4 + 4 * magnitude // 10
    case "solarize":
      return 256 * magnitude // 10
    case "saturation" | "contrast" | "sharpness":
      return 0.1 + 0.18 * magnitude
    case _:
      return 0.0


def _sign(key: jax.Array) -> jax.Array:
  return jnp.where(jax.random.bernoulli(key, jnp.float32(0.5)), jnp.float32(1), jnp.float32(-1))


def _signed(number: jax.Array, value: jax.Array, sign: jax.Array) -> jax.Array:
  """TrivialAugment's value with its sign: geometric ones go both ways, factors are 1 ± value."""
  factor = (number >= NUMBER["brightness"]) & (number <= NUMBER["sharpness"])
  geometric = number >= NUMBER["rotate"]
  return jnp.where(factor, 1 + sign * value, jnp.where(geometric, sign * value, value))
