"""The same training by imgclf and by its peers, side by side: images a second, and each peer's
share of imgclf's.

    python benchmarks/train.py                   the cases for a CPU
    python benchmarks/train.py --preset=gpu      those for a GPU
    python benchmarks/train.py --preset=families --peer='imgclf step' --peer='torch step'

Needs the peers beside imgclf: `pip install torch torchvision timm keras tensorflow`; one that is
missing is skipped, and told. Peers take turns, each in a process of its own; the figures are
medians of the rounds. Those by CPU time, of all threads, hold on a machine that others use as well.
"""

import argparse
from collections.abc import Sequence
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

from peers import CASES, FAMILIES, PEERS

HERE = pathlib.Path(__file__).parent
PRESETS = {
  "cpu": ("cnn-28", "cnn-224", "resnet50-64"),
  "families": tuple(f"{name}-128" for name in FAMILIES),
  "gpu": (
    "cnn-28-gpu",
    "cnn-224-gpu",
    "resnet50-224-gpu",
    "convnext_tiny-224-gpu",
    "vit_s_16-224-gpu",
  ),
}


def measured(peer: str, case: str) -> dict:
  """What the peer's process says, or why it said nothing."""
  paths = os.pathsep.join(filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
  done = subprocess.run(
    [sys.executable, HERE / "peers.py", peer, case],
    capture_output=True,
    text=True,
    env={**os.environ, "PYTHONPATH": paths, "TF_CPP_MIN_LOG_LEVEL": "3"},
  )
  if done.returncode:
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return {"skipped": last[0][:120]}
  return json.loads(done.stdout.strip().splitlines()[-1])


def compare(case: str, rounds: int, peers: Sequence[str] = tuple(PEERS)) -> None:
  """Prints the rows of one case."""
  told: dict[str, list[dict]] = {peer: [] for peer in peers}
  for _ in range(rounds):
    for peer, answers in told.items():
      if not answers or "skipped" not in answers[-1]:
        answers.append(measured(peer, case))
        # At once, so that who ends it early has what was measured until then.
        print(f"{case}, {peer}: {json.dumps(answers[-1])}", file=sys.stderr, flush=True)

  def medians(figure: str) -> dict[str, float]:
    return {
      peer: statistics.median(answer[figure] for answer in answers)
      for peer, answers in told.items()
      if "skipped" not in answers[-1]
    }

  rates, of_cpu = medians("images_per_second"), medians("images_per_cpu_second")
  sizes = {peer: told[peer][0]["parameters"] for peer in rates}
  if len(set(sizes.values())) > 1:
    sys.exit(f"{case}: the peers do not train the same network: {sizes} parameters")

  def cells(figures: dict[str, float], peer: str) -> list[str]:
    own = figures.get("imgclf step")
    return [f"{figures[peer]:,.0f}", f"{figures[peer] / own:.2f}" if own else ""]

  for peer, answers in told.items():
    if peer in rates:
      row = [*cells(rates, peer), *cells(of_cpu, peer), answers[0]["versions"]]
    else:
      row = ["skipped", "", "", "", answers[-1]["skipped"]]
    print(f"| {' | '.join([case, peer, *row])} |", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--preset", choices=PRESETS, default="cpu")
  parser.add_argument("--case", choices=CASES, action="append", help="instead of a preset's")
  parser.add_argument("--peer", choices=PEERS, action="append", help="instead of all")
  parser.add_argument("--rounds", type=int, default=3)
  options = parser.parse_args()
  print(f"{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}\n")
  print("| case | peer | images/s | of imgclf step | images/CPU s | of imgclf step | versions |")
  print("|---|---|---:|---:|---:|---:|---|")
  for case in options.case or PRESETS[options.preset]:
    compare(case, options.rounds, options.peer or tuple(PEERS))


if __name__ == "__main__":
  main()
