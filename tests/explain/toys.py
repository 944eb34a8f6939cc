"""Networks small enough to be explained by hand, as runs without a folder."""

from flax import linen as nn
import jax.numpy as jnp
import numpy as np

from imgclf import config as configs
from imgclf.run import Run

SIZE = 8
MEAN, STD = np.array([0.5, 0.25, 0.75]), np.array([0.5, 0.25, 0.125])


def run_of(model, variables, *, size=SIZE, classes=2, temperature=1.0):
  config = configs.default_config()
  config.dataset.image_size = size
  config.augment.mean, config.augment.std = tuple(MEAN), tuple(STD)
  names = [str(label) for label in range(classes)]
  return Run(None, config, names, 0, model, variables, "", temperature)


def pixels(batch, size=SIZE, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (batch, size, size, 3), np.uint8)


class Linear(nn.Module):
  """One weight for each level of each pixel and class."""

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images, train=False):
    return nn.Dense(2, dtype=self.dtype, name="head")(images.reshape(images.shape[0], -1))


def linear_run(kernel=None, bias=(0.5, -2), temperature=1.0):
  """A linear run, with weights [size, size, 3, 2]; left out: drawn."""
  if kernel is None:
    kernel = np.random.default_rng(1).normal(size=(SIZE, SIZE, 3, 2))
  head = {
    "kernel": np.reshape(kernel, (-1, 2)).astype(np.float32),
    "bias": np.array(bias, np.float32),
  }
  return run_of(Linear(), {"params": {"head": head}}, temperature=temperature)


def weights_of(run, classes):
  """What a level from 0 to 255 counts in each image's class, [batch, size, size, 3] float64."""
  kernel = run.variables["params"]["head"]["kernel"].astype(np.float64)
  by_level = kernel.reshape(SIZE, SIZE, 3, 2) / (255 * STD[:, None])
  return np.stack([by_level[..., label] for label in classes])


class Red(nn.Module):
  """A function of the reds of an image, from 0 to 1: [batch, height, width] to the logit of class
  0, [batch]."""

  score: callable
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, images, train=False):
    self.param("none", nn.initializers.zeros, ())
    logit = self.score(images[..., 0] * STD[0] + MEAN[0])
    return jnp.stack([logit, jnp.zeros_like(logit)], axis=-1)


def red_run(score, **options):
  return run_of(Red(score), {"params": {"none": np.float32(0)}}, **options)
