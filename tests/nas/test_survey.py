"""The survey tells a space's size, costs and feasible share, and when its limits are out of reach."""

from __future__ import annotations

from random import Random

import pytest

from nas.survey import lines, miss, survey
from nas.sweep import Limits
from searchspace.cost import cost
from searchspace.space import Space

SPACE = Space(
    {
        "width": [0.5, 1.0],
        "stages": [{"block": ["plain", "residual"], "width": [8, 16], "kernel": [3, 5], "depth": [1, 2]}],
    },
    input=(1, 8, 8),
    classes=4,
)
COSTS = [cost(m.architecture) for m in SPACE.members()]


def test_ranges_reach_the_true_ends_of_a_small_space() -> None:
    report = survey(SPACE, Limits(), rng=Random(0))
    flops = [c.flops for c in COSTS]
    assert (report.costs["flops"].least, report.costs["flops"].largest) == (min(flops), max(flops))
    assert report.feasible == 1.0
    assert report.codes == SPACE.size
    assert report.reachable


def test_the_feasible_share_is_that_of_the_members() -> None:
    limit = sorted(c.flops for c in COSTS)[len(COSTS) // 3]
    exact = sum(c.flops <= limit for c in COSTS) / len(COSTS)
    report = survey(SPACE, Limits(costs={"flops": limit}), rng=Random(0))
    assert report.feasible == pytest.approx(exact, abs=0.06)
    assert report.costs["flops"].largest <= limit


def test_a_rare_feasible_member_is_found_by_descent() -> None:
    least = min(c.flops for c in COSTS)
    report = survey(SPACE, Limits(costs={"flops": least}), rng=Random(0), draws=1)
    assert report.reachable


def test_an_unreachable_limit_gives_the_nearest_miss() -> None:
    least = min(c.params for c in COSTS)
    limits = Limits(costs={"params": least / 2})
    report = survey(SPACE, limits, rng=Random(0))
    assert not report.reachable
    assert report.nearest == {"params": pytest.approx(1.0)}
    assert "against" in miss(report, limits)
    assert any(line.startswith("unreachable") for line in lines(report, limits))
