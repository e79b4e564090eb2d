"""How fast candidates are screened: drawn, decoded, digested, costed, checked; against fvcore's trace of the same.

    python -m experiments.benchmarks.screening [--quick] [--json]

One core, CPU seconds, caches cold at the start. The trace side builds each network and counts it with fvcore.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from random import Random

from experiments.opened import shipped
from nas.provenance import provenance
from nas.sweep import Limits
from searchspace.cost import cost, trace_flops
from searchspace.network import build
from searchspace.space import Space

# preset: input, limits, candidates, networks traced
PRESETS: dict[str, tuple[tuple[int, ...], dict[str, float], int, int]] = {
    "digits": ((1, 16, 16), {"flops": 1e6, "params": 30e3}, 2000, 60),
    "images": ((3, 224, 224), {"flops": 300e6, "params": 5e6}, 600, 10),
    "video": ((3, 16, 112, 112), {"flops": 2e9, "params": 5e6}, 600, 10),
}


def measure(preset: str, candidates: int, traced: int) -> dict[str, object]:
    """Candidates a second, and the ratio to tracing, on a preset."""
    size, costs, _, _ = PRESETS[preset]
    space = Space.from_yaml(shipped("spaces")[preset], input=size, classes=10)
    limits = Limits(costs=costs)
    rng = Random(0)
    digests = set()
    gc.freeze()  # as the `nas` command does
    start = time.process_time()
    members = []
    for _ in range(candidates):
        member = space.sample(rng)
        digests.add(member.architecture.digest)
        limits.excess(cost(member.architecture))
        members.append(member)
    screened = (time.process_time() - start) / candidates
    last = members[-1].architecture
    trace_flops(build(last), last.input)  # what torch sets up once is no trace's time
    start = time.process_time()
    for member in members[:traced]:
        flops = trace_flops(build(member.architecture), member.architecture.input)
        if flops != cost(member.architecture).flops:
            raise AssertionError(f"The sum must equal the trace, but got {flops} for {member.architecture}.")
    tracing = (time.process_time() - start) / traced
    return {
        "input": list(size),
        "candidates": candidates,
        "distinct": len(digests),
        "traced": traced,
        "candidates_per_second": 1 / screened,
        "traces_per_second": 1 / tracing,
        "ratio": tracing / screened,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    found = {}
    for preset, (_, _, candidates, traced) in PRESETS.items():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:  # no cache is warm
            found[preset] = fresh.submit(measure, preset, *((50, 2) if words.quick else (candidates, traced))).result()
    if words.json:
        record = {"format": "benchmark/1", "benchmark": "screening", "conditions": provenance(), "presets": found}
        print(json.dumps(record, indent=1))
        return
    for preset, one in found.items():
        print(
            f"{preset}: {one['candidates_per_second']:,.0f} candidates a second, {one['ratio']:,.0f} times as many as "
            f"traces"
        )


if __name__ == "__main__":
    main()
