"""Which module may import which, read from the source: what CONTRIBUTING.md says of the arrows."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# From top to bottom. A name stands for a module, or for a package with all that is in it.
LAYERS = (
  ("launch",),
  ("imgclf.app",),
  ("imgclf.modes",),
  ("imgclf.parts", "imgclf.explain", "imgclf.reporting"),
  ("imgclf.loop", "imgclf.beginning"),
  ("imgclf.validation",),
  ("imgclf.plan",),
  ("imgclf.pretrained", "imgclf.teacher"),
  (
    *("imgclf.judge", "imgclf.run", "imgclf.findings", "imgclf.feeds"),
    *("imgclf.stoppable", "imgclf.preview", "imgclf.prediction_files", "imgclf.exporting"),
  ),
  ("imgclf.prediction", "imgclf.calls"),
  ("imgclf.classifier",),
  (
    *("imgclf.checkpoint", "imgclf.run_folder", "imgclf.progress", "imgclf.steps"),
    *("imgclf.data", "imgclf.memory", "imgclf.sweep_picture"),
  ),
  ("imgclf.saving",),
  ("imgclf.array_files", "imgclf.multilabel_metrics"),
  (
    *(
      "imgclf.models",
      "imgclf.optim",
      "imgclf.augment",
      "imgclf.losses",
      "imgclf.metrics",
      "imgclf.calibration",
      "imgclf.state",
    ),
    *("imgclf.parallel", "imgclf.records", "imgclf.tables", "imgclf.manifest"),
    *("imgclf.retention", "imgclf.identity", "imgclf.output", "imgclf.tensorboard"),
    *("imgclf.compilation", "imgclf.timing", "imgclf.sweep", "imgclf.safetensors_file"),
    "imgclf.timm_config",
    "imgclf.run_paths",
  ),
  ("imgclf.muon", "imgclf.rates", "imgclf.named", "imgclf.ranking"),
  ("imgclf.job", "imgclf.lock"),
  ("imgclf.interrupt",),
  ("imgclf.config_file", "imgclf.command_line"),
  ("imgclf.config",),
  ("imgclf.combinations", "imgclf.schema"),
  ("imgclf.augment_schema", "imgclf.dataset_schema", "imgclf.optimizer_schema"),
  ("imgclf.fields", "imgclf.rules", "imgclf.multilabel", "imgclf.durations"),
  ("imgclf.errors", "imgclf.text", "imgclf.cpu", "imgclf.whole_files"),
)
LAYER_OF = {unit: depth for depth, layer in enumerate(LAYERS) for unit in layer}

# Libraries that one place alone knows. TensorFlow's is loaded only for the export that is its own
# format.
OWNERS = {
  "flatbuffers": {"imgclf.exporting.stablehlo"},
  "grain": {"imgclf.data.loader"},
  "huggingface_hub": {"imgclf.pretrained.hub"},
  "onnx": {
    *("imgclf.exporting.onnx_file", "imgclf.exporting.onnx_graph"),
    "imgclf.exporting.onnx_operators",
  },
  "nvidia": {"imgclf.data.regions"},
  "onnxruntime": {"imgclf.exporting.onnx_file"},
  "jinja2": {"imgclf.reporting.page"},
  "orbax": {"imgclf.array_files"},
  "pyarrow": {"imgclf.prediction_files"},
  "safetensors": {"imgclf.safetensors_file"},
  "rich": {"imgclf.progress", "imgclf.tables"},
  "simplejpeg": {"imgclf.data.jpeg"},
  "sklearn": {"imgclf.data.digits"},
  "tensorboardX": {"imgclf.tensorboard"},
  "tensorflow": {"imgclf.exporting.savedmodel"},
  "tensorflow_datasets": {"imgclf.data.digits", "imgclf.data.splits", "imgclf.data.tfds_sets"},
}


def module_name(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# The package itself is left out: its public names point upwards, and are imported only on use.
SOURCES = {
  module_name(path): path.read_text(encoding="utf-8")
  for path in [ROOT / "launch.py", *sorted((ROOT / "imgclf").rglob("*.py"))]
  if path != ROOT / "imgclf" / "__init__.py"
}


def imports(source):
  """Names that a module imports, at its top or within a function; `from a import b` counts as
  a.b."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, "imports are written in full"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_modules(source):
  """Modules of this repository that a module imports."""
  for name in imports(source):
    if name.split(".")[0] in ("imgclf", "launch"):
      yield name if name in SOURCES else name.rpartition(".")[0] or name


def unit(module):
  """The entry of LAYERS that a module belongs to."""
  while module not in LAYER_OF and "." in module:
    module = module.rpartition(".")[0]
  return module


@pytest.mark.parametrize("module", SOURCES)
def test_every_module_has_a_layer_and_imports_from_lower_ones_only(module):
  home = unit(module)
  assert home in LAYER_OF, f"give {module} a place in LAYERS, and in CONTRIBUTING.md"
  for other in own_modules(SOURCES[module]):
    assert unit(other) in LAYER_OF, f"{module} imports the package itself; import a module of it"
    if unit(other) != home:
      assert LAYER_OF[home] < LAYER_OF[unit(other)], f"{module} imports {other}"


def test_a_mode_imports_no_mode():
  for module, source in SOURCES.items():
    if module.startswith("imgclf.modes."):
      others = {other for other in own_modules(source) if other.startswith("imgclf.modes.")}
      assert others == set(), module


def test_no_imports_go_round_in_a_circle():
  graph = {module: set(own_modules(source)) for module, source in SOURCES.items()}
  graphlib.TopologicalSorter(graph).prepare()


def test_a_library_is_imported_only_where_it_is_at_home():
  found = {library: set() for library in OWNERS}
  for module, source in SOURCES.items():
    for name in imports(source):
      if name.split(".")[0] in found:
        found[name.split(".")[0]].add(module)
  assert found == OWNERS


def test_a_recipe_imports_the_public_names_alone():
  recipes = sorted((ROOT / "configs").glob("*.py"))
  assert len(recipes) >= 6
  for path in recipes:
    own = [name for name in imports(path.read_text(encoding="utf-8")) if "imgclf" in name]
    assert own == ["imgclf"], path.name
