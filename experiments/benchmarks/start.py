"""How long people wait: `nas --help`, and `nas search` until the first trial is in work and until it came in.

    python -m experiments.benchmarks.start [--quick] [--json]

Fresh processes, alternating, warm file caches; medians. CPU is of the command and what it waited for. For what is
imported on a path: python -X importtime -m experiments.cli --help
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from nas.provenance import provenance

NAS = [sys.executable, "-m", "experiments.cli"]
SEARCH = ["search", "digits", "--trials", "1", "--epochs", "1", "--tracking-uri", "off", "--out"]


def help_s() -> tuple[float, float]:
    """Wall and CPU seconds of `nas --help`."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*NAS, "--help"], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def search_s(out: Path) -> tuple[float, float]:
    """Wall seconds of `nas search` until Optuna's journal holds the first trial, and until its result is said."""
    start = time.perf_counter()
    begun = 0.0
    with subprocess.Popen([*NAS, *SEARCH, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        said = b""
        while process.poll() is None and not re.search(rb"trial-0000", said):
            said += process.stderr.read() or b""
            journal = out / "journal.log"
            if not begun and journal.exists() and b'"op_code":5' in journal.read_bytes():
                begun = time.perf_counter() - start
            time.sleep(0.01)
        came = time.perf_counter() - start
        process.communicate()
    return begun, came


def measure(rounds: int) -> dict[str, object]:
    helps, searches = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            helps.append(help_s())
            searches.append(search_s(Path(folder) / str(number)))
    return {
        "format": "benchmark/1",
        "benchmark": "start",
        "conditions": {"rounds": rounds, "load": os.getloadavg()[0], **provenance()},
        "help_s": median(wall for wall, _ in helps),
        "help_cpu_s": median(cpu for _, cpu in helps),
        "search_to_first_trial_s": median(begun for begun, _ in searches),
        "search_to_first_result_s": median(came for _, came in searches),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round: shows that it runs")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    record = measure(1 if words.quick else 5)
    if words.json:
        print(json.dumps(record, indent=1))
        return
    print(
        f"nas --help {record['help_s']:.2f} s; nas search: first trial in work after "
        f"{record['search_to_first_trial_s']:.1f} s, in after {record['search_to_first_result_s']:.1f} s"
    )


if __name__ == "__main__":
    main()
