"""CI's audit: what it says and returns for what pip-audit reports."""

import importlib.util
import json
import pathlib
import subprocess

import pytest

PATH = pathlib.Path(__file__).parents[1] / ".ci/audit.py"
HOLE = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["9.1"], "description": "It leaks."}
KNOWN = {"name": "pillow", "version": "9.0.0", "vulns": [HOLE]}
CLEAN = {"name": "jax", "version": "1.0", "vulns": []}
HOLED = {"name": "rich", "version": "9.0", "vulns": [HOLE]}
SKIPPED = {"name": "toml", "skip_reason": "Dependency not found on PyPI: toml"}


@pytest.fixture
def audit(monkeypatch):
  """Runs the audit with these reports on the control and on the lock: lists, or an exception."""
  spec = importlib.util.spec_from_file_location("audit", PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)

  def run(*reports, strict="0"):
    left = iter(reports)

    def reported(command, **_):
      report = next(left)
      if isinstance(report, Exception):
        raise report
      said = json.dumps({"dependencies": report}) if report is not None else ""
      return subprocess.CompletedProcess(command, 1, said, "Traceback\nConnectionError: no route")

    monkeypatch.setattr(subprocess, "run", reported)
    monkeypatch.setenv("AUDIT_STRICT", strict)
    return module.main()

  return run


@pytest.mark.parametrize("strict", ["0", "1"])
def test_a_finding_is_printed_in_full_and_fails_only_where_asked(audit, capsys, strict):
  assert audit([KNOWN], [CLEAN, HOLED, SKIPPED], strict=strict) == int(strict)
  assert capsys.readouterr().out.splitlines() == [
    "audit: WARNING: rich 9.0: PYSEC-1, CVE-1, mended in 9.1",
    "  It leaks.",
    "audit: WARNING: Dependency not found on PyPI: toml",
    "audit: 2 of 3 dependencies audited, 1 holes known",
  ]


def test_no_finding_passes(audit, capsys):
  assert audit([KNOWN], [CLEAN], strict="1") == 0
  assert capsys.readouterr().out == "audit: 1 of 1 dependencies audited, 0 holes known\n"


@pytest.mark.parametrize("strict", ["0", "1"])
@pytest.mark.parametrize(
  ("reports", "reason"),
  [
    ([subprocess.TimeoutExpired("pip-audit", 8)], "no answer within 8 s"),
    ([None], "ConnectionError: no route"),
    ([[SKIPPED]], "the index that is reached here has no data on vulnerabilities"),
    ([[KNOWN | {"vulns": []}]], "the index that is reached here has no data on vulnerabilities"),
    ([[KNOWN], None], "ConnectionError: no route"),
  ],
)
def test_where_nothing_is_audited_one_line_says_so(audit, capsys, reports, reason, strict):
  assert audit(*reports, strict=strict) == int(strict)
  assert capsys.readouterr().out == f"audit: WARNING: nothing was audited: {reason}\n"
