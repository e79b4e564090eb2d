"""Results of Ray Tune join the results table of a sweep: what `nas.tune.trainable` trained stands on its front.

What is checked: the choices are of the sweep's space and stand for the digest that was trained; data, training settings
and training function are the sweep's; costs are counted again and the limits held. Accuracies and latencies are taken
as they were reported. Nothing is trained here.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from nas.data import load
from nas.folder import full_disk_said, held, read_sweep_of, refuse_another, refuse_other_data, weights, write_json
from nas.jobs import Job, WorkersError
from nas.learner import decoded
from nas.pareto import OBJECTIVES, front
from nas.results import Result, Results
from nas.search import Outcome, search
from nas.sweep import Sweep, SweepError
from nas.tune_report import Report, read_experiment, setting_of
from searchspace.architecture import ArchitectureError
from searchspace.checkpoint import CheckpointError
from searchspace.checkpoint import load as load_network
from searchspace.choices import SpaceError
from searchspace.codes import Codes
from searchspace.cost import cost
from searchspace.notation import to_json
from searchspace.spaces import open_space

KIND = "tune"  # of the rows: results, but no trials of the study and of no budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of the trials of Tune: how many `joined` the table, were `known` there already, are `over` a limit,
    `failed` in training, and are `unfinished`: stopped, still running or lost. `outcome` is the folder's after that."""

    joined: int
    known: int
    over: int
    failed: int
    unfinished: int
    outcome: Outcome

    def __str__(self) -> str:
        return (
            f"{self.joined} joined, {self.known} were there already, {self.over} over a limit, {self.failed} failed, "
            f"{self.unfinished} unfinished"
        )

    def to_json(self) -> dict[str, object]:
        counts = {name: getattr(self, name) for name in ("joined", "known", "over", "failed", "unfinished")}
        return {"format": "import/1", **counts, "front": [row.trial for row in self.outcome.front]}


def import_tune(
    folder: Path,
    out: Path,
    sweep: Sweep | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
    report: Callable[[Outcome], Sequence[Path]] = lambda outcome: (),
) -> Imported:
    """Add the finished trials of the experiment in `folder` to the sweep in `out`; one that is not there is begun for
    `sweep`. Then the front, its networks and MLflow are brought up to the table, and `report` makes the pictures.

    A second call adds nothing. Raises `SweepError`, with nothing written, for a folder that is none of Tune's, broken
    reports, and trials of another space, data or training; and where `out` is another sweep's or in use.
    """
    sweep = sweep or read_sweep_of(out)
    data = load(sweep.data, seed=sweep.seed)
    space = open_space(sweep.space, input=data.input, classes=data.classes)
    experiment = read_experiment(folder)
    found = [_row(trial, sweep, space, data.fingerprint) for trial in experiment.reports]
    rows = [row for row in found if row is not None]
    with full_disk_said(out):
        with held(out), Results(out / "results.jsonl") as table:
            refuse_another(sweep, out)
            refuse_other_data(out, data.fingerprint)
            write_json(out / "sweep.json", sweep.to_json())
            new, known = _numbered(rows, table, sweep)
            members = {row.trial for row in front([*table, *new], [OBJECTIVES[name] for name in sweep.objectives])}
            for row in new:
                if row.trial in members and row.checkpoint:
                    _copy(Path(row.checkpoint), weights(out, row.trial), row, say)
                table.append(replace(row, checkpoint=str(weights(out.resolve(), row.trial))))
        outcome = search(sweep, out, pool=_Nobody(), say=say, report=report)
    return Imported(
        joined=len(new),
        known=known,
        over=sum(row is None for row in found),
        failed=experiment.failed,
        unfinished=experiment.unfinished,
        outcome=outcome,
    )


def _numbered(rows: Iterable[Result], table: Results, sweep: Sweep) -> tuple[list[Result], int]:
    """(the rows whose networks the table has no result of, how many it has). Numbers go down from below the seeds'."""
    digests = {row.digest for row in table if row.final and row.state == "complete"}
    number = min([-len(sweep.seeds), *(row.trial for row in table)])
    new: list[Result] = []
    known = 0
    for row in rows:
        if row.digest in digests:
            known += 1
        else:
            digests.add(row.digest)
            new.append(replace(row, trial=number - len(new) - 1))
    return new, known


def _row(report: Report, sweep: Sweep, space: Codes, fingerprint: str) -> Result | None:
    """The result of a report, not numbered yet; None where it is over a limit. Raises `SweepError` for a stranger."""
    _refuse_other_setting(report, setting_of(sweep, fingerprint))
    try:
        candidate = space.candidate(decoded(space, report.config))
    except (SpaceError, ArchitectureError) as error:
        raise SweepError([f"trial {report.trial}: must be of the sweep's space ({error})"]) from None
    architecture, price = candidate.architecture, cost(candidate.architecture)
    if architecture.digest != report.digest:
        rule = "its choices must stand for the network that was trained, of digest"
        hint = "they do in another space, or with other blocks"
        raise SweepError([f"trial {report.trial}: {rule} {report.digest} (got {architecture.digest}: {hint})"])
    latency = {} if report.latency_ms is None else {"latency_ms": report.latency_ms}
    limit = sweep.limits.latency_ms
    if sweep.limits.excess(price) or (limit is not None and latency.get("latency_ms", math.inf) > limit):
        return None
    return Result(
        trial=0,
        kind=KIND,
        name=report.trial,
        digest=report.digest,
        architecture=to_json(architecture),
        choices=dict(candidate.code),
        words=str(architecture),
        epoch=sweep.training.epochs,
        final=True,
        state="complete",
        values={**price.values(), **latency, "accuracy": report.curve[-1].val_accuracy},
        curve=report.curve,
        seconds=report.seconds,
        worker=report.worker,
        seed=report.seed,
        checkpoint=str(report.network),
    )


def _refuse_other_setting(report: Report, wanted: Mapping[str, object]) -> None:
    faults = [
        f"trial {report.trial}: {name}: must be the sweep's ({value!r}; got {report.setting.get(name)!r})"
        for name, value in wanted.items()
        if report.setting.get(name) != value
    ]
    if not report.curve or report.curve[-1].epoch != wanted["training.epochs"]:
        reached = report.curve[-1].epoch if report.curve else 0
        faults.append(f"trial {report.trial}: must be trained for {wanted['training.epochs']} epochs (got {reached})")
    if faults:
        hint = "Trainings of other settings do not compare: import them into the folder of a sweep that has these."
        raise SweepError([*faults, hint])


def _copy(source: Path, target: Path, row: Result, say: Callable[[str], None]) -> None:
    """Take over the trained network of a front member, where Tune kept it."""
    try:
        if load_network(source).architecture.digest != row.digest:
            raise CheckpointError(f"{source}: must be the network of {row.title}, but is another.")
    except CheckpointError as error:
        say(f"{row.title} joins without its network: {error}")
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


class _Nobody:
    """A pool without workers: nothing is begun."""

    capacity = 0

    def submit(self, job: Job) -> None:
        raise WorkersError("Nothing is trained in an import.")

    def finished(self, timeout_s: float) -> list[Result]:
        return []

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""
