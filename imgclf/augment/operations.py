"""One operation of a policy for each image of a batch, whichever each has, for the price of one.

`lax.switch` under `jax.vmap` would compute all fifteen for every image. Here those that move pixels
are one warp by a matrix an image, those that look at one level are one lookup in a table an image,
and the other two, saturation and sharpness, are a blend with the grey or the smoothed image. What
few have and what costs much, the warp and the table of equalize, is made for these few. Between
operations an image is uint8.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from imgclf.augment import colour, geometry, lookup

NAMES = (
  *("identity", "autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add"),
  *("brightness", "contrast", "saturation", "sharpness"),
  *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
NUMBER = {name: number for number, name in enumerate(NAMES)}


def apply(
  images: jax.Array, operations: jax.Array, values: jax.Array, fill: Sequence[float]
) -> jax.Array:
  """Applies to each image its operation, as Pillow does but for rounding where Pillow cuts to whole
  levels.

  Args:
    images: [batch, height, width, 3] uint8.
    operations: [batch] int32, places in `NAMES`.
    values: [batch] float32, the operation's strength: posterize: bits that stay; solarize:
      threshold; solarize_add: what is added below 128; brightness, contrast, saturation, sharpness:
      factor, 1 for no change; rotate: degrees counter-clockwise; shear_x, shear_y: pixels of shift
      a pixel, from the top left corner; translate_x, translate_y: pixels that the image moves to
      the left, up. The others have none.
    fill: colour of what comes into view.

  Returns:
    [batch, height, width, 3] uint8.
  """

  def has(*names: str) -> jax.Array:
    return jnp.isin(operations, jnp.array([NUMBER[name] for name in names]))

  matrices = _matrices(images.shape, operations, values)
  warped = where_wanted(
    has("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
    lambda rows: _levels(geometry.warp(images[rows], matrices[rows], fill)),
    images,
  )
  changed = lookup.look_up(warped, _tables(images, operations, values))
  # What has its table or matrix is not blended, and what is blended has neither.
  floats = images.astype(jnp.float32)
  others = jnp.where(
    has("sharpness")[:, None, None, None], colour.smooth(floats), colour.luma(floats)
  )
  factors = jnp.where(has("saturation", "sharpness"), values, 1)
  return _levels(colour.blend(changed, jnp.floor(others + 0.5), factors))


def where_wanted(
  wanted: jax.Array, compute: Callable[[jax.Array], jax.Array], otherwise: jax.Array
) -> jax.Array:
  """Computes only the examples that want it, a sixteenth of the batch at a time, in a loop that
  ends with them.

  What few examples of a batch get, and what costs much for each, is not worked out for all. On a
  GPU the host waits for each turn, to learn whether another follows: so all of an expensive kind
  share one loop.

  Args:
    wanted: [batch] bool.
    compute: makes the results `[some, ...]` of the examples in the places `[some]` int32. It may be
      asked for some that do not want it, and its results for these must be as good as `otherwise`.
    otherwise: [batch, ...], the results of the others.

  Returns:
    [batch, ...] as `otherwise`.
  """
  some = -(-len(wanted) // 16)
  places = jnp.argsort(~wanted).astype(jnp.int32)  # those that want it come first

  def compute_some(turn, results):
    # The last turn begins earlier where it would go beyond the end: those are computed again.
    rows = jax.lax.dynamic_slice_in_dim(places, turn * some, some)
    return results.at[rows].set(compute(rows), mode="promise_in_bounds", unique_indices=True)

  count = jnp.sum(wanted, dtype=jnp.int32)
  return jax.lax.fori_loop(0, (count + some - 1) // some, compute_some, otherwise)


def _levels(images: jax.Array) -> jax.Array:
  return jnp.round(images).astype(jnp.uint8)


def _matrices(shape: Sequence[int], operations: jax.Array, values: jax.Array) -> jax.Array:
  """The matrix of each image for `geometry.warp`: that of no change where its operation moves
  nothing.
  """

  def value_of(name: str) -> jax.Array:
    return jnp.where(operations == NUMBER[name], values, 0)

  turned = geometry.affine(value_of("rotate"), (shape[1], shape[2]))
  one = jnp.ones_like(values)
  rows = [
    [one, value_of("shear_x"), value_of("translate_x")],
    [value_of("shear_y"), one, value_of("translate_y")],
  ]
  moved = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
  return jnp.where((operations == NUMBER["rotate"])[:, None, None], turned, moved)


def _tables(images: jax.Array, operations: jax.Array, values: jax.Array) -> jax.Array:
  """The table of each image for `lookup.look_up`: that of no change where its operation has
  none.
  """
  batch = len(images)
  tables = {
    "identity": lookup.identity(batch),
    "autocontrast": lookup.autocontrast(images),
    "equalize": where_wanted(
      operations == NUMBER["equalize"],
      lambda rows: lookup.equalize(images[rows]),
      lookup.identity(batch),
    ),
    "invert": lookup.invert(batch),
    "posterize": lookup.posterize(values),
    "solarize": lookup.solarize(values),
    "solarize_add": lookup.solarize_add(values),
    "brightness": lookup.brightness(values),
    "contrast": lookup.contrast(images, values),
  }
  numbers = jnp.array([NUMBER[name] for name in tables])
  place = jnp.argmax(operations[:, None] == numbers, axis=1)  # 0, identity, where there is none
  # Chosen by a product with 0s and 1s: XLA would fold any other choice into the lookup and work a
  # table's entry out anew for each pixel, which doubled the time of an operation on CPUs.
  chosen = jax.nn.one_hot(place, len(tables), dtype=jnp.float32)
  return jnp.einsum(
    "bt,tbcl->bcl", chosen, jnp.stack(list(tables.values())), precision=jax.lax.Precision.HIGHEST
  )
