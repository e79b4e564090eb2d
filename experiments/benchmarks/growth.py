"""What a trial costs the driver as a sweep grows: propose, record, front, tell, status; CPU milliseconds a trial.

    python -m experiments.benchmarks.growth [--only surrogate random] [--quick] [--json]

The results table of the digits sweep is filled with made-up results, as far along the rungs of the sampler as they
would be, then the search goes on for some trials on workers that answer at once without training, journal on, tracking
off. Samplers alternate. Unless named, two are left out: screen proposes as moasha does, and Optuna's TPE takes a
quarter of a second for a proposal at 1,000 trials and seconds at 10,000.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Self

from experiments.opened import shipped
from nas.jobs import Job, answer
from nas.pareto import OBJECTIVES
from nas.proposals import SAMPLERS
from nas.provenance import provenance
from nas.results import Epoch, Result, Results, Worker
from nas.rungs import best_first, rungs_of
from nas.search import Status, search
from nas.sweep import Budget, Sweep, Tracking, Workers
from nas.sweep_file import read_sweep
from searchspace.codes import Candidate, Codes
from searchspace.cost import cost
from searchspace.notation import to_json
from searchspace.spaces import open_space

HERE = Worker(node="here", pid=0, device="cpu")


class Instant:
    """A pool of two workers that answer at once: accuracy grows with the network's FLOPs, by what its digest says."""

    capacity = 2

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def finished(self, timeout_s: float) -> list[Result]:
        return [made_up(self._jobs.popleft())] if self._jobs else []

    def close(self) -> None:
        self._jobs.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def made_up(job: Job) -> Result:
    """A rung job's record, without the training: a sixteenth of the accuracy is missing after half the epochs."""
    chance = int(job.digest[:8], 16) / 16**8
    accuracy = (1 - chance**2 / 4) * job.values["flops"] / (job.values["flops"] + 5e4)
    curve = tuple(_epoch(i, accuracy * (1 - 2 ** (-8 * i / job.training.epochs))) for i in range(1, job.until + 1))
    values = {**job.values, "accuracy": curve[-1].val_accuracy}
    return answer(job, "complete", values, HERE, curve=curve, seconds=1.0)


def _epoch(number: int, accuracy: float) -> Epoch:
    accuracy = round(accuracy * 360) / 360  # as fine as the digits' validation images
    return Epoch(epoch=number, train_loss=1.0, train_accuracy=accuracy, val_loss=1.0, val_accuracy=accuracy)


def digits(**changes: object) -> Sweep:
    """The digits sweep, untracked, in this process."""
    base = read_sweep(shipped("sweeps")["digits"], shipped("spaces"))
    plain = replace(base, tracking=Tracking(uri="off"), workers=Workers(address="inprocess"))
    return replace(plain, **changes)  # type: ignore[arg-type]


def members(sweep: Sweep) -> Iterator[Candidate]:
    """Different architectures of the sweep's space, inside its limits."""
    space: Codes = open_space(sweep.space, input=(1, 16, 16), classes=10)
    rng, seen = Random(0), set[str]()
    while True:
        member = space.sample(rng)
        digest = member.architecture.digest
        if digest not in seen and not sweep.limits.excess(cost(member.architecture)):
            seen.add(digest)
            yield member


def job_of(sweep: Sweep, number: int, member: Candidate) -> Job:
    """The job that trains `member` as trial `number`."""
    architecture = member.architecture
    return Job(
        trial=number,
        architecture=to_json(architecture),
        choices=dict(member.code),
        words=str(architecture),
        digest=architecture.digest,
        values=cost(architecture).values(),
        data=sweep.data,
        training=sweep.training,
        seed=number,
        until=sweep.training.epochs,
        train=sweep.train,
    )


def fill(sweep: Sweep, found: list[Candidate], out: Path) -> None:
    """Write a results table in which each of `found` came as far along the sweep's rungs as its results take it."""
    objectives = [OBJECTIVES[name] for name in sweep.objectives]
    jobs = {number: job_of(sweep, number, member) for number, member in enumerate(found)}
    with Results(out / "results.jsonl") as table:
        for level in sweep.levels:
            rows = {number: made_up(replace(job, until=level)) for number, job in jobs.items()}
            for row in rows.values():
                table.append(row)
            if sweep.effective_rungs:
                (rung,) = rungs_of(rows.values(), [level], objectives)
                best = islice(best_first(rung), int(len(jobs) / sweep.effective_rungs.eta))
                jobs = {trial: jobs[trial] for _, _, trial in best}


def trial_ms(sweep: Sweep, out: Path, filled: int, trials: int) -> tuple[float, float]:
    """CPU milliseconds a trial (the mean), once there are `filled`; and CPU seconds until the first one is in."""
    sweep = replace(sweep, budget=Budget(trials=filled + trials))
    clock = [(filled, time.process_time())]

    def watch(status: Status) -> None:
        clock.append((status.done, time.process_time()))

    search(sweep, out, watch=watch, pool=Instant())
    began, (first, begin) = clock[0][1], next(c for c in clock if c[0] > filled)  # resumed, and a model is made
    last, end = next(c for c in clock if c[0] == filled + trials)
    return 1e3 * (end - begin) / (last - first), begin - began


def measure(sizes: list[int], trials: int, samplers: list[str]) -> dict[str, object]:
    """CPU milliseconds a trial by sampler and trials there already."""
    sweep = digits()
    everything = list(islice(members(sweep), max(sizes)))
    found: dict[str, dict[str, float]] = {name: {} for name in samplers}
    resumed: dict[str, dict[str, float]] = {name: {} for name in samplers}
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            for name in samplers:
                out = Path(folder) / f"{name}-{size}"
                named = replace(sweep, sampler=name)
                fill(named, everything[:size], out)
                step, start = trial_ms(named, out, size, max(trials, size // 32))  # two refits, where they are rare
                found[name][str(size)], resumed[name][str(size)] = step, start
                print(
                    f"{name:<10}{size:>7} trials {step:8.1f} ms, resumed in {start:.1f} s", file=sys.stderr, flush=True
                )
    return {
        "format": "benchmark/1",
        "benchmark": "growth",
        "conditions": {"trials": trials, "load": os.getloadavg()[0], **provenance()},
        "cpu_ms_per_trial": found,
        "cpu_s_to_resume": resumed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="50 trials: shows that it runs")
    parser.add_argument("--json", action="store_true")
    usual = [name for name in SAMPLERS if name not in ("tpe", "screen")]
    parser.add_argument("--only", nargs="+", choices=list(SAMPLERS), default=usual, metavar="SAMPLER")
    words = parser.parse_args()
    sizes, trials = ([50], 5) if words.quick else ([100, 1_000, 10_000], 60)
    record = measure(sizes, trials, words.only)
    if words.json:
        print(json.dumps(record, indent=1))
        return
    for name, values in record["cpu_ms_per_trial"].items():  # type: ignore[attr-defined]
        print(f"{name:<10}" + "".join(f"{value:10.1f} ms at {size}" for size, value in values.items()))


if __name__ == "__main__":
    main()
