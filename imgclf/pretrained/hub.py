"""timm's weights on the Hugging Face hub: a name -> a folder of files on this machine, at one
commit.

The package is optional. Only the files that are asked for are fetched: no code, no pickle.
"""

import dataclasses
import pathlib
import re
from typing import Any

from imgclf.errors import UserError


@dataclasses.dataclass(frozen=True)
class Fetched:
  """Files that were fetched.

  Attributes:
    folder: that holds them, in the hub's own cache.
    revision: the commit, 40 hexadecimal digits.
  """

  folder: pathlib.Path
  revision: str


def fetch(name: str, revision: str | None, where: str, files: tuple[str, ...]) -> Fetched:
  """Fetches files of `timm/NAME`, or finds them in the cache; a commit that is there needs no
  network.

  Args:
    name: as timm calls the weights, such as `resnet50.a1_in1k`.
    revision: branch, tag or commit; none: the newest commit.
    where: how an error calls it.
    files: names of the files.

  Raises:
    UserError: if the package is missing, or the hub does not give the files.
  """
  try:
    import huggingface_hub
  except ModuleNotFoundError as error:
    raise UserError(
      f"{where}: needs {error.name or 'huggingface_hub'}, which is not installed; pip install 'imgclf[hub]', or give "
      "file:PATH.safetensors"
    ) from None
  api: Any = huggingface_hub
  repository = f"timm/{name}"
  try:
    commit = revision
    if commit is None or not re.fullmatch(r"[0-9a-f]{40}", commit):
      commit = str(api.model_info(repository, revision=revision).sha)
    paths = [pathlib.Path(api.hf_hub_download(repository, f, revision=commit)) for f in files]
  except Exception as error:  # of the hub, the network or the disk, which have no class in common
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    raise UserError(
      f"{where}: the hub does not give {repository} ({reason}); look for the name at "
      "https://huggingface.co/timm, or give file:PATH.safetensors"
    ) from None
  return Fetched(paths[0].parent, commit)
