"""The start lies evenly over the log of the cost, whatever part of it is run."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from nas.start import Start
from nas.survey import Range, survey
from nas.sweep import Limits
from searchspace.codes import Candidate, Code
from searchspace.cost import Cost, cost
from searchspace.space import Space

SPACE = Space(
    {
        "width": [0.5, 1.0],
        "stem": {"width": 8},
        "stages": [
            {"block": ["plain", "bottleneck"], "depth": [1, 2, 3], "width": [8, 16, 32], "kernel": [3, 5]},
            {"block": ["inverted_residual", "fire"], "stride": [1, 2], "width": [16, 32, 64], "kernel": [3, 5]},
        ],
    },
    input=(1, 8, 8),
    classes=4,
)
LIMITS = Limits(costs={"flops": 400_000})
COSTS = survey(SPACE, LIMITS, rng=Random(0), draws=200, seconds=60).costs


def feasible_new(limits: Limits, seen: set[str]) -> Callable[[Code], tuple[Candidate, Cost] | None]:
    def check(code: Code) -> tuple[Candidate, Cost] | None:
        candidate = SPACE.candidate(code)
        price = cost(candidate.architecture)
        return None if limits.excess(price) or candidate.architecture.digest in seen else (candidate, price)

    return check


def run(start: Start, seed: int = 0, limits: Limits = LIMITS) -> list[Candidate]:
    """The start's proposals, to its end."""
    seen: set[str] = set()
    found: list[Candidate] = []
    rng = Random(seed)
    while len(start):
        candidate = start.propose(SPACE, feasible_new(limits, seen), rng)
        if candidate is not None:
            seen.add(candidate.architecture.digest)
            start.take(cost(candidate.architecture).values())
            start.show((name, candidate.code[name]) for name in SPACE.active(candidate.code))
            found.append(candidate)
    return found


def logs(found: list[Candidate], name: str = "flops") -> list[float]:
    return [math.log(getattr(cost(c.architecture), name)) for c in found]


@pytest.mark.parametrize("name", ["flops", "params"])
@pytest.mark.parametrize("seed", [0, 1])
def test_proposals_lie_evenly_over_the_log_of_the_cost(name: str, seed: int) -> None:
    start = Start(COSTS[name], count=8, name=name)
    found = run(start, seed)
    assert 6 <= len(found) <= 8
    strata = {start.stratum(math.exp(value)) for value in logs(found, name)}
    assert len(strata) >= 6
    assert {0, 7} & strata
    assert len({c.architecture.digest for c in found}) == len(found)
    assert not any(LIMITS.excess(cost(c.architecture)) for c in found)


def test_any_prefix_is_spread() -> None:
    start = Start(COSTS["flops"], count=16)
    found = logs(run(start))
    width = math.log(COSTS["flops"].largest / COSTS["flops"].least)
    for prefix in (4, 8):
        places = sorted([math.log(COSTS["flops"].least), *found[:prefix], math.log(COSTS["flops"].largest)])
        assert max(b - a for a, b in pairwise(places)) < 2.2 * width / prefix


def test_what_is_there_fills_its_stratum_once() -> None:
    start = Start(Range(least=1.0, median=10.0, largest=10_000.0), taken=[2.0, 3.0, 500.0], count=4)
    assert [start.stratum(cost) for cost in (0.0, 1.0, 9.9, 10.1, 999.0, 1_001.0, 1e9)] == [0, 0, 0, 1, 2, 3, 3]
    assert len(start) == 2
    start.take({"flops": 700.0})
    assert len(start) == 2
    start.take({"params": 20.0})
    assert len(start) == 2
    start.take({"flops": 20.0})
    start.take({"flops": 20_000.0})
    assert len(start) == 0
    assert start.propose(SPACE, feasible_new(LIMITS, set()), Random(0)) is None


def test_where_nothing_is_feasible_it_ends() -> None:
    start = Start(COSTS["flops"], count=2)
    assert run(start, limits=Limits(costs={"flops": 1})) == []
    assert len(start) == 0


def test_a_range_of_one_cost_ends_too() -> None:
    start = Start(Range(least=5.0, median=5.0, largest=5.0), count=4)
    assert start.stratum(5.0) == 0
    assert 1 <= len(run(start)) <= 4


def test_of_the_draws_in_a_stratum_it_takes_one_that_shows_what_was_not_shown() -> None:
    members = [SPACE.sample(Random(i)) for i in range(400)]
    everything = {(name, m.code[name]) for m in members for name in SPACE.active(m.code)}
    shown = {(name, c.code[name]) for c in run(Start(COSTS["flops"], count=8)) for name in SPACE.active(c.code)}
    assert shown == everything
