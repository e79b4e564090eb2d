"""A search on the terminal: the configuration first, trials as they come, the front and where to look last."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.report import front_table, no_front, write_report
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
    budget = [f"{bound} {name}" for name, bound in bounds.items() if bound is not None]
    here = "workers    this process: one trial at a time, and no limit of time on an epoch"
    workers = [here] if sweep.workers.address == "inprocess" else []
    seeds = [f"seeds      {', '.join(map(call, sweep.seeds))}, trained first"] if sweep.seeds else []
    return [
        f"sweep      {sweep.name} on {sweep.data}, into {out}",
        f"objectives {', '.join(sweep.objectives)}",
        f"limits     {', '.join(limits) or 'none'}",
        f"budget     {', '.join(budget)} of {sweep.training.epochs} epochs, proposed by {sweep.sampler}",
        *workers,
        *seeds,
    ]


def run_search(sweep: Sweep, out: Path, narrator: Narrator) -> Outcome:
    """The search with its progress told; SIGTERM ends it as Ctrl-C does."""
    narrator.status("surveying the space, starting workers")
    with _terminated_as_interrupted():
        return search(sweep, out, watch=_Watch(narrator), say=narrator.say, report=write_report)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Watch:
    """Tells of each trial that came in, and where the search stands."""

    def __init__(self, narrator: Narrator) -> None:
        self.narrator = narrator
        self.start = time.monotonic()
        self.done_before: int | None = None

    def __call__(self, status: Status) -> None:
        if self.done_before is None:
            self.done_before = status.done - sum(row.kind == "trial" for row in status.new)
        members = {row.trial for row in status.front}
        for row in status.new:
            self.narrator.say(_trial_line(row, row.trial in members))
        elapsed, here = time.monotonic() - self.start, status.done - self.done_before
        best = max((row.values.get("accuracy", 0.0) for row in status.front), default=0.0)
        parts = [
            f"{status.done}/{status.total} trials" if status.total else f"{status.done} trials",
            f"{status.in_flight} in work",
            *([f"{status.failed} failed"] if status.failed else []),
            *([f"{status.stopped} stopped"] if status.stopped else []),
            f"{len(status.front)} on the front, best accuracy {best:.3f}, hypervolume {status.hypervolume:.3f}",
            duration(elapsed),
        ]
        if status.total and here:
            parts.append(f"about {duration(elapsed / here * max(0, status.total - status.done))} left")
        self.narrator.status(", ".join(parts))


def _trial_line(row: Result, on_front: bool) -> str:
    name = row.title
    if row.state != "complete":
        late = f"latency {row.values.get('latency_ms', 0):.3g} ms is over the limit"
        return f"! {name}  {row.state}: {(row.error or late).splitlines()[0]}"[:LINE]
    mark, price = "*" if on_front else " ", short(row.values["flops"])
    return f"{mark} {name}  {row.values['accuracy']:.3f}  {price:>6} FLOPs  {row.seconds:5.1f} s  {row.words}"[:LINE]


def show_outcome(outcome: Outcome) -> None:
    """The front, and where to look."""
    out = outcome.out
    rows = list({row.trial: row for row in outcome.results}.values())
    states, seeds = Counter(row.state for row in rows), sum(row.kind == "seed" for row in rows)
    stopped = f", {states['stopped']} stopped by the latency limit" if states["stopped"] else ""
    known = f" and {seeds} published" if seeds else ""
    print(
        f"\nPareto front of {len(rows) - seeds} trials{known} ({states['failed']} failed{stopped}); {outcome.ended}.\n"
    )
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
