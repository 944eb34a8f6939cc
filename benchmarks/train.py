"""The same training by imgclf and by its peers, side by side: images a second, and each peer's share of imgclf's.

    python benchmarks/train.py                   the cases for a CPU
    python benchmarks/train.py --preset=gpu      those for a GPU

Needs the peers beside imgclf: `pip install torch torchvision timm keras tensorflow`; one that is missing is
skipped, and told. Peers take turns, each in a process of its own; the figures are medians of the rounds.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

from peers import CASES, PEERS

HERE = pathlib.Path(__file__).parent
PRESETS = {
  "cpu": ("cnn-28", "cnn-224", "resnet50-64"),
  "gpu": ("cnn-28-gpu", "cnn-224-gpu", "resnet50-224-gpu"),
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


def compare(case: str, rounds: int) -> None:
  """Prints the rows of one case."""
  told: dict[str, list[dict]] = {peer: [] for peer in PEERS}
  for _ in range(rounds):
    for peer, answers in told.items():
      if not answers or "skipped" not in answers[-1]:
        answers.append(measured(peer, case))
  rates = {
    peer: statistics.median(answer["images_per_second"] for answer in answers)
    for peer, answers in told.items()
    if "skipped" not in answers[-1]
  }
  of_cpu = {
    peer: statistics.median(answer["images_per_cpu_second"] for answer in told[peer])
    for peer in rates
    if told[peer][0]["images_per_cpu_second"] is not None
  }
  sizes = {peer: told[peer][0]["parameters"] for peer in rates}
  if len(set(sizes.values())) > 1:
    sys.exit(f"{case}: the peers do not train the same network: {sizes} parameters")
  own = rates.get("imgclf step")
  for peer, answers in told.items():
    if peer not in rates:
      print(f"| {case} | {peer} | skipped | | | {answers[-1]['skipped']} |", flush=True)
      continue
    ratio = f"{rates[peer] / own:.2f}" if own else ""
    cpu = f"{of_cpu[peer]:,.0f}" if peer in of_cpu else ""
    cells = (case, peer, f"{rates[peer]:,.0f}", ratio, cpu, answers[0]["versions"])
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--preset", choices=PRESETS, default="cpu")
  parser.add_argument("--case", choices=CASES, action="append", help="instead of a preset's")
  parser.add_argument("--rounds", type=int, default=3)
  options = parser.parse_args()
  print(f"{platform.machine()}, {os.cpu_count()} CPU cores, Python {platform.python_version()}\n")
  print("| case | peer | images/s | ratio to imgclf step | images/CPU s | versions |")
  print("|---|---|---:|---:|---:|---|")
  for case in options.case or PRESETS[options.preset]:
    compare(case, options.rounds)


if __name__ == "__main__":
  main()
