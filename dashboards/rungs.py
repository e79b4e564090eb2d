"""Trials on the rungs as an interactive Plotly figure: accuracy at each level, who went on, who stopped where. Pure.

Only what ends at the last level is a result; an end below it is marked orange, a failure vermillion.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from dashboards.fates import Fates, climbs, fate, fates
from dashboards.look import GRID, blank, wrapped
from dashboards.picture import BLUE, GREY, LABELS, ORANGE, VERMILLION, quiet
from nas.pareto import Objective, front
from nas.results import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

LINES = 3  # of an architecture's words in a hover: a page of thousands must stay light


def rungs_figure(results: Iterable[Result], levels: Sequence[int], objectives: Sequence[Objective]) -> go.Figure:
    """A thin line a trial from level to level (in epochs), its end marked; the front is blue. Hover tells the words.

    A group is one trace, its trials kept apart by None. A trial without any accuracy is not drawn.
    """
    rows = list(results)
    found = climbs(rows)
    members = {(row.kind, row.trial) for row in front((climb[-1] for climb in found), objectives)}
    groups: dict[str, list[list[Result]]] = {"below": [], "failed": [], "trained": [], "front": []}
    for climb in found:
        if any(map(_known, climb)) and (end := fate(climb)) in groups:
            groups["front" if (climb[-1].kind, climb[-1].trial) in members else end].append(climb)
    figure = blank(_title(fates(rows, levels)))
    marks: tuple[tuple[str, str, dict[str, object]], ...] = (
        ("below", "stopped at a rung", _stroke("line-ew", ORANGE, quiet(len(groups["below"])))),
        ("failed", "failed after a rung", _stroke("x-thin", VERMILLION, 1.0)),
        ("trained", "fully trained, dominated", {"color": GREY, "opacity": 0.8, "line": {"width": 0}}),
        ("front", "front", {"color": BLUE, "line": {"width": 1, "color": "white"}}),
    )
    for kind, name, marker in marks:
        if group := groups[kind]:
            faint = f"rgba(154,163,173,{max(0.1, min(0.6, 30 / len(group))):.2f})"
            line = {"color": BLUE, "width": 1.6} if kind == "front" else {"color": faint, "width": 1}
            figure.add_scatter(**_ways(group, levels[-1]), line=line, name=name, legendgroup=kind, showlegend=False)
            look = {"marker": {"size": 8} | marker, "name": f"{name} ({len(group)})", "legendgroup": kind}
            figure.add_scatter(**_ends(group), **look)
    seen = [row.values["accuracy"] for group in groups.values() for climb in group for row in climb if _known(row)]
    low, high = min(seen, default=0.0), max(seen, default=1.0)
    air = max((high - low) * 0.06, 0.03)
    span = [max(low - air, -0.01), min(high + air, 1.01)]
    figure.update_yaxes(title={"text": LABELS["accuracy"]}, range=span, **GRID)
    ends = [math.log10(levels[0]), math.log10(levels[-1])]
    air = max((ends[1] - ends[0]) * 0.06, 0.02)
    ticks = {"tickvals": list(levels), "ticktext": [str(level) for level in levels]}
    figure.update_xaxes(type="log", range=[ends[0] - air, ends[1] + air], title={"text": "epochs"}, **ticks, **GRID)
    return figure


def _known(row: Result) -> bool:
    return row.state == "complete" and math.isfinite(row.values.get("accuracy", math.nan))


def _title(counts: Fates) -> str:
    first, top = counts.levels[0], counts.levels[-1]
    if not first.reached:
        return "No trial has reached a rung yet"
    whole = f"{top.ended} of {counts.trials} trials trained for all {top.epoch} epochs"
    return f"On the rungs: {whole}; what ended below is no result"


def _stroke(symbol: str, colour: str, opacity: float) -> dict[str, object]:
    """A mark made of lines."""
    return {"symbol": symbol, "opacity": opacity, "line": {"width": 1.5, "color": colour}}


def _ways(group: list[list[Result]], last: int) -> dict[str, object]:
    """One line through every trial's points, a None behind each trial."""
    x: list[int | None] = []
    y: list[float | None] = []
    text: list[str | None] = []
    for climb in group:
        points = [row for row in climb if _known(row)]
        x += [*(row.epoch for row in points), None]
        y += [*(round(row.values["accuracy"], 5) for row in points), None]
        text += [*(_on_the_way(row, last) for row in points[:-1]), _end(climb, points, last), None]
    return {"x": x, "y": y, "text": text, "mode": "lines", "hovertemplate": "%{text}<extra></extra>"}


def _ends(group: list[list[Result]]) -> dict[str, object]:
    """A mark at every trial's last point; what is to be told, its line tells."""
    points = [[row for row in climb if _known(row)][-1] for climb in group]
    y = [round(row.values["accuracy"], 5) for row in points]
    return {"x": [row.epoch for row in points], "y": y, "mode": "markers", "hoverinfo": "skip"}


def _on_the_way(row: Result, last: int) -> str:
    return f"<b>{html.escape(row.title)}</b><br>{row.values['accuracy']:.3f} at epoch {row.epoch} of {last}, went on"


def _end(climb: list[Result], points: list[Result], last: int) -> str:
    """The trial, its way, how it ended, and what it is."""
    way = ", ".join(f"{row.values['accuracy']:.3f} at epoch {row.epoch}" for row in points)
    ends = {
        "trained": "fully trained",
        "below": f"stopped at epoch {points[-1].epoch} of {last}: not a result",
        "failed": f"failed at epoch {max(row.epoch for row in climb)} of {last}: not a result",
    }
    title = html.escape(climb[-1].title)
    return "<br>".join([f"<b>{title}</b>", ends[fate(climb)], f"accuracy {way}", "", *wrapped(climb[-1].words, LINES)])
