"""What a ResNet's training step costs at least: operations, bytes, and the images a second that
follow.

    python benchmarks/roofline.py --model=resnet50 --size=224 --dtype=bfloat16

All of it is worked out from the traced program; nothing is run, and no device is needed.
"""

import argparse
import collections
import math

import jax
import jax.numpy as jnp
from variants import VARIANTS

import imgclf
from imgclf import models
from imgclf.models import convolution

# Dense bfloat16 operations and bytes of memory traffic a second, from NVIDIA's data sheets (SXM).
DEVICES = {
  "A100 80 GB": (312e12, 2.039e12),
  "H100": (989.4e12, 3.35e12),
  "H200": (989.4e12, 4.8e12),
}

# Times that a convolution's output passes through memory in one step, with all elementwise work
# fused into what reads or writes it. Forward: written, read for the statistics, read and written by
# the normalisation, read by the next convolution. Backward: two sums and then the gradient of x
# each read the gradient and x (4) and the latter is written (1); both gradients of the convolution
# read it (2); that of the weights reads its input (1), that of the input is written (1).
PASSES = 5 + 9


def equations(jaxpr):
  """Every equation, also of programs within the program."""
  for equation in jaxpr.eqns:
    yield equation
    for value in equation.params.values():
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        yield from equations(inner)


def operations(jaxpr) -> int:
  """Floating-point operations of convolutions and matrix products, two for a product and its sum.

  A convolution's are counted over the pixels of its window, also those in the padding, and not over
  the zeros between pixels by which XLA writes the gradient of a stride.
  """
  total = 0
  for equation in equations(jaxpr):
    if equation.primitive.name == "conv_general_dilated":
      kernel = equation.invars[1].aval.shape
      numbers = equation.params["dimension_numbers"]
      dilation = math.prod(equation.params["lhs_dilation"])
      window = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
      total += 2 * math.prod(equation.outvars[0].aval.shape) * window // dilation
    elif equation.primitive.name == "dot_general":
      (contracted, _), _ = equation.params["dimension_numbers"]
      length = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
      total += 2 * math.prod(equation.outvars[0].aval.shape) * length
  return total


def loss_of(name: str, size: int, dtype: str, batch: int):
  """Returns the loss of a batch as a function of the parameters, and the parameters' shapes."""
  section = imgclf.default_config().model
  section.name, section.dtype = name, dtype
  model = models.create(section, 1000, axis_name=None)
  variables = models.shapes(model, size)

  def loss(params, batch_stats, images):
    logits, _ = model.apply(
      {"params": params, "batch_stats": batch_stats}, images, train=True, mutable=["batch_stats"]
    )
    return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

  images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.dtype(dtype))
  return loss, variables["params"], variables["batch_stats"], images


def kept(loss, params, *others, batch: int) -> dict[str, float]:
  """Bytes an image, by type, of the activations that the backward pass keeps from the forward
  pass.
  """
  pullback = jax.eval_shape(lambda p, *a: jax.vjp(lambda p: loss(p, *a), p)[1], params, *others)
  total: dict[str, float] = collections.defaultdict(float)
  for leaf in jax.tree.leaves(pullback):
    # What has the batch in front is an activation; kernels and channels are kept once for all.
    if leaf.ndim > 1 and leaf.shape[0] == batch:
      total[str(leaf.dtype)] += leaf.size * leaf.dtype.itemsize / batch
  return dict(total)


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--model", default="resnet50")
  parser.add_argument("--size", type=int, default=224)
  parser.add_argument("--dtype", default="bfloat16")
  options = parser.parse_args()
  # No layer has so many channels, nor any kernel such a size.
  batch = 7
  for variant in ("flax's batch norm", "as it is"):
    # What counts is the network, not the form of its convolutions that a CPU is fast at.
    with VARIANTS[variant](imgclf.default_config()), convolution.as_written():
      loss, *arguments = loss_of(options.model, options.size, options.dtype, batch)
      found = kept(loss, *arguments, batch=batch)
      program = jax.make_jaxpr(jax.grad(loss))(*arguments).jaxpr
      forward = jax.make_jaxpr(loss)(*arguments).jaxpr
    figures = ", ".join(f"{dtype} {size / 1e6:.1f} MB" for dtype, size in sorted(found.items()))
    print(f"{variant}: kept an image: {figures}; in all {sum(found.values()) / 1e6:.1f} MB")
  work = operations(program) / batch
  outputs = sum(
    math.prod(equation.outvars[0].aval.shape)
    for equation in equations(forward)
    if equation.primitive.name == "conv_general_dilated"
  )
  width = jnp.dtype(options.dtype).itemsize
  traffic = PASSES * width * outputs / batch
  print(f"{work / 1e9:.1f} GFLOP an image; convolution outputs {outputs / batch / 1e6:.1f} million")
  print(f"traffic {traffic / 1e6:.0f} MB an image ({PASSES} passes of {width} bytes)")
  for device, (peak, bandwidth) in DEVICES.items():
    print(
      f"{device:10s} by operations {peak / work:8,.0f} images/s, by memory {bandwidth / traffic:8,.0f}"
    )


if __name__ == "__main__":
  main()
