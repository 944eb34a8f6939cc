"""Holds the locked dependencies of this Python against PyPI's known vulnerabilities, with
pip-audit.

    .venv/bin/python .ci/audit.py

pip-audit: of the Python Packaging Authority and kept up, Apache 2.0, 6 MB; its rivals are no Python
package or want an account. By its exit code alone "unreachable" looks like "found", and an index
without such data like "nothing found", so what it reports is read here.

A finding is printed in full and fails nothing: a hole that was published overnight is in main as
well, and would keep every other change from landing. AUDIT_STRICT=1 makes it exit with 1, and so
where nothing could be audited: for a nightly job, a release, a renewal of the lock.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

LOCK = pathlib.Path(__file__).parents[1] / "requirements.lock"
# Holes of 2022: a data base that reports none here knows nothing of the others either.
KNOWN_BAD = "pillow==9.0.0\n"


def audit(path, seconds):
  """What pip-audit reports for each dependency in a file; ValueError with the reason where
  nothing.
  """
  options = ["--disable-pip", "--no-deps", "--timeout=3", "--format=json", "--progress-spinner=off"]
  command = [sys.executable, "-m", "pip_audit", *options, f"--requirement={path}"]
  try:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    return json.loads(done.stdout)["dependencies"]
  except subprocess.TimeoutExpired:
    raise ValueError(f"no answer within {seconds} s") from None
  except json.JSONDecodeError:
    raise ValueError((done.stderr.splitlines() or ["pip-audit said nothing"])[-1]) from None


def main():
  """Prints what is known, and returns the exit code."""
  strict = os.environ.get("AUDIT_STRICT") == "1"
  try:
    with tempfile.TemporaryDirectory() as folder:
      control = pathlib.Path(folder, "requirements.txt")
      control.write_text(KNOWN_BAD)
      if not any(dependency.get("vulns") for dependency in audit(control, seconds=8)):
        raise ValueError("the index that is reached here has no data on vulnerabilities")
    found = audit(LOCK, seconds=180)
  except ValueError as reason:
    print(f"audit: WARNING: nothing was audited: {reason}")
    return int(strict)
  audited = [dependency for dependency in found if "vulns" in dependency]
  holes = [(dependency, hole) for dependency in audited for hole in dependency["vulns"]]
  for dependency, hole in holes:
    names = ", ".join([hole["id"], *hole["aliases"]])
    mended = ", ".join(hole["fix_versions"]) or "no version yet"
    print(
      f"audit: WARNING: {dependency['name']} {dependency['version']}: {names}, mended in {mended}"
    )
    print(f"  {hole['description']}")
  for dependency in found:
    if dependency not in audited:
      print(f"audit: WARNING: {dependency['skip_reason']}")
  print(f"audit: {len(audited)} of {len(found)} dependencies audited, {len(holes)} holes known")
  return int(strict and bool(holes))


if __name__ == "__main__":
  sys.exit(main())
