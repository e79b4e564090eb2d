"""A search with rungs: trials go on to the bit, partial trainings are no results, budgets and interruptions hold."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from nas.data import load
from nas.folder import find_trial, weights
from nas.ladder import Ladder
from nas.pareto import OBJECTIVES
from nas.results import Result, Results
from nas.search import Outcome, Status, search
from nas.sweep import Budget, Limits, Sweep, SweepError, Tracking, Workers
from nas.train import train
from nas.training import Training
from searchspace.checkpoint import load as load_network
from searchspace.network import build
from searchspace.notation import from_json

SPACE = {
    "width": [0.5, 1.0],
    "stages": [
        {"block": ["plain", "residual", "fire"], "width": [8, 16], "kernel": [3, 5], "depth": [1, 2]},
        {"block": ["bottleneck", "inverted_residual"], "stride": 2, "width": [16, 32], "groups": [1, 2]},
    ],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    """120 noisy images of 8 x 8 in three classes that differ in where they are bright."""
    rng = np.random.default_rng(1)
    labels = np.arange(120) % 3
    pictures = rng.normal(size=(120, 8, 8)).astype(np.float32)
    for i, label in enumerate(labels):
        pictures[i, label * 2 : label * 2 + 3] += 0.6
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, images=pictures, labels=labels)
    return str(path)


def sweep_on(images: str, **changes: object) -> Sweep:
    sweep = Sweep(
        name="stripes",
        data=images,
        space=SPACE,
        limits=Limits(costs={"flops": 120_000}),
        budget=Budget(trials=12),
        training=Training(epochs=4, batch_size=16),
        workers=Workers(address="inprocess"),
        tracking=Tracking(uri="off"),
    )
    return replace(sweep, **changes)  # type: ignore[arg-type]


def last(outcome: Outcome) -> dict[int, Result]:
    return {row.trial: row for row in outcome.results}


def test_a_trial_that_went_on_is_the_training_that_nothing_interrupted(tmp_path: Path, images: str) -> None:
    outcome = search(sweep_on(images), tmp_path)
    assert outcome.levels == (1, 2, 4)
    data = load(images, seed=0)
    climbed = [row for row in outcome.front if sum(r.trial == row.trial for r in outcome.results) == 3]
    assert climbed
    for row in climbed:
        network = build(from_json(row.architecture), row.seed)
        whole = train(network, data, outcome.sweep.training, seed=row.seed, device="cpu")
        assert whole.curve == row.curve
        kept = load_network(weights(tmp_path, row.trial)).state_dict()
        assert all(torch.equal(kept[name], tensor) for name, tensor in network.state_dict().items())


def test_every_promotion_was_due_and_partial_trainings_are_nobodys_result(tmp_path: Path, images: str) -> None:
    outcome = search(sweep_on(images, budget=Budget(epochs=60)), tmp_path)
    ladder = Ladder(outcome.levels, 2.0, outcome.objectives)
    for row in outcome.results:  # in process one job runs at a time: each answer is what was due when it was begun
        due = ladder.next()
        if row.epoch > 1 and due is not None:
            assert (due[0].trial, due[1]) == (row.trial, row.epoch)
        elif due is not None:
            pytest.fail(f"trial {row.trial} was begun while {due[0].trial} was due")
        ladder.add(row)
    partial = {n for n, row in last(outcome).items() if not row.final}
    assert partial
    assert all(row.final for row in outcome.front)
    with pytest.raises(SweepError, match=rf"got {min(partial)}, which ended at epoch [12]; front: "):
        find_trial(tmp_path, min(partial))
    assert outcome.history[-1].trials == len(last(outcome)) - len(partial)
    assert 60 - 4 < outcome.history[-1].epochs <= 60


@pytest.mark.parametrize("budget", [Budget(trials=1), Budget(epochs=4), Budget(epochs=5), Budget(trials=3)])
def test_the_smallest_budget_gives_a_front(tmp_path: Path, images: str, budget: Budget) -> None:
    outcome = search(sweep_on(images, budget=budget), tmp_path)
    assert outcome.front
    assert budget.epochs is None or outcome.history[-1].epochs <= budget.epochs


def test_an_hour_that_is_over_ends_with_a_first_result(tmp_path: Path, images: str) -> None:
    outcome = search(sweep_on(images, budget=Budget(hours=1e-4)), tmp_path)
    assert len(outcome.front) == 1


@pytest.mark.parametrize("sampler", ["moasha", "screen", "random", "evolution"])
def test_every_sampler_brings_its_rungs_and_a_sweep_may_say_others(tmp_path: Path, images: str, sampler: str) -> None:
    expected = {"moasha": (1, 2, 4), "screen": (1, 4)}.get(sampler, (4,))
    outcome = search(sweep_on(images, sampler=sampler, budget=Budget(epochs=24)), tmp_path / "own")
    assert outcome.levels == expected
    assert {row.epoch for row in outcome.results} == set(expected)
    swapped = None if len(expected) > 1 else sweep_on(images).effective_rungs
    other = search(sweep_on(images, sampler=sampler, budget=Budget(epochs=24), rungs=swapped), tmp_path / "other")
    assert {row.epoch for row in other.results} == ({4} if swapped is None else {1, 2, 4})


def test_a_promotion_that_was_interrupted_is_made_good(tmp_path: Path, images: str) -> None:
    """The driver ends with a promotion in work; the next call runs it first, and all is as it would have been."""
    whole = search(sweep_on(images), tmp_path / "whole")

    class Stopped(RuntimeError):
        pass

    def stop(status: Status) -> None:
        if status.reached[1] >= 2:
            raise Stopped

    with pytest.raises(Stopped):
        search(sweep_on(images), tmp_path / "cut", watch=stop)
    before = list(Results(tmp_path / "cut" / "results.jsonl"))
    assert before == [replace(r, **timeless(b)) for r, b in zip(whole.results, before, strict=False)]
    resumed = search(sweep_on(images), tmp_path / "cut")
    assert list(resumed.results[: len(before)]) == before
    rows = last(resumed)
    assert len(rows) == 12
    assert len({row.digest for row in rows.values()}) == 12
    per_trial = {n: [r.epoch for r in resumed.results if r.trial == n] for n in rows}
    assert all(epochs == list(resumed.levels[: len(epochs)]) for epochs in per_trial.values())


def timeless(row: Result) -> dict[str, object]:
    """What differs between two runs of one job."""
    return {"seconds": row.seconds, "worker": row.worker, "checkpoint": row.checkpoint}


def test_a_promotion_that_kills_its_driver_again_and_again_is_given_up(tmp_path: Path, images: str) -> None:
    """A trial whose promotion was in work whenever the driver died ends as failed; the others go on."""

    class Killed(BaseException):
        pass

    class Deadly:
        """One worker, in this process; its promotions of trial 0 end the process."""

        capacity = 1

        def __init__(self) -> None:
            from nas.workers import InProcessPool

            self.pool, self.deadly = InProcessPool(), False

        def submit(self, job) -> None:
            self.deadly = job.trial == victim and job.until > 1
            self.pool.submit(job)

        def finished(self, timeout_s: float) -> list[Result]:
            if self.deadly:
                raise Killed
            return self.pool.finished(timeout_s)

        def close(self) -> None:
            self.pool.close()

    whole = search(sweep_on(images), tmp_path / "whole")
    victim = next(row.trial for row in whole.results if row.epoch > 1)
    for _ in range(4):
        with pytest.raises(Killed):
            search(sweep_on(images), tmp_path / "cut", pool=Deadly())
    outcome = search(sweep_on(images), tmp_path / "cut", pool=Deadly())
    row = last(outcome)[victim]
    assert (row.state, row.epoch) == ("failed", 0)
    assert "The driver was lost 4 times" in (row.error or "")
    assert len(last(outcome)) == 12


def test_a_promotion_that_came_in_as_its_driver_died_is_not_run_again(
    tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is on disk, and nobody else has heard of it."""

    class Killed(BaseException):
        pass

    whole = Results.append

    def append(table: Results, row: Result) -> None:
        whole(table, row)
        if row.epoch == 2:
            raise Killed

    monkeypatch.setattr(Results, "append", append)
    with pytest.raises(Killed):
        search(sweep_on(images), tmp_path)
    monkeypatch.undo()
    outcome = search(sweep_on(images), tmp_path)
    steps = [(row.trial, row.epoch) for row in outcome.results]
    assert len(steps) == len(set(steps))
    assert len(last(outcome)) == 12


def test_nobody_to_train_leaves_those_who_wait_as_they_are(tmp_path: Path, images: str) -> None:
    """An import, which has no workers, into an interrupted sweep: the study is told nothing of those at a rung."""

    class Nobody:
        capacity = 0

        def submit(self, job) -> None:
            raise AssertionError

        def finished(self, timeout_s: float) -> list[Result]:
            return []

        def close(self) -> None:
            pass

    def interrupt(status: Status) -> None:
        if status.reached[1] >= 2:
            raise KeyboardInterrupt

    search(sweep_on(images), tmp_path, watch=interrupt)
    for _ in range(5):
        search(sweep_on(images), tmp_path, pool=Nobody())
    outcome = search(sweep_on(images), tmp_path)
    assert {row.state for row in outcome.results} == {"complete"}, "nobody was given up"
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.load_study(study_name=f"stripes-{(tmp_path / 'id').read_text()}", storage=storage)
    told = {t.number: t.values for t in study.get_trials() if t.values}
    assert set(told) == {n for n, row in last(outcome).items() if row.final}


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["surrogate", "moasha"])
def test_eight_workers_climb_together(tmp_path: Path, images: str, sampler: str) -> None:
    """Real Ray tasks, eight at a time: each trial climbs rung by rung, nothing double, the budget held."""
    workers = Workers(cpus_per_trial=0.25, max_concurrent=8)
    sweep = sweep_on(images, sampler=sampler, workers=workers, budget=Budget(epochs=80))
    seen: list[Status] = []
    outcome = search(sweep, tmp_path, watch=seen.append)
    assert max(status.in_flight for status in seen) >= 8
    rows = last(outcome)
    assert len({row.digest for row in rows.values()}) == len(rows)
    for number in rows:
        epochs = [row.epoch for row in outcome.results if row.trial == number]
        assert epochs == list(outcome.levels[: len(epochs)])
    assert 80 - 4 < outcome.history[-1].epochs <= 80
    assert {row.state for row in outcome.results} == {"complete"}
    assert len({row.worker.pid for row in outcome.results}) >= 4


def test_a_budget_that_no_training_fits_in_is_refused(tmp_path: Path, images: str) -> None:
    with pytest.raises(SweepError, match=r"budget.epochs: must allow one training of 4 epochs \(got 3\)"):
        search(sweep_on(images, budget=Budget(epochs=3)), tmp_path)


def test_a_study_that_was_lost_knows_who_waits(tmp_path: Path, images: str) -> None:
    first = search(sweep_on(images), tmp_path)
    waiting = {n for n, row in last(first).items() if not row.ended}
    assert waiting
    (tmp_path / "journal.log").unlink()
    outcome = search(sweep_on(images, budget=Budget(trials=14)), tmp_path)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    study = optuna.load_study(study_name=f"stripes-{(tmp_path / 'id').read_text()}", storage=storage)
    states = {t.number: t.state for t in study.get_trials()}
    for n, row in last(outcome).items():
        assert states[n] == (TrialState.COMPLETE if row.final else TrialState.PRUNED)


def test_mlflow_shows_what_waits_as_killed_at_its_rung_and_what_ended_as_finished(tmp_path: Path, images: str) -> None:
    from mlflow import MlflowClient

    outcome = search(sweep_on(images, tracking=Tracking()), tmp_path)
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (experiment,) = [e for e in client.search_experiments() if e.name == "stripes"]
        runs = {r.data.tags.get("nas.trial"): r for r in client.search_runs([experiment.experiment_id])}
    assert len(runs) == 13
    for n, row in last(outcome).items():
        run = runs[str(n)]
        assert run.info.status == ("FINISHED" if row.final else "KILLED")
        assert run.data.tags.get("nas.rung") == (None if row.final else str(row.epoch))
        assert run.data.metrics["val/acc"] == pytest.approx(row.values["accuracy"])
        history = client.get_metric_history(run.info.run_id, "val/acc")
        assert sorted(m.step for m in history) == list(range(1, row.epoch + 1))
    steps = [m.step for m in client.get_metric_history(runs[None].info.run_id, "hypervolume")]
    assert max(steps) == outcome.history[-1].epochs
    assert len(steps) == len(set(steps))


def test_a_child_starts_from_what_fits_of_its_parent(tmp_path: Path, images: str) -> None:
    sweep = sweep_on(images, inherit=True, budget=Budget(trials=40), training=Training(epochs=2, batch_size=16))
    outcome = search(sweep, tmp_path)
    children = [row for row in outcome.results if row.parent is not None]
    assert children
    rows = last(outcome)
    assert all(rows[row.parent].final for row in children)
    assert json.loads((tmp_path / "sweep.json").read_text())["inherit"] is True


@pytest.mark.parametrize("proxy", ["naswot", "noise"])
def test_a_proxy_is_one_more_thing_to_learn_from(tmp_path: Path, images: str, proxy: str) -> None:
    outcome = search(sweep_on(images, proxy=proxy, budget=Budget(trials=18)), tmp_path)
    assert len(last(outcome)) == 18
    assert OBJECTIVES["accuracy"] in outcome.objectives
