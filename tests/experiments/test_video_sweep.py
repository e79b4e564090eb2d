"""The video sweep that ships, cut short, as a user runs it: moving digits, real Ray, real MLflow, every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from experiments.opened import shipped
from nas.data import load
from nas.folder import read_front, read_sweep_of
from nas.results import Results
from nas.sweep_file import read_sweep
from searchspace.notation import from_json
from searchspace.spaces import open_space

pytestmark = pytest.mark.slow


def nas(*words: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    command = [sys.executable, "-m", "experiments.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    return done


def test_a_short_video_sweep_learns_space_and_time_and_every_command_takes_its_networks(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    nas("search", "digits-video", "--out", out, "--trials", "4", "--epochs", "2")
    sweep, rows = read_sweep_of(Path(out)), list(Results(Path(out) / "results.jsonl").latest().values())
    assert Counter(row.kind for row in rows) == {"seed": len(sweep.seeds), "trial": 4}
    assert {row.state for row in rows} == {"complete"}
    assert all(from_json(row.architecture).input == (1, 4, 16, 16) for row in rows)
    assert all(row.values[name] <= limit for row in rows for name, limit in sweep.limits.costs.items())
    best = max(read_front(Path(out)), key=lambda row: row.values["accuracy"])
    assert best.values["accuracy"] > 0.15, "three times chance"
    assert best.values["test_accuracy"] > 0.15
    assert best.name or f"{best.trial} " in nas("front", out).stdout
    again = json.loads(nas("train", out, "--trial", str(best.trial), "--seeds", "1", "--epochs", "1", "--json").stdout)
    assert len(again["test_accuracies"]) == 1
    pruned = json.loads(
        nas("prune", "dead", out, "--trial", str(best.trial), "--data", "digits-video", "--json").stdout
    )
    assert pruned["proof"]["relative_error"] < 1e-10
    assert pruned["test_accuracy_before"] == pruned["test_accuracy_after"] == best.values["test_accuracy"]


def test_the_space_offers_both_values_of_every_choice_to_the_sampler() -> None:
    from random import Random

    sweep = read_sweep(shipped("sweeps")["digits-video"], shipped("spaces"))
    data = load(sweep.data)
    space, rng = open_space(sweep.space, input=data.input, classes=data.classes), Random(0)
    codes = [space.sample(rng).code for _ in range(300)]
    seen = {name: {code[name] for code in codes if name in space.active(code)} for name in space.choices}
    assert {name: found for name, found in seen.items() if found != set(space.choices[name])} == {}
