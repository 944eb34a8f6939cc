"""The networks that there are, and what each takes, as a table."""

from imgclf import models, tables
from imgclf.models import torch_names

_LINE = "{:<18} {:>11} {:>13} {:>5} {:>7} {:>8} {:>11}"


# Whose files of weights are taken, in a word.
_LIBRARIES = {
  ("torchvision", "timm"): "both",
  ("torchvision",): "torchvision",
  ("timm",): "timm",
  (): "-",
}


def run() -> dict[str, models.Cost]:
  """Prints a line for each network as soon as its costs are known: nothing is computed, but a trace
  takes its time.

  Returns:
    The costs by the network's name.
  """
  costs = {}
  tables.print_line(
    _LINE.format(
      *("model", "parameters", "multiply-adds", "image", "classes", "smallest", "weights of")
    )
  )
  for name in models.names():
    cost = costs[name] = models.cost(name)
    tables.print_line(
      _LINE.format(
        name,
        f"{cost.parameters:,}",
        f"{cost.multiply_adds / 1e6:,.1f} M",
        cost.image_size,
        cost.num_classes,
        cost.smallest,
        _LIBRARIES[torch_names.libraries(name)],
      )
    )
  return costs
