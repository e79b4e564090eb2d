"""Rungs: where they lie, who goes on; a function of the table alone, fair to dominators, ASHA with one objective."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.ladder import KEPT, Ladder
from nas.pareto import OBJECTIVES
from nas.results import Result, Worker
from nas.rungs import Rungs, best_first, halving, losses, promotable, promotion, rungs_of

TWO = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])
ONE = TWO[:1]
LEVELS = (2, 4, 8)


def row(trial: int, epoch: int, accuracy: float, flops: float = 1e5, state: str = "complete", **more: object) -> Result:
    values = {"flops": flops} | ({} if state == "stopped" else {"accuracy": accuracy})
    return replace(
        Result(
            trial=trial,
            digest=str(trial),
            architecture={},
            epoch=epoch,
            final=state == "complete" and epoch == LEVELS[-1],
            state=state,  # type: ignore[arg-type]
            values=values,
            seconds=1.0,
            worker=Worker(node="n", pid=1, device="cpu"),
            seed=trial,
        ),
        **more,
    )


# Few different values make ties and equal points frequent.
POINTS = st.tuples(st.integers(0, 4).map(float), st.integers(0, 4).map(float))
RUNG = st.dictionaries(st.integers(0, 30), POINTS, max_size=25)


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b


@given(st.integers(1, 400), st.floats(0.12, 0.99), st.floats(1.1, 10))
def test_levels_rise_by_eta_from_the_first_to_the_whole_training(epochs: int, first: float, eta: float) -> None:
    levels = halving(first, eta).levels(epochs)
    assert levels[-1] == epochs
    assert all(low < high for low, high in pairwise(levels))
    assert levels[0] >= min(epochs, math.ceil(0.12 * epochs - 1e-9))
    assert levels[0] == min(epochs, math.ceil(first * epochs - 1e-9))
    assert all(high <= math.ceil(low * eta) for low, high in pairwise(levels))


def test_the_default_rungs_are_a_quarter_a_half_and_the_whole() -> None:
    assert halving().levels(8) == (2, 4, 8)
    assert halving().levels(100) == (25, 50, 100)
    assert halving() == Rungs()
    assert [halving().levels(n) for n in (1, 2, 3, 6)] == [(1,), (1, 2), (1, 2, 3), (2, 3, 6)]
    assert Rungs(shares=(0.0,), eta=4).levels(8) == (1, 8)


@pytest.mark.parametrize(("first", "eta"), [(0.11, 2), (1, 2), (0.25, 1), (math.nan, 2), (0.25, math.inf)])
def test_rungs_that_make_no_sense_are_refused(first: float, eta: float) -> None:
    with pytest.raises(ValueError, match=r"`first` must be in \[0.12, 1\) and `eta` in \[1.1, 100\], but got"):
        halving(first, eta)


@pytest.mark.parametrize("more", [{"shares": (0.5, 0.25)}, {"shares": ()}, {"shares": (-0.1,)}, {"eta": 1}])
def test_rungs_that_do_not_rise_cannot_be(more: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"`shares` must rise within \[0, 1\) and `eta` be above 1, but got Rungs"):
        Rungs(**more)  # type: ignore[arg-type]


@given(RUNG, st.sets(st.integers(0, 30)), st.sampled_from([1.5, 2.0, 3.0, 4.0]), st.booleans(), st.randoms())
def test_who_goes_on_does_not_depend_on_the_order_of_the_table(rung, gone, eta, closing, rng) -> None:
    shuffled = list(rung.items())
    rng.shuffle(shuffled)
    assert promotable(dict(shuffled), gone, eta, closing=closing) == promotable(rung, gone, eta, closing=closing)


@given(RUNG, st.sets(st.integers(0, 30)), st.sampled_from([1.5, 2.0, 3.0, 4.0]), st.booleans())
def test_nobody_goes_on_before_one_that_dominates_it(rung, gone, eta, closing) -> None:
    chosen = promotable(rung, gone, eta, closing=closing)
    if chosen is not None:
        assert chosen not in gone
        assert not any(dominates(point, rung[chosen]) for trial, point in rung.items() if trial not in gone)


@given(RUNG, st.sets(st.integers(0, 30)), st.sampled_from([1.5, 2.0, 3.0, 4.0]))
def test_at_most_the_first_of_eta_go_on_and_all_of_them_in_the_end(rung, gone, eta) -> None:
    gone = gone & rung.keys()
    before = set(gone)
    while (trial := promotable(rung, gone, eta)) is not None:
        gone = gone | {trial}
    places = int(len(rung) / eta)
    assert len(gone - before) <= places
    assert gone >= {trial for _, place, trial in best_first(rung) if place < places}


@given(RUNG)
def test_the_order_is_by_rank_and_within_a_rank_the_farthest_from_those_before(rung) -> None:
    """Against the definition, one trial at a time."""
    order = list(best_first(rung))
    assert sorted(trial for *_, trial in order) == sorted(rung)
    assert [place for _, place, _ in order] == list(range(len(rung)))
    points = np.array([rung[trial] for trial in sorted(rung)])
    span = np.where(np.ptp(points, axis=0) > 0, np.ptp(points, axis=0), 1) if len(rung) else 1
    left, chosen = dict(rung), []
    for rank, _, trial in order:
        front = [t for t, p in left.items() if not any(dominates(q, p) for q in left.values())]
        ranks = {t: r for r, _, t in order}
        peers = [t for t in left if ranks[t] == rank]
        assert set(peers) == {t for t in front if ranks[t] == rank}
        assert min(ranks[t] for t in left) == rank

        def far(t: int) -> float:
            return min(float((((np.array(rung[t]) - np.array(rung[c])) / span) ** 2).sum()) for c in chosen)

        best = min(peers, key=lambda t: (-far(t), t) if chosen else (rung[t][0], t))
        assert trial == best or (chosen and far(trial) == pytest.approx(far(best)))
        chosen.append(trial)
        del left[trial]


@given(st.dictionaries(st.integers(0, 40), st.integers(0, 5).map(lambda v: (v / 5,)), max_size=30), st.data())
def test_with_one_objective_it_is_asha(rung: dict[int, tuple[float]], data: st.DataObject) -> None:
    """Asynchronous successive halving: of the first floor(n / eta) by loss, the best that was not promoted."""
    eta = data.draw(st.sampled_from([2, 3, 4]))
    gone = data.draw(st.sets(st.sampled_from(sorted(rung)))) if rung else set()
    top = sorted(rung, key=lambda t: (rung[t], t))[: len(rung) // eta]
    assert promotable(rung, gone, eta) == next((t for t in top if t not in gone), None)


def test_higher_rungs_go_first_and_failed_or_busy_trials_never() -> None:
    rows = [row(t, 2, 0.1 * t) for t in range(6)] + [row(5, 4, 0.6), row(4, 4, 0.7)]
    table = rungs_of(rows, LEVELS, ONE)
    assert promotion(table, set(), 2) == (4, 2)
    assert promotion(table, {4}, 2) == (3, 1)
    assert promotion(table, {4, 3}, 2) is None


def test_closing_lets_the_front_of_each_rung_go_on_and_nobody_else() -> None:
    table = rungs_of([row(0, 2, 0.5, 1e5), row(1, 2, 0.6, 2e5), row(2, 2, 0.4, 3e5)], LEVELS, TWO)
    assert promotion(table, set(), 2) == (1, 1)
    assert promotion(table, {1}, 2) is None
    assert promotion(table, {1}, 2, closing=True) == (0, 1)
    assert promotion(table, {0, 1}, 2, closing=True) is None
    assert promotion(rungs_of([row(0, 2, 0.5)], LEVELS, TWO), set(), 2, closing=True) == (0, 1)


def test_what_has_no_point_is_in_no_rung() -> None:
    rows = [
        row(0, 0, 0.0, state="stopped"),
        row(1, 2, 0.5, state="failed"),
        row(2, 2, math.nan),
        row(3, 8, 0.9, kind="seed"),
        row(4, 1, 0.5),
    ]
    assert rungs_of(rows, LEVELS, TWO) == [{}, {}, {}]
    assert losses(row(0, 2, 0.5, 0.0), TWO) == (-0.5, -300.0)


def test_a_trial_that_skips_a_rung_has_reached_it() -> None:
    ladder = Ladder(LEVELS, 2, ONE)
    for r in (row(0, 5, 0.5), row(1, 8, 0.6), row(2, 2, 0.1)):
        ladder.add(r)
    assert ladder.reached == (3, 2, 1)
    assert ladder.waiting == {0, 2}


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 8]), st.sampled_from([ONE, TWO]))
def test_a_ladder_says_what_the_whole_table_says_and_every_trial_climbs_one_rung_at_a_time(
    seed: int, workers: int, objectives: tuple
) -> None:
    rng = Random(seed)
    ladder, rows, flying, begun = Ladder(LEVELS, 2, objectives), [], {}, 0
    for _ in range(60):
        while len(flying) < workers:
            away = set(flying) | {r.trial for r in rows if r.ended}
            expected = promotion(rungs_of(rows, LEVELS, objectives), away, 2)
            found = ladder.next()
            assert (found is None) == (expected is None)
            if found:
                assert (found[0].trial, found[1]) == (expected[0], LEVELS[expected[1]])
                assert LEVELS[LEVELS.index(found[1]) - 1] == ladder.leave(found[0].trial).epoch
                flying[found[0].trial] = found[1]
            else:
                flying[begun], begun = LEVELS[0], begun + 1
        trial = rng.choice(sorted(flying))
        state = "failed" if rng.random() < 0.1 else "complete"
        rows.append(row(trial, flying.pop(trial), round(rng.random(), 1), 10 ** rng.randint(3, 6), state))
        ladder.add(rows[-1])
    assert ladder.waiting == {r.trial for r in {r.trial: r for r in rows}.values() if not r.ended} - flying.keys()


def test_few_checkpoints_are_kept_and_they_are_those_that_go_on_next() -> None:
    ladder = Ladder(LEVELS, 2, ONE)
    rng = Random(0)
    for trial in range(6 * KEPT):
        ladder.add(row(trial, 2, rng.random()))
    few = {*range(10), None, 10_000}
    assert ladder.kept(few) == set(range(10)), "few are all kept; strangers are not"
    kept = ladder.kept(set(range(6 * KEPT)))
    assert len(kept) == KEPT
    for _ in range(KEPT):
        found = ladder.next()
        assert found is not None
        assert found[0].trial in kept
        ladder.leave(found[0].trial)
    assert ladder.kept(few) == set(range(10)) - kept
