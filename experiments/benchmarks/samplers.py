"""Samplers against each other, live: the digits sweep, equal epochs, the same data, hypervolume of each front.

    python -m experiments.benchmarks.samplers [--seeds 5] [--epochs 480] [--only surrogate tpe] [--quick] [--json]

Rounds alternate over the samplers, each with the rungs that go with it, on two Ray workers; all hypervolumes share one
reference (accuracy 0, 1.1 times the FLOPs limit), so they compare. One training a trial: its seed's noise is in every
number, so read medians over seeds. `reached` is what a sampler had spent, in epochs and in training work
(multiply-adds x epochs), when its hypervolume reached the median that random search ended with.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from experiments.opened import shipped
from nas.pareto import Spent
from nas.provenance import provenance
from nas.search import open_pool, search
from nas.sweep import SAMPLERS, Budget, Sweep, Tracking
from nas.sweep_file import read_sweep

SHARES = (0.25, 0.5, 1.0)  # of the epochs at which hypervolumes are given


def at(history: Sequence[Spent], epochs: float) -> float:
    """The hypervolume after so many epochs."""
    return max((spent.hypervolume for spent in history if spent.epochs <= epochs), default=0.0)


def measure(sweep: Sweep, samplers: Sequence[str], seeds: int, epochs: int) -> dict[str, object]:
    """By sampler, one history a seed."""
    histories: dict[str, list[tuple[Spent, ...]]] = {name: [] for name in samplers}
    trials: dict[str, list[int]] = {name: [] for name in samplers}
    whole: dict[str, list[int]] = {name: [] for name in samplers}
    with open_pool(sweep.workers) as pool, tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for name in samplers:
                budget, off = Budget(epochs=epochs), Tracking(uri="off")
                one = replace(sweep, sampler=name, rungs="default", seed=seed, budget=budget, tracking=off)
                outcome = search(one, Path(folder) / f"{name}-{seed}", pool=pool)
                histories[name].append(outcome.history)
                trials[name].append(len({row.trial for row in outcome.results}))
                whole[name].append(sum(row.final for row in outcome.results))
                ended = outcome.history[-1]
                print(
                    f"seed {seed} {name:<10} {ended.hypervolume:.4f} in {ended.epochs} epochs, {trials[name][-1]} "
                    f"networks, {whole[name][-1]} to the end",
                    file=sys.stderr,
                    flush=True,
                )
    found: dict[str, object] = {
        name: {
            "hypervolume": {f"{share:g}": [at(h, share * epochs) for h in histories[name]] for share in SHARES},
            "median": {f"{share:g}": median(at(h, share * epochs) for h in histories[name]) for share in SHARES},
            "trials": trials[name],
            "to_the_end": whole[name],
            "work": [history[-1].work for history in histories[name]],
        }
        for name in samplers
    }
    record: dict[str, object] = {
        "format": "benchmark/1",
        "benchmark": "samplers",
        "conditions": {
            "epochs": epochs,
            "epochs_of_a_training": sweep.training.epochs,
            "seeds": seeds,
            "load": os.getloadavg()[0],
            **provenance(),
        },
        "samplers": found,
    }
    if "random" in histories:
        goal = median(at(history, epochs) for history in histories["random"])
        record["goal"], record["reached"] = goal, {name: _reached(histories[name], goal) for name in samplers}
    return record


def _reached(histories: Sequence[Sequence[Spent]], goal: float) -> dict[str, float | None]:
    """Median epochs and work at which the goal was reached; None where half the seeds never did."""
    first = [next((spent for spent in history if spent.hypervolume >= goal), None) for history in histories]
    found = sorted((spent.epochs, spent.work) for spent in first if spent is not None)
    if 2 * len(found) <= len(first):
        return {"epochs": None, "work": None}
    missing = [(float("inf"), float("inf"))] * (len(first) - len(found))
    epochs, work = zip(*found, *missing, strict=True)
    return {"epochs": median(epochs), "work": median(sorted(work))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=480, help="of each search, all its trials together")
    parser.add_argument("--only", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS), metavar="SAMPLER")
    parser.add_argument("--quick", action="store_true", help="1 seed, 12 epochs, trainings of 2: shows that it runs")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    sweep = read_sweep(shipped("sweeps")["digits"], shipped("spaces"))
    if words.quick:
        sweep = replace(sweep, training=replace(sweep.training, epochs=2))
        record = measure(sweep, words.only, 1, 12)
    else:
        record = measure(sweep, words.only, words.seeds, words.epochs)
    if words.json:
        print(json.dumps(record, indent=1))
        return
    for name, values in record["samplers"].items():  # type: ignore[attr-defined]
        ends = values["hypervolume"]["1"]
        medians = " / ".join(f"{value:.3f}" for value in values["median"].values())
        print(f"{name:<10} medians at 25 / 50 / 100%: {medians}   ({min(ends):.3f}-{max(ends):.3f})")


if __name__ == "__main__":
    main()
