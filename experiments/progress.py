"""A search on the terminal: the configuration first, trials as they come, the front and where to look last."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dashboards.fates import fates
from experiments.report import begun, front_table, no_front, write_report
from experiments.terminal import Narrator
from nas.quantities import duration, short
from nas.results import Result
from nas.search import Outcome, Status, search
from nas.sweep import Sweep
from searchspace.named import call

LINE = 160  # characters of a trial's line


def describe(sweep: Sweep, out: Path) -> list[str]:
    """The configuration, a fact a line."""
    limits = [f"{name} <= {short(value)}" for name, value in sweep.limits.costs.items()]
    if sweep.limits.latency_ms is not None:
        limits.append(f"latency <= {sweep.limits.latency_ms:g} ms")
    bounds = {name: getattr(sweep.budget, name) for name in ("trials", "epochs", "hours", "gpu_hours")}
    budget = [f"{bound} {name.replace('gpu_', 'GPU ')}" for name, bound in bounds.items() if bound is not None]
    here = "workers    this process: one trial at a time, and no limit of time on an epoch"
    workers = [here] if sweep.workers.address == "inprocess" else []
    seeds = [f"seeds      {', '.join(map(call, sweep.seeds))}, trained first, to their end"] if sweep.seeds else []
    return [
        f"sweep      {sweep.name} on {sweep.data}, into {out}",
        f"objectives {', '.join(sweep.objectives)}",
        f"limits     {', '.join(limits) or 'none'}",
        f"budget     {' or '.join(budget)}, proposed by {sweep.sampler}",
        _training(sweep),
        *workers,
        *seeds,
    ]


def _training(sweep: Sweep) -> str:
    if sweep.effective_rungs is None or not sweep.levels[:-1]:
        return f"training   {sweep.training.epochs} epochs, every trial"
    eta = sweep.effective_rungs.eta
    best: dict[float, str] = {2: "the better half", 3: "the best third", 4: "the best quarter"}
    return f"rungs      {', '.join(map(str, sweep.levels))} epochs, {best.get(eta, f'the best {1 / eta:.0%}')} goes on"


def run_search(sweep: Sweep, out: Path, narrator: Narrator) -> Outcome:
    """The search with its progress told; SIGTERM ends it as Ctrl-C does."""
    narrator.status("surveying the space, starting workers")
    with _terminated_as_interrupted():
        return search(sweep, out, watch=Watch(narrator), say=narrator.say, report=write_report)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Watch:
    """Tells of each trial that came in, and where the search stands."""

    def __init__(self, narrator: Narrator, clock: Callable[[], float] = time.monotonic) -> None:
        self.narrator, self.clock = narrator, clock
        self.start = clock()
        self.first: tuple[float, int] | None = None  # when the first status came, and what of the budget was spent then

    def __call__(self, status: Status) -> None:
        now, members = self.clock(), {row.trial for row in status.front}
        for row in status.new:
            self.narrator.say(trial_line(row, status.levels, row.trial in members))
        by_epochs = status.epochs_total is not None
        spent, total = (status.epochs, status.epochs_total) if by_epochs else (status.done, status.total)
        self.first = self.first or (now, spent)
        since, before = self.first
        known = total is not None and before < spent < total  # promotions may go on when all trials have begun
        left = (now - since) / (spent - before) * (total - spent) if total and known else None
        self.narrator.status(status_line(status, now - self.start, left))


def status_line(status: Status, elapsed_s: float, left_s: float | None) -> str:
    """Where a search stands. What matters most is first: a narrow terminal cuts the end."""
    last = status.levels[-1]
    rungs = [f"rungs {' > '.join(map(str, status.reached))}"] if status.levels[:-1] else []
    best = max((row.values.get("accuracy", 0.0) for row in status.front), default=0.0)
    front = [f"{len(status.front)} on the front", f"best accuracy {best:.3f}", f"hypervolume {status.hypervolume:.3f}"]
    return ", ".join(
        [
            f"{status.done}/{status.total} trials" if status.total else f"{status.done} trials",
            f"{status.epochs}/{status.epochs_total} epochs" if status.epochs_total else f"{status.epochs} epochs",
            *([f"about {duration(left_s)} left"] if left_s is not None else []),
            *rungs,
            *([f"{status.failed} failed"] if status.failed else []),
            *(front if status.front else [f"none trained for {last} epochs yet"]),
            f"{status.in_flight} in work",
            *([f"{status.stopped} over the latency limit"] if status.stopped else []),
            duration(elapsed_s),
        ]
    )


def trial_line(row: Result, levels: Sequence[int], on_front: bool) -> str:
    """A trial that came in. The column of accuracies holds results alone: what is known on the way stands in words."""
    name = row.title
    if row.state != "complete":
        late = f"latency {row.values.get('latency_ms', 0):.3g} ms is over the limit"
        return f"! {name}  {row.state}: {(row.error or late).splitlines()[0]}"[:LINE]
    mark, price = "*" if on_front else " ", short(row.values["flops"])
    accuracy, way = f"{row.values['accuracy']:.3f}", ""
    if not row.final:
        went = "went on to epoch" if row.epoch > levels[0] else "epoch"
        accuracy, way = "  -  ", f"{went} {row.epoch} of {levels[-1]}, {accuracy} there  "
    return f"{mark} {name}  {accuracy}  {price:>6} FLOPs  {row.seconds:5.1f} s  {way}{row.words}"[:LINE]


def show_outcome(outcome: Outcome) -> None:
    """The front, and where to look."""
    out = outcome.out
    ends = fates(outcome.results, outcome.levels).said("wait at" if outcome.interrupted else "stopped at")
    print(f"\nPareto front of {begun(outcome)}: {ends}; {outcome.ended}.\n")
    late = [row.values["latency_ms"] for row in outcome.results if row.state == "stopped"]
    if late and not outcome.front:
        limit = outcome.sweep.limits.latency_ms
        print(f"No trial met the latency limit of {limit:g} ms; the nearest took {min(late):.3g} ms.\n")
    print(front_table(outcome.front, outcome.objectives) if outcome.front else no_front(outcome.results))
    print(f"\nproposals: {outcome.proposals}")
    print(f"look at    {out / 'front.html'}   {out / 'front.png'}")
    if outcome.chart and outcome.chart.startswith("http"):
        print(f"in MLflow  {outcome.chart}")
    elif outcome.chart:
        print(f"in MLflow  mlflow ui --backend-store-uri {shlex.quote(outcome.store or '')}")
        print(f"           then http://127.0.0.1:5000{outcome.chart}")
    if outcome.front:
        best = max(outcome.front, key=lambda r: r.values.get("accuracy", 0.0)).trial
        print(f"next       nas train {shlex.quote(str(out))} --trial {best} --seeds 3   (one seed is optimistic)")


def continuing(out: Path) -> str:
    """The command that goes on: this one, its folder said."""
    words = sys.argv[1:]
    if not any(word == "--out" or word.startswith("--out=") for word in words):
        words = [*words, "--out", str(out)]
    return shlex.join(["nas", *words])
