"""The vision transformer. Knows no config."""

import functools

from flax import linen as nn
import jax
from jax.nn import initializers
import jax.numpy as jnp
from jax.typing import DTypeLike

from imgclf.models import layers

_TRUNCATED = initializers.truncated_normal(0.02)


class Block(nn.Module):
  """x + attention(norm(x)), and to that what two dense layers make of its norm.

  Attributes:
    heads: of the attention; they share the width evenly.
    dtype: type of the computation.
    drop_path_rate: share of the examples whose branch is dropped in training, for each of the two.
    stream: number of the first branch; the next is the second's. See `layers.drop_path`.
  """

  heads: int
  dtype: DTypeLike
  drop_path_rate: float
  stream: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, keys: jax.Array | None) -> jax.Array:
    """Maps [batch, tokens, width] to the same shape."""
    batch, tokens, width = x.shape
    norm = functools.partial(layers.layer_norm, dtype=self.dtype)
    dense = functools.partial(layers.dense, dtype=self.dtype, kernel_init=_TRUNCATED)
    qkv = dense(3 * width, name="qkv")(norm(name="norm1")(x))
    query, key, value = (
      jax.lax.slice_in_dim(qkv, i * width, (i + 1) * width, axis=2).reshape(
        batch, tokens, self.heads, width // self.heads
      )
      for i in range(3)
    )
    y = _attention(query, key, value)
    y = dense(width, name="projection")(y.reshape(batch, tokens, width))
    if train:
      y = layers.drop_path(y, self.drop_path_rate, keys, stream=self.stream)
    x = x + y
    y = layers.gelu(dense(4 * width, name="dense1")(norm(name="norm2")(x)))
    y = dense(width, name="dense2")(y)
    if train:
      y = layers.drop_path(y, self.drop_path_rate, keys, stream=self.stream + 1)
    return x + y


def _attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
  """Mean of the values, weighted by how well their keys fit the query (Vaswani et al. 2017,
  equation 1).

  https://arxiv.org/abs/1706.03762. Weights are worked out in `param_dtype`, which bfloat16's 8 bits
  are too few for.

  Args:
    query, key, value: [batch, tokens, heads, channels].

  Returns:
    Of the same shape and type.
  """
  exact = layers.param_dtype(query.dtype)
  query = query * query.shape[-1] ** -0.5
  fit = jnp.einsum("bqhc,bkhc->bhqk", query, key, preferred_element_type=exact)
  weights = jax.nn.softmax(fit, axis=-1).astype(value.dtype)
  return jnp.einsum("bhqk,bkhc->bqhc", weights, value)


class ViT(nn.Module):
  """Patches as tokens, one more for the class, blocks of attention, and the head on what that one
  becomes.

  Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929; Ti and S are of Touvron et al. 2021,
  https://arxiv.org/abs/2012.12877. The position of a token is learnt, so parameters depend on the
  image size. What is left over at the far end is dropped. Takes images from the size of a patch on.

  Features: `stem` (the patches with their positions), `block1` to the last but one, as pictures of
  patches: of the last block's patches nothing is read. `pre_logits` (normalised, before dropout).

  Attributes:
    width: channels of a token.
    depth: number of blocks.
    heads: of the attention.
    num_classes: length of the logits.
    patch: height and width of a patch, in pixels.
    dtype: type of the computation.
    dropout_rate: share of units dropped before the head.
    drop_path_rate: of the last block; see `layers.drop_path_rates`.
    remat: whether a block is computed anew for the gradient.
  """

  width: int
  depth: int
  heads: int
  num_classes: int
  patch: int = 16
  dtype: DTypeLike = jnp.float32
  dropout_rate: float = 0.0
  drop_path_rate: float = 0.0
  remat: bool = False

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool = False, keys: jax.Array | None = None
  ) -> jax.Array:
    """Returns logits; see `imgclf.models`."""
    exact = layers.param_dtype(self.dtype)
    x = layers.conv(
      self.width,
      self.patch,
      stride=self.patch,
      dtype=self.dtype,
      kernel_init=initializers.lecun_normal(),
      name="patch_conv",
    )(images.astype(self.dtype))
    batch, rows, columns, _ = x.shape
    tokens = 1 + rows * columns
    token = self.param("class_token", initializers.normal(1e-6), (self.width,), exact)
    position = self.param("position", _TRUNCATED, (tokens, self.width), exact)

    def picture(x: jax.Array, name: str) -> jax.Array:
      """Hands the patches of [batch, tokens, width] out as [batch, rows, columns, width]."""
      patches = jax.lax.slice_in_dim(x, 1, None, axis=1)
      patches = patches.reshape(batch, rows, columns, self.width)
      patches = layers.feature(self, name, patches).reshape(batch, tokens - 1, self.width)
      return jnp.concatenate([jax.lax.slice_in_dim(x, 0, 1, axis=1), patches], axis=1)

    # The class's token is the same for every image, so it comes with its position.
    position += jnp.pad(token[None], ((0, tokens - 1), (0, 0)))
    x = jnp.pad(x.reshape(batch, tokens - 1, self.width), ((0, 0), (1, 0), (0, 0)))
    x = picture(x + position.astype(self.dtype), "stem")
    make = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
    for i, rate in enumerate(layers.drop_path_rates(self.drop_path_rate, self.depth), 1):
      x = make(self.heads, self.dtype, rate, 2 * i, name=f"block{i}_tokens")(x, train, keys)
      if i < self.depth:
        x = picture(x, f"block{i}")
    x = jax.lax.slice_in_dim(x, 0, 1, axis=1).reshape(batch, self.width)
    x = layers.layer_norm(dtype=exact, name="norm")(x)
    x = layers.feature(self, "pre_logits", x)
    if train:
      x = layers.dropout(x, self.dropout_rate, keys, stream=0)
    return layers.head(self.num_classes, dtype=self.dtype)(x)
