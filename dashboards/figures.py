"""The front as an interactive Plotly figure. Pure: results in, figure out."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from dashboards.look import GRID, blank, wrapped
from dashboards.picture import (
    BLUE,
    FLOOR,
    GREY,
    INK,
    LABELS,
    LEDGE,
    ORANGE,
    SCALE,
    VERMILLION,
    Picture,
    axis_label,
    brief,
    drawn,
    is_log,
    picture_of,
    quiet,
    ticks,
    value_text,
)
from nas.pareto import Objective
from nas.quantities import short
from nas.results import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go

RING = "#7B8591"  # of a dot, on a light page and on a dark one
MANY, LINES = 500, 3  # of more points than so many, a hover tells the first lines of the words: a page must stay light


def front_figure(
    results: Iterable[Result], objectives: Sequence[Objective], limits: Mapping[str, float] | None = None
) -> go.Figure:
    """The front of `results` as an interactive figure; hover tells the architecture in words, its values, its worker.

    y is the first objective to maximize, x the first cost (log), colour the next one. With a third objective the
    members are not joined: their line would not be the front's edge. `limits` are drawn by objective name.
    A table without a front gives a figure that says so.
    """
    import plotly.graph_objects as go

    p = picture_of(results, objectives, limits)
    figure = blank(p.title)
    dots = {"size": 7, "color": GREY, "opacity": 0.6, "line": {"width": 0}}
    figure.add_trace(_dots(go, p, p.dominated, "fully trained, dominated", marker=dots))
    strong: dict[str, object] = {"size": 11, "color": BLUE, "line": {"width": 1.5, "color": "white"}}
    if p.colour is not None:
        bar = {"title": {"text": LABELS.get(p.colour.name, p.colour.name), "side": "right"}, "thickness": 12}
        bar |= _colour_ticks(p)
        values = [_shade(p.colour, r) for r in p.members]
        strong |= {"size": 13, "color": values, "colorscale": SCALE, "colorbar": bar, "showscale": bool(values)}
        strong |= {"line": {"width": 1, "color": RING}}
    line = {"color": BLUE, "width": 2.5, "shape": "hv"}
    mode = "lines+markers" if p.colour is None else "markers"
    figure.add_trace(_dots(go, p, p.members, "front", marker=strong, line=line, mode=mode))
    if p.seeds:
        figure.add_trace(_names(go, p))
    for rows, name, colour, symbol, height in (
        (p.stopped, "stopped early", ORANGE, "line-ns", FLOOR),
        (p.failed, "failed", VERMILLION, "x-thin", LEDGE),
    ):
        if rows:
            marker = {"size": 8, "symbol": symbol, "opacity": quiet(len(rows))}
            marker |= {"line": {"width": 1.2, "color": colour}}
            figure.add_trace(_dots(go, p, rows, name, marker=marker, height=height))
    _frame(figure, p)
    return figure


def _shade(objective: Objective, result: Result) -> float:
    value = result.values[objective.name]
    return math.log10(value) if is_log(objective) and value > 0 else value


def _colour_ticks(p: Picture) -> dict[str, object]:
    """Ticks of the colour bar in the objective's own unit: its shades are logarithms."""
    seen = [r.values[p.colour.name] for r in p.members] if p.colour else []
    if len(seen) < 2 or min(seen) <= 0 or min(seen) == max(seen):
        return {}
    marks = ticks(min(seen), max(seen)) or seen
    return {"tickvals": [math.log10(v) for v in marks], "ticktext": [short(v) for v in marks]}


def _hover(result: Result, most: int | None) -> str:
    values = [f"{brief(n)} {value_text(n, v)}" for n, v in result.values.items()]
    if not (result.final and result.state == "complete"):
        values = [v.replace("validation accuracy", f"accuracy at epoch {result.epoch}, not final,") for v in values]
        values.insert(0, f"{'failed' if result.state == 'failed' else 'stopped'} at epoch {result.epoch}")
    lines = [f"<b>{html.escape(result.title)}</b>", *wrapped(result.words, most), "", *map(html.escape, values)]
    if result.error:
        lines.append(html.escape(textwrap.shorten(result.error.strip().splitlines()[-1], 80)))
    worker = f"{result.worker.node[:12]} · process {result.worker.pid} · {result.worker.device} · seed {result.seed}"
    return "<br>".join([*lines, "", html.escape(worker)])


def _dots(
    go: object,
    p: Picture,
    rows: list[Result],
    name: str,
    *,
    marker: Mapping[str, object],
    line: Mapping[str, object] | None = None,
    mode: str = "markers",
    height: float | None = None,
) -> go.Scatter:
    """One trace, at the objective's values or at one `height` of the picture."""
    x = [drawn(p, p.x, r) for r in rows]
    return go.Scatter(  # type: ignore[attr-defined]
        x=x,
        y=[drawn(p, p.y, r) for r in rows] if height is None else [height] * len(rows),
        yaxis="y" if height is None else "y2",
        text=[_hover(r, LINES if len(rows) > MANY else None) for r in rows],
        hovertemplate="%{text}<extra></extra>",
        name=f"{name} ({len(rows)})",
        mode=mode,
        marker=marker,
        line=line,
    )


def _names(go: object, p: Picture) -> go.Scatter:
    """A ring and the name of each published network, over its dot."""
    return go.Scatter(  # type: ignore[attr-defined]
        x=[drawn(p, p.x, r) for r in p.seeds],
        y=[drawn(p, p.y, r) for r in p.seeds],
        text=[html.escape(r.title) for r in p.seeds],
        textposition=["bottom left" if p.right(r) else "bottom right" for r in p.seeds],
        hoverinfo="skip",
        name=f"published ({len(p.seeds)})",
        mode="markers+text",
        marker={"size": 16, "symbol": "diamond-open", "color": RING, "line": {"width": 1.5}},
    )


def _frame(figure: go.Figure, p: Picture) -> None:
    """Axes and limits; the marks on the floor lie on an axis of their own."""
    floor = {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    figure.update_layout(yaxis2=floor, uirevision="front")
    for axis, objective in (("xaxis", p.x), ("yaxis", p.y)):
        low, high = p.span(objective)
        settings: dict[str, object] = GRID | {"title": {"text": axis_label(p, objective)}, "range": [low, high]}
        if is_log(objective):
            marks = ticks(low, high)
            settings |= {"type": "log", "range": [math.log10(low), math.log10(high)]}
            settings |= {"tickvals": marks, "ticktext": [short(v) for v in marks]}
        figure.update_layout({axis: settings})
    dashed = {"color": INK, "width": 1, "dash": "dash"}
    aside = {"showarrow": False, "font": {"size": 13}}
    if (limit := p.limits.get(p.x.name)) is not None:
        figure.add_vline(limit, line=dashed)
        place = {"x": math.log10(limit), "xanchor": "right", "y": 0.01 + LEDGE, "yref": "paper"}
        place |= {"yanchor": "bottom"}
        figure.add_annotation(text=f"limit {short(limit)} ", **place, **aside)
    if (limit := p.limits.get(p.y.name)) is not None:
        figure.add_hline(limit, line=dashed)
        place = {"x": 0, "xref": "paper", "xanchor": "left", "y": math.log10(limit) if is_log(p.y) else limit}
        figure.add_annotation(text=f"limit {short(limit)}", yanchor="bottom", **place, **aside)
