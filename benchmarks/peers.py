"""One peer's training speed in a process of its own: `python benchmarks/peers.py PEER CASE`, a JSON
object on stdout.

Every peer trains the same network on the same shape of uint8 batch, normalises it on the device,
and makes the same update: AdamW, softmax cross-entropy. What is not installed is told as `skipped`.
"""

import dataclasses
import json
import sys
import time
import types

import numpy as np


@dataclasses.dataclass(frozen=True)
class Case:
  """What is trained, for all peers alike; `timm`: its name there, where that is another."""

  model: str
  image_size: int
  batch_size: int
  dtype: str = "float32"
  seconds: float = 8.0
  timm: str | None = None


# A member of each family that timm has, at 128 px: by our name, timm's where it is another.
FAMILIES = {
  "vgg11_bn": None,
  "resnet50": None,
  "resnext50_32x4d": None,
  "densenet121": None,
  "mobilenet_v2": "mobilenetv2_100",
  "mobilenet_v3_large": "mobilenetv3_large_100",
  "efficientnet_b0": None,
  "efficientnet_v2_s": "efficientnetv2_s",
  "regnet_y_400mf": "regnety_004",
  "convnext_atto": None,
  "vit_ti_16": "vit_tiny_patch16_224",
}
CASES = {
  "cnn-28": Case("cnn", 28, 128),
  "cnn-224": Case("cnn", 224, 16),
  "resnet50-64": Case("resnet50", 64, 16),
  **{f"{name}-128": Case(name, 128, 16, timm=timm) for name, timm in FAMILIES.items()},
  "cnn-28-gpu": Case("cnn", 28, 128),
  "cnn-224-gpu": Case("cnn", 224, 256),
  "resnet50-224-gpu": Case("resnet50", 224, 256, "bfloat16"),
  "convnext_tiny-224-gpu": Case("convnext_tiny", 224, 256, "bfloat16"),
  "vit_s_16-224-gpu": Case("vit_s_16", 224, 256, "bfloat16", timm="vit_small_patch16_224"),
}
CLASSES = 10  # as the embedded digits have, by whose name imgclf's run is planned
LEARNING_RATE, WEIGHT_DECAY, EPSILON = 1e-3, 1e-4, 1e-8


def batch_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
  draw = np.random.default_rng(0)
  shape = (case.batch_size, case.image_size, case.image_size, 3)
  images = draw.integers(0, 256, shape, np.uint8)
  return images, draw.integers(0, CLASSES, case.batch_size, np.int32)


def repeated(step, case: Case, wait) -> tuple[float, float]:
  """Images a second of `step`, and a CPU second, after a warm-up of three, for the case's
  seconds.
  """
  for _ in range(3):
    step()
  wait()
  began, cpu_began, done = time.perf_counter(), time.process_time(), 0
  while time.perf_counter() - began < case.seconds:
    step()
    done += 1
    if done % 3 == 0:
      wait()
  wait()
  images = done * case.batch_size
  return images / (time.perf_counter() - began), images / (time.process_time() - cpu_began)


def imgclf_bench(case: Case, held):
  import pathlib
  import tempfile

  import imgclf
  from imgclf import plan
  from imgclf.parts import Bench, endless

  config = imgclf.default_config()
  # What is trained on is noise that lies ready.
  config.dataset.name = "digits"
  config.dataset.image_size = case.image_size
  config.augment.flip = False
  config.model.name, config.model.dtype = case.model, case.dtype
  config.optimizer.update(
    name="adam", learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY, epsilon=EPSILON
  )
  config.schedule.name = "constant"
  config.train.batch_size = config.eval.batch_size = case.batch_size
  folder = held.enter_context(tempfile.TemporaryDirectory())
  return Bench(plan.prepare(endless(config), pathlib.Path(folder, "run"), held), case.seconds)


def imgclf_step(case: Case) -> dict:
  import contextlib

  import jax

  from imgclf import models

  with contextlib.ExitStack() as held:
    bench = imgclf_bench(case, held)
    parameters = models.parameter_count(bench.begin().params)
    rate = bench.step()
    return result((rate.median, rate.per_cpu_second), parameters, f"jax {jax.__version__}")


def imgclf_loop(case: Case) -> dict:
  import contextlib

  import jax
  from loop import measured

  from imgclf import models

  with contextlib.ExitStack() as held:
    bench = imgclf_bench(case, held)
    rate = bench.step(1.0).median
    count = max(4, round(case.seconds * rate / case.batch_size) // 2 * 2)
    *rates, _ = measured(bench, count, log_steps=max(2, count // 5))
    parameters = models.parameter_count(bench.begin().params)
    return result(tuple(rates), parameters, f"jax {jax.__version__}")


def torch_step(case: Case) -> dict:
  # PyTorch's CPU build lacks an operator that torchvision registers when timm imports it.
  sys.modules["torchvision._meta_registrations"] = types.ModuleType("_meta_registrations")
  import timm
  import torch
  from torch import nn

  device = "cuda" if torch.cuda.is_available() else "cpu"
  if case.model == "cnn":
    layers, channels, edge = [], 3, case.image_size
    for width in (32, 64, 128):
      layers += [nn.Conv2d(channels, width, 3), nn.ReLU(), nn.MaxPool2d(2)]
      channels, edge = width, (edge - 2) // 2
    model = nn.Sequential(
      *layers,
      nn.Flatten(),
      nn.Linear(channels * edge * edge, 512),
      nn.ReLU(),
      nn.Linear(512, CLASSES),
    )
  else:
    sized = {"img_size": case.image_size} if case.model.startswith("vit") else {}
    model = timm.create_model(case.timm or case.model, num_classes=CLASSES, **sized)
  model = model.to(device, memory_format=torch.channels_last).train()
  parameters = sum(p.numel() for p in model.parameters())
  compiled = torch.compile(model)
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, eps=EPSILON, fused=True
  )
  images, labels = batch_of(case)
  images = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
  labels = torch.from_numpy(labels).long().to(device)

  def step() -> None:
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16"):
      pixels = (images.float() - 127.5) / 127.5
      loss = nn.functional.cross_entropy(compiled(pixels), labels)
    loss.backward()
    optimizer.step()

  wait = torch.cuda.synchronize if device == "cuda" else lambda: None
  return result(
    repeated(step, case, wait),
    parameters,
    f"torch {torch.__version__}, timm {timm.__version__}, torch.compile, channels_last",
  )


def keras_fit(case: Case) -> dict:
  if case.model != "cnn":
    return {"skipped": "only the plain network is built in Keras"}
  import keras
  import tensorflow as tf

  layers = keras.layers
  network = [keras.Input((case.image_size, case.image_size, 3)), layers.Rescaling(1 / 127.5, -1.0)]
  for width in (32, 64, 128):
    network += [layers.Conv2D(width, 3, activation="relu"), layers.MaxPooling2D()]
  network += [
    layers.Flatten(),
    layers.Dense(512, activation="relu"),
    layers.Dense(CLASSES),
  ]
  model = keras.Sequential(network)
  model.compile(
    keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY, epsilon=EPSILON),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
  )
  images, labels = batch_of(case)
  # The same batch over and over, as the other peers have it.
  data = tf.data.Dataset.from_tensors((images, labels)).repeat().prefetch(2)
  model.fit(data, steps_per_epoch=3, epochs=1, verbose=0)
  began = time.perf_counter()
  model.fit(data, steps_per_epoch=3, epochs=1, verbose=0)
  steps = max(3, round(case.seconds * 3 / (time.perf_counter() - began)))
  began, cpu_began = time.perf_counter(), time.process_time()
  model.fit(data, steps_per_epoch=steps, epochs=1, verbose=0)
  done = steps * case.batch_size
  rates = done / (time.perf_counter() - began), done / (time.process_time() - cpu_began)
  return result(
    rates, model.count_params(), f"keras {keras.__version__} on tensorflow {tf.__version__}"
  )


def result(rates: tuple[float, ...], parameters: int, versions: str) -> dict:
  return {
    "images_per_second": rates[0],
    "images_per_cpu_second": rates[1],
    "parameters": parameters,
    "versions": versions,
  }


PEERS = {
  "imgclf step": imgclf_step,
  "imgclf loop": imgclf_loop,
  "torch step": torch_step,
  "keras fit": keras_fit,
}


def main(peer: str, case: str) -> None:
  try:
    told = PEERS[peer](CASES[case])
  except ImportError as error:
    told = {"skipped": f"{error.name or error} is not installed"}
  print("\n" + json.dumps(told))


if __name__ == "__main__":
  main(*sys.argv[1:])
