"""The search on real trainings: it records, compares and goes on, whatever ended it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
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
from nas.search import Outcome, Status, search
from nas.sweep import Budget, Limits, Sweep, SweepError, Tracking, Workers
from nas.sweep_file import read_sweep
from nas.training import Training
from searchspace.checkpoint import load as load_network
from searchspace.cost import cost
from searchspace.notation import from_json

SPACE = {
    "width": [0.5, 1.0],
    "stages": [
        {
            "block": ["plain", "residual", "fire"],
            "width": [8, 16],
            "kernel": [3, 5],
            "depth": [1, 2],
            "alpha": [0.0, 0.5],
        },
        {"block": ["bottleneck", "inverted_residual"], "stride": 2, "width": [16, 32], "groups": [1, 2]},
    ],
}


@pytest.fixture(scope="session")
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
        limits=Limits(costs={"flops": 120_000}),
        budget=Budget(trials=trials),
        training=Training(epochs=2, batch_size=16),
        workers=Workers(address="inprocess"),
        tracking=Tracking(uri="off"),
    )
    return replace(sweep, **changes)  # type: ignore[arg-type]


def trials(outcome: Outcome) -> int:
    return len({r.trial for r in outcome.results})


def study_in(out: Path) -> optuna.Study:
    """The Optuna study of the sweep in `out`."""
    name = f"{read_sweep_of(out).name}-{(out / 'id').read_text()}"
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(out / "journal.log"))))


def check_consistent(out: Path, trials: int) -> list[Result]:
    """The promises of a finished search, read from its files alone; the last record of each trial."""
    rows = list(Results(out / "results.jsonl"))
    sweep = read_sweep_of(out)
    last: dict[int, Result] = {}
    for row in rows:
        before = last.get(row.trial)
        assert before is None or not before.ended, "a trial went on after its end"
        if before is not None:
            assert (row.digest, row.seed) == (before.digest, before.seed)
            assert row.state == "failed" or row.epoch == sweep.levels[sweep.levels.index(before.epoch) + 1]
            assert row.curve[: before.epoch] == before.curve, "what was trained before counts to the bit"
        last[row.trial] = row
    assert len(last) == trials
    assert len({r.digest for r in last.values()}) == trials, "an architecture was trained twice"
    objectives = [OBJECTIVES[name] for name in sweep.objectives]
    assert [r.trial for r in read_front(out)] == [r.trial for r in front(last.values(), objectives)]
    told = {t.number: t for t in study_in(out).get_trials()}
    assert all(t.state.is_finished() for t in told.values())
    assert set(last) <= set(told)
    for row in last.values():
        trial = told[row.trial]
        if row.state == "failed":
            assert trial.state == TrialState.FAIL
        elif row.ended:  # one that waited at the end of a shorter sweep was told so
            assert trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            assert trial.values in (None, [row.values[o.name] for o in objectives])
        else:
            assert trial.state == TrialState.PRUNED
            assert trial.values is None
    return list(last.values())


def test_a_search_reaches_its_budget_inside_its_limits(tmp_path: Path, images: str) -> None:
    seen: list[Status] = []
    outcome = search(sweep_on(images, 8), tmp_path / "out", watch=seen.append)
    last = check_consistent(tmp_path / "out", 8)
    assert 4 <= sum(r.final for r in last) < 8, "half go on, and the front of the first rung"
    assert all(cost(from_json(r.architecture)).flops <= 120_000 for r in outcome.results)
    assert all(r.values["flops"] == cost(from_json(r.architecture)).flops for r in outcome.results)
    assert [r for s in seen for r in s.new] == list(outcome.results)
    assert outcome.ended == "the budget is spent"
    assert outcome.levels == seen[-1].levels == (1, 2)
    assert seen[-1].reached == (8, sum(r.final for r in last))
    assert outcome.history[-1].epochs == seen[-1].epochs == sum(r.epoch for r in last)
    assert [at.hypervolume for at in outcome.history] == sorted(at.hypervolume for at in outcome.history)


def test_front_members_keep_their_weights_and_get_a_test_accuracy(tmp_path: Path, images: str) -> None:
    from nas.data import load
    from nas.train import evaluate

    outcome = search(sweep_on(images, 6), tmp_path)
    kept = {p.name.partition(".")[0] for p in (tmp_path / "checkpoints").iterdir()}
    waiting = {r.trial for r in outcome.results if not r.final} - {r.trial for r in outcome.results if r.final}
    assert kept == {f"trial-{n:04d}" for n in (*waiting, *(r.trial for r in outcome.front))}
    data = load(images, seed=0)
    for row in outcome.front:
        assert row.checkpoint is not None
        network = load_network(Path(row.checkpoint))
        assert network.architecture.digest == row.digest
        assert evaluate(network, data, "val")[1] == pytest.approx(row.values["accuracy"])
        assert evaluate(network, data, "test")[1] == pytest.approx(row.values["test_accuracy"])


def test_calling_again_does_nothing_and_a_larger_budget_goes_on(tmp_path: Path, images: str) -> None:
    search(sweep_on(images, 3), tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    search(sweep_on(images, 3), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes() == before
    search(sweep_on(images, 5), tmp_path)
    assert (tmp_path / "results.jsonl").read_bytes().startswith(before)
    check_consistent(tmp_path, 5)


def test_another_sweep_is_refused_with_what_differs(tmp_path: Path, images: str) -> None:
    search(sweep_on(images, 1), tmp_path)
    with pytest.raises(SweepError, match=r"(?s)seed: must stay as it was \(0; got 1\).*belongs to another sweep"):
        search(sweep_on(images, 1, seed=1), tmp_path)


def test_a_limit_out_of_reach_stops_before_anything_starts(tmp_path: Path, images: str) -> None:
    with pytest.raises(SweepError, match="must be within reach of the space, but the nearest architecture has flops"):
        search(sweep_on(images, 1, limits=Limits(costs={"flops": 10.0})), tmp_path)
    assert not (tmp_path / "results.jsonl").exists()


def test_a_sweep_that_could_not_start_leaves_the_folder_free_for_the_mended_one(tmp_path: Path, images: str) -> None:
    for broken in (
        sweep_on(images, 1, limits=Limits(costs={"flops": 10.0})),
        sweep_on(images, 1, train="no_module:train"),
    ):
        with pytest.raises(SweepError):
            search(broken, tmp_path)
    assert trials(search(sweep_on(images, 1), tmp_path)) == 1


def test_a_training_function_that_is_not_there_stops_before_anything_starts(tmp_path: Path, images: str) -> None:
    with pytest.raises(SweepError, match="train: `train` must name a module on the path, but there is no no_module"):
        search(sweep_on(images, 1, train="no_module:train"), tmp_path)


def test_two_folders_of_one_name_keep_apart_on_one_store_and_one_storage(tmp_path: Path, images: str) -> None:
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    shared = {"tracking": Tracking(uri=store), "storage": f"sqlite:///{tmp_path / 'optuna.db'}"}
    for name in ("a", "b"):
        assert trials(search(sweep_on(images, 2, **shared), tmp_path / name)) == 2
    client = MlflowClient(store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (experiment,) = [e for e in client.search_experiments() if e.name == "stripes"]
        runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["nas.kind"] for run in runs) == ["sweep", "sweep", "trial", "trial", "trial", "trial"]


def test_a_study_that_was_lost_is_rebuilt_whatever_the_trials_came_to(tmp_path: Path, images: str) -> None:
    sweep = sweep_on(images, 3, limits=Limits(latency_ms=1e-4), objectives=("accuracy", "latency_ms"))
    search(sweep, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    lines[0] |= {"state": "complete", "values": {**lines[0]["values"], "accuracy": float("nan")}}
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "journal.log").unlink()
    assert len(search(replace(sweep, budget=Budget(trials=4)), tmp_path).results) == 4
    study = study_in(tmp_path)
    assert [t.state for t in study.get_trials()] == [TrialState.FAIL, *[TrialState.COMPLETE] * 3]
    assert all(t.constraints["latency"] > 0 for t in study.get_trials()[1:])


TRAININGS = """
import sys
from dataclasses import replace
from nas.train import train as usual


def early(network, data, training, *, until, **more):
    return usual(network, data, training, until=1, **more)


def nan(network, data, training, **more):
    done = usual(network, data, training, **more)
    return replace(done, curve=(*done.curve[:-1], replace(done.curve[-1], val_accuracy=float("nan"))))


def leave(network, data, training, **more):
    sys.exit(3)


def fine(network, data, training, **more):
    return usual(network, data, training, **more)
"""


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("early", "must reach epoch 2 with a finite accuracy, but ended at epoch 1"),
        ("nan", "must reach epoch 2 with a finite accuracy, but ended at epoch 2 with nan"),
        ("leave", "SystemExit: 3"),
        ("fine", None),
    ],
)
def test_a_training_function_of_the_users_own_is_held_to_its_word(
    tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch, function: str, reason: str | None
) -> None:
    (tmp_path / "my_trainings.py").write_text(TRAININGS)
    monkeypatch.syspath_prepend(str(tmp_path))
    outcome = search(sweep_on(images, 2, train=f"my_trainings:{function}", rungs=None), tmp_path / "out")
    state = "complete" if reason is None else "failed"
    assert [(r.trial, r.state) for r in outcome.results[:2]] == [(0, state), (1, state)]
    assert all(reason is None or reason in (r.error or "") for r in outcome.results)


def test_data_that_changed_under_its_name_is_refused(tmp_path: Path, images: str) -> None:
    with np.load(images) as arrays:
        np.savez(tmp_path / "mine.npz", images=arrays["images"], labels=arrays["labels"])
        sweep = sweep_on(str(tmp_path / "mine.npz"), 1)
        search(sweep, tmp_path / "out")
        np.savez(tmp_path / "mine.npz", images=arrays["images"] + 1, labels=arrays["labels"])
    with pytest.raises(SweepError, match=r"data: must be what it was when .* was begun"):
        search(sweep, tmp_path / "out")


def test_a_full_space_ends_the_search_and_says_so(tmp_path: Path, images: str) -> None:
    space = {"stages": [{"block": "plain", "width": [4, 8]}]}
    outcome = search(sweep_on(images, 9, space=space), tmp_path)
    assert trials(outcome) == 2
    assert "2 architectures were proposed" in outcome.ended
    assert trials(search(sweep_on(images, 9, space=space), tmp_path)) == 2


def test_a_budget_of_epochs_is_not_exceeded(tmp_path: Path, images: str) -> None:
    outcome = search(sweep_on(images, 1, budget=Budget(epochs=7)), tmp_path)
    assert outcome.history[-1].epochs in (6, 7)
    outcome = search(sweep_on(images, 1, budget=Budget(epochs=7), rungs=None), tmp_path / "whole")
    assert outcome.history[-1].epochs == 6


def test_a_latency_limit_nobody_meets_leaves_every_trial_untrained(tmp_path: Path, images: str) -> None:
    sweep = sweep_on(images, 4, limits=Limits(latency_ms=1e-4), objectives=("accuracy", "latency_ms"))
    outcome = search(sweep, tmp_path)
    assert {(r.state, r.epoch) for r in outcome.results} == {("stopped", 0)}
    assert all(r.values["latency_ms"] > 1e-4 and "accuracy" not in r.values for r in outcome.results)
    assert outcome.front == ()


def test_three_objectives_and_measured_latency(tmp_path: Path, images: str) -> None:
    sweep = sweep_on(images, 4, objectives=("accuracy", "params", "latency_ms"), limits=Limits(latency_ms=1e4))
    outcome = search(sweep, tmp_path)
    assert all(r.values["latency_ms"] > 0 for r in outcome.results)
    check_consistent(tmp_path, 4)


def test_a_training_that_blows_up_is_a_failed_trial_and_the_sweep_goes_on(tmp_path: Path, images: str) -> None:
    sweep = sweep_on(images, 3, training=Training(epochs=2, batch_size=16, learning_rate=1e30, warmup_epochs=0.0))
    outcome = search(sweep, tmp_path)
    assert [r.state for r in outcome.results] == ["failed"] * 3
    assert all("loss must stay finite" in (r.error or "") for r in outcome.results)


def test_what_the_study_lost_is_told_from_the_table(tmp_path: Path, images: str) -> None:
    search(sweep_on(images, 4), tmp_path)
    (tmp_path / "journal.log").unlink()
    search(sweep_on(images, 6), tmp_path)
    check_consistent(tmp_path, 6)


def test_a_result_that_was_not_told_and_a_trial_that_was_not_run_are_made_good(tmp_path: Path, images: str) -> None:
    search(sweep_on(images, 5), tmp_path)
    lines = (tmp_path / "results.jsonl").read_bytes().splitlines(keepends=True)
    # The last trial's line never reached the disk whole: cut short in mid-write.
    (tmp_path / "results.jsonl").write_bytes(b"".join(lines[:-1]) + lines[-1][: len(lines[-1]) // 2])
    outcome = search(sweep_on(images, 6), tmp_path)
    assert (tmp_path / "results.jsonl.broken").exists()
    assert len({r.trial for r in outcome.results}) == len({r.digest for r in outcome.results}) == 6
    check_consistent(tmp_path, 6)


def test_a_second_driver_is_refused_and_told_who_holds_the_folder(tmp_path: Path, images: str) -> None:
    def second(_: Status) -> None:
        with pytest.raises(
            SweepError, match=rf"must not be in use by another search \(held by process {os.getpid()} on .* since 20"
        ):
            search(sweep_on(images, 2), tmp_path)

    search(sweep_on(images, 2), tmp_path, watch=second)


def test_an_interrupt_saves_and_the_next_call_goes_on(tmp_path: Path, images: str) -> None:
    def interrupt(status: Status) -> None:
        if status.done == 2:
            raise KeyboardInterrupt

    outcome: Outcome = search(sweep_on(images, 5), tmp_path, watch=interrupt)
    assert outcome.interrupted
    assert (tmp_path / "front.json").exists()
    assert not search(sweep_on(images, 5), tmp_path).interrupted
    check_consistent(tmp_path, 5)


SWEEP = """format: sweep/1
name: stripes
data: {data}
space: {space}
limits: {{flops: 120k}}
budget: {{trials: 10}}
training: {{epochs: 40, batch_size: 16}}
tracking: {{uri: "off"}}
"""


def start(path: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments.cli", "search", str(path), "--out", str(out)]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    with open(out.with_suffix(".log"), "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_killed_with_9_in_mid_sweep_the_same_command_ends_with_every_trial_once(tmp_path: Path, images: str) -> None:
    out, path = tmp_path / "out", tmp_path / "sweep.yaml"
    path.write_text(SWEEP.format(data=images, space=json.dumps(SPACE)))
    assert read_sweep(path).budget.trials == 10
    for goal in (2, 5):
        process = start(path, out)
        deadline = time.monotonic() + 120
        while lines_of(out / "results.jsonl") < goal and time.monotonic() < deadline:
            assert process.poll() is None, out.with_suffix(".log").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert goal <= lines_of(out / "results.jsonl") < 10, "the kill must come in mid-sweep"
    process = start(path, out)
    assert process.wait(timeout=240) == 0, out.with_suffix(".log").read_text()
    check_consistent(out, 10)
    assert {r.error for r in Results(out / "results.jsonl")} == {None}
