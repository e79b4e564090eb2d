"""Each benchmark runs, in its quick form, and says under which conditions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RECORDS = Path(__file__).parents[2] / "experiments" / "benchmarks"
LONG = {"overhead", "memory", "samplers", "start", "dead"}  # Ray, training, torchvision: the full tier has it
NAMES = [
    pytest.param(path.stem, marks=[pytest.mark.slow, pytest.mark.timeout(600)] if path.stem in LONG else [])
    for path in sorted(RECORDS.glob("*.py"))
    if path.stem != "__init__"
]


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.benchmarks.{name}", "--quick", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(done.stdout)
    assert record["format"] == "benchmark/1"
    assert record["benchmark"] == name
    assert {"python", "torch", "cores"} <= record["conditions"].keys()


@pytest.mark.parametrize("path", sorted(RECORDS.glob("results/*.json")), ids=lambda path: path.stem)
def test_a_record_says_its_conditions(path: Path) -> None:
    record = json.loads(path.read_text())
    assert record["benchmark"] == path.stem
    assert {"python", "torch", "cores", "commit"} <= record["conditions"].keys()
