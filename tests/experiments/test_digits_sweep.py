"""The sweep that the README shows, as a user runs it: real digits, real Ray, real MLflow."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest

from nas.data import load
from nas.folder import read_front, read_sweep_of
from nas.results import Results
from searchspace.spaces import open_space

pytestmark = pytest.mark.slow


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}


def test_every_dimension_takes_two_values_and_the_front_is_worth_looking_at(tmp_path: Path) -> None:
    out = tmp_path / "digits"
    command = [sys.executable, "-m", "experiments.cli", "search", "digits", "--out", str(out)]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False, timeout=560)
    assert done.returncode == 0, done.stderr
    print(f"the digits sweep took {time.monotonic() - start:.0f} s")
    sweep, rows = read_sweep_of(out), list(Results(out / "results.jsonl"))
    data = load("digits", seed=sweep.seed)
    space = open_space(sweep.space, input=data.input, classes=data.classes)
    seen: dict[str, set[object]] = defaultdict(set)
    for row in rows:
        if row.state == "complete":
            assert row.choices is not None
            for name in space.active(row.choices):  # type: ignore[arg-type]
                seen[name].add(row.choices[name])
    assert {name: len(seen[name]) for name in space.choices if len(seen[name]) < 2} == {}
    last = {row.trial: row for row in rows}
    assert len({row.digest for row in rows}) == len(last) > 60, "more networks than 60 trainings to the end would try"
    assert sweep.budget.epochs is not None
    assert sweep.budget.epochs - 8 < sum(row.epoch for row in last.values()) <= sweep.budget.epochs
    assert {row.epoch for row in last.values()} == set(sweep.levels)
    assert all(row.values[name] <= limit for row in rows for name, limit in sweep.limits.costs.items())
    assert all(row.worker.node and row.worker.pid and row.worker.device for row in rows)
    assert len({row.worker.pid for row in rows}) >= 2, "two workers must have shared the work"
    members = read_front(out)
    assert max(row.values["accuracy"] for row in members) > 0.93
    assert max(row.values["test_accuracy"] for row in members) > 0.9
    assert len(members) >= 5
    gap = max(map(len, re.split(r"\n", done.stderr)), default=0)
    assert gap < 400, "lines must fit a screen"


def pythons_of_the_readme() -> list[str]:
    return re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)


def test_the_networks_of_the_readme_build() -> None:
    _, code = pythons_of_the_readme()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == re.findall(r"print\(.*# ([\d.]+)", code)


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    code, _ = pythons_of_the_readme()
    assert len(code.strip().splitlines()) <= 12
    shorter = code.replace(
        "    outcome = search(",
        "    import dataclasses, nas.sweep\n"
        "    sweep = dataclasses.replace(sweep, budget=nas.sweep.Budget(trials=2))\n"
        "    outcome = search(",
    )
    assert shorter != code
    script = tmp_path / "readme.py"
    script.write_text(shorter.replace('"runs/digits-python"', repr(str(tmp_path / "out"))))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=environment(), check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2" in done.stdout
    assert "FLOPs" in done.stdout
