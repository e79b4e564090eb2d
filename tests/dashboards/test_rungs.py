"""Rungs and hypervolume in pictures: what ended below the top is told apart from results, and every count adds up."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dashboards.fates import climbs, fates
from dashboards.figures import front_figure
from dashboards.hypervolume import hypervolume_figure, hypervolume_png
from dashboards.page import front_html, levels_table
from dashboards.picture import BLUE, GREY, ORANGE, VERMILLION
from dashboards.rungs import rungs_figure
from nas.pareto import OBJECTIVES, front, hypervolume_history, reference_point
from nas.quantities import short
from nas.results import Result, Worker

TWO = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])
THREE = (*TWO, OBJECTIVES["params"])
LEVELS = (2, 4, 8)
WORDS = "16x16x1 > stem 3x3 16 s2 > stage1 2x[1x1 64 > shuffle > dw3x3 > se4 > 1x1 64 α0.25 + x] > pool > fc 10"


def record(trial: int, flops: float, epoch: int, accuracy: float | None = None, **more: object) -> Result:
    values = {"flops": flops, "macs": flops, "params": flops // 30}
    fields: dict = {
        "trial": trial,
        "digest": f"{trial + 9:016x}",
        "architecture": {},
        "words": WORDS,
        "epoch": epoch,
        "final": epoch == LEVELS[-1],
        "state": "complete",
        "values": values if accuracy is None else values | {"accuracy": accuracy},
        "seconds": 3.0,
        "worker": Worker(node="node-a", pid=4242, device="cpu"),
        "seed": trial,
    }
    return Result(**(fields | more))


def searched(count: int, seed: int = 3) -> list[Result]:
    """A search with rungs: two published networks, then trials of which some go on, some fail, some are too slow."""
    rng = random.Random(seed)
    rows = [record(-n, 10.0**power, 8, 0.5 + n / 10, kind="seed", name=f"seed{n}") for n, power in ((1, 4.8), (2, 5.9))]
    waiting = [(n, 0, float(round(10 ** rng.uniform(4.6, 6.0)))) for n in range(count)]
    while waiting:
        n, level, flops = waiting.pop(rng.randrange(min(4, len(waiting))))
        lost = {"final": False, "state": "failed", "error": "ValueError: no luck"}
        if level == 0 and rng.random() < 0.07:
            rows.append(record(n, flops, 0, final=False, state="stopped"))
        elif rng.random() < 0.06:
            rows.append(record(n, flops, rng.choice((0, LEVELS[level] - 1)), **lost))
        else:
            accuracy = 0.3 + 0.3 * math.log10(flops / 4e4) - 0.4 / LEVELS[level] + rng.gauss(0, 0.08)
            rows.append(record(n, flops, LEVELS[level], min(0.99, max(0.01, accuracy))))
            if level < 2 and rng.random() < 0.5:
                waiting.insert(0, (n, level + 1, flops))
    return rows


def of_trials(rows: list[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for row in rows:
        found.setdefault(row.title, []).append(row)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_the_counts_are_those_of_the_table_and_add_up(seed: int) -> None:
    rows = searched(80, seed)
    trials = [mine for mine in of_trials(rows).values() if mine[0].kind == "trial"]
    counts = fates(rows, LEVELS)
    assert counts.trials == len(trials) == 80
    for level, above in zip(counts.levels, (*counts.levels[1:], None), strict=True):
        reached = [mine for mine in trials if any(r.state == "complete" and r.epoch >= level.epoch for r in mine)]
        here = [mine for mine in reached if mine[-1].state == "complete" and mine[-1].epoch == level.epoch]
        assert level.reached == len(reached) == level.went_on + level.ended
        assert level.ended == len(here)
        assert level.went_on == (above.reached + above.failed + above.late if above else 0)
    assert sum(level.failed for level in counts.levels) == sum(mine[-1].state == "failed" for mine in trials)
    numbers = [int(part.split()[0]) for part in counts.said().split(", ")]
    assert sum(numbers) == 80, "a reader adds them up"
    assert counts.levels[-1].ended == len([r for r in rows if r.final and r.kind == "trial"])


def test_a_retraining_is_no_trial_and_nothing_gives_zeros() -> None:
    rows = [record(0, 1e5, 8, 0.8), record(0, 1e5, 8, 0.7, kind="final")]
    assert fates(rows, LEVELS).said() == "1 fully trained, 0 failed"
    assert fates([], LEVELS).said() == "0 fully trained, 0 failed"
    assert [len(climb) for climb in climbs(rows)] == [1]


def test_a_trial_that_a_lost_worker_took_failed_on_the_way_to_its_next_level() -> None:
    lost = record(0, 1e5, 0, final=False, state="failed", error="WorkerLost: gone")
    first, second, top = fates([record(0, 1e5, 2, 0.3), lost], LEVELS).levels
    assert (first.reached, first.went_on, second.reached, second.failed, top.failed) == (1, 1, 0, 1, 0)


@pytest.mark.parametrize("objectives", [TWO, THREE], ids=len)
def test_lines_join_exactly_the_records_of_each_trial(objectives: tuple) -> None:
    rows = searched(80)
    drawn: list[tuple[tuple[int, float], ...]] = []
    for trace in rungs_figure(rows, LEVELS, objectives).data:
        if trace.mode == "lines":
            assert trace.x[-1] is trace.y[-1] is None
            line: list[tuple[int, float]] = []
            for x, y in zip(trace.x, trace.y, strict=True):
                if x is None:
                    drawn.append(tuple(line))
                    line = []
                else:
                    line.append((x, y))
    known = [[r for r in mine if r.state == "complete"] for mine in of_trials(rows).values()]
    whole = [tuple((r.epoch, round(r.values["accuracy"], 5)) for r in mine) for mine in known if mine]
    assert sorted(drawn) == sorted(whole)


def test_the_mark_at_an_end_says_what_it_is() -> None:
    rows = searched(80)
    figure = rungs_figure(rows, LEVELS, TWO)
    marks = {t.name.rsplit(" (", 1)[0]: t for t in figure.data if t.mode == "markers"}
    told = {t.name: [text for text in t.text if text] for t in figure.data if t.mode == "lines"}
    last = [mine[-1] for mine in of_trials(rows).values()]
    below = [r for r in last if r.state == "complete" and not r.final]
    assert sorted(marks["stopped at a rung"].x) == sorted(r.epoch for r in below)
    assert marks["stopped at a rung"].marker.line.color == ORANGE
    assert marks["failed after a rung"].marker.line.color == VERMILLION
    assert marks["fully trained, dominated"].marker.color == GREY
    assert marks["front"].marker.color == BLUE
    assert set(marks["front"].x) | set(marks["fully trained, dominated"].x) == {8}
    assert len(marks["front"].x) == len(front(rows, TWO))
    for row in below:
        (text,) = [t for t in told["stopped at a rung"] if f"<b>{row.title}</b>" in t and "went on" not in t]
        assert f"stopped at epoch {row.epoch} of 8: not a result" in text
        assert "stage1 2x[1x1 64" in text
    assert all("not a result" in t or "went on" in t for t in told["failed after a rung"])
    assert not any("not a result" in t for t in told["front"])
    trained = sum(r.final for r in rows if r.kind == "trial")
    assert f"{trained} of 80 trials trained for all 8 epochs" in figure.layout.title.text


def test_nothing_on_the_rungs_says_so() -> None:
    for rows in ([], [record(0, 1e5, 1, final=False, state="failed", error="x")]):
        figure = rungs_figure(rows, LEVELS, TWO)
        assert figure.layout.title.text == "No trial has reached a rung yet"
        assert not figure.data
        assert figure.to_json()


@pytest.mark.parametrize(
    "objectives", [TWO, THREE, (OBJECTIVES["flops"], OBJECTIVES["params"])], ids=["2", "3", "costs"]
)
def test_no_partial_training_is_a_point_of_the_front_picture(objectives: tuple) -> None:
    rows = searched(80)
    figure = front_figure(rows, objectives)
    y = next((o.name for o in objectives if o.maximize), objectives[-1].name)
    final = {r.values[y] for r in rows if r.final}
    points = [v for trace in figure.data if trace.yaxis in (None, "y") for v in trace.y]
    assert points
    assert set(points) <= final
    last = [mine[-1] for mine in of_trials(rows).values()]
    floor = [trace for trace in figure.data if trace.yaxis == "y2"]
    assert sum(len(trace.x) for trace in floor) == sum(not r.final for r in last)
    assert all(len(set(trace.y)) == 1 for trace in floor)


def test_the_table_has_a_row_a_level() -> None:
    rows = [record(0, 1e5, 2, 0.3), record(0, 1e5, 4, 0.4), record(0, 1e5, 8, 0.5), record(1, 1e5, 2, 0.2)]
    html = levels_table(fates(rows, LEVELS))
    assert "<td>epoch 2</td><td>2</td><td>1</td><td>1</td><td>0</td>" in html
    assert "<td>epoch 8: fully trained</td><td>1</td><td>–</td><td>–</td><td>0</td>" in html
    assert "2 trials: 1 fully trained, 1 stopped at epoch 2, 0 failed." in html
    assert "latency" not in html
    assert "over the latency limit" in levels_table(fates([*rows, record(2, 1e5, 0, state="stopped")], LEVELS))


def test_hypervolume_stands_over_the_epochs_trained() -> None:
    rows = searched(80)
    corner = reference_point(rows, TWO)
    history = hypervolume_history(rows, TWO, corner)
    figure = hypervolume_figure(history, corner)
    (steps,) = figure.data
    assert list(steps.x) == sorted(steps.x)
    assert list(steps.y) == sorted(steps.y)
    best = [max(r.epoch for r in mine) for mine in of_trials(rows).values() if mine[0].kind == "trial"]
    assert steps.x[-1] == sum(best)
    assert steps.y[-1] == pytest.approx(history[-1].hypervolume, abs=1e-5)
    assert steps.line.shape == "hv"
    assert steps.customdata[-1][0] == history[-1].trials
    assert f"FLOPs {short(corner['flops'])}" in figure.layout.title.text
    assert hypervolume_figure(history[:1], corner).data[0].mode == "markers"
    assert "No trial" in hypervolume_figure([], corner).layout.title.text


def test_the_hypervolume_png_shows_the_epochs_it_was_given(tmp_path: Path) -> None:
    rows = searched(20)
    corner = reference_point(rows, TWO)
    history = hypervolume_history(rows, TWO, corner)
    for name, spent in (("a", history), ("b", [replace(s, epochs=2 * s.epochs) for s in history])):
        hypervolume_png(tmp_path / f"{name}.png", spent, corner)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def page_of(rows: list[Result], objectives: tuple) -> str:
    corner = reference_point(rows, objectives)
    below = [
        rungs_figure(rows, LEVELS, objectives),
        levels_table(fates(rows, LEVELS)),
        hypervolume_figure(hypervolume_history(rows, objectives, corner), corner),
    ]
    figure = front_figure(rows, objectives)
    return front_html(figure, "digits", front(rows, objectives), objectives, "n & m", below)


def test_a_page_of_5000_trials_stays_light() -> None:
    rows = [replace(row, words=row.words * 3) for row in searched(5000)]
    page = page_of(rows, TWO)
    assert len(page) < 12e6
    assert page.count("plotly.js v") == 1
    assert page.count("Plotly.newPlot(") >= 3


CHROMIUM = shutil.which("chromium")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(("count", "objectives"), [(0, TWO), (60, TWO), (60, THREE), (2000, TWO)])
def test_chromium_shows_all_figures_offline_without_an_error(count: int, objectives: tuple, tmp_path: Path) -> None:
    rows = searched(count)
    page = tmp_path / "front.html"
    page.write_text(page_of(rows, objectives), "utf-8")
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    options += (
        " --disable-component-update --disable-sync --virtual-time-budget=8000 --dump-dom --enable-logging=stderr"
    )
    command = [
        CHROMIUM,
        *options.split(),
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path}/profile",
    ]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    dom = done.stdout
    ends = sum(any(r.state == "complete" for r in mine) for mine in of_trials(rows).values())
    front_points = len(of_trials(rows)) + 2  # the rings of the published networks
    assert dom.count('class="point"') == ends + front_points
    assert dom.count("<h2>") == 3
    assert dom.count("<svg") >= 3
    assert f"{count} trials: " in dom
