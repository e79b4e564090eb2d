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
    st.sampled_from(["trial", "trial", "seed", "final"]),
    st.sampled_from(["complete", "stopped", "failed"]),
    st.integers(0, 9),
    st.booleans(),
    st.integers(0, 99).map(float),
    st.dictionaries(st.sampled_from(["accuracy", "flops", "latency_ms"]), NUMBERS),
)


@given(st.lists(ROWS))
def test_running_totals_equal_a_recount_of_the_last_record_of_each_trial(rows: list[Result]) -> None:
    tally = Tally([], [])
    for row in rows:
        tally.add(row)
    last = list({row.trial: row for row in rows}.values())
    trials = [row for row in last if row.kind == "trial"]
    assert tally.done == len(trials)
    assert tally.failed == sum(row.state == "failed" for row in trials)
    assert tally.stopped == sum(row.state == "stopped" for row in trials)
    assert tally.epochs == sum(row.epoch for row in trials)
    assert tally.seconds == sum(row.seconds for row in last)


@given(st.lists(ROWS))
def test_the_largest_costs_give_the_reference_that_the_table_gives(rows: list[Result]) -> None:
    objectives = [OBJECTIVES[name] for name in ("accuracy", "flops", "latency_ms")]
    assert reference_point((), objectives, Tally(rows, objectives).largest) == reference_point(rows, objectives)
