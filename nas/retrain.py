"""Retraining a front member with fresh seeds: what its accuracy is when it was not picked for being lucky.

The front of one seed is optimistic: of many trials, it keeps those whose noise was kind. Mean and spread over seeds
that took no part in the search, on test data, are what to expect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from nas.data import mix
from nas.folder import find_trial, read_sweep_of, stem, write_json
from nas.jobs import Job
from nas.results import Result
from nas.search import open_pool, open_tracker
from nas.sweep import Sweep
from nas.workers import Pool

SEED_STREAM = 1_000_003  # seeds of retrainings lie apart from those of trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrained:
    """One architecture, several seeds. Accuracies are 0-1; `spread` is the sample standard deviation (0 of one)."""

    trial: int
    searched: float
    validation: tuple[float, ...]
    test: tuple[float, ...]
    failures: tuple[str, ...]
    checkpoints: tuple[str, ...]

    @property
    def test_mean(self) -> float:
        return mean(self.test) if self.test else float("nan")

    @property
    def test_spread(self) -> float:
        return stdev(self.test) if len(self.test) > 1 else 0.0

    @property
    def validation_mean(self) -> float:
        return mean(self.validation) if self.validation else float("nan")

    def to_json(self) -> dict[str, object]:
        """Plain data; a mean of nothing is null."""
        return {
            "format": "retrained/1",
            "trial": self.trial,
            "searched_validation_accuracy": self.searched,
            "validation_accuracies": list(self.validation),
            "validation_mean": self.validation_mean if self.validation else None,
            "test_accuracies": list(self.test),
            "test_mean": self.test_mean if self.test else None,
            "test_spread": self.test_spread,
            "failures": list(self.failures),
            "checkpoints": list(self.checkpoints),
        }


def retrain(
    out: Path,
    number: int,
    seeds: int,
    *,
    sweep: Sweep | None = None,
    epochs: int | None = None,
    say: Callable[[str], None] = print,
    watch: Callable[[Sequence[Result]], None] = lambda results: None,
    pool: Pool | None = None,
) -> Retrained:
    """Train trial `number` of the sweep in `out` again with `seeds` fresh seeds, for the sweep's epochs or `epochs`.

    `sweep` replaces the folder's own, for other workers or another store.
    Writes `retrained/trial-NNNN.json` and the networks into `out`, and a run of kind `final` each to MLflow.
    """
    row, sweep = find_trial(out, number), sweep or read_sweep_of(out)
    training = replace(sweep.training, epochs=epochs) if epochs else sweep.training
    folder = out / "retrained"
    jobs = [
        Job(
            trial=i,
            kind="final",
            name=row.name,
            architecture=row.architecture,
            choices=row.choices,
            words=row.words,
            digest=row.digest,
            values={k: v for k, v in row.values.items() if k not in ("accuracy", "test_accuracy")},
            data=sweep.data,
            data_seed=sweep.seed,
            training=training,
            seed=mix(sweep.seed, SEED_STREAM, number, i),
            until=training.epochs,
            parent=number,
            checkpoint=str((folder / f"{stem(number)}-seed-{i}-of-{training.epochs}-epochs").resolve()),
            train=sweep.train,
            evaluate_test=True,
        )
        for i in range(seeds)
    ]
    tracker = open_tracker(sweep, out, {"seed": str(sweep.seed)}, say)
    done: list[Result] = []
    with nullcontext(pool) if pool else open_pool(sweep.workers, sweep.train) as workers:
        for job in jobs:
            workers.submit(job)
        while len(done) < len(jobs):
            done += workers.finished(0.5)
            watch(done)
    done.sort(key=lambda r: r.trial)
    good = [r for r in done if r.state == "complete"]
    found = Retrained(
        trial=number,
        searched=row.values.get("accuracy", float("nan")),
        validation=tuple(r.values["accuracy"] for r in good),
        test=tuple(r.values["test_accuracy"] for r in good),
        failures=tuple((r.error or r.state).splitlines()[0] for r in done if r.state != "complete"),
        checkpoints=tuple(r.checkpoint for r in good if r.checkpoint),
    )
    write_json(folder / f"{stem(number)}.json", found.to_json())
    if tracker:
        for r in done:
            tracker.log_run("final", replace(r, trial=number), {"retrains": number, "epochs": training.epochs})
        tracker.flush(30)
        tracker.close()
    return found
