"""The results table: what was appended is there again, and what a crash cut short is set aside."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.results import Epoch, Result, Results, ResultsError, Worker

numbers = st.floats(allow_nan=False, allow_infinity=False)
results = st.builds(
    Result,
    trial=st.integers(0, 10_000),
    kind=st.sampled_from(["trial", "seed", "final"]),
    digest=st.text("0123456789abcdef", min_size=16, max_size=16),
    architecture=st.just({"format": "architecture/1"}),
    choices=st.none() | st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
    words=st.text(max_size=20),
    epoch=st.integers(0, 100),
    final=st.booleans(),
    state=st.sampled_from(["complete", "stopped", "failed"]),
    values=st.dictionaries(st.text(max_size=8), numbers, max_size=4),
    curve=st.lists(
        st.builds(
            Epoch,
            epoch=st.integers(1, 9),
            train_loss=numbers,
            train_accuracy=numbers,
            val_loss=numbers,
            val_accuracy=numbers,
        ),
        max_size=3,
    ).map(tuple),
    seconds=numbers,
    worker=st.builds(Worker, node=st.text(max_size=5), pid=st.integers(0, 9), device=st.just("cpu")),
    seed=st.integers(0, 2**63),
    parent=st.none() | st.integers(0, 9),
    error=st.none() | st.text(max_size=30),
    checkpoint=st.none() | st.text(max_size=9),
)


@given(st.lists(results, max_size=5))
def test_what_was_appended_is_read_again(tmp_path_factory: pytest.TempPathFactory, rows: list[Result]) -> None:
    path = tmp_path_factory.mktemp("table") / "results.jsonl"
    with Results(path) as table:
        for row in rows:
            table.append(row)
        assert list(table) == rows
    assert list(Results(path)) == rows
    assert Results(path).latest() == {row.trial: row for row in rows}


def one(trial: int) -> Result:
    return Result(
        trial=trial,
        digest="0" * 16,
        architecture={},
        epoch=1,
        final=True,
        state="complete",
        values={"accuracy": 0.5},
        seconds=1.0,
        worker=Worker(node="n", pid=1, device="cpu"),
        seed=0,
    )


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_line_cut_short_goes_aside_and_appending_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "results.jsonl"
    with Results(path) as table:
        for trial in range(3):
            table.append(one(trial))
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Results(path) as table:
        assert [row.trial for row in table] == [0, 1]
        assert path.read_bytes() == whole[:-cut], "reading must not write"
        table.append(one(7))
    assert [row.trial for row in Results(path)] == [0, 1, 7]
    assert whole.endswith(path.with_suffix(".jsonl.broken").read_bytes() + whole[-cut:])


def test_a_table_that_was_repaired_loses_nothing_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with Results(path) as table:
        table.append(one(0))
        table.append(one(1))
    path.write_bytes(path.read_bytes()[:-5])
    table = Results(path)
    for trial in (2, 3):
        table.append(one(trial))
        table.close()
    assert [row.trial for row in Results(path)] == [0, 2, 3]


def test_garbage_before_the_last_line_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"nonsense\n{}\n')
    with pytest.raises(ResultsError, match=r"results\.jsonl:1: a line must be JSON"):
        Results(path)


def test_another_format_and_missing_fields_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="must have format 'result/1', but got 'result/9'"):
        Result.from_json({"format": "result/9"})
    with pytest.raises(ResultsError, match="must have all its fields"):
        Result.from_json({"format": "result/1", "trial": 3})


def test_equal_layers_of_architectures_are_held_once_and_come_back_as_they_were(tmp_path: Path) -> None:
    def row(trial: int, width: object) -> Result:
        norm = {"node": "norm", "eps": 1e-5, "sizes": [1, 1.0, True]}
        architecture: dict[str, object] = {"body": [norm, {"node": "conv", "out": width}, dict(norm)]}
        return Result(
            trial=trial,
            digest="0" * 16,
            architecture=architecture,
            epoch=1,
            final=True,
            state="complete",
            values={},
            seconds=1.0,
            worker=Worker(node="a", pid=1, device="cpu"),
            seed=0,
        )

    given = [row(0, 8), row(1, 8.0), row(2, 8)]
    with Results(tmp_path / "results.jsonl") as table:
        for result in given:
            table.append(result)
        kept = list(table)
    for rows in (kept, list(Results(tmp_path / "results.jsonl"))):
        assert [repr(result.architecture) for result in rows] == [repr(result.architecture) for result in given]
        first, second = rows[0].architecture["body"], rows[1].architecture["body"]
        assert first[0] is second[0] is second[2]  # type: ignore[index]
        assert first[1] is not second[1]  # type: ignore[index]
