"""Samplers against each other, live: the digits sweep, equal trials, the same data, hypervolume of each front.

    python -m experiments.benchmarks.samplers [--seeds 5] [--trials 40] [--quick] [--json]

Rounds alternate over the samplers, so a noisy machine hits all alike; hypervolumes share one reference (accuracy 0,
1.1 times the FLOPs limit), so they compare. One training a trial, so its seed's noise is in them: read medians.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from experiments.cli import shipped
from nas.proposals import SAMPLERS
from nas.provenance import provenance
from nas.search import open_pool, search
from nas.sweep import Budget, Tracking, read_sweep


def measure(seeds: int, trials: int, epochs: int | None) -> dict[str, object]:
    """Final hypervolume by sampler, one value a seed."""
    base = read_sweep(shipped("sweeps")["digits"], shipped("spaces"))
    training = replace(base.training, epochs=epochs) if epochs else base.training
    volumes: dict[str, list[float]] = {name: [] for name in SAMPLERS}
    with open_pool(base.workers) as pool, tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for name in SAMPLERS:
                sweep = replace(
                    base,
                    sampler=name,
                    seed=seed,
                    budget=Budget(trials=trials),
                    training=training,
                    tracking=Tracking(uri="off"),
                )
                outcome = search(sweep, Path(folder) / f"{name}-{seed}", pool=pool)
                volumes[name].append(outcome.history[-1][1])
                print(f"seed {seed} {name}: {volumes[name][-1]:.4f}", file=sys.stderr, flush=True)
    return {
        "format": "benchmark/1",
        "benchmark": "samplers",
        "conditions": {"trials": trials, "epochs": training.epochs, "seeds": seeds, **provenance()},
        "hypervolume": volumes,
        "median": {name: median(values) for name, values in volumes.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="1 seed, 8 trials, 2 epochs: shows that it runs")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    record = measure(1, 8, 2) if words.quick else measure(words.seeds, words.trials, None)
    if words.json:
        print(json.dumps(record, indent=1))
        return
    for name, values in record["hypervolume"].items():  # type: ignore[attr-defined]
        print(f"{name:<8} median {median(values):.4f}  {' '.join(f'{v:.4f}' for v in values)}")


if __name__ == "__main__":
    main()
