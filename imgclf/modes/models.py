"""The networks that there are, and what each takes, as a table."""

from imgclf import models, tables

_LINE = "{:<19} {:>11} {:>14} {:>6} {:>8} {:>9}"


def run() -> dict[str, models.Cost]:
  """Prints a line for each network as soon as its costs are known: nothing is computed, but a trace takes its time.

  Returns:
    The costs by the network's name.
  """
  costs = {}
  tables.print_line(
    _LINE.format("model", "parameters", "multiply-adds", "image", "classes", "smallest")
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
      )
    )
  return costs
