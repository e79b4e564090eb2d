"""The quality of our TPE's proposals against Optuna's, and their price, on an accuracy that is a formula.

    python -m experiments.benchmarks.tpe [--seeds 3] [--trials 1500] [--quick] [--json]

Trials of the digits space, inside the sweep's limits; two objectives: FLOPs, and an accuracy that grows with log FLOPs
and with a score of the choices that do something, each by itself and in 30 random pairs: another formula each seed.
Hypervolume in accuracy x decades below 1.1 times the FLOPs limit; CPU seconds of this process, all of a trial's driver
work but records and workers. Random draws are there for scale.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from random import Random
from statistics import median

import moocore
import numpy as np
import optuna
from optuna.samplers import BaseSampler, TPESampler

from experiments.benchmarks.growth import digits
from nas.proposals import SAMPLERS, SPREAD, Proposals
from nas.provenance import provenance
from searchspace.codes import Code, Codes
from searchspace.spaces import open_space

SIDES: dict[str, Callable[[int], BaseSampler]] = {
    "ours": SAMPLERS["tpe"],
    "optuna": lambda seed: TPESampler(seed=seed, multivariate=True, n_startup_trials=10, constant_liar=True),
    "random": SAMPLERS["random"],
}


def formula(space: Codes, seed: int) -> Callable[[Code, float], float]:
    """An accuracy of a code and its FLOPs."""
    rng = Random(seed)
    names = list(space.choices)
    alone = {(name, value): rng.gauss(0, 0.14) for name in names for value in space.choices[name]}
    pairs = [tuple(rng.sample(names, 2)) for _ in range(30)]
    together = {(a, x, b, y): rng.gauss(0, 0.14) for a, b in pairs for x in space.choices[a] for y in space.choices[b]}

    def accuracy(code: Code, flops: float) -> float:
        active = set(space.active(code))
        score = sum(alone[name, code[name]] for name in active)
        score += sum(together[a, code[a], b, code[b]] for a, b in pairs if {a, b} <= active)
        return 1 / (1 + math.exp(-0.8 * math.log(flops / 3e4) - score))

    return accuracy


def volumes(side: str, seed: int, trials: int, marks: list[int]) -> tuple[dict[str, float], float]:
    """Hypervolume after each of `marks` trials; CPU seconds of all `trials`."""
    sweep = digits()
    space = open_space(sweep.space, input=(1, 16, 16), classes=10)
    accuracy = formula(space, seed)
    proposals = Proposals(
        space, sweep.limits, SIDES[side](seed), Random(seed), set(), 1 if side == "random" else SPREAD
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=proposals)
    corner = 1.1 * sweep.limits.costs["flops"]
    points: list[tuple[float, float]] = []
    found: dict[str, float] = {}
    start = time.process_time()
    for done in range(1, trials + 1):
        trial = study.ask(fixed_distributions=proposals.distributions)
        assert proposals.candidate is not None
        assert proposals.cost is not None
        flops = float(proposals.cost.flops)
        reached = accuracy(proposals.candidate.code, flops)
        study.tell(trial, [reached, flops])
        points.append((reached, math.log10(flops / corner)))
        if done in marks:
            found[str(done)] = float(moocore.hypervolume(np.array(points), ref=[0, 0], maximise=[True, False]))
    return found, time.process_time() - start


def measure(seeds: int, trials: int) -> dict[str, object]:
    """Hypervolume by side and number of trials, one value a seed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    marks = sorted({max(2, trials // part) for part in (15, 4, 1)})
    found: dict[str, dict[str, list[float]]] = {side: {str(mark): [] for mark in marks} for side in SIDES}
    seconds: dict[str, list[float]] = {side: [] for side in SIDES}
    for seed in range(seeds):
        for side in SIDES:
            reached, took = volumes(side, seed, trials, marks)
            seconds[side].append(took)
            for mark, value in reached.items():
                found[side][mark].append(value)
            print(f"seed {seed} {side}: {reached}, {took:.0f} s", file=sys.stderr, flush=True)
    return {
        "format": "benchmark/1",
        "benchmark": "tpe",
        "conditions": {"trials": trials, "seeds": seeds, "load": os.getloadavg()[0], **provenance()},
        "hypervolume": found,
        "median": {side: {mark: median(v) for mark, v in values.items()} for side, values in found.items()},
        "cpu_ms_per_trial": {side: 1e3 * median(values) / trials for side, values in seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=1_500)
    parser.add_argument("--quick", action="store_true", help="1 seed, 30 trials: shows that it runs")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    record = measure(1, 30) if words.quick else measure(words.seeds, words.trials)
    if words.json:
        print(json.dumps(record, indent=1))
        return
    for side, values in record["median"].items():  # type: ignore[attr-defined]
        price = record["cpu_ms_per_trial"][side]  # type: ignore[index]
        print(
            f"{side:<7} {price:6.1f} ms a trial; hypervolume {', '.join(f'{v:.4f} at {n}' for n, v in values.items())}"
        )


if __name__ == "__main__":
    main()
