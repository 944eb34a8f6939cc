"""Networks beside torchvision's and timm's: parameters, multiply-adds, logits for the same weights,
and the way back.

    python benchmarks/weights.py [--models=resnet18,vgg11] [--classes=1000]

Draws weights in torch, writes them as safetensors, reads them as `config.model.weights=file:...`
does, and compares in float32 what goes into the head and what comes out of it. Then imgclf's
arrays, by the names of the library, are loaded there strictly and must be equal to the bit.
Parameters are counted in both; multiply-adds stand beside those that torchvision has with its
weights, at the same image size. Needs torch, torchvision and timm.
"""

import argparse
import pathlib
import sys
import tempfile
import types

import jax
import numpy as np

from imgclf import config as configs
from imgclf import models, named, safetensors_file
from imgclf.errors import UserError
from imgclf.models import torch_names
from imgclf.pretrained import matching, preprocessing, sources

# At which size a network is compared: a small one shows the same. AlexNet leaves 3x3 pixels of it,
# and a picture of patches has to be whole.
SIZE, SIZE_OF_PATCHES = 127, 128
LIMIT = 1e-4


def published(name):
  """Whether a library has the network."""
  section = configs.default_config().model
  section.name = name
  try:
    torch_names.layouts(models.create(section, 2, axis_name=None))
  except UserError:
    return False
  return True


def size_of(name):
  return SIZE_OF_PATCHES if name.startswith("vit") else SIZE


def libraries(name):
  """What makes a library's network, random, by the names of the libraries that have it."""
  # PyTorch's CPU build lacks an operator that torchvision registers when timm imports it.
  sys.modules["torchvision._meta_registrations"] = types.ModuleType("_meta_registrations")
  import timm
  import torchvision

  made, patches = {}, name.startswith("vit")
  sized = {"image_size": SIZE_OF_PATCHES} if patches else {}
  if name in torchvision.models.list_models():
    made["torchvision"] = lambda classes: torchvision.models.get_model(
      name, num_classes=classes, **sized
    )
  if torch_names.timm_names(name):
    theirs = torch_names.timm_names(name)[0]
    sized_for_timm = {"img_size": SIZE_OF_PATCHES} if patches else {}
    made["timm"] = lambda classes: timm.create_model(theirs, num_classes=classes, **sized_for_timm)
  return made


def published_products(name, size):
  """Billions of multiply-adds that torchvision publishes with weights for images of a size; none
  where it has none.
  """
  import torchvision

  if name not in torchvision.models.list_models():
    return None
  for weights in torchvision.models.get_model_weights(name):
    if weights.transforms().crop_size == [size]:
      return weights.meta["_ops"]
  return None


def drawn(network, seed=0):
  """Draws all weights so that signals keep their size: running statistics and biases count as
  well.
  """
  import torch

  torch.manual_seed(seed)
  state = network.state_dict()
  for key, value in state.items():
    if key.endswith("num_batches_tracked"):
      continue
    spread = value.numel() / value.shape[0] > 1  # or one number for each channel
    if key.endswith("running_var"):
      value.uniform_(0.5, 1.5)
    elif value.ndim == 1 and key.endswith("weight"):
      value.uniform_(0.1, 0.5)  # small scales, or the sums of a deep network grow
    else:
      value.normal_(std=(2 / value[0].numel()) ** 0.5 if spread else 0.1)
  return state


def compare(name, library, network, classes, folder):
  """Returns the parameters, the largest logit, the largest differences of logits and of what the
  head is given.
  """
  from safetensors.torch import save_file
  import torch

  network.eval()
  state = drawn(network)
  path = pathlib.Path(folder) / f"{name}.safetensors"
  save_file(state, path)
  config = configs.default_config()
  size = config.dataset.image_size = size_of(name)
  config.model.name = name
  config.model.weights = f"file:{path}"
  names = [str(i) for i in range(classes)]
  source = sources.find(config.model.weights)
  matched = matching.match(source, config, names)
  assert matched.head == "kept"
  model = models.create(config["model"], classes, axis_name=None)
  preprocessing.adopt_epsilon(config, config.model.weights, matched.epsilon, model)
  model = models.create(config["model"], classes, axis_name=None)
  shapes = models.shapes(model, size)
  begin = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  variables, _ = matching.variables(source, matched, begin)
  images = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
  apply = jax.jit(lambda v, x: model.apply(v, x, mutable=["intermediates"]))
  ours, seen = apply(variables, images)
  given = []
  head = next(
    m for key, m in reversed(list(network.named_modules())) if isinstance(m, torch.nn.Linear)
  )
  head.register_forward_hook(lambda module, inputs, output: given.append(inputs[0].numpy()))
  with torch.no_grad():
    theirs = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
  features = np.asarray(seen["intermediates"]["pre_logits"])
  back = {
    t.name: t.there(np.asarray(leaf))
    for (keys, leaf) in jax.tree_util.tree_flatten_with_path(variables)[0]
    for t in [matched.tensors[named.names(keys)]]
  }
  back |= {k: v.numpy() for k, v in state.items() if k.endswith(torch_names.COUNTER)}
  again = pathlib.Path(folder) / "back.safetensors"
  safetensors_file.write(again, back)
  from safetensors.torch import load_file

  network.load_state_dict(load_file(again), strict=True)
  assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
  parameters = models.parameter_count(shapes["params"])
  assert parameters == sum(p.numel() for p in network.parameters())
  return (
    parameters,
    float(np.abs(theirs).max()),
    *(float(np.abs(a - b).max()) for a, b in ((ours, theirs), (features, given[0]))),
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--models", help="names, separated by commas; all that a library has if left out"
  )
  parser.add_argument("--classes", type=int, default=1000)
  options = parser.parse_args()
  names = (
    options.models.split(",") if options.models else [n for n in models.names() if published(n)]
  )
  columns = ("parameters", "G multiply-adds", "published", "px")
  columns += ("largest logit", "logits differ by", "features differ by")
  print(f"| network | library | {' | '.join(columns)} |")
  print("|---|---|" + "---:|" * len(columns))
  worst = 0.0
  for name in names:
    cost = models.cost(name)
    for library, make in libraries(name).items():
      with tempfile.TemporaryDirectory() as folder:
        parameters, largest, logits, features = compare(
          name, library, make(options.classes), options.classes, folder
        )
      told = published_products(name, cost.image_size) if library == "torchvision" else None
      cells = [name, library, f"{parameters:,}", f"{cost.multiply_adds / 1e9:.3f}"]
      cells += [f"{told:.3f}" if told else "", str(cost.image_size)]
      cells += [f"{largest:.2f}", f"{logits:.1e}", f"{features:.1e}"]
      print(f"| {' | '.join(cells)} |", flush=True)
      worst = max(worst, logits, features)
  if worst > LIMIT:
    sys.exit(f"differences up to {worst:.1e}, more than {LIMIT}")


if __name__ == "__main__":
  main()
