"""requirements.lock: what CI installs, pinned by hash, is what pyproject.toml asks for."""

import pathlib
import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import pytest

ROOT = pathlib.Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
# A locked requirement is its line, with its hashes, each on a line of its own.
ENTRIES = [
  (Requirement(line), re.findall(r"^    --hash=(\S+)", hashes, re.MULTILINE))
  for line, hashes in re.findall(r"^(\w[^\\\n]*?) ?\\?\n((?:    .*\n)*)", LOCK, re.MULTILINE)
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ASKED = [
  *PROJECT["build-system"]["requires"],
  *PROJECT["project"]["dependencies"],
  *PROJECT["project"]["optional-dependencies"]["test"],
  *PROJECT["dependency-groups"]["ci"],
]
PYTHONS = [
  classifier.rpartition(" ")[2]
  for classifier in PROJECT["project"]["classifiers"]
  if re.search(r"Python :: 3\.\d+$", classifier)
]


def locked(name, environment):
  """The versions that are locked under a name in an environment."""
  return [
    str(requirement.specifier).removeprefix("==")
    for requirement, _ in ENTRIES
    if canonicalize_name(requirement.name) == canonicalize_name(name)
    and (requirement.marker is None or requirement.marker.evaluate(environment))
  ]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", PYTHONS)
def test_each_dependency_is_locked_once_in_a_version_that_pyproject_takes(python, machine):
  environment = {"sys_platform": "linux", "platform_machine": machine, "python_version": python}
  environment["python_full_version"] = f"{python}.1"
  asked = [
    requirement
    for requirement in map(Requirement, ASKED)
    if requirement.marker is None or requirement.marker.evaluate(environment)
  ]
  assert len(asked) >= len(ASKED) - 1
  for requirement in asked:
    (version,) = locked(requirement.name, environment)
    assert requirement.specifier.contains(version, prereleases=False), (requirement, version)
  for requirement, _ in ENTRIES:
    assert len(locked(requirement.name, environment)) <= 1, requirement.name


def test_each_line_pins_one_version_by_sha256_and_nothing_by_address():
  assert len(ENTRIES) > 50
  for requirement, hashes in ENTRIES:
    assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
    assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), requirement
  # Nothing else: every line is a comment, a requirement or a hash, so no option, file or address.
  lines = [line for line in LOCK.splitlines() if not line.lstrip().startswith("#")]
  assert len(lines) == sum(1 + len(hashes) for _, hashes in ENTRIES)
  assert "://" not in LOCK and " @ " not in LOCK


def test_the_command_that_renews_it_is_in_its_head_and_in_contributing():
  command = LOCK.splitlines()[1].removeprefix("#").strip()
  assert command.startswith("uv pip compile ")
  contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
  assert command in re.sub(r"\s*\\\n\s*", " ", contributing)
