"""Running totals equal what is computed from the whole table."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from nas.pareto import OBJECTIVES, reference_point
from nas.results import Result, Worker
from nas.tally import Tally

ROW = Result(
    trial=0,
    digest="d",
    architecture={},
    epoch=1,
    final=True,
    state="complete",
    values={},
    seconds=0.0,
    worker=Worker(node="n", pid=1, device="cpu"),
    seed=0,
)
NUMBERS = st.one_of(st.floats(-1, 1e9), st.just(float("nan")), st.just(float("inf")))
ROWS = st.builds(
    lambda trial, kind, state, epoch, final, seconds, values: replace(
        ROW, trial=trial, kind=kind, state=state, epoch=epoch, final=final, seconds=seconds, values=values
    ),
    st.integers(-2, 5),
    st.sampled_from(["trial", "trial", "seed", "tune"]),
    st.sampled_from(["complete", "stopped", "failed"]),
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 99).map(float),
    st.dictionaries(st.sampled_from(["accuracy", "flops", "latency_ms"]), NUMBERS),
)


@given(st.lists(ROWS))
def test_running_totals_equal_a_recount_of_the_table(rows: list[Result]) -> None:
    tally = Tally([], [])
    for row in rows:
        tally.add(row)
    trials = [row for row in rows if row.kind == "trial"]
    last = {row.trial: row for row in trials}
    reached = {n: max(row.epoch for row in trials if row.trial == n) for n in last}
    assert tally.done == len(last)
    assert tally.failed == sum(row.state == "failed" for row in last.values())
    assert tally.stopped == sum(row.state == "stopped" for row in last.values())
    assert tally.epochs == sum(reached.values())
    assert {n: tally.epoch(n) for n in last} == reached
    assert tally.epoch(99) == 0
    assert 99 not in tally
    assert all(n in tally for n in last)
    assert tally.seconds == sum(row.seconds for row in rows if row.kind in ("trial", "seed"))


@given(st.lists(ROWS))
def test_the_largest_costs_give_the_reference_that_the_table_gives(rows: list[Result]) -> None:
    objectives = [OBJECTIVES[name] for name in ("accuracy", "flops", "latency_ms")]
    assert reference_point((), objectives, Tally(rows, objectives).largest) == reference_point(rows, objectives)
