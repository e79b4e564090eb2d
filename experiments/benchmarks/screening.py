"""How fast candidates are screened: drawn, decoded, digested, costed, checked; against fvcore's trace of the same.

    python -m experiments.benchmarks.screening [--quick] [--json]

One core, CPU seconds, caches cold at the start. The trace side builds each network and counts it with fvcore.
"""

from __future__ import annotations

import argparse
import json
import time
from random import Random

from experiments.cli import shipped
from nas.provenance import provenance
from nas.sweep import Limits
from searchspace.cost import cost, leaf_cost, trace_flops
from searchspace.network import build
from searchspace.space import Space


def measure(candidates: int, traced: int) -> dict[str, object]:
    """Candidates a second, and the ratio to tracing, on the digits space."""
    space = Space.from_yaml(shipped("spaces")["digits"], input=(1, 16, 16), classes=10)
    limits = Limits(costs={"flops": 1e6, "params": 30e3})
    leaf_cost.cache_clear()
    rng = Random(0)
    digests = set()
    start = time.process_time()
    members = []
    for _ in range(candidates):
        member = space.sample(rng)
        digests.add(member.architecture.digest)
        limits.excess(cost(member.architecture))
        members.append(member)
    screened = (time.process_time() - start) / candidates
    start = time.process_time()
    for member in members[:traced]:
        flops = trace_flops(build(member.architecture), member.architecture.input)
        if flops != cost(member.architecture).flops:
            raise AssertionError(f"The sum must equal the trace, but got {flops} for {member.architecture}.")
    tracing = (time.process_time() - start) / traced
    return {
        "format": "benchmark/1",
        "benchmark": "screening",
        "conditions": {"candidates": candidates, "traced": traced, "distinct": len(digests), **provenance()},
        "candidates_per_second": 1 / screened,
        "traces_per_second": 1 / tracing,
        "ratio": tracing / screened,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    record = measure(100, 5) if words.quick else measure(2000, 60)
    if words.json:
        print(json.dumps(record, indent=1))
        return
    print(f"{record['candidates_per_second']:,.0f} candidates a second, {record['ratio']:.0f} times as many as traces")


if __name__ == "__main__":
    main()
