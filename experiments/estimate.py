"""What a sweep would cost, without running it: the candidate of median FLOPs is trained here for one epoch.

With rungs a trial is trained for fewer epochs in the mean: of those at a rung, 1/eta go on to the next.
"""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from random import Random

from nas.data import load
from nas.latency import one_thread
from nas.quantities import duration, short
from nas.seeds import seeds_of
from nas.survey import survey
from nas.sweep import Sweep
from nas.train import train
from searchspace.cost import cost
from searchspace.network import build
from searchspace.spaces import open_space


def estimate(sweep: Sweep) -> tuple[list[str], dict[str, object]]:
    """(lines for people, record) of the expected cost. Trainings are taken to cost three forward passes an image."""
    data = load(sweep.data, seed=sweep.seed)
    space = open_space(sweep.space, input=data.input, classes=data.classes)
    seeds = [cost(seed.architecture).macs for seed in seeds_of(sweep, data)]
    seed_work = 3.0 * data.sizes["train"] * sweep.training.epochs * sum(seeds)
    rng = Random(sweep.seed)
    report = survey(space, sweep.limits, rng=rng)
    members = [space.sample(rng) for _ in range(200)]
    feasible = [m for m in members if not sweep.limits.excess(cost(m.architecture))] or members
    median = sorted(feasible, key=lambda m: cost(m.architecture).flops)[len(feasible) // 2]
    device = "auto" if sweep.workers.gpus_per_trial else "cpu"
    one = replace(sweep.training, epochs=1, warmup_epochs=0.0)
    with one_thread():
        train(build(median.architecture, 0), data, one, seed=0, device=device)  # the first epoch pays for warming up
        start = time.perf_counter()
        train(build(median.architecture, 0), data, one, seed=0, device=device)
        epoch_s = time.perf_counter() - start
    macs = cost(median.architecture).macs
    epochs = mean_epochs(sweep)
    bounds = (sweep.budget.trials, sweep.budget.epochs and int(sweep.budget.epochs / epochs))
    trials = min((bound for bound in bounds if bound is not None), default=0)
    trial_s = epoch_s * epochs
    images = 3.0 * data.sizes["train"] * epochs
    work = macs * images
    record: dict[str, object] = {
        "format": "estimate/1",
        "trials": trials or None,
        "median_macs": macs,
        "seconds_per_epoch": epoch_s,
        "epochs_per_trial": epochs,
        "seconds_per_trial": trial_s,
        "worker_hours": trials * trial_s / 3600,
        "multiply_adds": trials * work,
        "seed_multiply_adds": seed_work,
        "feasible": report.feasible,
    }
    lines = [
        f"feasible   {report.feasible:.0%} of the space",
        f"a trial    {short(macs)} multiply-adds an image at the median; {epoch_s:.2f} s an epoch here, "
        f"{duration(trial_s)} in all" + (f", {epochs:.3g} epochs in the mean" if sweep.effective_rungs else ""),
    ]
    if trials:
        lines += [
            f"the sweep  {trials} trials: {duration(trials * trial_s)} of one such worker, {short(trials * work)} "
            "multiply-adds of training",
        ]
    if seeds:
        lines += [f"the seeds  {len(seeds)} published networks: {short(seed_work)} multiply-adds of training"]
    return lines, record


def mean_epochs(sweep: Sweep) -> float:
    """Epochs that a trial is trained for, in the mean over a long sweep."""
    eta = sweep.effective_rungs.eta if sweep.effective_rungs else 1.0
    steps = pairwise((0, *sweep.levels))
    return sum((upper - lower) / eta**rung for rung, (lower, upper) in enumerate(steps))
