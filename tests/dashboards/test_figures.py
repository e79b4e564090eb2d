"""Figures as data, PNGs as pixels, and the page as a real Chromium shows it without a network."""

import math
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from dashboards.figures import front_figure
from dashboards.hypervolume import hypervolume_png
from dashboards.page import front_html
from dashboards.prints import front_png
from nas.pareto import OBJECTIVES, front, hypervolume_history, reference_point
from nas.results import Result, Worker

TWO = (OBJECTIVES["accuracy"], OBJECTIVES["flops"])
THREE = (*TWO, OBJECTIVES["latency_ms"])
COSTS = (OBJECTIVES["flops"], OBJECTIVES["latency_ms"])
LIMITS = {"flops": 3e6, "accuracy": 0.2}
WORDS = "16x16x1 > stem 3x3 16 s2 > stage1 2x[1x1 64 > shuffle > dw3x3 > se4 > 1x1 {n} α0.25 + x] > pool > fc 10"


def result(trial: int, flops: float, accuracy: float, **more: object) -> Result:
    fields: dict = {
        "trial": trial,
        "digest": f"{trial:016x}",
        "architecture": {},
        "words": WORDS.format(n=16 + trial),
        "epoch": 8,
        "final": True,
        "state": "complete",
        "values": {"accuracy": accuracy, "flops": flops, "params": flops // 30, "latency_ms": (flops / 1e6) ** 0.5},
        "seconds": 3.0,
        "worker": Worker(node="node-a", pid=4242, device="cpu"),
        "seed": trial,
    }
    return Result(**(fields | more))


def sweep(count: int = 40) -> list[Result]:
    """A sweep as they look: most trained, some stopped at a rung, some failed, one with two records."""
    rng = random.Random(3)
    rows = []
    for n in range(count):
        flops = float(round(10 ** rng.uniform(4.6, 6.4)))
        accuracy = min(0.99, 0.3 + 0.3 * math.log10(flops / 4e4) + rng.uniform(-0.1, 0.1))
        if n % 10 == 5:
            values = {"flops": flops, "params": 900.0}
            error = "Traceback ...\nTrainingFailed: loss is NaN at epoch 2"
            rows.append(result(n, flops, 0, state="failed", final=False, epoch=2, values=values, error=error))
        elif n % 4 == 1:
            rows.append(result(n, flops, accuracy / 2, state="stopped", final=False, epoch=2))
        else:
            rows.append(result(n, flops, accuracy / 2, final=False, epoch=2))  # the rung on the way
            rows.append(result(n, flops, accuracy))
    return rows


def traces(figure) -> dict[str, object]:
    return {t.name.rsplit(" (", 1)[0]: t for t in figure.data}


@pytest.mark.parametrize("objectives", [TWO, TWO[::-1], THREE, COSTS, TWO[:1]], ids=len)
def test_every_trial_is_drawn_once_and_the_front_is_the_front(objectives):
    rows = sweep()
    drawn = traces(front_figure(rows, objectives, LIMITS))
    members = front(rows, objectives)
    costs = [r.values["flops"] for r in members]
    assert sorted(drawn["front"].x) == sorted(costs)
    assert sum(len(t.x) for t in drawn.values()) == 40
    assert len(drawn["stopped early"].x) == sum(r.state == "stopped" for r in rows)
    assert len(drawn["failed"].x) == sum(r.state == "failed" for r in rows)


def test_the_front_is_a_staircase_by_cost_over_a_log_axis():
    figure = front_figure(sweep(), TWO)
    line = traces(figure)["front"]
    assert (line.mode, line.line.shape) == ("lines+markers", "hv")
    assert list(line.x) == sorted(line.x)
    assert list(line.y) == sorted(line.y)
    assert figure.layout.xaxis.type == "log"
    assert set(figure.layout.xaxis.ticktext) >= {"100k", "200k", "1M"}
    assert figure.layout.xaxis.title.text == "FLOPs (1 multiply-add = 1)"
    assert figure.layout.yaxis.title.text == "validation accuracy"


def test_a_third_objective_is_colour_with_ticks_in_its_own_unit():
    rows = sweep()
    dots = traces(front_figure(rows, THREE))["front"]
    assert dots.mode == "markers"
    bar = dots.marker.colorbar
    assert bar.title.text == "latency (ms)"
    assert [10**v for v in bar.tickvals] == [pytest.approx(float(t)) for t in bar.ticktext]
    latency = sorted(r.values["latency_ms"] for r in front(rows, THREE))
    assert sorted(10**c for c in dots.marker.color) == pytest.approx(latency)


def test_hover_tells_words_values_worker_and_seed():
    text = traces(front_figure([result(7, 1_234_567, 0.9132), result(8, 2e6, 0.95)], TWO))["front"].text[0]
    assert "<b>trial-0007</b>" in text
    assert "validation accuracy 0.9132" in text
    assert "FLOPs 1,234,567" in text
    assert "node-a · process 4242 · cpu · seed 7" in text
    assert "stage1 2x[1x1 64 &gt; shuffle" in text
    assert max(map(len, text.split("<br>"))) <= 64 + 5 * 10, "long words are wrapped"


def test_an_accuracy_on_the_way_is_never_drawn_as_a_final_one():
    stopped = result(1, 1e5, 0.61, state="stopped", final=False, epoch=2)
    passed = result(2, 2e5, 0.62, final=False, epoch=2)
    drawn = traces(front_figure([stopped, passed, result(3, 3e5, 0.9)], TWO))
    marks = drawn["stopped early"]
    assert marks.yaxis == "y2"
    assert list(marks.x) == [1e5, 2e5]
    assert "accuracy at epoch 2, not final, 0.6100" in marks.text[0]
    assert list(drawn["front"].y) == [0.9]
    assert not drawn["fully trained, dominated"].x


def test_a_failed_trial_says_why():
    rows = [r for r in sweep() if r.state == "failed"]
    assert "TrainingFailed: loss is NaN at epoch 2" in traces(front_figure(rows, TWO))["failed"].text[0]


def test_limits_are_drawn_and_in_sight():
    figure = front_figure(sweep(), TWO, LIMITS)
    assert {a.text.strip() for a in figure.layout.annotations} == {"limit 3M", "limit 0.2"}
    assert 10 ** figure.layout.xaxis.range[1] > 3e6
    assert figure.layout.yaxis.range[0] < 0.2


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        ([], "No fully trained network yet"),
        ([result(1, 1e5, 0, state="failed", final=False, values={"flops": 1e5})], "No fully trained network yet"),
        ([result(1, 1e5, 0, state="failed", final=False, values={})], "No fully trained network yet"),
        ([result(1, 1e5, 0.5)], "1 on the front, of 1 fully trained: no trade-off to draw yet"),
        ([result(1, 0.0, 0.5), result(2, 1e5, 0.7)], "2 on the front, of 2 fully trained"),
        ([result(1, 1e5, math.nan), result(2, 1e5, 0.7, values={"accuracy": 0.7})], "No fully trained network yet"),
    ],
    ids=["empty", "all failed", "nothing known", "one", "a cost of zero", "not finite"],
)
@pytest.mark.parametrize("objectives", [TWO, THREE], ids=["two", "three"])
def test_little_to_see_gives_a_valid_picture_that_says_so(rows, title, objectives, tmp_path: Path):
    figure = front_figure(rows, objectives, LIMITS)
    assert figure.layout.title.text == title
    assert figure.to_json()
    front_png(tmp_path / "front.png", rows, objectives, LIMITS)
    assert (tmp_path / "front.png").stat().st_size > 10_000


def pixels(path: Path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


def has_colour(picture, colour: str) -> bool:
    """Whether more than 20 pixels have this colour, but for rounding."""
    want = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return int((abs(picture - want).max(axis=-1) < 0.02).sum()) > 20


def test_the_png_shows_front_stopped_and_failed_in_their_colours(tmp_path: Path):
    front_png(tmp_path / "a.png", sweep(), TWO, LIMITS)
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (880, 1440, 3)
    assert all(has_colour(picture, c) for c in ("#0072B2", "#E69F00", "#D55E00"))
    front_png(tmp_path / "b.png", [], TWO)
    assert not has_colour(pixels(tmp_path / "b.png"), "#0072B2")


@pytest.mark.parametrize("objectives", [THREE, COSTS, TWO[:1]], ids=["three", "two costs", "one"])
def test_a_png_of_any_objectives_can_be_drawn(objectives, tmp_path: Path):
    front_png(tmp_path / "a.png", sweep(), objectives, LIMITS | {"latency_ms": 2.0})
    assert pixels(tmp_path / "a.png").shape == (880, 1440, 3)


def test_the_hypervolume_png_can_be_drawn_for_none_one_and_many(tmp_path: Path):
    rows = sweep()
    corner = reference_point(rows, THREE, LIMITS)
    history = hypervolume_history(rows, THREE, corner)
    for n in (0, 1, len(history)):
        hypervolume_png(tmp_path / f"{n}.png", history[:n], corner)
        assert has_colour(pixels(tmp_path / f"{n}.png"), "#0072B2") == (n > 0)


def test_drawing_leaves_no_global_state(tmp_path: Path):
    import sys

    import matplotlib

    before = dict(matplotlib.rcParams)
    front_png(tmp_path / "a.png", sweep(), TWO)
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_the_page_loads_nothing_and_escapes_what_it_shows():
    bad = result(1, 1e5, 0.5, words="<script>alert(1)</script>")
    page = front_html(front_figure([bad], TWO), "a <b>", [bad], TWO, "n & m")
    own = page.split("<style>")[0] + page.rsplit("</script>", 1)[1]
    assert "<title>a &lt;b&gt;</title>" in own
    assert "&lt;script&gt;alert(1)" in own
    assert "<script>alert(1)" not in page
    assert "n &amp; m" in page
    assert "<script src" not in page
    assert "cdn.plot.ly/plotly" not in page


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("objectives", [TWO, THREE], ids=["two", "three"])
def test_chromium_shows_every_point_offline(objectives, tmp_path: Path):
    rows = sweep()
    page = tmp_path / "front.html"
    members = front(rows, objectives)
    page.write_text(front_html(front_figure(rows, objectives, LIMITS), "digits", members, objectives), "utf-8")
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --virtual-time-budget=8000 --dump-dom"
    options += " --host-resolver-rules=MAP\\u0020*\\u0020~NOTFOUND"
    command = [CHROMIUM, *(o.replace("\\u0020", " ") for o in options.split()), f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=60)
    dom = done.stdout
    assert dom.count('class="point"') == 40
    assert dom.count('class="words"') == len(members)
    assert "FLOPs (1 multiply-add = 1)</text>" in dom
    assert "limit 3M" in dom


def test_a_cost_of_0_stands_at_the_edge_of_the_axis_and_the_axis_says_so(tmp_path: Path):
    rows = [result(0, 1e5, 0.6), result(1, 2e5, 0.8)]
    rows = [replace(r, values={**r.values, "interactions": float(r.trial * 500)}) for r in rows]
    pair = [OBJECTIVES["accuracy"], OBJECTIVES["interactions"]]
    figure = front_figure(rows, pair)
    (trace,) = [t for t in figure.data if t.name == "front (2)"]
    assert list(trace.y) == [0.6, 0.8]
    assert 0 < trace.x[0] < trace.x[1] == 500
    assert math.log10(trace.x[0]) == pytest.approx(figure.layout.xaxis.range[0])
    assert "0 is drawn at the edge" in figure.layout.xaxis.title.text
    front_png(tmp_path / "front.png", rows, pair)
    assert (tmp_path / "front.png").stat().st_size > 10_000
