"""What a trial costs beside its training: trials that train nothing, ours against Ray Tune with OptunaSearch.

    python -m experiments.benchmarks.overhead [--quick] [--json]

The digits sweep on two workers, journal on, tracking off on all sides; wall milliseconds a trial once both workers have
answered, so start-up is left out. Every side proposes by multivariate TPE; Tune's have the same choices and objectives,
but no limits, no network and no journal: their trials report two numbers, where ours build a network and write it to
disk. Tune's default starts a process for each trial, so it gets fewer. "ours_tracked" has MLflow on sqlite, as by
default. CPU is the driver's alone.

"jobs" are the nothing-jobs by themselves: as Ray tasks, as ours are, and through two long-lived actors.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from experiments.benchmarks.growth import digits, job_of, members
from nas.jobs import Job
from nas.proposals import Proposals
from nas.provenance import provenance
from nas.ray_session import quiet_ray
from nas.resident import Data
from nas.results import Epoch, Result
from nas.search import Status, search
from nas.sweep import Budget, Tracking, Workers
from nas.train import Trained
from nas.training import Training
from nas.workers import RayPool, _task
from searchspace.network import Network

if TYPE_CHECKING:
    from ray import ObjectRef

WARM = 4  # results that are start-up still
Clock = list[tuple[float, float]]  # wall and CPU seconds as each result comes


def train_nothing(
    network: Network,
    data: Data,
    training: Training,
    *,
    seed: int,
    until: int,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
) -> Trained:
    """A training of no step."""
    epoch = Epoch(epoch=until, train_loss=1.0, train_accuracy=0.5, val_loss=1.0, val_accuracy=(seed % 360) / 360)
    return Trained(epoch=until, curve=(epoch,), seconds=0.0)


def ours(trials: int, folder: Path, *, tracked: bool = False) -> Clock:
    """Our search, two Ray workers."""
    clock: Clock = []
    sweep = digits(
        sampler="tpe",
        budget=Budget(trials=trials),
        workers=Workers(max_concurrent=2),
        train="experiments.benchmarks.overhead:train_nothing",
        tracking=Tracking(uri=None if tracked else "off"),
    )

    def watch(status: Status) -> None:
        clock.extend([(time.perf_counter(), time.process_time())] * len(status.new))

    search(sweep, folder, watch=watch)
    return clock


def tuned(trials: int, folder: Path, *, reuse_actors: bool) -> Clock:
    """Ray Tune with OptunaSearch."""
    quiet_ray()
    from optuna.samplers import TPESampler
    from ray import tune
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    clock: Clock = []

    class Watch(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[object], trial: object, **info: object) -> None:
            clock.append((time.perf_counter(), time.process_time()))

    def nothing(config: dict[str, object]) -> None:
        tune.report({"accuracy": 0.5, "flops": 1e5})

    searcher = OptunaSearch(
        _choices(),
        metric=["accuracy", "flops"],
        mode=["max", "min"],
        sampler=TPESampler(multivariate=True, seed=0),
    )
    tune.Tuner(
        tune.with_resources(nothing, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=ConcurrencyLimiter(searcher, max_concurrent=2), num_samples=trials, reuse_actors=reuse_actors
        ),
        run_config=tune.RunConfig(storage_path=str(folder), callbacks=[Watch()], verbose=0),
    ).fit()
    return clock


def _choices() -> dict[str, object]:
    from random import Random

    from optuna.samplers import RandomSampler

    from searchspace.spaces import open_space

    sweep = digits()
    space = open_space(sweep.space, input=(1, 16, 16), classes=10)
    return dict(Proposals(space, sweep.limits, RandomSampler(), Random(0), set()).distributions)


def jobs_ms(jobs: Sequence[Job], submit: Callable[[int, Job], ObjectRef]) -> float:
    """Wall milliseconds a job, three at a time: `submit` gets the number of a worker that is free, or 0."""
    ray = quiet_ray()
    start = time.perf_counter()
    running: dict[ObjectRef, int] = {}
    for number, job in enumerate(jobs):
        worker = number % 2 if number < 3 else running.pop(ray.wait(list(running))[0][0])
        running[submit(worker, job)] = worker
    ray.get(list(running))
    return 1e3 * (time.perf_counter() - start) / len(jobs)


def _send_task(task: Any, path: list[str], worker: int, job: Job) -> ObjectRef:
    return task.remote(job, False, path, 60.0)


def _send_actor(actors: list[Any], path: list[str], worker: int, job: Job) -> ObjectRef:
    return actors[worker].run.remote(job, False, path, 60.0)


def tasks_and_actors(trials: int, rounds: int = 3) -> dict[str, float]:
    """Milliseconds a job: tasks as `RayPool` sends them, tasks that may reuse a lease, actors. In alternation."""
    ray = quiet_ray()
    sweep = digits(train="experiments.benchmarks.overhead:train_nothing")
    path = [os.path.abspath(entry) for entry in sys.path]
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, RayPool(max_concurrent=2):
        jobs = [
            replace(job_of(sweep, i, member), checkpoint=f"{folder}/{i}")
            for i, member in enumerate(islice(members(sweep), trials))
        ]
        spread, reused = (
            ray.remote(num_cpus=1, max_retries=0, max_calls=0, scheduling_strategy=strategy)(_task)
            for strategy in ("SPREAD", "DEFAULT")
        )

        class Actor:
            def run(self, *words: object) -> Result:
                return _task(*words)  # type: ignore[arg-type]

        for _ in range(rounds):
            for name, task in (("tasks", spread), ("tasks_reusing_leases", reused)):
                send = partial(_send_task, task, path)
                jobs_ms(jobs[:6], send)  # processes start again where actors took their place
                found.setdefault(name, []).append(jobs_ms(jobs, send))
            actors = [ray.remote(num_cpus=1)(Actor).remote() for _ in range(2)]
            send = partial(_send_actor, actors, path)
            jobs_ms(jobs[:6], send)
            found.setdefault("actors", []).append(jobs_ms(jobs, send))
            for actor in actors:
                ray.kill(actor)
    return {name: median(values) for name, values in found.items()}


def per_trial(clock: Clock, trials: int) -> tuple[float, float]:
    """Wall and CPU milliseconds a trial, from when every worker has answered to the last of `trials` results."""
    if len(clock) != trials:
        raise RuntimeError(f"All {trials} trials must complete, but {len(clock)} did: their time says nothing.")
    clock = clock[min(WARM, len(clock) - 2) :]
    wall, cpu = (1e3 * (last - first) / (len(clock) - 1) for first, last in zip(clock[0], clock[-1], strict=True))
    return wall, cpu


def measure(trials: int, slow_trials: int, rounds: int) -> dict[str, object]:
    """Milliseconds a trial by side, in alternation."""
    sides: dict[str, tuple[int, Callable[[int, Path], Clock]]] = {
        "ours": (trials, ours),
        "ours_tracked": (trials, lambda n, at: ours(n, at, tracked=True)),
        "tune_reusing_actors": (trials, lambda n, at: tuned(n, at, reuse_actors=True)),
        "tune": (slow_trials, lambda n, at: tuned(n, at, reuse_actors=False)),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    loads = []
    for number in range(rounds):
        for name, (count, run) in sides.items():
            loads.append(os.getloadavg()[0])
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(per_trial(run(count, Path(folder)), count))
            print(f"round {number} {name}: {found[name][-1][0]:.1f} ms", file=sys.stderr, flush=True)
    jobs = tasks_and_actors(trials // 2)
    wall = {name: median(w for w, _ in values) for name, values in found.items()}
    return {
        "format": "benchmark/1",
        "benchmark": "overhead",
        "conditions": {
            "trials": {name: count for name, (count, _) in sides.items()},
            "rounds": rounds,
            "load": loads,
            **provenance(),
        },
        "wall_ms_per_trial": wall,
        "driver_cpu_ms_per_trial": {name: median(c for _, c in values) for name, values in found.items()},
        "wall_ms_per_job": jobs,
        "times_ours": {name: value / wall["ours"] for name, value in wall.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few trials: shows that it runs")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")  # Ray Tune's own
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    record = measure(6, 3, 1) if words.quick else measure(200, 12, 1)
    if words.json:
        print(json.dumps(record, indent=1))
        return
    for name, value in record["wall_ms_per_trial"].items():  # type: ignore[attr-defined]
        print(f"{name:<20} {value:9.1f} ms a trial, {record['times_ours'][name]:.1f} times ours")  # type: ignore[index]
    for name, value in record["wall_ms_per_job"].items():  # type: ignore[attr-defined]
        print(f"{name:<20} {value:9.1f} ms a job")


if __name__ == "__main__":
    main()
