"""Ten ways to get pretrained weights or rules wrong, and what imgclf says of each: one line with
the mend.

    python benchmarks/refusals.py

Writes the wrong files into a temporary folder, and begins a run of ResNet-18 on the embedded digits
with each.
"""

import pathlib
import tempfile

import numpy as np
from safetensors.numpy import save_file

import imgclf
from imgclf import models
from imgclf.models import torch_names


def arrays(name: str) -> dict[str, np.ndarray]:
  """Returns weights of a network as torchvision names and lays them out."""
  section = imgclf.default_config().model
  section.name = name
  model = models.create(section, 1000, axis_name=None)
  there = torch_names.tensors(models.shapes(model, 224), torch_names.layouts(model)[0])
  draw = np.random.default_rng(0)
  return {t.name: draw.normal(0, 0.05, t.shape).astype(np.float32) for t in there.values()}


def wrong(folder: pathlib.Path) -> dict[str, dict[str, str]]:
  """Returns what is wrong, and the fields of a config that say so; writes the files."""
  good = arrays("resnet18")

  def file(name: str, content: dict[str, np.ndarray]) -> str:
    save_file(content, folder / f"{name}.safetensors")
    return f"file:{folder / name}.safetensors"

  whole = file("good", good)
  cut = folder / "cut.safetensors"
  cut.write_bytes((folder / "good.safetensors").read_bytes()[:100_000])
  (folder / "resnet18.pth").write_bytes(b"\x80\x02")
  lacking = {name: x for name, x in good.items() if name != "layer3.0.bn2.running_var"}
  nan = good | {"bn1.weight": np.full(64, np.nan, np.float32)}
  return {
    "no such file": {"weights": f"file:{folder / 'none.safetensors'}"},
    "a pickle": {"weights": f"file:{folder / 'resnet18.pth'}"},
    "cut short": {"weights": f"file:{cut}"},
    "those of another depth": {"weights": file("resnet34", arrays("resnet34"))},
    "an array is missing": {"weights": file("lacking", lacking)},
    "a stem of another shape": {"weights": whole, "stem": "cifar"},
    "a NaN": {"weights": file("nan", nan)},
    "a folder that holds no run": {"weights": f"run:{folder}"},
    "a rule for no parameter": {"weights": whole, "rules": "haed/*: lr=10"},
    "a word that no rule has": {"weights": whole, "rules": "head/*: rate=10"},
  }


def main() -> None:
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    print("| what is wrong | what is said |\n|---|---|")
    for number, (what, fields) in enumerate(wrong(folder).items()):
      config = imgclf.default_config()
      config.dataset.name, config.model.name = "digits", "resnet18"
      config.dataset.data_dir = temporary
      config.optimizer.rules = fields.pop("rules", "")
      config.model.update(fields)
      try:
        imgclf.train(config, folder / f"run{number}", quiet=True)
      except imgclf.UserError as error:
        print(f"| {what} | `{str(error).replace(temporary, 'DIR')}` |", flush=True)
      else:
        raise SystemExit(f"{what}: nothing was said")


if __name__ == "__main__":
  main()
