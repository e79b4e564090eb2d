"""Memory of the driver and of a worker over a long sweep of trials that train nothing: it must stay flat.

    python -m experiments.benchmarks.memory [--quick] [--json]

The digits sweep on one Ray worker, tracking off. Resident MB, read from /proc (Linux) while results come in; growth is
from a fifth of the trials, when caches are warm, to the end.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from experiments.benchmarks.growth import digits
from nas.provenance import provenance
from nas.search import Status, search
from nas.sweep import Budget, Workers

WARM = 0.2


def resident_mb(pid: int) -> float:
    """Resident memory of a process of this machine."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def measure(trials: int) -> dict[str, object]:
    """MB by number of finished trials."""
    driver: dict[int, float] = {}
    workers: dict[int, dict[int, float]] = {}

    def watch(status: Status) -> None:
        if status.done % max(1, trials // 20) == 0 and status.new:
            driver[status.done] = resident_mb(os.getpid())
            pid = status.new[-1].worker.pid
            workers.setdefault(pid, {})[status.done] = resident_mb(pid)

    sweep = digits(
        budget=Budget(trials=trials),
        workers=Workers(max_concurrent=1),
        train="experiments.benchmarks.overhead:train_nothing",
    )
    with tempfile.TemporaryDirectory() as folder:
        search(sweep, Path(folder), watch=watch)
    worker = max(workers.values(), key=len)
    return {
        "format": "benchmark/1",
        "benchmark": "memory",
        "conditions": {"trials": trials, "worker_processes": len(workers), **provenance()},
        "driver_mb": driver,
        "worker_mb": worker,
        "growth_mb": {"driver": _growth(driver, trials), "worker": _growth(worker, trials)},
    }


def _growth(mb: dict[int, float], trials: int) -> float:
    late = [value for done, value in mb.items() if done >= WARM * trials]
    return late[-1] - late[0] if late else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 trials: shows that it runs")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    record = measure(20 if words.quick else 1_000)
    if words.json:
        print(json.dumps(record, indent=1))
        return
    for name in ("driver", "worker"):
        mb = list(record[f"{name}_mb"].values())  # type: ignore[attr-defined]
        print(f"{name:<7} {mb[0]:.0f} MB at first, {max(mb):.0f} at most, {mb[-1]:.0f} at the end")


if __name__ == "__main__":
    main()
