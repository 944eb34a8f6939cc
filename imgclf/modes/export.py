"""A run's classifier in a form that runs without imgclf, held against evaluation before the export
is there.
"""

from collections.abc import Mapping, Sequence
import importlib
import os
import pathlib
import platform
from types import ModuleType
from typing import Any

import jax
import numpy as np

from imgclf import config as configs
from imgclf import exporting, models, multilabel, parallel, steps
from imgclf.data import label_sets
from imgclf.errors import UserError
from imgclf.exporting import card, pixels, timm_folder, verification
from imgclf.exporting import export_folder as folders
from imgclf.exporting.exportable import DTYPE, Exportable, exportable
from imgclf.run import Run, load
from imgclf.tables import print_line


def run(
  workdir: str | os.PathLike,
  *,
  format: str,
  output: str | os.PathLike,
  step: str | int = "best",
  images: Sequence[str] | None = None,
  quiet: bool = False,
) -> dict[str, Any]:
  """Exports a checkpoint of a run to a folder, once it answers there as evaluation does.

  The folder holds the format's files, `export.json` (what this returns) and `README.md` (a model
  card). The exported function takes `pixels` [batch, size, size, 3] uint8, cropped as evaluation
  does, and returns `probabilities` [batch, classes] float32; normalisation and the run's
  temperature are inside. It computes in float32, also where the run trained in another type.

  Args:
    workdir: the run folder.
    format: `stablehlo`, `savedmodel` or `onnx`; or `timm`, weights alone, for timm and torchvision.
    output: the folder to be made; an earlier export is replaced.
    step: `best`, `latest` or a step's number.
    images: files and folders to verify it on; left out: up to 64 of the run's own test, validation
      or train split.
    quiet: print nothing.

  Returns:
    format, max_difference, evaluation_difference, images, images_from, size_bytes, latency_ms,
    imgclf_latency_ms, device, classes, step, checkpoint, model, temperature, input, output,
    preprocessing, data, versions, files and script, and several_classes where images have several;
    for `timm`, what there is of it, besides library and arrays. The first difference is that of the
    probabilities from evaluation's in float32, the second from evaluation's in the type that the
    run computes in.

  Raises:
    UserError: for a wrong argument, a package that is missing, images that are not there, a network
      that the format can't carry, and probabilities that differ by more than 1e-5; nothing is left
      of the export then.
  """
  if format == exporting.WEIGHTS:
    return _weights(workdir, output, step, images, quiet)
  form = exporting.open(format)
  folder = folders.checked(output)
  if parallel.process_count() > 1:
    raise UserError("--mode=export: runs in one process; start it without a cluster's environment")
  restored = load(workdir, step)
  if images is None:
    shown, images_from = pixels.of_run(restored.config)
  else:
    shown, images_from = pixels.of_files(images, restored.config), "given by --images"
  carried = exportable(restored.config, restored.classes, restored.variables, restored.temperature)
  about = {"format": format, **_about(restored, carried)}
  with folders.whole_folder(folder) as unfinished:
    figures = _write(form, carried, about, restored, shown, unfinished)
    files = folders.listed(unfinished)
    record = {
      "format": format,
      "max_difference": figures[0],
      "evaluation_difference": figures[1],
      "images": len(shown),
      "images_from": images_from,
      "size_bytes": sum(file["bytes"] for file in files.values()),
      "latency_ms": figures[2],
      "imgclf_latency_ms": figures[3],
      "device": parallel.describe_devices(),
      **about,
      "versions": _versions(form),
      "files": files,
    }
    record["script"] = card.script(record, form.LOAD)
    folders.write_record(unfinished, record)
    text = card.card(record, _evaluations(restored), form.LOAD, form.RUNTIME)
    (unfinished / folders.CARD).write_text(text, encoding="utf-8", newline="\n")
  if not quiet:
    _tell(record, restored, output)
  return record


def _weights(
  workdir: str | os.PathLike,
  output: str | os.PathLike,
  step: str | int,
  images: Sequence[str] | None,
  quiet: bool,
) -> dict[str, Any]:
  """Exports the weights alone; what is written is no function, so there is nothing to verify on
  images.
  """
  if images is not None:
    raise UserError(
      f"--images: --format={exporting.WEIGHTS} is read back to the bit, not tried on images; leave it out"
    )
  folder = folders.checked(output)
  restored = load(workdir, step)
  carried = exportable(restored.config, restored.classes, restored.variables, restored.temperature)
  about = _about(restored, carried)
  del about["input"], about["output"]  # of the function that other formats carry
  about["preprocessing"]["tta"] = restored.config["eval"]["tta"]
  with folders.whole_folder(folder) as unfinished:
    library, arrays = timm_folder.write(
      restored.config, restored.classes, restored.variables, unfinished
    )
    record = {
      "format": exporting.WEIGHTS,
      "library": library,
      "arrays": arrays,
      **about,
      "versions": {name: importlib.import_module(name).__version__ for name in ("imgclf", "jax")},
      "files": folders.listed(unfinished),
    }
    folders.write_record(unfinished, record)
    text = timm_folder.card(record)
    (unfinished / folders.CARD).write_text(text, encoding="utf-8", newline="\n")
  if not quiet:
    size = sum(file["bytes"] for file in record["files"].values())
    _tell_model(record, restored, restored.config["dataset"]["image_size"])
    print_line(f"verified  {arrays:,} arrays read back, equal to the bit")
    print_line(
      f"written   for {library}, {size / 1e6:.2f} MB, in {output}; its README.md says how to load it"
    )
  return record


def _about(run: Run, carried: Exportable) -> dict[str, Any]:
  size, count = carried.size, len(carried.classes)
  name = run.config["dataset"]["name"]
  kind, colon, path = name.partition(":")
  if colon and os.sep in path:  # where the images lay is nobody's business
    name = f"{kind}:{pathlib.Path(path).name}"
  return {
    "classes": list(carried.classes),
    **({card.SEVERAL: True} if multilabel.is_on(run.config) else {}),
    "step": run.step,
    "checkpoint": run.checkpoint,
    "model": {
      "name": run.config["model"]["name"],
      "parameters": carried.parameters,
      "dtype": run.config["model"]["dtype"],
      "exported_dtype": DTYPE,
    },
    "temperature": run.temperature,
    "input": {"name": "pixels", "shape": ["batch", size, size, 3], "dtype": "uint8"},
    "output": {"name": "probabilities", "shape": ["batch", count], "dtype": "float32"},
    "preprocessing": card.preprocessing(run.config),
    "data": {"name": name, "splits": run.folder.read_splits()},
  }


def _write(
  form: ModuleType,
  carried: Exportable,
  about: Mapping[str, Any],
  run: Run,
  shown: np.ndarray,
  folder: pathlib.Path,
) -> tuple[float, float, float, float]:
  """Writes the files and verifies them.

  Returns:
    The largest difference from evaluation in float32 and in the run's own type, and milliseconds
    for an image there and here.
  """
  exact = configs.copy(run.config)
  exact["model"]["dtype"] = DTYPE
  exact_model = models.create(exact["model"], len(run.classes), axis_name=None)
  reference = _evaluation(exact_model, exact, run)
  evaluation = _evaluation(run.model, run.config, run)
  name = f"--format={about['format']}"
  try:
    form.write(carried, about, folder)
    theirs = form.load(folder)
    with jax.default_matmul_precision("highest"):
      difference = verification.largest_difference(reference, theirs, shown)
    of_evaluation = verification.largest_difference(evaluation, theirs, shown)
    latency, own_latency = verification.latencies([theirs, evaluation], shown[:1])
  except (UserError, OSError):
    raise
  except Exception as error:  # of a converter or a runtime, which have no errors in common
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    raise UserError(
      f"{name}: can't carry this {about['model']['name']} ({reason}); take another format"
    ) from error
  if difference > verification.TOLERANCE:
    raise UserError(
      f"{name}: on {len(shown)} images probabilities differ from evaluation's by up to {difference:.1e}, more than "
      f"{verification.TOLERANCE:.0e}, so nothing was exported; take another format or version of its packages"
    )
  return difference, of_evaluation, latency, own_latency


def _evaluation(model: Any, config: Mapping[str, Any], run: Run) -> verification.Function:
  """Returns evaluation's own step as a function of pixels."""
  step = jax.jit(steps.make_eval_step(model, config, run.temperature))
  variables = jax.device_put(run.variables)
  shape = (len(run.classes),) if multilabel.is_on(config) else ()

  def probabilities(shown: np.ndarray) -> np.ndarray:
    batch = {"image": shown, "label": label_sets.blank(len(shown), shape)}
    return np.asarray(step(variables, batch)["probabilities"])

  return probabilities


def _versions(form: ModuleType) -> dict[str, str]:
  named = ("imgclf", "jax", "jaxlib", "flax", *form.RUNTIME)
  # Not by the names of packages: TensorFlow and ONNX Runtime have several, for CPUs and GPUs.
  found = {name: importlib.import_module(name).__version__ for name in named}
  return {"python": platform.python_version(), **found}


def _evaluations(run: Run) -> list[dict[str, Any]]:
  """The evaluations of this step's checkpoint that are in the run folder."""
  splits = [s for s in ("test", "validation") if run.folder.evaluation(s, run.step).is_file()]
  return [run.folder.read_evaluation(split, run.step) for split in splits]


def _tell(record: Mapping[str, Any], run: Run, folder: str | os.PathLike) -> None:
  model = record["model"]
  _tell_model(record, run, record["input"]["shape"][1])
  print_line(
    f"verified  {record['images']} images ({record['images_from']}): probabilities within "
    f"{record['max_difference']:.1e} of evaluation's"
  )
  if model["dtype"] != DTYPE:
    print_line(
      f"type      {DTYPE}; evaluation in {model['dtype']}, the run's own, is within "
      f"{record['evaluation_difference']:.1e}"
    )
  print_line(
    f"latency   {record['latency_ms']:.2f} ms an image; imgclf {record['imgclf_latency_ms']:.2f} ms"
  )
  print_line(
    f"written   {record['format']}, {record['size_bytes'] / 1e6:.2f} MB, in {folder}; its README.md says how to run it"
  )


def _tell_model(record: Mapping[str, Any], run: Run, size: int) -> None:
  print_line(
    f"model     {record['model']['name']}, {len(record['classes'])} classes, {size} px, step {record['step']:,} "
    f"of {run.folder.path}"
  )
