"""The search: propose, train on workers, record, compare, tell; then the front.

One driver owns an output folder. `results.jsonl` there is the truth; everything else is made from it. Calling
`search` again on the same folder goes on where the last call ended, however it ended.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from optuna.trial import Trial

from nas.data import Data, load, mix
from nas.folder import (
    checkpoint,
    full_disk_said,
    held,
    identity,
    read_front,
    read_json,
    refuse_another,
    refuse_other_data,
    stem,
    weights,
    write_json,
)
from nas.interrupts import Interrupts
from nas.jobs import Job, WorkersError, answer, resolve
from nas.pareto import OBJECTIVES, Objective, front, hypervolume, hypervolume_history, reference_point
from nas.proposals import SAMPLERS, SPREAD, Counts, Proposals, SpaceFull
from nas.provenance import provenance
from nas.results import Result, Results, Worker
from nas.seeds import Seed, seeds_of
from nas.study import mend_journal, open_study, reconcile, tell
from nas.survey import Range, Survey, miss, survey
from nas.sweep import Sweep, SweepError, Workers
from nas.tally import Tally
from nas.tracking import Tracker
from nas.train import evaluate
from nas.training import TrainingError
from nas.workers import InProcessPool, Pool, RayPool
from searchspace.checkpoint import CheckpointError
from searchspace.checkpoint import load as load_network
from searchspace.choices import SpaceError
from searchspace.codes import Candidate, Codes
from searchspace.cost import Cost, cost
from searchspace.notation import to_json
from searchspace.spaces import open_space

REQUEUES = 3  # of a trial whose driver died; then it is recorded as failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a search stands, in trials: seeds are not counted. `new` came in since the last status, seeds too; `total`
    is None without a budget of trials."""

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
    """What a search left: its table, its front (with test accuracy), what was proposed, and why it ended.

    `history` is (finished trials, hypervolume from `reference`); `store` the MLflow URI, `chart` the link into it.
    """

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
    history: tuple[tuple[int, float], ...]
    store: str | None
    chart: str | None


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

    `watch` is called twice a second, or after each job in process; `say` gets lines for people, from any thread.
    `pool` replaces the workers of the sweep and stays open. `report` makes files of the outcome (pictures), which
    MLflow then keeps with the front.
    Raises `SweepError` for a sweep that cannot start: a limit out of reach, a seed that does not fit the data,
    another sweep's folder, a folder in use; `ResultsError` for a table that cannot be read; `DiskFull`.
    """
    out = Path(out)
    with full_disk_said(out), held(out):
        refuse_another(sweep, out)
        try:
            resolve(sweep.train)
        except WorkersError as error:
            raise SweepError([f"train: {error}"]) from None
        except (Exception, SystemExit) as error:  # the user's module may raise anything on import
            rule = f"must be importable (got {sweep.train!r}: {type(error).__name__}: {error})"
            raise SweepError([f"train: {rule}"]) from None
        data = load(sweep.data, seed=sweep.seed)
        space = open_space(sweep.space, input=data.input, classes=data.classes)
        seeds = seeds_of(sweep, data)
        if sweep.training.batch_size > (images := data.sizes["train"]):
            say(f"note: batch_size is {sweep.training.batch_size}, so the {images} training images are one batch.")
        found = _surveyed(sweep, space, out)
        refuse_other_data(out, data.fingerprint)
        write_json(out / "sweep.json", sweep.to_json())
        tracker = open_tracker(sweep, out, {**provenance(), "data": data.fingerprint, "seed": str(sweep.seed)}, say)
        with Results(out / "results.jsonl") as table, Interrupts() as interrupts:
            run = _Search(sweep, out, space, seeds, data, found, tracker, table, say)
            with nullcontext(pool) if pool else open_pool(sweep.workers, sweep.train) as workers:
                interrupts.take()
                run.loop(workers, watch, interrupts)
            outcome = run.outcome()
            files = [*report(outcome), *(out / name for name in ("front.json", "sweep.json", "space.json"))]
            if tracker:
                tracker.finish_sweep(files, status="KILLED" if outcome.interrupted else "FINISHED")
                tracker.close()
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
        epoch_minutes=workers.epoch_minutes,
    )


def open_tracker(sweep: Sweep, out: Path, facts: dict[str, str], say: Callable[[str], None]) -> Tracker | None:
    """The tracker that a sweep asks for; by default a sqlite file beside the results."""
    if sweep.tracking.uri == "off":
        return None
    uri = sweep.tracking.uri or f"sqlite:///{(out / 'mlflow.db').resolve()}"
    return Tracker(uri, sweep.tracking.experiment or sweep.name, sweep.name, facts, folder=identity(out), say=say)


class _Search:
    """The state of one call of `search`."""

    def __init__(
        self,
        sweep: Sweep,
        out: Path,
        space: Codes,
        seeds: list[Seed],
        data: Data,
        report: Survey,
        tracker: Tracker | None,
        table: Results,
        say: Callable[[str], None],
    ) -> None:
        self.sweep, self.out, self.space, self.data, self.report = sweep, out, space, data, report
        self.tracker, self.say = tracker, say
        self.objectives = tuple(OBJECTIVES[name] for name in sweep.objectives)
        self.table = table
        if table.broken is not None:
            say(f"{table.path}: the last line is broken; it goes to {table.path.name}.broken.")
        if aside := mend_journal(out):
            say(f"{out / 'journal.log'}: the end is broken; it goes to {aside.name}, and the table fills the gap.")
        self.study = open_study(f"{sweep.name}-{identity(out)}", sweep.storage, out, self.objectives)
        begun = len(self.study.get_trials(deepcopy=False))
        rng = Random(mix(sweep.seed, begun))  # another stream on every start: a repeated one repeats proposals
        inner = SAMPLERS[sweep.sampler](rng.getrandbits(31))
        self.published = {seed.architecture.digest: seed for seed in seeds}
        seen = {row.digest for row in self.table} | self.published.keys()
        spread = 1 if sweep.sampler == "random" else SPREAD
        self.proposals = Proposals(space, sweep.limits, inner, rng, seen, spread)
        self.study.sampler = self.proposals
        self.front = front(self.table, self.objectives)
        self.volume: tuple[dict[str, float], float] | None = None  # of this front: the reference, the hypervolume
        self.tally = Tally(self.table, self.objectives)
        self.started = time.monotonic()
        self.in_flight: dict[int, Job] = {}
        self.new: list[Result] = []
        self.ended = "the budget is spent"
        self.interrupted = False
        self.trials: dict[int, Trial | int] = {}
        latest = self.table.latest()
        orphans = reconcile(self.study, latest, self.objectives, self.proposals.distributions, sweep.limits.latency_ms)
        self.waiting = [self._again(trial.number, trial.params) for trial in orphans]
        self._sow(seeds)
        self._give_up()
        self._clean()
        if tracker:
            tracker.start_sweep(sweep.to_json(), report.to_json(), cost=self._cost_axis())
            tracker.catch_up(self.table)
            tracker.move_front(self.front)

    # One call of the loop ---------------------------------------------------------------------------------------

    def loop(self, pool: Pool, watch: Callable[[Status], None], interrupts: Interrupts) -> None:
        """Keep the workers busy until the budget is spent and everything came back, or Ctrl-C."""
        full = False
        try:
            while True:
                capacity = pool.capacity
                room = capacity + (capacity > 1)  # one waits at the door, so that no worker does
                while len(self.in_flight) < room and (self.waiting or self.seeds or (not full and self._affordable())):
                    try:
                        job = self._next()
                    except SpaceFull as error:
                        full, self.ended = True, str(error)
                        break
                    self.in_flight[job.trial] = job
                    pool.submit(job)
                if not self.in_flight:
                    return
                with interrupts.allowed():
                    finished = pool.finished(0.5)
                for result in finished:
                    del self.in_flight[result.trial]
                    self._record(result)
                watch(self._status())
        except KeyboardInterrupt:
            self.interrupted, self.ended = True, "interrupted"
            self.study.set_user_attr("requeued", {})  # no fault of the trials'
        except OSError:  # of the disk, and no fault of the trials' either
            with suppress(OSError):
                self.study.set_user_attr("requeued", {})
            raise

    def _affordable(self) -> bool:
        """Whether the budget allows one more trial beside those in flight. Seeds cost GPU hours alone."""
        budget, flying = self.sweep.budget, sum(job.kind == "trial" for job in self.in_flight.values())
        epochs = self.tally.epochs + flying * self.sweep.training.epochs
        gpu_hours = self.tally.seconds * self.sweep.workers.gpus_per_trial / 3600
        return (
            (budget.trials is None or self.tally.done + flying < budget.trials)
            and (budget.epochs is None or epochs + self.sweep.training.epochs <= budget.epochs)
            and (budget.hours is None or time.monotonic() - self.started < budget.hours * 3600)
            and (budget.gpu_hours is None or gpu_hours < budget.gpu_hours)
        )

    def _next(self) -> Job:
        """What was begun before, then the seeds, then new trials. Raises `SpaceFull`."""
        if self.waiting:
            return self.waiting.pop(0)
        return self._plant(*self.seeds.pop(0)) if self.seeds else self._propose()

    def _sow(self, seeds: list[Seed]) -> None:
        """Line up the seeds that are not in the table; those that a dead driver left wait to be run again."""
        known = {row.digest for row in self.table} | {job.digest for job in self.waiting}
        begun = self.study.user_attrs.get("seeds", [])
        self.seeds = [(-number, seed) for number, seed in enumerate(seeds, 1) if seed.architecture.digest not in known]
        self.waiting += [self._beside(number, seed) for number, seed in self.seeds if number in begun]
        self.seeds = [(number, seed) for number, seed in self.seeds if number not in begun]

    def _plant(self, number: int, seed: Seed) -> Job:
        """The job of a seed: a trial that the sampler learns from where the space holds it, else beside the study."""
        try:
            code = self.space.encode(seed.architecture)
        except SpaceError:
            self.study.set_user_attr("seeds", [*self.study.user_attrs.get("seeds", []), number])
            return self._beside(number, seed)
        self.proposals.given = Candidate(code, seed.architecture)
        return self._propose()

    def _beside(self, number: int, seed: Seed) -> Job:
        return self._job(number, Candidate({}, seed.architecture), cost(seed.architecture))

    def _propose(self) -> Job:
        """A new trial of the study. Raises `SpaceFull`."""
        trial = self.study.ask(fixed_distributions=self.proposals.distributions)
        self.trials[trial.number] = trial
        assert self.proposals.candidate is not None
        assert self.proposals.cost is not None
        return self._job(trial.number, self.proposals.candidate, self.proposals.cost)

    def _again(self, number: int, params: dict[str, object]) -> Job:
        """The job of a trial that a dead driver left."""
        candidate = self.space.candidate(self.proposals.code(params))
        self.proposals.remember(candidate)
        return self._job(number, candidate, cost(candidate.architecture))

    def _give_up(self) -> None:
        """Count what is run again; what was too often is recorded as failed: it may be what kills the driver."""
        counts = {int(k): int(v) for k, v in self.study.user_attrs.get("requeued", {}).items()}
        counts = {job.trial: counts.get(job.trial, 0) + 1 for job in self.waiting}
        self.study.set_user_attr("requeued", counts)
        given_up = [job for job in self.waiting if counts[job.trial] > REQUEUES]
        self.waiting = [job for job in self.waiting if counts[job.trial] <= REQUEUES]
        nobody = Worker(node="lost", pid=0, device="lost")
        for job in given_up:
            error = f"The driver was lost {counts[job.trial]} times while this trial ran."
            self._record(answer(job, "failed", job.values, nobody, error=error))

    def _job(self, number: int, candidate: Candidate, price: Cost) -> Job:
        architecture = candidate.architecture
        seed = self.published.get(architecture.digest)
        return Job(
            trial=number,
            kind="seed" if seed else "trial",
            name=seed.name if seed else "",
            architecture=to_json(architecture),
            choices=dict(candidate.code) or None,
            words=str(architecture),
            digest=architecture.digest,
            values=price.values(),
            data=self.sweep.data,
            data_seed=self.sweep.seed,
            training=self.sweep.training,
            seed=mix(self.sweep.seed, number),
            until=self.sweep.training.epochs,
            measure_latency="latency_ms" in self.sweep.objectives,
            latency_limit_ms=self.sweep.limits.latency_ms,
            checkpoint=str(checkpoint(self.out, number)),
            train=self.sweep.train,
        )

    def _record(self, result: Result) -> None:
        """On disk first; then the study, the front and MLflow hear of it. A full disk is no fault of the trial's."""
        if result.error and os.strerror(errno.ENOSPC) in result.error:
            raise OSError(errno.ENOSPC, f"{result.title}: {result.error.splitlines()[0]}")
        self.table.append(result)
        self.tally.add(result)
        if result.note:
            self.say(f"{result.title}: {result.note}")
        self.new.append(result)
        if result.trial >= 0:
            trial = self.trials.pop(result.trial, result.trial)
            tell(self.study, trial, result, self.objectives, self.sweep.limits.latency_ms)
        if self.tracker:
            self.tracker.log_trial(result)
        moved = front([*self.front, result], self.objectives)
        if moved != self.front:
            self.front, self.volume = moved, None
            self._write_front(moved)
            if self.tracker:
                self.tracker.move_front(moved)
        self._clean()

    def _clean(self) -> None:
        """Keep the networks of the front, and the checkpoints of what runs."""
        kept = {f"{stem(row.trial)}.safetensors" for row in self.front}
        busy = tuple(stem(trial) for trial in (*self.in_flight, *(job.trial for job in self.waiting)))
        for path in (self.out.resolve() / "checkpoints").iterdir() if (self.out / "checkpoints").exists() else ():
            work = path.name.removeprefix(".")  # a hidden name is a file being written
            if path.name not in kept and not work.startswith(busy):
                path.unlink(missing_ok=True)

    def _status(self) -> Status:
        new, self.new = tuple(self.new), []
        reference = self._reference()
        if self.volume is None or self.volume[0] != reference:
            self.volume = reference, hypervolume(self.front, self.objectives, reference)
        return Status(
            total=self.sweep.budget.trials,
            done=self.tally.done,
            failed=self.tally.failed,
            stopped=self.tally.stopped,
            in_flight=len(self.in_flight),
            new=new,
            front=tuple(self.front),
            hypervolume=self.volume[1],
        )

    def _reference(self) -> dict[str, float]:
        """The limits, and where there is none the top of the space's range; of a latency, the largest seen."""
        tops = self.tally.largest | {name: r.largest for name, r in self.report.costs.items()} | self.sweep.limits.costs
        if self.sweep.limits.latency_ms is not None:
            tops["latency_ms"] = self.sweep.limits.latency_ms
        return reference_point((), self.objectives, tops)

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
            history=tuple(hypervolume_history(self.table, self.objectives, reference)),
            store=self.tracker.uri if self.tracker else None,
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
        members: list[Result] = []
        for row in self.front:
            values = dict(row.values)
            if "test_accuracy" in known.get(row.trial, {}):
                values["test_accuracy"] = known[row.trial]["test_accuracy"]
            elif not self.interrupted:
                try:
                    network = load_network(weights(self.out, row.trial))
                    values["test_accuracy"] = evaluate(network, self.data, "test")[1]
                except (CheckpointError, TrainingError) as error:
                    self.say(f"{row.title} has no test accuracy: {error}")
            members.append(replace(row, values=values))
        return members

    def _write_front(self, members: list[Result]) -> None:
        record = {
            "format": "front/1",
            "objectives": [o.name for o in self.objectives],
            "reference": self._reference(),
            "members": [row.to_json() for row in members],
        }
        write_json(self.out / "front.json", record, indent=None)  # indented, a long front takes half a second


def _surveyed(sweep: Sweep, space: Codes, out: Path) -> Survey:
    """The space's report, made once a folder. Raises `SweepError` where the limits cannot be reached."""
    path = out / "space.json"
    if path.exists():
        record = read_json(path, "survey/1")
        try:
            del record["format"], record["reachable"]
            return Survey(**{**record, "costs": {k: Range(**v) for k, v in record["costs"].items()}})
        except (KeyError, TypeError, AttributeError) as error:
            raise SweepError([f"{path}: must have all its parts ({error}); delete it, and it is made again"]) from None
    report = survey(space, sweep.limits, rng=Random(sweep.seed))
    if not report.reachable:
        raise SweepError([f"limits: must be within reach of the space, but {miss(report, sweep.limits)}"])
    write_json(path, report.to_json())
    return report
