"""Fronts against the definition, hypervolume against closed forms and exhaustive counting."""

import itertools
import math
import random
from math import log10

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.pareto import (
    DEPTH,
    OBJECTIVES,
    Objective,
    Spent,
    comparable,
    front,
    hypervolume,
    hypervolume_history,
    reference_point,
)
from nas.results import Result, Worker

TWO = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])
THREE = (*TWO, OBJECTIVES["latency_ms"])
WORKER = Worker(node="n1", pid=1, device="cpu")


def result(trial: int, *, final=True, state="complete", kind="trial", epoch=4, **values: float) -> Result:
    return Result(
        trial=trial, kind=kind, digest=f"{trial:016x}", architecture={}, epoch=epoch, final=final, state=state,
        values=values, seconds=1.0, worker=WORKER, seed=trial,
    )  # fmt: skip


def at(*points: tuple[float, float]) -> list[Result]:
    return [result(i, accuracy=a, flops=f) for i, (a, f) in enumerate(points)]


def dominates(a: Result, b: Result, objectives: tuple[Objective, ...]) -> bool:
    """The definition, written out: no worse anywhere, better somewhere."""
    signs = [1 if o.maximize else -1 for o in objectives]
    gains = [s * (a.values[o.name] - b.values[o.name]) for s, o in zip(signs, objectives, strict=True)]
    return all(g >= 0 for g in gains) and any(g > 0 for g in gains)


def vector(row: Result, objectives: tuple[Objective, ...]) -> tuple[float, ...]:
    return tuple(row.values[o.name] for o in objectives)


# few distinct numbers make ties likely; non-finite and missing values and unfinished trials are mixed in
accuracies = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]), st.floats(0, 1), st.just(math.nan))
costs = st.one_of(
    st.sampled_from([0.0, 1.0, 1e5, 2e5, 1e9]), st.floats(1e-3, 1e12), st.sampled_from([math.nan, math.inf])
)
endings = st.sampled_from([(True, "complete")] * 6 + [(False, "complete"), (False, "stopped"), (False, "failed")])


@st.composite
def tables(draw) -> list[Result]:
    rows = draw(st.lists(st.tuples(accuracies, costs, costs, endings, st.booleans()), max_size=25))
    table = []
    for trial, (accuracy, flops, latency, (final, state), known) in enumerate(rows):
        values = {"accuracy": accuracy, "flops": flops} | ({"latency_ms": latency} if known else {})
        table.append(result(trial, final=final, state=state, **values))
    return table


objective_tuples = st.sampled_from([TWO, THREE, TWO[::-1], TWO[1:]])


@given(tables(), objective_tuples)
def test_members_are_mutually_non_dominated_and_everything_else_is_dominated_or_equal(table, objectives):
    members = front(table, objectives)
    assert not any(dominates(a, b, objectives) for a, b in itertools.permutations(members, 2))
    assert len({vector(m, objectives) for m in members}) == len(members)
    for row in comparable(table, objectives):
        assert row in members or any(
            dominates(m, row, objectives) or (vector(m, objectives) == vector(row, objectives) and m.trial < row.trial)
            for m in members
        )


@given(tables(), objective_tuples)
def test_the_front_equals_the_definition_applied_to_every_pair(table, objectives):
    rows = [r for r in table if r.final and r.state == "complete"]
    rows = [r for r in rows if all(math.isfinite(r.values.get(o.name, math.inf)) for o in objectives)]
    expected = {
        a.trial
        for a in rows
        if not any(
            dominates(b, a, objectives) or (vector(b, objectives) == vector(a, objectives) and b.trial < a.trial)
            for b in rows
        )
    }
    assert {m.trial for m in front(table, objectives)} == expected


@given(tables(), objective_tuples, st.randoms(use_true_random=False))
def test_the_front_does_not_depend_on_the_order_of_results(table, objectives, rng: random.Random):
    shuffled = rng.sample(table, len(table))
    assert [r.trial for r in front(shuffled, objectives)] == [r.trial for r in front(table, objectives)]


@given(tables())
def test_the_front_is_sorted_by_its_last_objective(table):
    costs = [r.values["flops"] for r in front(table, TWO)]
    assert costs == sorted(costs)
    assert [r.values["accuracy"] for r in front(table, TWO)] == sorted(r.values["accuracy"] for r in front(table, TWO))


def test_equal_points_keep_the_earliest_trial():
    a, b = result(7, accuracy=0.9, flops=10), result(3, accuracy=0.9, flops=10)
    assert front([a, b], TWO) == [b]
    assert front([b, a], TWO) == [b]


@pytest.mark.parametrize(
    "row",
    [
        result(1, final=False, accuracy=0.99, flops=1),  # passed a rung, not fully trained
        result(1, state="stopped", accuracy=0.99, flops=1),
        result(1, state="failed", accuracy=0.99, flops=1),
        result(1, kind="final", accuracy=0.99, flops=1),  # a retraining of a trial that has its own point
        result(1, accuracy=math.nan, flops=1),
        result(1, accuracy=math.inf, flops=1),
        result(1, accuracy=0.99, flops=-math.inf),
        result(1, flops=1),
        result(1, accuracy=0.99),
    ],
    ids=["partial", "stopped", "failed", "retraining", "nan", "inf", "-inf", "no accuracy", "no cost"],
)
def test_what_is_not_fully_trained_or_not_finite_is_never_on_the_front(row):
    fine = result(2, accuracy=0.5, flops=100)
    assert front([row, fine], TWO) == [fine]
    assert front([row], TWO) == []
    corner = {"accuracy": 0.0, "flops": 1000.0}
    assert hypervolume([row, fine], TWO, corner) == hypervolume([fine], TWO, corner) > 0


def test_seeds_and_pruned_networks_are_on_the_front_like_trials():
    rows = [result(1, kind="seed", accuracy=0.5, flops=10), result(2, kind="prune", accuracy=0.4, flops=5)]
    assert {r.kind for r in front(rows, TWO)} == {"seed", "prune"}


def test_no_results_have_an_empty_front_and_no_volume():
    assert front([], TWO) == []
    assert hypervolume([], TWO, reference_point([], TWO)) == 0.0
    assert hypervolume_history([], TWO) == []


def test_hypervolume_in_two_dimensions_is_the_area_of_the_staircase():
    rows = at((0.5, 1e3), (0.8, 1e5), (0.7, 1e6))  # the last is dominated
    assert hypervolume(rows, TWO, {"accuracy": 0.0, "flops": 1e7}) == pytest.approx(0.5 * 4 + (0.8 - 0.5) * 2)


def test_hypervolume_in_three_dimensions_is_the_union_of_boxes():
    rows = [result(1, accuracy=0.5, flops=1e3, latency_ms=1.0), result(2, accuracy=0.9, flops=1e5, latency_ms=0.1)]
    corner = {"accuracy": 0.0, "flops": 1e6, "latency_ms": 10.0}
    boxes, overlap = 0.5 * 3 * 1 + 0.9 * 1 * 2, 0.5 * 1 * 1
    assert hypervolume(rows, THREE, corner) == pytest.approx(boxes - overlap)


@given(st.lists(st.tuples(*[st.integers(1, 4)] * 3), min_size=1, max_size=8))
def test_hypervolume_equals_a_count_of_unit_cells(cells):
    """Accuracies in tenths and costs in whole decades make the volume a number of cells that can be counted."""
    rows = [
        result(i, accuracy=a / 10, flops=10.0 ** (5 - f), latency_ms=10.0 ** (5 - t))
        for i, (a, f, t) in enumerate(cells)
    ]
    covered = sum(
        any(a > x and f > y and t > z for a, f, t in cells) for x, y, z in itertools.product(range(4), repeat=3)
    )
    corner = {"accuracy": 0.0, "flops": 1e5, "latency_ms": 1e5}
    assert hypervolume(rows, THREE, corner) == pytest.approx(covered / 10)


@given(tables(), objective_tuples)
def test_dominated_results_add_no_volume_and_history_ends_at_the_whole_volume(table, objectives):
    corner = reference_point(table, objectives)
    whole = hypervolume(table, objectives, corner)
    assert 0 <= whole < math.inf
    assert hypervolume(front(table, objectives), objectives, corner) == pytest.approx(whole)
    history = hypervolume_history(table, objectives)
    assert (history[-1].hypervolume if history else 0.0) == pytest.approx(whole)


@given(tables(), st.sampled_from([TWO, THREE]))
def test_hypervolume_never_falls_under_a_fixed_reference(table, objectives):
    history = hypervolume_history(table, objectives, {"accuracy": 0.0, "flops": 1e9, "latency_ms": 1e3})
    assert all(
        later.hypervolume >= earlier.hypervolume - 1e-12
        and (later.trials, later.epochs, later.work) >= (earlier.trials, earlier.epochs, earlier.work)
        for earlier, later in itertools.pairwise(history)
    )


def test_history_pays_for_partial_trainings_and_gives_them_no_volume():
    macs = {"macs": 10.0}
    rows = [
        result(9, kind="seed", accuracy=0.1, flops=1e3, epoch=8, **macs),  # for nothing
        result(0, final=False, accuracy=0.3, flops=1e3, epoch=2, **macs),  # at a rung
        result(1, state="failed", final=False, flops=1e3, epoch=1, **macs),
        result(0, accuracy=0.5, flops=1e3, epoch=8, **macs),
        result(0, kind="final", accuracy=0.9, flops=1e3, epoch=8, **macs),  # a retraining
        result(2, state="stopped", final=False, accuracy=0.9, flops=1e2, epoch=0),
    ]
    corner = {"accuracy": 0.0, "flops": 1e4}
    half = pytest.approx(0.5)
    assert hypervolume_history(rows, TWO, corner) == [
        Spent(0, 0, 0.0, pytest.approx(0.1)),
        Spent(0, 2, 20.0, pytest.approx(0.1)),
        Spent(1, 3, 30.0, pytest.approx(0.1)),
        Spent(2, 9, 90.0, half),
        Spent(3, 9, 90.0, half),
    ]


def test_the_reference_is_ten_per_cent_beyond_the_limit_or_the_largest_cost():
    rows = at((0.5, 1e3), (0.8, 1e5))
    assert reference_point(rows, TWO) == {"accuracy": 0.0, "flops": pytest.approx(1.1e5)}
    assert reference_point(rows, TWO, {"flops": 3e8, "params": 1}) == {"accuracy": 0.0, "flops": pytest.approx(3.3e8)}
    assert reference_point([], TWO) == {"accuracy": 0.0, "flops": pytest.approx(1.0)}


def test_points_beyond_the_reference_add_nothing():
    rows = at((0.5, 1e3), (0.9, 1e6))
    assert hypervolume(rows, TWO, {"accuracy": 0.0, "flops": 1e4}) == pytest.approx(0.5)


def test_a_cost_of_zero_stays_finite_and_below_every_other():
    corner = {"accuracy": 0.0, "flops": 1e4}
    assert hypervolume(at((0.5, 0.0)), TWO, corner) == pytest.approx(0.5 * -log10(DEPTH))


@pytest.mark.parametrize("corner", [{"accuracy": 0.0}, {"accuracy": 0.0, "flops": 0.0}, {"flops": math.inf}])
def test_an_unusable_reference_is_refused(corner):
    with pytest.raises(ValueError, match=r"`reference` must have a finite '(flops|accuracy)'.*reference_point"):
        hypervolume(at((0.5, 10)), TWO, corner)


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_a_large_front_is_found_in_well_under_a_second(seed):
    rng = random.Random(seed)
    rows = at(*[(rng.random(), 10 ** rng.uniform(3, 9)) for _ in range(300)])
    assert 1 <= len(front(rows, TWO)) <= 60
