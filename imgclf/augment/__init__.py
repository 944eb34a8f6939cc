"""Random image operations on the device, on whole batches, inside the compiled step.

An operation takes images `[batch, height, width, 3]` of levels from 0 to 255 and one key for each
example, and returns images of the same shape, type and range. What becomes of an example depends on
its pixels and its key alone, not on its neighbours nor on its place in the batch, so that a batch
may be cut over any number of devices; mixing alone looks at a second example, its partner.
`train_transform` gives the order. This package knows no files and no devices, and of labels only
what `mixing` says of their weights.

Keys are typed (`jax.random.key`) and must be of an implementation whose draws under `jax.vmap`
depend on each key by itself, as with the default, threefry; `rbg` does not promise it.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from imgclf.augment import colour, erasing, geometry, mixing, policies
from imgclf.augment.mixing import is_on as mixes
from imgclf.augment.mixing import partners
from imgclf.augment.views import over_views, views

__all__ = [
  "draw_mix",
  "eval_transform",
  "mixes",
  "normalize",
  "over_views",
  "partners",
  "train_transform",
  "views",
]

# Each operation draws from its own stream, so that switching one on leaves the others' draws as
# they were. The numbers are part of what makes a run repeatable: add new ones, never renumber.
_FLIP, _ROTATION, _AFFINE, _POLICY, _JITTER, _GREYSCALE, _BLUR = range(7)
_ERASING, _CUTOUT, _MIX, _SHIFT = range(7, 11)

# Number of the stream of what is drawn once for a whole batch: beyond all positions of examples.
BATCH_STREAM = 2**32 - 1


def train_transform(
  images: jax.Array,
  keys: jax.Array,
  augment_config: Mapping,
  dtype: jax.typing.DTypeLike,
  mix: mixing.Mix | None = None,
  mirrored: jax.Array | None = None,
) -> jax.Array:
  """Augments and normalises a training batch by those operations that are on.

  Shift of the padded image; flip; rotation, translation, scale and shear in one; policy; colour
  jitter; greyscale; blur; normalisation; erasing; cutout; mixing. Where the field's recipes have an
  order it is timm's.

  Args:
    images: [batch, height, width, 3] uint8.
    keys: [batch] typed PRNG keys, one for each example and step.
    augment_config: the section `augment` of a validated config.
    dtype: type of the result. The computation is in float32, or in float64 where this is.
    mix: what `draw_mix` returned; none: nothing is mixed.
    mirrored: [batch] bool, which images are mirrored where `flip_alternate` is on; none: a coin
      each.

  Returns:
    [batch, height, width, 3] of `dtype`, normalised.
  """
  options = augment_config
  if options["crop"] == "padded":
    images = geometry.random_shift(images, _stream(keys, _SHIFT), options["crop_padding"])
  images = _to_float(images, dtype)
  if options["flip"] and mirrored is not None:
    images = geometry.flip(images, mirrored)
  elif options["flip"]:
    images = geometry.random_flip(images, _stream(keys, _FLIP))
  images = _move(images, keys, options)
  if options["policy"] != "none":
    # Its operations are defined on whole levels; only a warp before it leaves others.
    levels = jnp.round(images).astype(jnp.uint8)
    levels = policies.random_policy(levels, _stream(keys, _POLICY), options)
    images = levels.astype(images.dtype)
  jitter = tuple(options[name] for name in ("brightness", "contrast", "saturation", "hue"))
  if any(jitter):
    images = colour.random_jitter(images, _stream(keys, _JITTER), jitter)
  if options["greyscale"]:
    images = colour.random_greyscale(images, _stream(keys, _GREYSCALE), options["greyscale"])
  if options["blur"]:
    images = colour.random_blur(
      images, _stream(keys, _BLUR), options["blur"], options["blur_sigma"]
    )
  images = normalize(images, options["mean"], options["std"], images.dtype)
  if options["erasing"]:
    images = erasing.random_erasing(
      images,
      _stream(keys, _ERASING),
      probability=options["erasing"],
      mode=options["erasing_mode"],
      area=options["erasing_area"],
      ratio=options["erasing_ratio"],
    )
  if options["cutout"]:
    images = erasing.cutout(images, _stream(keys, _CUTOUT), options["cutout"])
  if mix is not None:
    # Each image is read twice, and XLA would make it twice: all that goes before would cost double.
    images = mixing.apply(jax.lax.optimization_barrier(images), mix)
  return images.astype(dtype)


def draw_mix(
  batch_key: jax.Array,
  keys: jax.Array,
  size: Sequence[int],
  augment_config: Mapping,
  mask: jax.Array | None = None,
) -> mixing.Mix | None:
  """Draws how a batch is mixed; None where the config mixes nothing. See `mixing.draw`."""
  if not mixing.is_on(augment_config):
    return None
  return mixing.draw(batch_key, _stream(keys, _MIX), size, augment_config, mask)


def eval_transform(
  images: jax.Array, augment_config: Mapping, dtype: jax.typing.DTypeLike
) -> jax.Array:
  """Normalises a batch and does nothing random.

  Args:
    images: [batch, height, width, 3] uint8.
    augment_config: the section `augment` of a validated config.
    dtype: type of the result. The computation is in float32, or in float64 where this is.

  Returns:
    [batch, height, width, 3] of `dtype`, normalised.
  """
  images = _to_float(images, dtype)
  return normalize(images, augment_config["mean"], augment_config["std"], dtype)


def normalize(
  images: jax.Array,
  mean: Sequence[float] | jax.Array,
  std: Sequence[float] | jax.Array,
  dtype: jax.typing.DTypeLike,
) -> jax.Array:
  """Returns (images / 255 - mean) / std in `dtype`.

  Args:
    images: [batch, height, width, 3] floats from 0 to 255; computed in their type.
    mean: of red, green and blue, for values from 0 to 1.
    std: of red, green and blue, for values from 0 to 1.
    dtype: type of the result.
  """
  centred = images / 255 - jnp.asarray(mean, images.dtype)
  return (centred / jnp.asarray(std, images.dtype)).astype(dtype)


def _move(images: jax.Array, keys: jax.Array, options: Mapping) -> jax.Array:
  """Rotation, shift, scale and shear by one interpolation, or none where they are off."""
  angles = jnp.zeros(len(keys), images.dtype)
  others = {}
  if options["rotation"]:
    angles = geometry.random_angles(_stream(keys, _ROTATION), options["rotation"])
    angles = angles.astype(images.dtype)
  if options["translate"] or options["shear"] or tuple(options["scale"]) != (1, 1):
    names = ("translate", "scale", "shear")
    drawn = geometry.random_affine(
      _stream(keys, _AFFINE), **{name: options[name] for name in names}
    )
    others = dict(zip(names, drawn))
  if not options["rotation"] and not others:
    return images
  return geometry.warp(images, geometry.affine(angles, images.shape[1:3], **others))


def _to_float(images: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
  # bfloat16 has too few bits for 256 levels: operations compute in float32 and round once, at the
  # end.
  return images.astype(jnp.promote_types(dtype, jnp.float32))


def _stream(keys: jax.Array, operation: int) -> jax.Array:
  return jax.vmap(lambda key: jax.random.fold_in(key, operation))(keys)
