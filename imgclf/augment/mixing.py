"""Mixup and cutmix: each example with its partner, and what share of it is left.

The partner of the example in position q of the global batch is that in position q XOR 1. So whoever
has an example has its partner, on any number of devices, as long as each device has an even number
of examples that stand together, beginning at an even position.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from imgclf.augment.erasing import within

_STEPS = 4096


class Mix(NamedTuple):
  """How each example of a batch is mixed with its partner.

  Attributes:
    weight: [batch] float32, share of the example itself, and so of its label; the rest is the
      partner's.
    cut: [batch] bool: a rectangle is the partner's; else all pixels are a weighted sum.
    start: [batch, 2] int32, top and left of the rectangle, in pixels.
    end: [batch, 2] int32, bottom and right, outside of it.
  """

  weight: jax.Array
  cut: jax.Array
  start: jax.Array
  end: jax.Array


def is_on(augment_config: Mapping) -> bool:
  """Whether a config mixes examples at all."""
  on = augment_config["mixup"] or augment_config["cutmix"]
  return bool(on) and augment_config["mix_probability"] > 0


def draw(
  batch_key: jax.Array,
  keys: jax.Array,
  size: Sequence[int],
  augment_config: Mapping,
  mask: jax.Array | None = None,
) -> Mix:
  """Draws how a batch is mixed, once for all of it or, with `mix_per_example`, for each example.

  Args:
    batch_key: a typed PRNG key, the same on all devices.
    keys: [batch] typed PRNG keys, of the examples.
    size: height and width of the images, in pixels.
    augment_config: the section `augment` of a validated config, for which `is_on`.
    mask: [batch] bool, False for an example that is no image; its partner is left unmixed.
  """
  if augment_config["mix_per_example"]:
    mix = jax.vmap(lambda key: _draw_one(key, size, augment_config))(keys)
  else:
    one = _draw_one(batch_key, size, augment_config)
    mix = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(keys), *x.shape)), one)
  if mask is not None:
    mixed = mask & partners(mask)
    mix = mix._replace(weight=jnp.where(mixed, mix.weight, 1), cut=mix.cut & mixed)
  return mix


def _draw_one(key: jax.Array, size: Sequence[int], augment_config: Mapping) -> Mix:
  """One draw: mixup by a share (Zhang et al. 2017), or cutmix by a rectangle (Yun et al. 2019), or
  neither.
  """
  mixup, cutmix = augment_config["mixup"], augment_config["cutmix"]
  whether, which, share, place = jax.random.split(key, 4)
  mixed = jax.random.uniform(whether, (), jnp.float32) < augment_config["mix_probability"]
  cut_share = augment_config["mix_switch"] if mixup and cutmix else float(cutmix > 0)
  cut = mixed & (jax.random.uniform(which, (), jnp.float32) < cut_share)
  weight = jnp.ones((), jnp.float32)
  if mixup:
    weight = _beta(jax.random.fold_in(share, 0), mixup)
  start = end = jnp.zeros(2, jnp.int32)
  if cutmix:
    kept = _beta(jax.random.fold_in(share, 1), cutmix)
    sides = jnp.array(size, jnp.int32)
    # Equation 2, in whole pixels: half a side each way from the centre, cut off at the edges.
    half = (sides * jnp.sqrt(1 - kept)).astype(jnp.int32) // 2
    shares = jax.random.uniform(place, (2,), jnp.float32)
    centre = jnp.minimum((shares * sides).astype(jnp.int32), sides - 1)
    start, end = jnp.maximum(centre - half, 0), jnp.minimum(centre + half, sides)
    # The label's weight is the area that is really there.
    outside = size[0] * size[1] - jnp.prod(end - start)
    weight = jnp.where(cut, outside.astype(jnp.float32) / (size[0] * size[1]), weight)
  return Mix(jnp.where(mixed, weight, 1), cut, start, end)


def _beta(key: jax.Array, alpha: float) -> jax.Array:
  """Draws from Beta(alpha, alpha), a float32 scalar, by a table of its quantiles, linear between
  them.

  `jax.random.beta` draws until it accepts: a loop in the step, which a GPU can't record as one
  command, and five seconds of compilation. This distribution function is exact at 4,097 places.
  """
  from scipy import special  # a quarter of a second, and few runs mix

  table = jnp.asarray(special.betaincinv(alpha, alpha, np.arange(_STEPS + 1) / _STEPS), jnp.float32)
  place = jax.random.uniform(key, (), jnp.float32) * _STEPS
  below = jnp.minimum(place.astype(jnp.int32), _STEPS - 1)
  return table[below] + (place - below) * (table[below + 1] - table[below])


def partners(rows: jax.Array) -> jax.Array:
  """Returns the rows of a batch with the two of each pair exchanged: row q XOR 1 in place of row
  q.
  """
  return jnp.flip(rows.reshape(-1, 2, *rows.shape[1:]), axis=1).reshape(rows.shape)


def apply(images: jax.Array, mix: Mix) -> jax.Array:
  """Mixes each image with its partner.

  Args:
    images: [batch, height, width, 3] floats; batch is even.
    mix: as from `draw`.
  """
  inside = within(mix.start, mix.end, images.shape[1:3])
  weight = mix.weight.astype(images.dtype)[:, None, None, None]
  share = jnp.where(mix.cut[:, None, None, None], 1 - inside.astype(images.dtype), weight)
  return share * images + (1 - share) * partners(images)
