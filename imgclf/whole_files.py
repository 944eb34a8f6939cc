"""Small files that are there whole or as they were: whoever reads one sees the old bytes or the
new. Knows no format.
"""

import os
import pathlib


def write(path: pathlib.Path, content: bytes) -> None:
  """Writes a file, or replaces it; on the disk before it has its name.

  Nothing is left of one that can't be written.

  Args:
    path: in a folder that is there.
    content: all of it.

  Raises:
    OSError: the system does not let it be written.
  """
  # In the same folder, since a rename is atomic within one file system only.
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with open(temporary, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except BaseException:
    temporary.unlink(missing_ok=True)
    raise
