"""What people type to look at something does not wait for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "mlflow", "optuna", "sklearn", "matplotlib", "plotly", "fvcore")


@pytest.mark.parametrize(
    "path",
    ["experiments.cli", "experiments.terminal", "experiments.report, nas.folder"],
    ids=["help", "status lines", "nas front"],
)
def test_a_light_path_imports_nothing_heavy(path: str) -> None:
    code = f"import sys, {path}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
