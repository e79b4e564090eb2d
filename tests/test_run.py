"""The run of all tests: what was skipped, and may not be, fails it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SUITE = """
import pytest
def test_runs():
    pass
@pytest.mark.parametrize("n", [1, 2])
def test_is_skipped(n):
    pytest.skip("no reason")
@pytest.mark.xfail
def test_may_fail():
    raise ValueError
"""


def test_a_skipped_test_and_a_skipped_module_fail_the_full_tier(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(SUITE)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_module_anywhere')\n")
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--full", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=55, check=False)
    _, found, listed = done.stdout.partition("These tests must run in the full tier, but were skipped:\n")
    assert found, done.stdout
    module, *tests = sorted(line.strip() for line in listed.splitlines())
    assert module.startswith("test_module.py: Skipped: could not import 'no_such_module_anywhere'")
    assert tests == [f"test_one.py::test_is_skipped[{n}]: Skipped: no reason" for n in (1, 2)]
    assert done.returncode == 1
