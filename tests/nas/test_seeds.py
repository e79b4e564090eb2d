"""Seeds: published networks in a sweep, read with their faults, trained first, on the front, never in the study."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from nas.folder import read_front, read_sweep_of
from nas.pareto import OBJECTIVES, Spent, front, hypervolume, hypervolume_history
from nas.results import Results
from nas.retrain import retrain
from nas.search import Status, search
from nas.sweep import Budget, Limits, Sweep, SweepError, Tracking, Workers
from nas.sweep_file import read_sweep
from nas.training import Training
from searchspace.cost import cost
from searchspace.named import network
from searchspace.notation import from_json

SMALL = {"network": "shufflenet_v1", "widen": 0.1}
SMALLER = {"network": "mobilenet_v1", "widen": 0.05}
TITLES = ["shufflenet_v1(widen=0.1)", "mobilenet_v1(widen=0.05)"]
SPACE = {"width": [0.5, 1.0], "stages": [{"block": ["plain", "residual"], "width": [8, 16], "kernel": [3, 5]}]}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """120 images of 8 x 8 in three classes that differ in where they are bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    pictures = rng.normal(size=(120, 8, 8)).astype(np.float32)
    for i, label in enumerate(labels):
        pictures[i, label * 2 : label * 2 + 3] += 1.0
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, images=pictures, labels=labels)
    return str(path)


def sweep_on(images: str, trials: int, **changes: object) -> Sweep:
    sweep = Sweep(
        name="stripes",
        data=images,
        space=SPACE,
        seeds=(SMALL, SMALLER),
        budget=Budget(trials=trials),
        training=Training(epochs=2, batch_size=16),
        workers=Workers(address="inprocess"),
        tracking=Tracking(uri="off"),
    )
    return replace(sweep, **changes)  # type: ignore[arg-type]


def study_in(out: Path) -> optuna.Study:
    name = f"{read_sweep_of(out).name}-{(out / 'id').read_text()}"
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(out / "journal.log"))))


def check_whole(out: Path, trials: int) -> None:
    """Both seeds and every trial once, a front of all of them, and a study of the trials alone."""
    rows = list(Results(out / "results.jsonl").latest().values())
    assert Counter(row.kind for row in rows) == {"seed": 2, "trial": trials}
    assert len({row.digest for row in rows}) == len({row.trial for row in rows}) == trials + 2
    assert sorted((row.trial, row.name) for row in rows if row.kind == "seed") == sorted(zip((-1, -2), TITLES))
    assert {row.state for row in rows} == {"complete"}
    objectives = [OBJECTIVES[name] for name in read_sweep_of(out).objectives]
    assert [row.trial for row in read_front(out)] == [row.trial for row in front(rows, objectives)]
    told = study_in(out).get_trials()
    assert sorted(t.number for t in told) == sorted(row.trial for row in rows if row.kind == "trial")
    assert all(set(t.params) == {"width", "stage1.block", "stage1.width", "stage1.kernel"} for t in told)


# Reading --------------------------------------------------------------------------------------------------------

YAML = """format: sweep/1
name: small
data: digits
space:
  stages:
    - block: plain
      width: [8, 16]
seeds:
"""


def read(tmp_path: Path, seeds: str) -> Sweep:
    path = tmp_path / "sweep.yaml"
    path.write_text(YAML + seeds)
    return read_sweep(path)


def test_a_name_and_a_mapping_are_read_alike_and_survive_json(tmp_path: Path) -> None:
    sweep = read(tmp_path, "  - squeezenet\n  - {network: resnet, depth: 18, widen: 0.25}\n")
    assert sweep.seeds == ({"network": "squeezenet"}, {"network": "resnet", "depth": 18, "widen": 0.25})
    assert Sweep.from_json(json.loads(json.dumps(sweep.to_json()))).seeds == sweep.seeds


def test_every_fault_of_a_seed_is_told_with_its_line(tmp_path: Path) -> None:
    seeds = """  - resnett
  - {network: resnet, depht: 18}
  - {network: resnet, depth: 19}
  - {depth: 18}
  - {network: mobilenet_v2, width: wide}
  - network: mobilenet_v2
    widen: 0
  - 3
"""
    with pytest.raises(SweepError) as caught:
        read(tmp_path, seeds)
    said = [fault.removeprefix(str(tmp_path / "sweep.yaml")) for fault in caught.value.faults]
    expected = [
        (":9: seeds.1: must be one of", "(got 'resnett'; did you mean 'resnet'"),
        (":10: seeds.2.depht: must be one of network, depth, stride_in", "(got 'depht'; did you mean 'depth'?)"),
        (":11: seeds.3: must be a network that can be built (got resnet(depth=19): ", "must be one of 18"),
        (":12: seeds.4: must be a published network, or a mapping", "(got {'depth': 18})"),
        (":13: seeds.5: must be a network that can be built (got mobilenet_v2(width=wide): ", "width"),
        (":14: seeds.6: must be a network that can be built", "`widen` must be a number > 0"),
        (":16: seeds.7: must be a published network", "(got 3)"),
    ]
    assert len(said) == len(expected), said
    for fault, (start, part) in zip(said, expected, strict=True):
        assert fault.startswith(start)
        assert part in fault


def test_seeds_that_are_no_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r":8: seeds: must be a list of published networks \(got None\)"):
        read(tmp_path, "")


@pytest.mark.parametrize(
    ("seed", "limits", "rule"),
    [
        ({"network": "vgg"}, {}, r"seeds\.2: must fit the data's input 1x8x8 \(got vgg: The window must fit"),
        ({"network": "s3d"}, {}, r"seeds\.2: must fit the data's input 1x8x8 \(got s3d: "),
        ({"network": "dilated_context"}, {}, r"seeds\.2: must be a classifier that ends in 3 values"),
        (
            {"network": "mobilenet_v2"},
            {"flops": 1e6, "params": 1e6},
            r"seeds\.2: must be inside the limits; .*mobilenet_v2: flops .* against 1M, params .* against 1M\)",
        ),
        ({"network": "shufflenet_v1", "groups": 3, "widen": 0.1}, {}, r"seeds\.2: must be another network than"),
    ],
)
def test_a_seed_that_the_data_or_the_limits_refuse_stops_the_sweep_before_it_starts(
    tmp_path: Path, images: str, seed: dict[str, object], limits: dict[str, float], rule: str
) -> None:
    first = {"network": "shufflenet_v1", "groups": 3, "widen": 0.1}
    with pytest.raises(SweepError, match=rule):
        search(sweep_on(images, 1, seeds=(first, seed), limits=Limits(costs=limits)), tmp_path / "out")
    assert not (tmp_path / "out" / "results.jsonl").exists()


# Searching ------------------------------------------------------------------------------------------------------


def test_seeds_are_trained_first_and_end_in_results_front_and_mlflow(tmp_path: Path, images: str) -> None:
    from mlflow import MlflowClient

    from experiments.report import front_table, write_report

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    seen: list[Status] = []
    out = tmp_path / "out"
    outcome = search(
        sweep_on(images, 3, tracking=Tracking(uri=store)), out, watch=seen.append, report=lambda o: write_report(o)
    )
    check_whole(out, 3)
    rows = outcome.results
    assert [row.kind for row in rows[:2]] == ["seed", "seed"]
    assert all(row.final for row in rows[:2]), "a seed is trained to its end at once"
    assert seen[-1].done == seen[-1].total == 3
    assert sum(len(status.new) for status in seen) == len(rows)
    for row, record in zip(rows[:2], (SMALL, SMALLER), strict=True):
        built = network(record, input=(1, 8, 8), classes=3)
        assert from_json(row.architecture) == built
        assert row.values["flops"] == cost(built).flops
        assert row.choices is None
    cheapest = min(rows, key=lambda row: row.values["flops"])
    assert cheapest.name == TITLES[1], "the cheapest is on every front"
    member = next(row for row in outcome.front if row.trial == -2)
    assert member.checkpoint is not None
    assert Path(member.checkpoint).exists()
    assert "test_accuracy" in member.values
    assert any(
        line.split()[0] == "-2" and TITLES[1] in line
        for line in front_table(outcome.front, outcome.objectives).splitlines()
    )
    assert TITLES[1] in (out / "front.html").read_text()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = MlflowClient(store)
        (experiment,) = [e for e in client.search_experiments() if e.name == "stripes"]
        runs = client.search_runs([experiment.experiment_id])
    assert Counter(run.data.tags["nas.kind"] for run in runs) == {"sweep": 1, "seed": 2, "trial": 3}
    seeds = {run.info.run_name: run.data.tags for run in runs if run.data.tags["nas.kind"] == "seed"}
    assert sorted(seeds) == sorted(TITLES)
    assert seeds[TITLES[1]]["nas.front"] == "true"


def test_seeds_raise_the_volume_and_are_not_counted_as_trials(tmp_path: Path, images: str) -> None:
    outcome = search(sweep_on(images, 3), tmp_path)
    first = hypervolume(outcome.results[:2], outcome.objectives, outcome.reference)
    assert outcome.history[1] == Spent(0, 0, 0.0, first)
    assert first > 0
    alone = hypervolume_history(outcome.results[2:], outcome.objectives, outcome.reference)
    assert [at.epochs for at in alone] == [at.epochs for at in outcome.history[2:]]
    assert outcome.history[-1].hypervolume == hypervolume(outcome.results, outcome.objectives, outcome.reference)


def test_seeds_count_neither_in_the_trials_nor_in_the_epochs_of_a_budget(tmp_path: Path, images: str) -> None:
    outcome = search(sweep_on(images, 1, budget=Budget(epochs=4)), tmp_path)
    trials = {row.trial: row.epoch for row in outcome.results if row.kind == "trial"}
    assert len(trials) >= 2
    assert 3 <= sum(trials.values()) <= 4


def test_calling_again_trains_no_seed_again(tmp_path: Path, images: str) -> None:
    search(sweep_on(images, 2), tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    search(sweep_on(images, 2), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before
    search(sweep_on(images, 3), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes().startswith(before)
    check_whole(tmp_path, 3)
    with pytest.raises(SweepError, match="seeds: must stay as it was"):
        search(sweep_on(images, 3, seeds=(SMALL,)), tmp_path)


@pytest.mark.parametrize("done", [1, 2])
def test_an_interrupted_search_goes_on_with_the_seeds_that_are_missing(tmp_path: Path, images: str, done: int) -> None:
    seen: list[int] = []

    def interrupt(status: Status) -> None:
        seen.append(len(status.new))
        if sum(seen) == done:
            raise KeyboardInterrupt

    assert search(sweep_on(images, 2), tmp_path, watch=interrupt).interrupted
    assert len(list(Results(tmp_path / "results.jsonl"))) == done
    search(sweep_on(images, 2), tmp_path)
    check_whole(tmp_path, 2)


def test_a_seed_that_fails_is_recorded_and_the_sweep_goes_on(tmp_path: Path, images: str) -> None:
    training = Training(epochs=2, batch_size=16, learning_rate=1e30, warmup_epochs=0.0)
    outcome = search(sweep_on(images, 1, training=training), tmp_path)
    assert [(row.kind, row.state) for row in outcome.results] == [("seed", "failed")] * 2 + [("trial", "failed")]
    assert len(search(sweep_on(images, 1, training=training), tmp_path).results) == 3


def test_a_seed_is_picked_and_trained_again_by_its_number(tmp_path: Path, images: str) -> None:
    search(sweep_on(images, 1), tmp_path)
    found = retrain(tmp_path, -2, 2)
    assert len(set(found.checkpoints)) == len(found.test) == 2
    assert (tmp_path / "retrained" / "seed-0002.json").exists()


SWEEP = """format: sweep/1
name: stripes
data: {data}
space: {space}
seeds: [{{network: shufflenet_v1, widen: 0.1}}, {{network: mobilenet_v1, widen: 0.05}}]
budget: {{trials: 3}}
training: {{epochs: 30, batch_size: 16}}
tracking: {{uri: "off"}}
workers: {{address: inprocess}}
"""


def test_killed_with_9_among_the_seeds_the_same_command_ends_with_each_once(tmp_path: Path, images: str) -> None:
    out, path = tmp_path / "out", tmp_path / "sweep.yaml"
    path.write_text(SWEEP.format(data=images, space=json.dumps(SPACE)))
    command = [sys.executable, "-m", "experiments.cli", "search", str(path), "--out", str(out)]
    clean = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    table = out / "results.jsonl"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean) as process:
        deadline = time.monotonic() + 40
        while not (table.exists() and table.read_bytes().count(b"\n")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert table.read_bytes().count(b"\n") == 1, "the kill must come between the seeds"
    done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    assert "Pareto front of 3 trials and 2 published" in done.stdout
    check_whole(out, 3)
