"""The search: propose or promote, train on workers, record, compare, tell; then the front.

One driver owns an output folder. `results.jsonl` there is the truth; everything else is made from it. Calling
`search` again on the same folder goes on where the last call ended, however it ended.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from optuna.trial import Trial

from nas.data import Data, load, mix
from nas.folder import (
    full_disk_said,
    held,
    identity,
    read_json,
    refuse_another,
    refuse_other_data,
    stem,
    trial_of,
    write_json,
)
from nas.interrupts import Interrupts
from nas.jobs import Job, WorkersError, answer, resolve
from nas.ladder import Ladder
from nas.moving_front import MovingFront
from nas.orders import Orders
from nas.pareto import OBJECTIVES, Objective, Spent, hypervolume_history
from nas.proposals import SAMPLERS, Counts, Proposals, Setting, SpaceFull
from nas.provenance import provenance
from nas.proxies import proxy
from nas.results import Result, Results, Worker
from nas.seeds import Seed, seeds_of
from nas.spending import Spending
from nas.start import Start
from nas.study import mend_journal, open_study, reconcile, tell, tell_stopped
from nas.survey import Range, Survey, miss, survey
from nas.sweep import Sweep, SweepError, Workers
from nas.tally import Tally
from nas.tracking import Tracker
from nas.training import MOST
from nas.workers import InProcessPool, Pool, RayPool
from searchspace.choices import SpaceError
from searchspace.codes import Candidate, Codes
from searchspace.cost import cost
from searchspace.spaces import open_space

SHARE = 0.2  # of the time that passes, for the surrogate to think in
REQUEUES = 3  # of a trial whose driver died; then it is recorded as failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where a search stands, in trials: seeds are not counted. `new` came in since the last status, seeds too.

    `done` trials came in at least once, `failed` and `stopped` (over the latency limit) ones among them; so many
    `reached` each of the `levels`, the epochs at which trials are compared. `epochs` were trained. `total` and
    `epochs_total` are None without such a budget.
    """

    total: int | None
    done: int
    failed: int
    stopped: int
    in_flight: int
    levels: tuple[int, ...]
    reached: tuple[int, ...]
    epochs: int
    epochs_total: int | None
    new: tuple[Result, ...]
    front: tuple[Result, ...]
    hypervolume: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a search left: its table, its front (with test accuracy), what was proposed, and why it ended.

    `history` is what was spent and the hypervolume from `reference` that it gave; `levels` the epochs at which trials
    were compared; `store` the MLflow URI, `chart` the link into it.
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
    history: tuple[Spent, ...]
    levels: tuple[int, ...]
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
        if (sweep.budget.epochs or MOST) < sweep.training.epochs:
            rule = f"must allow one training of {sweep.training.epochs} epochs (got {sweep.budget.epochs})"
            raise SweepError([f"budget.epochs: {rule}"])
        if sweep.training.batch_size > (images := data.sizes["train"]):
            say(f"note: batch_size is {sweep.training.batch_size}, so the {images} training images are one batch.")
        found = _surveyed(sweep, space, out)
        refuse_other_data(out, data.fingerprint)
        write_json(out / "sweep.json", sweep.to_json())
        tracker = open_tracker(sweep, out, {**provenance(), "data": data.fingerprint, "seed": str(sweep.seed)}, say)
        with Results(out / "results.jsonl") as table, Interrupts() as interrupts:
            with nullcontext(pool) if pool else open_pool(sweep.workers, sweep.train) as workers:
                interrupts.take()
                alone = isinstance(workers, InProcessPool)
                run = _Search(sweep, out, space, seeds, data, found, tracker, table, say, alone)
                if workers.capacity:
                    run.give_up()
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
        alone: bool,
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
        self.published = {seed.architecture.digest: seed for seed in seeds}
        self.proposals = self._sampler(rng, seeds, alone)
        self.study.sampler = self.proposals
        self.orders = Orders(sweep, out, self.published)
        self.tally = Tally(self.table, self.objectives)
        self.spending = Spending(sweep, self.tally)
        self.front = MovingFront(out, table, self.objectives, self.tally, report, sweep.limits)
        self.ladder = Ladder(sweep.levels, sweep.effective_rungs.eta if sweep.effective_rungs else 1.0, self.objectives)
        for row in self.table:
            self.ladder.add(row)
            self.proposals.learn(row)
        self.in_flight: dict[int, Job] = {}
        self.new: list[Result] = []
        self.full = False
        self.ended = "the budget is spent"
        self.interrupted = False
        self.trials: dict[int, Trial | int] = {}
        latest = self.table.latest()
        orphans = reconcile(self.study, latest, self.objectives, self.proposals.distributions, sweep.limits.latency_ms)
        self.waiting = [self._again(trial.number, trial.params) for trial in orphans]
        self.waiting += [self._climb(n, until) for n, until in self._climbing() if n in self.ladder.waiting]
        self._sow(seeds)
        self._clean()
        if tracker:
            tracker.start_sweep(sweep.to_json(), report.to_json(), cost=self._cost_axis())
            tracker.catch_up(self.table)
            tracker.move_front(self.front.members)

    def _sampler(self, rng: Random, seeds: list[Seed], alone: bool) -> Proposals:
        """The sweep's sampler under the common roof; repeatable where it is `alone` with one worker in this process."""
        sweep, seed = self.sweep, rng.getrandbits(31)
        setting = Setting(
            space=self.space,
            limits=sweep.limits,
            objectives=self.objectives,
            epochs=sweep.training.epochs,
            seed=seed,
            extra=proxy(sweep.proxy, self.data),
            share=None if alone else SHARE,
        )
        start = None
        if sweep.sampler == "surrogate":
            axis = next((o.name for o in self.objectives if o.name in self.report.costs), "flops")
            costs = [getattr(cost(seed.architecture), axis) for seed in seeds]
            start = Start(self.report.costs[axis], taken=costs, name=axis)
        seen = {row.digest for row in self.table} | self.published.keys()
        return Proposals(self.space, sweep.limits, SAMPLERS[sweep.sampler](setting), rng, seen, start)

    # One call of the loop ---------------------------------------------------------------------------------------

    def loop(self, pool: Pool, watch: Callable[[Status], None], interrupts: Interrupts) -> None:
        """Keep the workers busy until the budget is spent and everything came back, or Ctrl-C."""
        try:
            while True:
                capacity = pool.capacity
                room = capacity + (capacity > 1)  # one waits at the door, so that no worker does
                while len(self.in_flight) < room and (job := self._next()) is not None:
                    self.in_flight[job.trial] = job
                    pool.submit(job)
                if not self.in_flight:
                    if capacity:
                        tell_stopped(self.study, self.ladder.waiting)
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

    def _next(self) -> Job | None:
        """What was begun before, then seeds, then promotions, then new trials; None where nothing is to be done now.

        No new trial is begun that the budget could not train to its end; once there are no more, those on the front
        of their rung go on.
        """
        if self.waiting:
            return self.waiting.pop(0)
        if self.seeds:
            return self._plant(*self.seeds.pop(0))
        job = self._promote()
        if job is not None:
            return job
        if not self.full and self.spending.affords_trial(self.in_flight.values()):
            try:
                return self._propose()
            except SpaceFull as error:
                self.full, self.ended = True, str(error)
        return self._promote(closing=True)

    def _promote(self, *, closing: bool = False) -> Job | None:
        """The job of a trial that goes on to its next rung. Out of time, they go on until one of them is at its end."""
        due = self.ladder.next(closing=closing) if self.spending.in_time() or not self.ladder.reached[-1] else None
        if due is None or not self.spending.affords(due[1] - due[0].epoch, self.in_flight.values()):
            return None
        return self._climb(due[0].trial, due[1])

    def _climbing(self) -> list[tuple[int, int]]:
        """(trial, epoch) of the promotions in work, those that came in left out."""
        begun = ((int(n), int(until)) for n, until in self.study.user_attrs.get("climbing", {}).items())
        return [(n, until) for n, until in begun if until > self.tally.epoch(n)]

    def _climb(self, number: int, until: int) -> Job:
        """A waiting trial goes on to epoch `until`; the study remembers it, for the count of what kills drivers."""
        row = self.ladder.leave(number)
        self.study.set_user_attr("climbing", {**dict(self._climbing()), number: until})
        return self.orders.next(row, until)

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
        return self.orders.first(number, Candidate({}, seed.architecture), cost(seed.architecture))

    def _propose(self) -> Job:
        """A new trial of the study. Raises `SpaceFull`."""
        trial = self.study.ask(fixed_distributions=self.proposals.distributions)
        self.trials[trial.number] = trial
        candidate, price = self.proposals.candidate, self.proposals.cost
        assert candidate is not None
        assert price is not None
        parent = self.proposals.parent(candidate.architecture.digest) if self.sweep.inherit else None
        return self.orders.first(trial.number, candidate, price, parent)

    def _again(self, number: int, params: dict[str, object]) -> Job:
        """The job of a trial that a dead driver left."""
        candidate = self.space.candidate(self.proposals.code(params))
        price = cost(candidate.architecture)
        self.proposals.remember(candidate, price)
        return self.orders.first(number, candidate, price)

    def give_up(self) -> None:
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

    def _record(self, result: Result) -> None:
        """On disk first; then the study, the front and MLflow hear of it. A full disk is no fault of the trial's."""
        if result.error and os.strerror(errno.ENOSPC) in result.error:
            raise OSError(errno.ENOSPC, f"{result.title}: {result.error.splitlines()[0]}")
        self.table.append(result)
        self.tally.add(result)
        if result.note:
            self.say(f"{result.title}: {result.note}")
        self.new.append(result)
        self.ladder.add(result)
        self.proposals.learn(result)
        if str(result.trial) in self.study.user_attrs.get("climbing", {}):
            climbing = {n: until for n, until in self._climbing() if n != result.trial}
            self.study.set_user_attr("climbing", climbing)
        if result.trial >= 0 and result.ended:
            trial = self.trials.pop(result.trial, result.trial)
            tell(self.study, trial, result, self.objectives, self.sweep.limits.latency_ms)
        if self.tracker:
            self.tracker.log_trial(result)
        if self.front.add(result) and self.tracker:
            self.tracker.move_front(self.front.members)
        self._clean()

    def _clean(self) -> None:
        """Keep the networks of the front, and the checkpoints of what runs or may go on."""
        folder = self.out.resolve() / "checkpoints"
        paths = list(folder.iterdir()) if folder.exists() else []
        kept = {f"{stem(row.trial)}.safetensors" for row in self.front.members}
        kept |= {stem(n) for n in self.ladder.kept({trial_of(path.name) for path in paths})}
        busy = tuple(stem(trial) for trial in (*self.in_flight, *(job.trial for job in self.waiting)))
        for path in paths:
            work = path.name.removeprefix(".")  # a hidden name is a file being written
            if path.name not in kept and not work.startswith(busy):
                path.unlink(missing_ok=True)

    def _status(self) -> Status:
        new, self.new = tuple(self.new), []
        return Status(
            total=self.sweep.budget.trials,
            done=self.tally.done,
            failed=self.tally.failed,
            stopped=self.tally.stopped,
            in_flight=len(self.in_flight),
            levels=self.ladder.levels,
            reached=self.ladder.reached,
            epochs=self.tally.epochs,
            epochs_total=self.sweep.budget.epochs,
            new=new,
            front=tuple(self.front.members),
            hypervolume=self.front.hypervolume(),
        )

    def _cost_axis(self) -> str:
        return next((o.name for o in self.objectives if not o.maximize), "flops")

    # The end ----------------------------------------------------------------------------------------------------

    def outcome(self) -> Outcome:
        """The front with its test accuracies, on disk and in MLflow."""
        members = self.front.tested(None if self.interrupted else self.data, self.say)
        self.front.write(members)
        reference = self.front.reference()
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
            levels=self.ladder.levels,
            store=self.tracker.uri if self.tracker else None,
            chart=self.tracker.chart_link() if self.tracker else None,
        )
        if self.tracker:
            self.tracker.log_hypervolume({at.epochs: at.hypervolume for at in outcome.history}.items(), reference)
            for row in members:
                if "test_accuracy" in row.values:
                    self.tracker.log_test(row, row.values["test_accuracy"])
        return outcome


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
