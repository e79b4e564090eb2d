"""The page of an inspected module: figures as data, and what a real Chromium shows of it without a network."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from dashboards.inspection import apoz_figure, correlation_figure, edges_figure, inspection_html
from pruning.report import HEAD, Report
from pruning.statistics import inspect


@pytest.fixture(scope="module")
def report() -> Report:
    """Two dead channels in the first layer; the second one's edges are blocks of 2 in a shuffled order."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(12, 200, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(200, 3)),
    )
    with torch.no_grad():
        module[0].bias[[1, 4]] = -50.0
        module[2].weight[torch.randperm(12)[:, None] % 2 != torch.randperm(8)[None] % 2] = 0
    return inspect(module, [torch.randn(16, 2, 8, 8) for _ in range(2)])


def test_every_layer_with_an_activation_has_its_histogram(report: Report) -> None:
    (trace,) = apoz_figure(report).data
    assert list(trace.y) == ["0", "2"]
    shares = [[v or 0 for v in row] for row in trace.z]
    assert [sum(row) for row in shares] == pytest.approx([1, 1])
    assert shares[0][-1] == 2 / 8  # always zero
    assert trace.customdata[0][-1] == 2
    assert "32 samples" in apoz_figure(report).layout.title.text


def test_edges_and_weak_pairs_stand_side_by_side(report: Report) -> None:
    figure = edges_figure(report)
    zero, weak = figure.data
    assert list(zero.y) == ["0", "2", "4", "7"]
    assert list(zero.x) == [0, 0.5, 0, 0]
    assert min(w - z for w, z in zip(list(weak.x)[1:2], list(zero.x)[1:2])) > 0  # the dead channels' pairs, too
    assert list(weak.y) == ["0", "2", "4", "7"]


def test_the_correlation_matrix_is_drawn_in_the_order_of_its_groups(report: Report) -> None:
    figure = correlation_figure(report, "2")
    (shown,) = [t for t in figure.data if t.visible]
    assert "the others support 2 groups, in their order" in figure.layout.title.text
    assert sorted(map(int, shown.y)) == list(range(12))
    assert sorted(map(int, shown.x)) == list(range(8))
    corners = [row[4:] for row in shown.z[:6]] + [row[:4] for row in shown.z[6:]]
    assert {v for row in corners for v in row} == {None}
    inside = [row[:4] for row in shown.z[:6]] + [row[4:] for row in shown.z[6:]]
    assert all(v is None or 0.1 <= v <= 1 for row in inside for v in row)
    assert [b.label for b in figure.layout.updatemenus[0].buttons] == ["0", "2", "4", "7"]
    assert figure.layout.updatemenus[0].buttons[3].args[0] == {"visible": [False, False, False, True]}


def test_a_large_matrix_shows_the_strongest_of_each_block(report: Report) -> None:
    trace = next(t for t in correlation_figure(report, "4").data if t.visible)
    layer = next(layer for layer in report.layers if layer.name == "4")
    whole = layer.matrix(strong=True)
    assert whole is not None
    assert len(trace.z) == 67  # of 200 rows, 3 each
    assert trace.y[1] == "3.."
    drawn = [[v or 0 for v in row] for row in trace.z]
    blocks = torch.stack([part.abs().nan_to_num(0).amax(0) for part in whole.split(3)])
    assert drawn == [pytest.approx(row, abs=1e-3) for row in blocks.tolist()]
    assert "strongest of 3 x 1 pairs" in trace.hovertemplate


def test_little_to_see_gives_valid_figures_that_say_so(report: Report) -> None:
    bare = replace(report, layers=tuple(replace(x, channels=(), weak=None, edges=None) for x in report.layers))
    assert "No activation follows any layer" in apoz_figure(bare).layout.title.text
    assert correlation_figure(bare).layout.title.text == "No layer has pairs to correlate"
    assert edges_figure(bare).to_json()
    assert inspection_html(bare, "bare")
    with pytest.raises(ValueError, match="`layer` must be one with correlations, 0, 2, 4, 7, but got '1'"):
        correlation_figure(report, "1")


def test_the_page_loads_nothing_and_escapes_what_it_shows(report: Report) -> None:
    odd = replace(report, refusal="<script>alert(1)</script>")
    page = inspection_html(odd, "a <b>", "n & m")
    assert "<title>a &lt;b&gt;</title>" in page
    assert "n &amp; m What is removable is not known: &lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "<script src" not in page
    assert page.count("plotly.js v") == 1  # once for all figures


CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_chromium_shows_all_figures_and_the_table_offline(report: Report, tmp_path: Path) -> None:
    page = tmp_path / "inspect.html"
    page.write_text(inspection_html(report, "planted", "32 images."), "utf-8")
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --virtual-time-budget=8000 --dump-dom"
    command = [
        CHROMIUM,
        *options.split(),
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path}/profile",
    ]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=60)
    dom = done.stdout
    assert dom.count('class="heatmaplayer mlayer"') >= 2
    assert dom.count('class="point"') >= 4  # bars and diamonds
    for words in ("Zeros after the activation", "Dead edges and weak pairs", "follow their inputs", "|correlation|"):
        assert words in dom
    assert all(f"<th>{word}</th>" in dom for word in HEAD)
    assert dom.count('<td class="words">') == 4
