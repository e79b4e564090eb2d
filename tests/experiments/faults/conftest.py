"""A tiny sweep in a folder of its own, run by the real command line; what must hold of it after any fault."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nas.folder import read_front, read_sweep_of
from nas.pareto import OBJECTIVES, front
from nas.results import Result, Results

SPACE = {
    "width": [0.5, 1.0],
    "stages": [
        {
            "block": ["plain", "residual", "fire"],
            "width": [8, 12, 16],
            "kernel": [3, 5],
            "depth": [1, 2],
            "alpha": [0.0, 0.5],
        }
    ],
}

TRAININGS = '''
import json
import os
import time
from pathlib import Path

import torch

from nas.train import train


def number(checkpoint):
    return int(checkpoint.name.split("-")[1])


def note(checkpoint, until):
    """A line of who trains what, and whether the table has it already; how many lines the trial had before."""
    path = Path("trainings.log")
    before = path.read_text().splitlines() if path.exists() else []
    table = checkpoint.parents[1] / "results.jsonl"
    lines = table.read_text().splitlines(keepends=True) if table.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\\n") and line.startswith("{")]
    known = any(row["trial"] == number(checkpoint) and row["epoch"] >= until for row in rows)
    with open(path, "a") as file:
        file.write(f"{number(checkpoint)} {os.getpid()} {'known' if known else 'new'}\\n")
    return sum(line.split()[0] == str(number(checkpoint)) for line in before)


def noted(network, data, training, *, checkpoint, until, **more):
    note(checkpoint, until)
    return train(network, data, training, checkpoint=checkpoint, until=until, **more)


def faulty(network, data, training, *, checkpoint, until, **more):
    """Trial 0 loses a worker, 1 has no memory, 2 has weights of NaN, 3 hangs once, 4 hangs; the others are well."""
    trial, before = number(checkpoint), note(checkpoint, until)
    if trial == 0 and not before:
        os.kill(os.getpid(), 9)
    if trial == 1:
        torch.empty(1 << 50)
    if trial == 2:
        torch.nn.utils.vector_to_parameters(
            torch.nan * torch.nn.utils.parameters_to_vector(network.parameters()), network.parameters()
        )
    if trial == 4 or (trial == 3 and not before):
        time.sleep(600)
    return train(network, data, training, checkpoint=checkpoint, until=until, **more)
'''


@dataclass(frozen=True)
class Sweeping:
    """A sweep of `trials` in `root`, where it also runs; its results go to `out`."""

    root: Path
    out: Path
    trials: int

    def command(self, *words: str, script: Sequence[str] = ("-m", "experiments.cli")) -> list[str]:
        return [sys.executable, *script, "search", "sweep.yaml", "--out", str(self.out), *words]

    def start(self, *words: str, script: Sequence[str] = ("-m", "experiments.cli")) -> subprocess.Popen[str]:
        """Begin the search as a terminal would: in a process group of its own."""
        clean = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
        return subprocess.Popen(
            self.command(*words, script=script),
            cwd=self.root,
            env=clean,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, script: Sequence[str] = ("-m", "experiments.cli"), code: int = 0) -> str:
        """The search to its end, which must be with exit code `code`, and without a traceback; what it said."""
        process = self.start(*words, script=script)
        try:
            _, said = process.communicate(timeout=150)
        finally:
            process.kill()
        assert process.returncode == code, said
        assert "Traceback" not in said, said
        return said

    def rows(self) -> list[Result]:
        return list(Results(self.out / "results.jsonl"))

    def trainings(self) -> list[tuple[int, int]]:
        """(trial, process) of every rung job that was begun. None may be one that was in the table then."""
        lines = [line.split() for line in (self.root / "trainings.log").read_text().splitlines()]
        assert [line for line in lines if line[2] == "known"] == []
        return [(int(trial), int(process)) for trial, process, _ in lines]

    def check(self) -> list[Result]:
        """The promises of a finished search, read from its files alone: the last row of each trial."""
        sweep = read_sweep_of(self.out)
        steps = [(r.trial, r.epoch) for r in self.rows() if r.state == "complete"]
        assert len(steps) == len(set(steps)), "every rung of a trial must be there once"
        assert {epoch for _, epoch in steps} <= set(sweep.levels)
        rows = list(Results(self.out / "results.jsonl").latest().values())
        assert len(rows) == self.trials, "every trial must be there"
        assert len({r.digest for r in rows}) == self.trials, "an architecture was proposed twice"
        members = [r.trial for r in front(rows, [OBJECTIVES[name] for name in sweep.objectives])]
        assert [r.trial for r in read_front(self.out)] == members
        journal = JournalStorage(JournalFileBackend(str(self.out / "journal.log")))
        study = optuna.load_study(study_name=f"{sweep.name}-{(self.out / 'id').read_text()}", storage=journal)
        assert all(t.state.is_finished() for t in study.get_trials())
        told = {t.number: t.values for t in study.get_trials() if t.values}
        stopped = {t.number for t in study.get_trials() if t.state == TrialState.PRUNED}
        points = {r.trial: [r.values[o] for o in sweep.objectives] for r in rows if r.final}
        assert {n: point for n, point in points.items() if n not in stopped} == told
        assert {r.trial for r in rows if not r.ended} <= stopped, "what waits at a rung is told as stopped there"
        if sweep.tracking.uri != "off":
            runs = self.runs(self.out / "mlflow.db")
            assert sorted(int(tags["nas.trial"]) for tags in runs) == sorted(r.trial for r in rows)
            assert sorted(int(tags["nas.trial"]) for tags in runs if tags["nas.front"] == "true") == sorted(members)
        return rows

    @staticmethod
    def runs(store: Path) -> list[dict[str, str]]:
        """The tags of every trial's ended run that MLflow's sqlite file has."""
        runs: dict[str, dict[str, str]] = {}
        with sqlite3.connect(store) as base:
            for run, key, value in base.execute(
                "select run_uuid, key, value from tags natural join runs "
                "where lifecycle_stage = 'active' and status != 'RUNNING'"
            ):
                runs.setdefault(run, {})[key] = value
        base.close()
        return [tags for tags in runs.values() if tags.get("nas.kind") == "trial"]


@pytest.fixture
def sweeping(tmp_path: Path) -> Callable[..., Sweeping]:
    """Makes a sweep of so many trials in `tmp_path`, with changes of its parts."""

    def make(trials: int, out: Path | None = None, **changes: object) -> Sweeping:
        labels = np.arange(120) % 3
        images = np.random.default_rng(0).normal(size=(120, 8, 8)).astype(np.float32)
        for i, label in enumerate(labels):
            images[i, label * 2 : label * 2 + 3] += 1.0
        np.savez(tmp_path / "stripes.npz", images=images, labels=labels)
        (tmp_path / "trainings.py").write_text(TRAININGS)
        sweep = {
            "format": "sweep/1",
            "name": "stripes",
            "data": "stripes.npz",
            "space": SPACE,
            "limits": {"flops": "200k"},
            "budget": {"trials": trials},
            "training": {"epochs": 2, "batch_size": 16},
            "workers": {"address": "inprocess"},
            "tracking": {"uri": "off"},
            "train": "trainings:noted",
        }
        (tmp_path / "sweep.yaml").write_text(json.dumps(sweep | changes))  # JSON is YAML
        return Sweeping(tmp_path, out or tmp_path / "out", trials)

    return make


def wait_for(what: Callable[[], object], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until `what` holds, while `process` runs."""
    deadline = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.fixture(name="wait_for")
def _wait_for() -> Callable[..., None]:
    return wait_for
