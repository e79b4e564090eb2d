"""Gains are differences of the hypervolume that nas/pareto.py measures."""

from __future__ import annotations

import numpy as np
import pytest

from nas.gain import gains, losses, nondominated
from nas.pareto import OBJECTIVES, hypervolume
from nas.results import Result, Worker

NAMES = ("accuracy", "flops", "params", "latency_ms")
REFERENCE = {"accuracy": 0.0, "flops": 1e6, "params": 5e4, "latency_ms": 20.0}


def row(number: int, values: dict[str, float]) -> Result:
    return Result(
        trial=number,
        digest=str(number),
        architecture={},
        epoch=8,
        final=True,
        state="complete",
        values=values,
        seconds=1.0,
        worker=Worker(node="here", pid=0, device="cpu"),
        seed=0,
    )


def drawn(count: int, seed: int) -> list[dict[str, float]]:
    """Values of networks, some of them beyond the reference and some twice."""
    rng = np.random.default_rng(seed)
    table = np.column_stack([rng.random(count), *(10 ** rng.uniform(-3, 0.2, count) for _ in range(3))])
    table[count // 2] = table[0]
    return [
        {name: float(v * (REFERENCE[name] or 1.0)) for name, v in zip(NAMES, values, strict=True)} for values in table
    ]


@pytest.mark.parametrize("names", [("accuracy",), ("flops",), NAMES[:2], NAMES[:3], NAMES, ("flops", "latency_ms")])
def test_a_gain_is_what_a_point_adds_to_the_hypervolume_of_a_front(names: tuple[str, ...]) -> None:
    objectives = [OBJECTIVES[name] for name in names]
    members, points = drawn(12, 0), drawn(40, 1)
    rows = [row(i, values) for i, values in enumerate(members)]

    def table(values: list[dict[str, float]]) -> np.ndarray:
        return losses(np.array([[v[name] for name in names] for v in values]), objectives, REFERENCE)

    front = table(members)
    found = gains(front[nondominated(front)], table(points))
    before = hypervolume(rows, objectives, REFERENCE)
    added = [hypervolume([*rows, row(99, p)], objectives, REFERENCE) - before for p in points]
    np.testing.assert_allclose(found, added, atol=1e-9)
    assert (found == 0).any()
    alone = [hypervolume([row(99, p)], objectives, REFERENCE) for p in points]
    np.testing.assert_allclose(gains(np.zeros((0, len(names))), table(points)), alone, atol=1e-9)
    assert max(alone) > 0


def test_a_cost_of_nothing_stays_finite() -> None:
    objectives = [OBJECTIVES["accuracy"], OBJECTIVES["flops"]]
    assert np.isfinite(losses(np.array([[0.5, 0.0]]), objectives, REFERENCE)).all()


def test_of_equal_points_one_stays_and_no_points_are_none() -> None:
    assert nondominated(np.array([[-1.0, -1.0], [-1.0, -1.0], [-0.5, -0.5]])).sum() == 1
    assert nondominated(np.zeros((0, 2))).shape == (0,)
