"""Results of real Ray Tune join a sweep's folder and stand on its front; what does not fit is refused in words."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.folder import read_front, weights
from nas.imports import import_tune
from nas.pareto import OBJECTIVES, front
from nas.ray_session import open_session
from nas.results import Results
from nas.search import search
from nas.sweep import Budget, Limits, Sweep, SweepError
from nas.sweep_file import read_sweep
from nas.tune import ray, searcher, trainable, tune
from searchspace.checkpoint import load as load_network
from searchspace.cost import cost
from searchspace.notation import from_json

pytestmark = pytest.mark.slow  # real Ray Tune first

SWEEP = """format: sweep/1
name: stripes
data: stripes.npz
space:
  width: [0.5, 1.0]
  stages:
    - {block: [plain, residual, fire], width: [8, 16], kernel: [3, [1, 3]]}
limits: {flops: 120k}
seeds: [{network: resnet, depth: 18, widen: 0.0625}]
sampler: random
budget: {trials: 3}
training: {epochs: 2, batch_size: 16}
workers: {address: inprocess}
tracking: {uri: "off"}
"""
TRIALS = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    images = rng.normal(size=(120, 8, 8)).astype(np.float32)
    for i, label in enumerate(labels):
        images[i, label * 2 : label * 2 + 3] += 1.0
    np.savez(path / "stripes.npz", images=images, labels=labels)
    (path / "sweep.yaml").write_text(SWEEP.replace("seeds: [{network: resnet, depth: 18, widen: 0.0625}]\n", ""))
    return path


@pytest.fixture(scope="module")
def sweep(folder: Path) -> Sweep:
    return read_sweep(folder / "sweep.yaml")


@pytest.fixture(scope="module")
def experiment(sweep: Sweep, folder: Path) -> Path:
    """Five trials of Tune that were trained to their end."""
    before = signal.getsignal(signal.SIGINT)
    open_session(ray, None, (), False)
    try:
        found = tune.Tuner(
            tune.with_resources(trainable(sweep), {"cpu": 1}),
            tune_config=tune.TuneConfig(search_alg=searcher(sweep), num_samples=TRIALS, reuse_actors=True),
            run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
        ).fit()
    finally:
        ray.shutdown()
        signal.signal(signal.SIGINT, before)  # Tune keeps it
    assert not found.errors
    return folder / "tune"


def nas(*words: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cli", *words], capture_output=True, text=True, env=clean, timeout=55
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def reports(experiment: Path) -> dict[str, dict[str, Any]]:
    """The last report of each trial, by digest."""
    records = [json.loads(path.read_text().splitlines()[-1]) for path in experiment.glob("*/result.json")]
    return {record["digest"]: record for record in records}


def edited(experiment: Path, target: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of the experiment in which the reports of one trial are changed."""
    shutil.copytree(experiment, target)
    path = sorted(target.glob("*/result.json"))[0]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        change(record)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return target


def objectives(sweep: Sweep) -> list[Any]:
    return [OBJECTIVES[name] for name in sweep.objectives]


def test_a_new_folder_is_begun_and_its_front_is_that_of_the_trials(
    sweep: Sweep, folder: Path, experiment: Path, tmp_path: Path
) -> None:
    out, told = tmp_path / "out", reports(experiment)
    done = nas("import", str(experiment), "--into", str(out), "--sweep", str(folder / "sweep.yaml"), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {k: said[k] for k in ("joined", "known", "over", "failed", "unfinished")} == {
        "joined": TRIALS, "known": 0, "over": 0, "failed": 0, "unfinished": 0,
    }  # fmt: skip
    rows = list(Results(out / "results.jsonl"))
    assert {row.digest for row in rows} == told.keys()
    assert [row.trial for row in rows] == [-1, -2, -3, -4, -5]
    for row in rows:
        report, architecture = told[row.digest], from_json(row.architecture)
        assert row.values["accuracy"] == report["accuracy"]
        assert {k: row.values[k] for k in ("flops", "params")} == {
            "flops": cost(architecture).flops,
            "params": cost(architecture).params,
        }
        assert (row.epoch, row.final, row.kind, row.name) == (2, True, "tune", report["trial_id"])
        assert [point.epoch for point in row.curve] == [1, 2]
    shown = nas("front", str(out))
    members = front(rows, objectives(sweep))
    assert [int(line.split()[0]) for line in shown.stdout.splitlines()[1:]] == [row.trial for row in members]
    for row in read_front(out):
        assert 0 <= row.values["test_accuracy"] <= 1
        assert load_network(weights(out, row.trial)).architecture.digest == row.digest
    assert (out / "front.html").stat().st_size > 0


def test_both_stand_on_one_front_and_a_second_import_adds_nothing(
    sweep: Sweep, experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    search(sweep, out)
    searched = list(Results(out / "results.jsonl"))
    first = import_tune(experiment, out)
    rows = list(Results(out / "results.jsonl"))
    twins = {row.digest for row in searched} & reports(experiment).keys()
    assert (first.joined, first.known) == (TRIALS - len(twins), len(twins))
    assert rows[: len(searched)] == searched
    assert [row.trial for row in read_front(out)] == [row.trial for row in front(rows, objectives(sweep))]
    second = import_tune(experiment, out)
    assert (second.joined, second.known) == (0, TRIALS)
    assert list(Results(out / "results.jsonl")) == rows
    assert [row.trial for row in second.outcome.front] == [row.trial for row in first.outcome.front]


def test_a_search_goes_on_after_an_import_and_trains_nothing_that_joined(
    sweep: Sweep, experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    import_tune(experiment, out, sweep)
    outcome = search(replace(sweep, budget=Budget(trials=4)), out)
    rows = list(outcome.results)
    assert [row.trial for row in rows if row.kind == "trial"] == [0, 1, 2, 3]
    assert len({row.digest for row in rows}) == TRIALS + 4
    assert [row.trial for row in outcome.front] == [row.trial for row in front(rows, objectives(sweep))]


def test_a_seed_of_the_sweep_keeps_its_number(folder: Path, experiment: Path, tmp_path: Path) -> None:
    (folder / "seeded.yaml").write_text(SWEEP)
    sweep, out = read_sweep(folder / "seeded.yaml"), tmp_path / "out"
    sweep = replace(sweep, limits=Limits(), budget=Budget(trials=1))
    import_tune(experiment, out, sweep)
    assert [row.trial for row in Results(out / "results.jsonl")] == [-2, -3, -4, -5, -6]
    kinds = {row.trial: row.kind for row in search(sweep, out).results}
    assert kinds == {-1: "seed", 0: "trial", **dict.fromkeys(range(-6, -1), "tune")}


def test_what_is_over_a_limit_does_not_join(sweep: Sweep, experiment: Path, tmp_path: Path) -> None:
    flops = sorted(report["flops"] for report in reports(experiment).values())
    tighter = replace(sweep, limits=Limits(costs={"flops": flops[1]}))
    inside = sum(f <= flops[1] for f in flops)
    found = import_tune(experiment, tmp_path / "out", tighter)
    assert (found.joined, found.over) == (inside, TRIALS - inside)
    assert max(row.values["flops"] for row in found.outcome.results) <= flops[1]


def test_failed_and_unfinished_trials_are_counted_and_do_not_join(
    sweep: Sweep, experiment: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "tune"
    shutil.copytree(experiment, copy)
    cut, failed, waiting, way, _ = sorted(copy.glob("*/result.json"))
    cut.write_text(cut.read_text()[:-30])
    failed.write_text("")
    (failed.parent / "error.txt").write_text("out of memory")
    waiting.unlink()
    way.write_text(way.read_text().replace('"final": true', '"final": false'))
    found = import_tune(copy, tmp_path / "out", sweep)
    assert (found.joined, found.failed, found.unfinished) == (1, 1, 3)


def test_a_partial_training_or_a_failure_in_the_folder_does_not_keep_a_result_out(
    sweep: Sweep, experiment: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    import_tune(experiment, tmp_path / "first", sweep)
    rows = list(Results(tmp_path / "first" / "results.jsonl"))
    with Results(out / "results.jsonl") as table:
        table.append(replace(rows[0], trial=0, kind="trial", state="failed", final=False, epoch=0, error="lost"))
    found = import_tune(experiment, out, sweep)
    assert (found.joined, found.known) == (TRIALS, 0)


def test_a_front_member_without_its_network_joins_and_that_is_said(
    sweep: Sweep, experiment: Path, tmp_path: Path
) -> None:
    copy, said = tmp_path / "tune", list[str]()
    shutil.copytree(experiment, copy)
    for path in copy.glob("*/checkpoint_*/*"):
        path.unlink()
    found = import_tune(copy, tmp_path / "out", sweep, say=said.append)
    assert found.joined == TRIALS
    assert found.outcome.front
    assert any("joins without its network" in line for line in said)
    assert all("test_accuracy" not in row.values for row in found.outcome.front)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.pop("nas"), "must be a report of nas.tune.trainable"),
        (lambda r: r["nas"].update(format="tune/9"), "format 'tune/1'.*got 'tune/9'"),
        (lambda r: r["nas"]["setting"].update({"training.epochs": 5}), r"epochs: must be the sweep's \(2; got 5"),
        (lambda r: r["nas"]["setting"].update(data="0" * 8), "data: must be the sweep's"),
        (lambda r: r["nas"]["curve"].pop(), "must be trained for 2 epochs .got 1"),
        (lambda r: r["nas"].update(curve=[[1, "x", 0, 0, 0]]), "all its parts .*a finite number"),
        (lambda r: r["nas"].update(curve=[[2, 0.1, 0.1, 0.1, math.nan]]), "all its parts .*a finite number"),
        (lambda r: r["nas"].pop("worker"), "all its parts .KeyError: 'worker'"),
        (lambda r: r.update(nas=7), "a line must be a report as JSON"),
        (lambda r: r.pop("digest"), "all its parts .KeyError: 'digest'"),
        (lambda r: r.update(digest="0" * 16), "must stand for the network that was trained"),
        (lambda r: r["config"].update({"stage1.width": 9}), "must be of the sweep's space .*'stage1.width'"),
        (lambda r: r.update(config=[]), "all its parts|must be of the sweep's space"),
    ],
)  # fmt: skip
def test_a_report_that_does_not_fit_is_refused_and_nothing_is_written(
    sweep: Sweep, experiment: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    broken = edited(experiment, tmp_path / "tune", change)
    with pytest.raises(SweepError, match=words):
        import_tune(broken, tmp_path / "out", sweep)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", [b"no json\n", b"[1]\n", b"\xff\xfe\n", b"\n", b"[" * 100_000 + b"\n"])
def test_a_broken_line_is_refused_by_file_and_number(
    sweep: Sweep, experiment: Path, tmp_path: Path, line: bytes
) -> None:
    copy = tmp_path / "tune"
    shutil.copytree(experiment, copy)
    path = sorted(copy.glob("*/result.json"))[0]
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(SweepError, match=r"result\.json:2: a line must be a report as JSON"):
        import_tune(copy, tmp_path / "out", sweep)


@pytest.mark.parametrize(
    ("where", "words", "said"),
    [
        ("checkpoint_000000", ["--sweep", "sweep.yaml"], "must be the folder of a Ray Tune experiment"),
        (".", ["--sweep", "sweep.yaml"], "tune is one"),
        ("tune", [], "--sweep say whose it becomes"),
        ("tune", ["--sweep", "digits"], "training.epochs: must be the sweep's"),
    ],
)
def test_wrong_folders_are_refused_in_words(
    folder: Path, experiment: Path, tmp_path: Path, where: str, words: list[str], said: str
) -> None:
    words = [str(folder / word) if word.endswith(".yaml") else word for word in words]
    done = nas("import", str(folder / where), "--into", str(tmp_path / "out"), *words)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()


def test_the_folder_of_another_sweep_is_refused(sweep: Sweep, experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_tune(experiment, out, sweep)
    before = (out / "results.jsonl").read_bytes()
    with pytest.raises(SweepError, match="belongs to another sweep"):
        import_tune(experiment, out, replace(sweep, limits=Limits()))
    assert (out / "results.jsonl").read_bytes() == before


def test_the_example_runs_and_its_trials_make_a_front(tmp_path: Path) -> None:
    example = Path("experiments/tune_digits.py")
    assert len(example.read_text().splitlines()) <= 30
    words = [sys.executable, "-m", "experiments.tune_digits", str(tmp_path / "tune"), "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^0\.\d{3} .* FLOPs$", done.stdout, re.MULTILINE)) == 2
    found = nas("import", str(tmp_path / "tune"), "--into", str(tmp_path / "out"), "--sweep", "digits", "--json")
    assert json.loads(found.stdout)["joined"] == 2
    assert json.loads(nas("front", str(tmp_path / "out"), "--json").stdout)["members"]
