"""Images a second that an input pipeline makes on one core, beside those of others, in one run.

    python benchmarks/input.py FOLDER [--rounds=5] [--sizes 224 160 112] [--scaling]

FOLDER holds JPEG files, at any depth; they are read into memory first. Each part runs in a process
of its own, pinned to one core; the parts take turns, round by round, and a figure is the median of
the rounds, in images per second of that process's CPU time. What isn't installed is left out, and
said. `--scaling` adds images per second of time, by threads and by worker processes, on as many
cores as there are.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import importlib.util
import io
import itertools
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import numpy as np

SIZES = (224, 160, 112)
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
BATCH = 50
# As many as ImageNet has: Grain's shuffle takes 9 us an index then, and 140 for 200 examples.
EXAMPLES = 1_281_167

Batches = Iterator[object]


class InMemory:
  """Records for imgclf: EXAMPLES of them, which are the files over and over."""

  def __init__(self, files: Sequence[bytes]):
    from imgclf.data.sources import Record

    self._records = [Record(data, 0, f"file {i}") for i, data in enumerate(files)]

  def __len__(self) -> int:
    return EXAMPLES

  def __getitems__(self, indices: Sequence[int]) -> list:
    return [self._records[i % len(self._records)] for i in indices]


def full_decode(files: Sequence[bytes], size: int) -> Batches:
  """libjpeg-turbo alone: no crop, no resize."""
  import simplejpeg

  for batch in batches_of(files):
    yield [simplejpeg.decode_jpeg(data, "RGB", strict=True) for data in batch]


def batches_of(files: Sequence[bytes]) -> Iterator[list[bytes]]:
  endless = itertools.cycle(files)
  while True:
    yield list(itertools.islice(endless, BATCH))


def config_of(size: int):
  import imgclf

  config = imgclf.default_config()
  config.dataset.image_size, config.train.batch_size = size, BATCH
  config.augment.crop_scale, config.augment.crop_ratio = SCALE, RATIO
  return config


def imgclf_batches(files: Sequence[bytes], size: int) -> Batches:
  """imgclf's training batches, in the thread that asks, from the second epoch on."""
  from imgclf.data import loader

  read = np.ones(EXAMPLES, bool)
  batches = loader.train_batches(InMemory(files), config_of(size), sound=read)
  return (batches[k] for k in itertools.count())


def first_epoch(files: Sequence[bytes], size: int) -> Batches:
  """The same where each file is read whole, to see whether it is sound."""
  from imgclf.data import loader

  batches = loader.train_batches(InMemory(files), config_of(size))
  return (batches[k] for k in itertools.count())


def without_regions(files: Sequence[bytes], size: int) -> Batches:
  """imgclf's batches from the second epoch on as they are made where nvImageCodec is not
  installed.
  """
  from imgclf.data import regions

  regions.decode = lambda *_: None
  return imgclf_batches(files, size)


def tf_data(files: Sequence[bytes], size: int) -> Batches:
  """tf.data with the fused decode_and_crop_jpeg and a bilinear resize that isn't antialiased."""
  import tensorflow as tf

  tf.config.set_visible_devices([], "GPU")

  def crop(data):
    shape = tf.image.extract_jpeg_shape(data)
    begin, extent, _ = tf.image.sample_distorted_bounding_box(
      shape,
      tf.zeros([1, 0, 4]),
      area_range=SCALE,
      aspect_ratio_range=RATIO,
      max_attempts=10,
      use_image_if_no_bounding_boxes=True,
    )
    window = tf.concat([begin[:2], extent[:2]], 0)
    image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
    return tf.cast(tf.image.resize(image, [size, size]), tf.uint8)

  options = tf.data.Options()
  options.threading.private_threadpool_size = 1
  options.threading.max_intra_op_parallelism = 1
  options.autotune.enabled = False
  options.experimental_optimization.inject_prefetch = False
  data = tf.data.Dataset.from_tensor_slices(list(files)).repeat()
  return data.map(crop, 1).batch(BATCH).with_options(options).as_numpy_iterator()


def torchvision_crop(size: int) -> Callable:
  """Pillow's decode and torchvision's RandomResizedCrop: bytes -> [size, size, 3] uint8."""
  import types

  sys.modules.setdefault(
    "torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations")
  )
  from PIL import Image
  import torch
  from torchvision import transforms

  torch.set_num_threads(1)
  crop = transforms.RandomResizedCrop(size, SCALE, RATIO)
  return lambda data: np.array(crop(Image.open(io.BytesIO(data)).convert("RGB")))


def torchvision_batches(files: Sequence[bytes], size: int) -> Batches:
  """torchvision's RandomResizedCrop of Pillow's images."""
  crop = torchvision_crop(size)
  for batch in batches_of(files):
    yield np.stack([crop(data) for data in batch])


class Cropped:
  """The files as a map-style data set for torch's DataLoader: EXAMPLES of them, over and over."""

  def __init__(self, files: Sequence[bytes], size: int):
    self._files, self._crop = files, torchvision_crop(size)

  def __len__(self) -> int:
    return EXAMPLES

  def __getitem__(self, index: int) -> np.ndarray:
    return self._crop(self._files[index % len(self._files)])


def prototype(files: Sequence[bytes], size: int) -> Batches:
  """simplejpeg's whole decode, then OpenCV's bilinear resize, which isn't antialiased."""
  import cv2
  import simplejpeg

  from imgclf.data import crops

  cv2.setNumThreads(1)
  rng = np.random.default_rng(0)
  for batch in batches_of(files):
    images = np.empty((len(batch), size, size, 3), np.uint8)
    for row, data in enumerate(batch):
      image = simplejpeg.decode_jpeg(data, "RGB", strict=True)
      top, left, height, width = crops.random_window(
        *image.shape[:2], rng, scale=SCALE, ratio=RATIO
      )
      cv2.resize(image[top : top + height, left : left + width], (size, size), dst=images[row])
    yield images


PARTS: dict[str, tuple[Callable[[Sequence[bytes], int], Batches], str]] = {
  "full decode": (full_decode, "simplejpeg"),
  "imgclf": (imgclf_batches, "imgclf"),
  "imgclf, first epoch": (first_epoch, "imgclf"),
  "imgclf without nvImageCodec": (without_regions, "imgclf"),
  "tf.data": (tf_data, "tensorflow"),
  "torchvision": (torchvision_batches, "torchvision"),
  "simplejpeg + OpenCV": (prototype, "cv2"),
}


def read(folder: str) -> list[bytes]:
  paths = sorted(
    p for p in pathlib.Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg")
  )
  if not paths:
    raise SystemExit(f"{folder}: holds no .jpg or .jpeg file; give a folder of photographs")
  return [path.read_bytes() for path in paths]


def serve(name: str, size: int, folder: str) -> None:
  """One part: for each line that comes in, makes as many images as there are files, and tells the
  rate.
  """
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  files = read(folder)
  batches = PARTS[name][0](files, size)
  next(batches)
  count = -(-len(files) // BATCH)
  ended = time.process_time()
  print("ready", flush=True)
  for _ in sys.stdin:
    for _ in range(count):
      next(batches)
    # From the last round's end on: what a pipeline has made ahead since counts as well.
    began, ended = ended, time.process_time()
    print(count * BATCH / (ended - began), flush=True)


class Part:
  """A part in a process of its own."""

  def __init__(self, name: str, size: int, folder: str):
    self._process = subprocess.Popen(
      [sys.executable, __file__, folder, f"--part={name}", f"--size={size}"],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"},
    )
    if self._process.stdout.readline() != "ready\n":
      raise SystemExit(f"{name}: did not start; see above")

  def rate(self) -> float:
    """One round: images per second of the process's CPU time."""
    self._process.stdin.write("\n")
    self._process.stdin.flush()
    return float(self._process.stdout.readline())

  def close(self) -> None:
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()


def one_core(folder: str, sizes: Sequence[int], rounds: int) -> None:
  left_out = [name for name, (_, needs) in PARTS.items() if not importlib.util.find_spec(needs)]
  for name in left_out:
    print(f"{name}: left out, {PARTS[name][1]} is not installed")
  if not importlib.util.find_spec("nvidia") or not importlib.util.find_spec("nvidia.nvimgcodec"):
    print("nvImageCodec is not installed: imgclf's figures are those without it")
  names = [name for name in PARTS if name not in left_out]
  rows: dict[str, list[float]] = {name: [] for name in names}
  for size in sizes:
    parts = {name: Part(name, size, folder) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
      for name, part in parts.items():
        rates[name].append(part.rate())
    for name, part in parts.items():
      part.close()
      rows[name].append(statistics.median(rates[name]))
  heads = [f"{size} px" for size in sizes]
  print("\n| images per CPU-second |", " | ".join(heads), "| imgclf's is |")
  print("|---|" + "---:|" * (len(sizes) + 1))
  for name, values in rows.items():
    ratios = " / ".join(f"{ours / value:.2f}" for ours, value in zip(rows["imgclf"], values))
    print(f"| {name} |", " | ".join(f"{value:.0f}" for value in values), f"| {ratios} times |")


def scaling(folder: str) -> None:
  """Images a second of time at 224 px from files, after start-up, by threads and by worker
  processes.
  """
  from imgclf.data import datasets, sources, workers

  config = config_of(224)
  config.dataset.name = f"folder:{folder}"
  source = datasets.open(config.dataset).sources["train"]
  count = sum(source.shard_lengths)
  records = sources.Records([(source, 0, count)] * (EXAMPLES // count))
  cores = len(os.sched_getaffinity(0))
  counts = [n for n in (1, 2, 4, 8, 16, 32) if n <= cores]
  for kind, count in itertools.product(("threads", "workers"), counts):
    config = config_of(224)
    config.dataset.workers = 0
    config.dataset[kind] = count
    batches = workers.train_batches(records, config, range(10**6))
    told(f"{count} {kind}", batches, count, count + config.dataset.prefetch)
    del batches
  if importlib.util.find_spec("torchvision") is None:
    print("torch DataLoader: left out, torchvision is not installed")
    return
  import torch

  data = Cropped(read(folder), 224)
  for count in counts:
    batches = iter(torch.utils.data.DataLoader(data, BATCH, num_workers=count))
    told(f"torch DataLoader, Pillow, {count} workers", batches, count, 3 * count)
    del batches


def told(name: str, batches: Iterator, count: int, ready: int) -> None:
  """Prints images a second of time, once what may lie ready at the start is gone.

  Args:
    name: of what makes them.
    batches: of BATCH images.
    count: threads or processes that make them.
    ready: batches that may lie ready.
  """
  for _ in range(ready):
    next(batches)
  numbers = 8 * count + 8
  began = time.perf_counter()
  for _ in range(numbers):
    next(batches)
  rate = numbers * BATCH / (time.perf_counter() - began)
  print(f"{name}: {rate:.0f} images/s", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("folder")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
  parser.add_argument("--scaling", action="store_true")
  parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
  parser.add_argument("--size", type=int, default=SIZES[0], help=argparse.SUPPRESS)
  given = parser.parse_args()
  if given.part:
    serve(given.part, given.size, given.folder)
    return
  files = read(given.folder)
  mean = sum(map(len, files)) / len(files)
  print(f"{len(files)} files of {mean / 1e3:.1f} kB on average; Python {platform.python_version()}")
  one_core(given.folder, given.sizes, given.rounds)
  if given.scaling:
    scaling(given.folder)


if __name__ == "__main__":
  main()
