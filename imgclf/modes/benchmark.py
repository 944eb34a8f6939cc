"""Where the time of a run would go: each part of it measured alone and together, and what holds it
back.
"""

from collections.abc import Mapping, Sequence
import contextlib
import difflib
import json
import math
import os
import sys
import tempfile
from typing import Any

import jax

from imgclf import compilation, feeds, parallel, plan, tables, timing
from imgclf import config as configs
from imgclf.data import loader, regions, workers
from imgclf.errors import UserError
from imgclf.output import checked, whole_file
from imgclf.parts import Bench, endless
from imgclf.timing import Rate

PARTS = ("decode", "input", "step", "train", "eval")

# Each part's; with five repeats the medians of two runs on a quiet machine differ by some 2%.
SECONDS = 5.0


def run(
  config: configs.ConfigDict,
  *,
  parts: Sequence[str] | None = None,
  output: str | os.PathLike | None = None,
  trace: str | os.PathLike | None = None,
  quiet: bool = False,
  seconds: float = SECONDS,
) -> dict[str, Any]:
  """Measures the parts of the run that a config describes, and says which of them holds it back.

  No run folder is read or written. A part takes `seconds`, and no more than two of its batches
  longer; its warm-up and compilation come on top.

  Args:
    config: the config of the run to come.
    parts: what to measure, of `decode`, `input`, `step`, `train`, `eval`; left out: all.
    output: a file to write the report to, ending in .json; none: nowhere.
    trace: a folder for a profile of a second of training; none: no profile.
    quiet: print nothing.
    seconds: that each part is measured for.

  Returns:
    The report, as README.md describes it; None stands where a part was not measured or JAX can't
    tell.

  Raises:
    UserError: for a config or a set that can't be trained on, or arguments that are none.
  """
  path = None if output is None else checked(output, (".json",))
  chosen = _chosen(parts)
  if trace is not None and "train" not in chosen:
    raise UserError("--trace: records training; add train to --parts")
  if parallel.process_count() > 1:
    raise UserError(
      "--mode=benchmark: runs in one process; start it without a cluster's environment"
    )
  with contextlib.ExitStack() as held:
    folder = held.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
    planned = plan.prepare(endless(config), os.path.join(folder, "run"), held)
    held.enter_context(compilation.temporary_cache())
    report = _report(Bench(planned, seconds), planned, chosen, trace)
  if not quiet:
    _print(report)
  if path is not None:
    with whole_file(path) as file:
      file.write(json.dumps(report, indent=2, allow_nan=False) + "\n")
    if not quiet:
      tables.print_line(f"written to {path}")
  return report


def _chosen(parts: Sequence[str] | None) -> Sequence[str]:
  for part in parts or ():
    if part not in PARTS:
      near = difflib.get_close_matches(part, PARTS, 1, 0.5)
      hint = f"; did you mean {near[0]}?" if near else ""
      raise UserError(f"--parts: {part!r} is no part; there are {', '.join(PARTS)}{hint}")
  return PARTS if parts is None else parts


def _report(
  bench: Bench, planned: plan.Plan, chosen: Sequence[str], trace: str | os.PathLike | None
) -> dict[str, Any]:
  config = planned.config
  # First, while nothing else is compiled.
  compiled = bench.compile() if "step" in chosen else None
  rates: dict[str, Rate] = {}
  for part in ("decode", "input", "step", "eval"):
    if part in chosen:
      rates[part] = getattr(bench, part)()
  share = None
  if "train" in chosen:
    log_steps = bench.log_steps(rates.get("step"), rates.get("input"))
    rates["train"], share = bench.train(log_steps)
    if trace is not None:
      bench.train(max(1, log_steps // 5), seconds=1.0, trace=trace)
  in_use = [(d.memory_stats() or {}).get("peak_bytes_in_use") for d in jax.local_devices()]
  told = [size for size in in_use if size is not None]
  peak = timing.peak_flops(jax.devices()[0].device_kind)
  memory = max(told) if told else compiled and compiled.memory_bytes
  flops = compiled and compiled.flops_per_image
  report: dict[str, Any] = {
    f"{part}_images_per_second": rates[part].median if part in rates else None for part in PARTS
  }
  report |= {
    "input_images_per_cpu_second": _finite(rates["input"].per_cpu_second)
    if "input" in rates
    else None,
    "data_wait_share": share,
    "compile_seconds_cold": compiled and compiled.seconds_cold,
    "compile_seconds_warm": compiled and compiled.seconds_warm,
    "peak_memory_bytes": memory,
    "peak_memory_source": memory and ("device" if told else "compiled step"),
    "flops_per_image": flops,
    "peak_flops_share": flops
    and peak
    and flops * rates["step"].median / (peak * parallel.device_count()),
    "spread": {part: rates[part].spread for part in PARTS if part in rates},
    "devices": parallel.describe_devices(),
    "dtype": config["model"]["dtype"],
    "batch_size": config["train"]["batch_size"],
    "threads": loader.threads(config),
    "workers": workers.count(config),
    "resident": feeds.is_resident(planned.train_records, config),
    # None where it would not help.
    "region_decoder": regions.is_available()
    if config["augment"]["crop"] == "random_resized" and sys.platform == "linux"
    else None,
    "cpus": os.cpu_count() or 1,
    "shared_cores": jax.default_backend() == "cpu",
  }
  name, advice = bottleneck(report)
  return report | {"bottleneck": name, "advice": advice}


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None


def bottleneck(report: Mapping[str, Any]) -> tuple[str | None, str | None]:
  """Says which part holds training back, and what to do about it.

  Args:
    report: with the rates, `data_wait_share`, `dtype`, `threads`, `workers`, `cpus`, `resident`
      (whether the train split lives on the devices), `region_decoder` (whether random crops of
      JPEGs are decoded alone; None where they can't be) and `shared_cores` (whether the step runs
      on the cores that decode).

  Returns:
    `input`, `step` or `loop` (logs and all that is between the steps), and a line; None where the
    rates that tell were not measured.
  """
  made, taken, trained = (
    report[f"{part}_images_per_second"] for part in ("input", "step", "train")
  )
  if made is None or taken is None:
    return None, None
  if made < taken and not report["resident"]:
    return (
      "input",
      f"the host makes {made:,.0f} images/s and the step could take {taken:,.0f}; "
      + (_input_mend(report)),
    )
  if report["shared_cores"]:
    return "step", (
      f"the step makes {taken:,.0f} images/s, on the cores that also decode; take a smaller "
      "model or config.dataset.image_size, or a GPU"
    )
  if trained is not None and trained < 0.9 * taken:
    return "loop", (
      f"training makes {trained:,.0f} images/s, though the step could make {taken:,.0f} and the host "
      f"feeds {made:,.0f}; raise config.log.every_steps, or see what comes between the steps: --trace=DIR"
    )
  mends = ["a larger config.train.batch_size", "a smaller model or config.dataset.image_size"]
  if report["dtype"] == "float32":
    mends.insert(0, "config.model.dtype=bfloat16")
  return "step", f"the devices make {taken:,.0f} images/s and the host could feed {made:,.0f}; " + (
    "try " + ", ".join(mends)
  )


def _input_mend(report: Mapping[str, Any]) -> str:
  decoded = report["decode_images_per_second"]
  if decoded is not None and decoded > 1.5 * report["input_images_per_second"]:
    return f"decoding makes {decoded:,.0f}, so it is reading: put the data on a faster disk"
  mends = ["smaller images on the disk"]
  if report["region_decoder"] is False:
    mends.append("for JPEGs the extra crops (pip install 'imgclf[crops]')")
  field = "workers" if report["workers"] else "threads"
  if report[field] < report["cpus"]:
    mends.insert(0, f"config.dataset.{field}={report['cpus']} ({report[field]} now)")
  return "try " + ", ".join(mends) + ", or more CPU cores"


def _print(report: Mapping[str, Any]) -> None:
  """Prints a report in 80 columns."""
  tables.print_line(
    f"{report['devices']}, {report['dtype']}, batch {report['batch_size']:,}; "
    + (f"{report['workers']} processes" if report["workers"] else f"{report['threads']} threads")
    + f" on {report['cpus']} CPU cores"
  )
  rows = [
    (part, f"{report[f'{part}_images_per_second']:,.0f}", f"{report['spread'][part]:.0%}")
    for part in PARTS
    if part in report["spread"]
  ]
  tables.text_table(("part", "images/s", "spread"), rows)
  told = (
    ("input", "input_images_per_cpu_second", "{:,.0f} images/s of each CPU core in use"),
    ("data wait", "data_wait_share", "{:.0%} of the time of training"),
    ("compile", "compile_seconds_cold", "{:.1f} s"),
    ("again", "compile_seconds_warm", "{:.1f} s, from the disk"),
    ("memory", "peak_memory_bytes", "{:,.0f} bytes of a device, as the {peak_memory_source} tells"),
    ("FLOPs", "flops_per_image", "{:,.0f} an image"),
    ("use", "peak_flops_share", "{:.1%} of what the device could do in bfloat16"),
    ("bottleneck", "bottleneck", "{}: {advice}"),
  )
  for name, key, form in told:
    if report[key] is not None:
      tables.print_paragraph(f"{name:<12}" + form.format(report[key], **report))
