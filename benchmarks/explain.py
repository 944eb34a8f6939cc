"""How far the heat maps of a trained run can be trusted, method by method, as a table.

    python benchmarks/explain.py --workdir=runs/digits [--images=64] [--split=test]

The first images of a split, each explained for its true class. Deletion and insertion are areas
under the class's probability while the pixels of most heat go, or come; in brackets those of a
random order. The last two columns compare each map with that of the same network with redrawn
weights, by rank, over several draws.
"""

import argparse

import jax
import numpy as np

import imgclf
from imgclf import explain
from imgclf.data import datasets, loader

DRAWS = 3


def examples(run: imgclf.Run, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
  """The first images of a split as evaluation crops them, and their classes."""
  records = datasets.open(run.config["dataset"]).records(split)
  crop = loader.eval_crop(run.config)
  taken = [records[i] for i in range(min(count, len(records)))]
  return np.stack([crop(r) for r in taken]), np.array([r.label for r in taken], np.int32)


def correlations(before: np.ndarray, after: np.ndarray) -> tuple[float, float, float]:
  """Mean rank correlations of whole maps and of their middle half, and the share that has none.

  Args:
    before: [batch, size, size], maps of the run.
    after: [draws, batch, size, size], those of the redrawn runs.
  """
  quarter = before.shape[1] // 4
  middle = np.s_[:, quarter:-quarter, quarter:-quarter]
  told = [
    np.array([explain.rank_correlation(before[part], maps[part]) for maps in after])
    for part in (np.s_[:], middle)
  ]
  return (*(float(np.nanmean(values)) for values in told), float(np.mean(np.isnan(told[0]))))


def row(
  run: imgclf.Run, images: np.ndarray, classes: np.ndarray, method: str, maps: np.ndarray
) -> str:
  """The cells of one method, which gave these maps."""
  areas = explain.deletion_insertion(run, images, classes, maps)
  # A path is cut no further than at first: it is not the sum that is looked at here.
  once = {"max_steps": 16, "tolerance": np.inf} if method == "integrated_gradients" else {}
  after = np.array(
    [
      explain.heatmaps(explain.redrawn(run, seed), images, classes, method, **once)
      for seed in range(DRAWS)
    ]
  )
  whole, middle, empty = correlations(maps, after)
  means = {name: float(np.mean(values)) for name, values in vars(areas).items()}
  cells = [
    f"`{method}`",
    f"{means['deletion']:.3f} ({means['random_deletion']:.3f})",
    f"{means['insertion']:.3f} ({means['random_insertion']:.3f})",
    f"{whole:.2f} / {middle:.2f}",
    f"{empty:.0%}",
  ]
  return f"| {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--split", default="test")
  parser.add_argument("--images", type=int, default=64)
  options = parser.parse_args(arguments)
  run = imgclf.load(options.workdir)
  images, classes = examples(run, options.split, options.images)
  size, name = run.config["dataset"]["image_size"], run.config["model"]["name"]
  print(
    f"{name}, step {run.step}, {len(images)} images of {options.split} at {size} px; "
    f"JAX {jax.__version__}\n"
  )
  print("| method | deletion | insertion | redrawn, whole / middle | no map |")
  print("|---|---:|---:|---:|---:|", flush=True)
  found = explain.integrated(run, images, classes)
  for method in explain.METHODS:
    known = method == "integrated_gradients"
    maps = found.heatmaps if known else explain.heatmaps(run, images, classes, method)
    print(row(run, images, classes, method, maps), flush=True)
  print(
    f"\nintegrated gradients: gap of completeness median {np.median(found.gaps):.2%}, "
    f"largest {found.gaps.max():.2%}; steps median {np.median(found.steps):.0f}, "
    f"most {found.steps.max()}; complete within 1%: {np.sum(found.gaps <= 0.01)} of {len(images)}"
  )


if __name__ == "__main__":
  main()
