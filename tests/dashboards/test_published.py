"""Published networks in pictures: each keeps its place and gets a ring and its name, on the front or off it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dashboards.figures import front_figure
from dashboards.page import front_html
from dashboards.prints import front_png
from nas.pareto import OBJECTIVES
from nas.results import Result, Worker

TWO = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])
THREE = (*TWO, OBJECTIVES["params"])


def result(trial: int, flops: float, accuracy: float, name: str = "") -> Result:
    return Result(
        trial=trial,
        kind="seed" if name else "trial",
        name=name,
        digest=f"{trial + 9:016x}",
        architecture={},
        words="3x32x32 > stem 3x3 16 > head pool, fc 10",
        epoch=8,
        final=True,
        state="complete",
        values={"accuracy": accuracy, "flops": flops, "params": flops / 30},
        seconds=3.0,
        worker=Worker(node="node-a", pid=4242, device="cpu"),
        seed=0,
    )


ROWS = [
    result(-1, 1e5, 0.5, "squeezenet(version=1.1)"),
    result(-2, 3e6, 0.6, "a<b>(widen=0.5)"),
    result(0, 2e5, 0.7),
    result(1, 4e6, 0.9),
    result(2, 3.5e6, 0.2),
]


@pytest.mark.parametrize("objectives", [TWO, THREE], ids=len)
def test_a_ring_and_a_name_lie_over_each_published_network(objectives: tuple) -> None:
    figure = front_figure(ROWS, objectives)
    drawn = {trace.name.rsplit(" (", 1)[0]: trace for trace in figure.data}
    ring = drawn["published"]
    assert list(zip(ring.x, ring.y, strict=True)) == [(1e5, 0.5), (3e6, 0.6)]
    assert list(ring.text) == ["squeezenet(version=1.1)", "a&lt;b&gt;(widen=0.5)"]
    assert list(ring.textposition) == ["bottom right", "bottom left"], "a name must have room"
    assert 1e5 in drawn["front"].x
    assert 3e6 in drawn["fully trained, dominated"].x
    assert any("<b>squeezenet(version=1.1)</b>" in text for text in drawn["front"].text)
    assert "published" not in {t.name.rsplit(" (", 1)[0] for t in front_figure(ROWS[2:], objectives).data}


def test_the_page_and_the_print_name_them(tmp_path: Path) -> None:
    page = front_html(front_figure(ROWS, TWO), "x", ROWS, TWO)
    assert "<td>squeezenet(version=1.1)</td>" in page
    assert "a&lt;b&gt;(widen=0.5)" in page
    assert "<td>trial-0001</td>" in page
    unnamed = [replace(row, kind="trial", name="") for row in ROWS]
    for objectives in (TWO, THREE):
        for name, rows in (("named", ROWS), ("unnamed", unnamed)):
            front_png(tmp_path / f"{name}.png", rows, objectives)
        assert (tmp_path / "named.png").read_bytes() != (tmp_path / "unnamed.png").read_bytes()
