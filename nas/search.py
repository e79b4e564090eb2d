"""The search: propose, train on workers, record, compare, tell; then the front.

One driver owns an output folder. `results.jsonl` there is the truth; everything else is made from it. Calling
`search` again on the same folder goes on where the last call ended, however it ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from optuna.trial import TrialState

from nas.data import load, mix
from nas.folder import claim, held, read_front, write_json
from nas.jobs import Job, answer
from nas.pareto import OBJECTIVES, Objective, front, hypervolume, hypervolume_history, reference_point
from nas.proposals import SAMPLERS, Counts, Proposals, SpaceFull
from nas.provenance import provenance
from nas.results import Result, Results, Worker
from nas.study import open_study, reconcile, tell
from nas.survey import COSTS, Range, Survey, miss, survey
from nas.sweep import Sweep, SweepError, Workers
from nas.tracking import Tracker
from nas.train import evaluate
from nas.workers import InProcessPool, Pool, RayPool
from searchspace.architecture import ArchitectureError
from searchspace.checkpoint import load as load_network
from searchspace.cost import Cost, cost
from searchspace.notation import to_json
from searchspace.space import Candidate, Space

REQUEUES = 3  # of a trial whose driver died; then it is recorded as failed
COST_VALUES = (*COSTS, "peak_activations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a search stands. `new` came in since the last status; `total` is None without a budget of trials."""

    total: int | None
    done: int
    failed: int
    stopped: int
    in_flight: int
    new: tuple[Result, ...]
    front: tuple[Result, ...]
    hypervolume: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a search left: its table, its front (with test accuracy), what was proposed, and why it ended."""

    out: Path
    sweep: Sweep
    results: tuple[Result, ...]
    front: tuple[Result, ...]
    objectives: tuple[Objective, ...]
    reference: dict[str, float]
    survey: Survey
    proposals: Counts
    ended: str
    interrupted: bool
    chart: str | None

    @property
    def history(self) -> list[tuple[int, float]]:
        """(finished trials, hypervolume) over the search."""
        return hypervolume_history(self.results, self.objectives, self.reference)


def _nothing(_: object) -> None:
    """Watches and says nothing."""


def search(
    sweep: Sweep,
    out: Path | str,
    *,
    watch: Callable[[Status], None] = _nothing,
    say: Callable[[str], None] = _nothing,
    pool: Pool | None = None,
    report: Callable[[Outcome], Sequence[Path]] = lambda outcome: (),
) -> Outcome:
    """Run `sweep` into the folder `out`, or go on with it there.

    `watch` is called about once a second, `say` gets lines for people. `pool` replaces the workers of the sweep and
    stays open.
    `report` makes files of the outcome (pictures), which MLflow then keeps with the front.
    Raises `SweepError` for a sweep that cannot start: a limit out of reach, another sweep's folder, a folder in use.
    """
    out = Path(out)
    with held(out):
        claim(sweep, out)
        data = load(sweep.data, seed=sweep.seed)
        space = Space(sweep.space, input=data.input, classes=data.classes)
        found = _surveyed(sweep, space, out)
        tracker = open_tracker(sweep, out, {**provenance(), "data": data.fingerprint, "seed": str(sweep.seed)}, say)
        with Results(out / "results.jsonl") as table:
            run = _Search(sweep, out, space, found, tracker, table)
            with nullcontext(pool) if pool else open_pool(sweep.workers, sweep.train) as workers:
                run.loop(workers, watch)
            outcome = run.outcome()
        files = [*report(outcome), *(out / name for name in ("front.json", "sweep.json", "space.json"))]
        if tracker:
            volume = outcome.history[-1][1] if outcome.history else 0.0
            status = "KILLED" if outcome.interrupted else "FINISHED"
            tracker.finish_sweep(files, {"hypervolume": volume}, status=status)
        return outcome


def open_pool(workers: Workers, train: str = "nas.train:train") -> Pool:
    """The workers a sweep asks for."""
    if workers.address == "inprocess":
        return InProcessPool()
    module = train.partition(":")[0].partition(".")[0]
    return RayPool(
        workers.address,
        cpus_per_trial=workers.cpus_per_trial,
        gpus_per_trial=workers.gpus_per_trial,
        max_concurrent=workers.max_concurrent,
        modules=() if module in ("nas", "searchspace") else (module,),
    )


def open_tracker(sweep: Sweep, out: Path, facts: dict[str, str], say: Callable[[str], None]) -> Tracker | None:
    """The tracker that a sweep asks for; by default a sqlite file beside the results."""
    if sweep.tracking.uri == "off":
        return None
    uri = sweep.tracking.uri or f"sqlite:///{(out / 'mlflow.db').resolve()}"
    return Tracker(uri, sweep.tracking.experiment or sweep.name, sweep.name, facts, say=say)


class _Search:
    """The state of one call of `search`."""

    def __init__(
        self, sweep: Sweep, out: Path, space: Space, report: Survey, tracker: Tracker | None, table: Results
    ) -> None:
        self.sweep, self.out, self.space, self.report, self.tracker = sweep, out, space, report, tracker
        self.objectives = tuple(OBJECTIVES[name] for name in sweep.objectives)
        self.table = table
        self.study = open_study(sweep.name, sweep.storage, out, self.objectives)
        begun = len(self.study.get_trials(deepcopy=False))
        rng = Random(mix(sweep.seed, begun))  # another stream on every start: a repeated one repeats proposals
        inner = SAMPLERS[sweep.sampler](rng.getrandbits(31))
        seen = {row.digest for row in self.table}
        self.proposals = Proposals(space, sweep.limits, inner, rng, seen)
        self.study.sampler = self.proposals
        self.front = front(self.table, self.objectives)
        self.started = time.monotonic()
        self.in_flight: dict[int, Job] = {}
        self.new: list[Result] = []
        self.ended = "the budget is spent"
        self.interrupted = False
        latest = self.table.latest()
        orphans = reconcile(self.study, latest, self.objectives, self.proposals.distributions, sweep.limits.latency_ms)
        self.waiting = [job for trial in orphans if (job := self._again(trial.number, trial.params)) is not None]
        if tracker:
            tracker.start_sweep(sweep.to_json(), report.to_json(), cost=self._cost_axis())
            tracker.catch_up(self.table)
            tracker.move_front(self.front)

    # One call of the loop ---------------------------------------------------------------------------------------

    def loop(self, pool: Pool, watch: Callable[[Status], None]) -> None:
        """Keep the workers busy until the budget is spent and everything came back, or Ctrl-C."""
        full = False
        try:
            while True:
                room = pool.capacity + (pool.capacity > 1)  # one waits at the door, so that no worker does
                while len(self.in_flight) < room and (self.waiting or (not full and self._affordable())):
                    try:
                        job = self.waiting.pop(0) if self.waiting else self._propose()
                    except SpaceFull as error:
                        full, self.ended = True, str(error)
                        break
                    self.in_flight[job.trial] = job
                    pool.submit(job)
                if not self.in_flight:
                    return
                for result in pool.finished(0.5):
                    del self.in_flight[result.trial]
                    self._record(result)
                watch(self._status())
        except KeyboardInterrupt:
            self.interrupted, self.ended = True, "interrupted"
            for trial in self.in_flight:  # no fault of the trial's
                self.study._storage.set_trial_user_attr(self._id(trial), "requeued", 0)

    def _affordable(self) -> bool:
        """Whether the budget allows one more trial beside those in flight."""
        budget, flying = self.sweep.budget, len(self.in_flight)
        rows = self.table.latest().values()
        epochs = sum(row.epoch for row in rows) + flying * self.sweep.training.epochs
        gpu_hours = sum(row.seconds for row in rows) * self.sweep.workers.gpus_per_trial / 3600
        return (
            (budget.trials is None or len(rows) + flying < budget.trials)
            and (budget.epochs is None or epochs + self.sweep.training.epochs <= budget.epochs)
            and (budget.hours is None or time.monotonic() - self.started < budget.hours * 3600)
            and (budget.gpu_hours is None or gpu_hours < budget.gpu_hours)
        )

    def _propose(self) -> Job:
        """A new trial of the study. Raises `SpaceFull`."""
        try:
            trial = self.study.ask(fixed_distributions=self.proposals.distributions)
        except SpaceFull:
            self.study.tell(len(self.study.get_trials(deepcopy=False)) - 1, state=TrialState.FAIL)
            raise
        assert self.proposals.candidate is not None
        assert self.proposals.cost is not None
        return self._job(trial.number, self.proposals.candidate, self.proposals.cost)

    def _again(self, number: int, params: dict[str, object]) -> Job | None:
        """The job of a trial that a dead driver left, once more; None where that was tried often enough."""
        candidate = self.space.candidate(self.proposals.code(params))
        job = self._job(number, candidate, cost(candidate.architecture))
        self.proposals.seen.add(job.digest)
        trial = self.study.get_trials(deepcopy=False)[number]
        requeued = int(trial.user_attrs.get("requeued", 0)) + 1
        self.study._storage.set_trial_user_attr(self._id(number), "requeued", requeued)
        if requeued <= REQUEUES:
            return job
        nobody = Worker(node="lost", pid=0, device="lost")
        error = f"The driver was lost {requeued} times while this trial ran."
        self._record(answer(job, "failed", job.values, nobody, error=error))
        return None

    def _id(self, number: int) -> int:
        return int(self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number))

    def _job(self, number: int, candidate: Candidate, price: Cost) -> Job:
        architecture = candidate.architecture
        return Job(
            trial=number,
            architecture=to_json(architecture),
            choices=dict(candidate.code),
            words=str(architecture),
            digest=architecture.digest,
            values={name: float(getattr(price, name)) for name in COST_VALUES},
            data=self.sweep.data,
            data_seed=self.sweep.seed,
            training=self.sweep.training,
            seed=mix(self.sweep.seed, number),
            until=self.sweep.training.epochs,
            measure_latency="latency_ms" in self.sweep.objectives,
            latency_limit_ms=self.sweep.limits.latency_ms,
            checkpoint=str((self.out / "checkpoints" / f"trial-{number:04d}").resolve()),
            train=self.sweep.train,
        )

    def _record(self, result: Result) -> None:
        """On disk first; then the study, the front and MLflow hear of it."""
        self.table.append(result)
        self.new.append(result)
        tell(self.study, result, self.objectives, self.sweep.limits.latency_ms)
        if self.tracker:
            self.tracker.log_trial(result)
        moved = front([*self.front, result], self.objectives)
        if moved != self.front:
            self.front = moved
            self._write_front(moved)
            if self.tracker:
                self.tracker.move_front(moved)
        self._clean()

    def _clean(self) -> None:
        """Keep the networks of the front, and the checkpoints of what runs."""
        kept = {row.trial for row in self.front}
        for path in (self.out / "checkpoints").glob("trial-*"):
            number, _, suffix = path.name.removeprefix("trial-").partition(".")
            trial = int(number) if number.isdigit() else -1
            if trial not in self.in_flight and not (trial in kept and suffix == "safetensors"):
                path.unlink(missing_ok=True)

    def _status(self) -> Status:
        rows = list(self.table.latest().values())
        new, self.new = tuple(self.new), []
        return Status(
            total=self.sweep.budget.trials,
            done=len(rows),
            failed=sum(row.state == "failed" for row in rows),
            stopped=sum(row.state == "stopped" for row in rows),
            in_flight=len(self.in_flight),
            new=new,
            front=tuple(self.front),
            hypervolume=hypervolume(self.front, self.objectives, self._reference()),
        )

    def _reference(self) -> dict[str, float]:
        """Fixed within a sweep: the limits, and where there is none the top of the space's range."""
        tops = {name: r.largest for name, r in self.report.costs.items()} | self.sweep.limits.costs
        if self.sweep.limits.latency_ms is not None:
            tops["latency_ms"] = self.sweep.limits.latency_ms
        return reference_point(self.table, self.objectives, tops)

    def _cost_axis(self) -> str:
        return next((o.name for o in self.objectives if not o.maximize), "flops")

    # The end ----------------------------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """The front with its test accuracies, on disk and in MLflow."""
        members = self._tested()
        self._write_front(members)
        reference = self._reference()
        outcome = Outcome(
            out=self.out,
            sweep=self.sweep,
            results=tuple(self.table),
            front=tuple(members),
            objectives=self.objectives,
            reference=reference,
            survey=self.report,
            proposals=self.proposals.counts,
            ended=self.ended,
            interrupted=self.interrupted,
            chart=self.tracker.chart_link() if self.tracker else None,
        )
        if self.tracker:
            self.tracker.log_hypervolume(outcome.history, reference)
            for row in members:
                if "test_accuracy" in row.values:
                    self.tracker.log_test(row, row.values["test_accuracy"])
        return outcome

    def _tested(self) -> list[Result]:
        """The front with `test_accuracy`: measured here, or read from the front file where it was before."""
        known = {row.trial: row.values for row in read_front(self.out)} if (self.out / "front.json").exists() else {}
        data = None
        members: list[Result] = []
        for row in self.front:
            before = known.get(row.trial, {})
            if "test_accuracy" not in before and row.checkpoint and not self.interrupted:
                data = data or load(self.sweep.data, seed=self.sweep.seed)
                try:
                    _, accuracy = evaluate(load_network(Path(row.checkpoint)), data, "test")
                    before = {"test_accuracy": accuracy}
                except (ValueError, ArchitectureError, OSError):
                    before = {}
            tested = {k: v for k, v in before.items() if k == "test_accuracy"}
            members.append(replace(row, values={**row.values, **tested}))
        return members

    def _write_front(self, members: list[Result]) -> None:
        record = {
            "format": "front/1",
            "objectives": [o.name for o in self.objectives],
            "reference": self._reference(),
            "members": [row.to_json() for row in members],
        }
        write_json(self.out / "front.json", record)


def _surveyed(sweep: Sweep, space: Space, out: Path) -> Survey:
    """The space's report, made once a folder. Raises `SweepError` where the limits cannot be reached."""
    path = out / "space.json"
    if path.exists():
        record = json.loads(path.read_text())
        record.pop("format"), record.pop("reachable")
        return Survey(**{**record, "costs": {k: Range(**v) for k, v in record["costs"].items()}})
    report = survey(space, sweep.limits, rng=Random(sweep.seed))
    if not report.reachable:
        raise SweepError([f"limits: must be within reach of the space, but {miss(report, sweep.limits)}"])
    write_json(path, report.to_json())
    return report
