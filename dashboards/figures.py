"""Pictures of a search: the front as a Plotly figure, an offline page or a PNG, and hypervolume over trials as a PNG.

Pure: results in, figures out. Everything is drawn in one way. Fully trained networks are quiet dots, the front is the
one strong line, a staircase because nothing between two members has been shown to exist. What was stopped or failed
is a mark at its cost on the floor of the picture, since an accuracy on the way is not a final one.
Colours are Okabe and Ito's, which stay apart for colour-blind readers; a third objective is cividis.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.pareto import OBJECTIVES, Objective, comparable, front
from nas.quantities import short
from nas.results import Result

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure
    import plotly.graph_objects as go

LABELS = {
    "accuracy": "validation accuracy",
    "test_accuracy": "test accuracy",
    "flops": "FLOPs (1 multiply-add = 1)",
    "macs": "multiply-adds of convolutions and linear layers",
    "params": "parameters",
    "activations": "activations (elements)",
    "interactions": "channel interactions",
    "latency_ms": "latency (ms)",
}
BLUE, GREY, ORANGE, VERMILLION, INK = "#0072B2", "#9AA3AD", "#E69F00", "#D55E00", "#374151"
SCALE = "cividis"
FLOOR = 0.025  # where marks without a final accuracy lie, as a share of the picture's height


@dataclass(frozen=True, slots=True)
class _Picture:
    """What is drawn where, whichever library draws it."""

    x: Objective
    y: Objective
    colour: Objective | None
    members: list[Result]  # by x
    dominated: list[Result]
    stopped: list[Result]
    failed: list[Result]
    limits: Mapping[str, float]

    @property
    def title(self) -> str:
        """What there is to see, also where that is little."""
        trained = len(self.members) + len(self.dominated)
        if trained == 0:
            return "No fully trained network yet"
        more = ": no trade-off to draw yet" if len(self.members) == 1 else ""
        return f"{len(self.members)} on the front, of {trained} fully trained{more}"

    def span(self, objective: Objective) -> tuple[float, float]:
        """The range of an axis: everything drawn on it, with some air. Accuracies end at 0 and 1."""
        rows = self.members + self.dominated + (self.stopped + self.failed if objective == self.x else [])
        seen = [v for r in rows if math.isfinite(v := r.values.get(objective.name, math.nan))]
        seen += [self.limits[objective.name]] if objective.name in self.limits else []
        if _is_log(objective):
            seen = [v for v in seen if v > 0] or [1e5, 1e7]
            low, high = min(seen), max(seen)
            air = max((high / low) ** 0.06, 1.15, (2.5 * low / high) ** 0.5)  # 2.5 always holds two round numbers
            return low / air, high * air
        low, high = min(seen, default=0.0), max(seen, default=1.0)
        air = max((high - low) * 0.08, 0.05)
        return max(low - air, -0.01), min(high + air, 1.01)


def front_figure(
    results: Iterable[Result], objectives: Sequence[Objective], limits: Mapping[str, float] | None = None
) -> go.Figure:
    """The front of `results` as an interactive figure; hover tells the architecture in words, its values, its worker.

    y is the first objective to maximize, x the first cost (log), colour the next one. With a third objective the
    members are not joined: their line would not be the front's edge. `limits` are drawn by objective name.
    A table without a front gives a figure that says so.
    """
    import plotly.graph_objects as go

    p = _picture(results, objectives, limits)
    figure = go.Figure()
    quiet = {"size": 7, "color": GREY, "opacity": 0.6, "line": {"width": 0}}
    figure.add_trace(_dots(go, p, p.dominated, "fully trained, dominated", marker=quiet))
    strong: dict[str, object] = {"size": 11, "color": BLUE, "line": {"width": 1.5, "color": "white"}}
    if p.colour is not None:
        bar = {"title": {"text": LABELS.get(p.colour.name, p.colour.name), "side": "right"}, "thickness": 12}
        bar |= _colour_ticks(p)
        values = [_shade(p.colour, r) for r in p.members]
        strong |= {"size": 13, "color": values, "colorscale": SCALE, "colorbar": bar, "showscale": bool(values)}
        strong |= {"line": {"width": 0.8, "color": INK}}
    line = {"color": BLUE, "width": 2.5, "shape": "hv"}
    mode = "lines+markers" if p.colour is None else "markers"
    figure.add_trace(_dots(go, p, p.members, "front", marker=strong, line=line, mode=mode))
    for rows, name, colour, symbol in (
        (p.stopped, "stopped early", ORANGE, "line-ns"),
        (p.failed, "failed", VERMILLION, "x-thin"),
    ):
        if rows:
            marker = {"size": 8, "symbol": symbol, "line": {"width": 1.5, "color": colour}}
            figure.add_trace(_dots(go, p, rows, name, marker=marker, on_floor=True))
    _frame(figure, p)
    return figure


def front_html(
    figure: go.Figure, title: str, members: Sequence[Result] = (), objectives: Sequence[Objective] = (), note: str = ""
) -> str:
    """One page that shows offline: plotly.js inside, the figure, and a table of the front's members.

    `note` is a line under the title (conditions, the reference point). Follows the reader's light or dark setting.
    """
    settings = {"displaylogo": False, "responsive": True}
    plot = figure.to_html(full_html=False, include_plotlyjs=True, config=settings, default_height="36rem")
    tested = ["test_accuracy"] if any("test_accuracy" in r.values for r in members) else []
    names = list(dict.fromkeys(["accuracy", *tested, *(o.name for o in objectives), "flops", "params"]))
    head = "".join(f"<th>{html.escape(_brief(n))}</th>" for n in names)
    body = "\n".join(
        f"<tr><td>{_name(r)}</td>"
        + "".join(f"<td>{_value(n, r.values.get(n))}</td>" for n in names)
        + f'<td class="words">{html.escape(r.words)}</td></tr>'
        for r in members
    )
    table = f"<table><tr><th>network</th>{head}<th>architecture</th></tr>\n{body}\n</table>" if members else ""
    return PAGE.format(title=html.escape(title), note=html.escape(note), plot=plot, table=table)


def front_png(
    path: Path, results: Iterable[Result], objectives: Sequence[Objective], limits: Mapping[str, float] | None = None
) -> None:
    """The same picture as `front_figure`, 1440 x 880 pixels, for a README or a tracker."""
    p = _picture(results, objectives, limits)
    figure, axes = _canvas()
    if p.dominated:
        axes.scatter(*_xy(p, p.dominated), s=22, color=GREY, alpha=0.6, linewidths=0, label="fully trained, dominated")
    if p.members:
        _draw_front(figure, axes, p)
    floor = axes.get_xaxis_transform()  # x in data, y in shares of the height
    for rows, name, colour, mark in ((p.stopped, "stopped early", ORANGE, "|"), (p.failed, "failed", VERMILLION, "x")):
        costs = [v for r in rows if (v := r.values.get(p.x.name, math.nan)) > 0]
        if costs:
            heights = [FLOOR] * len(costs)
            axes.scatter(costs, heights, 34, colour, marker=mark, linewidths=1.4, transform=floor, label=name)
    dashed = (0, (4, 3))
    if (limit := p.limits.get(p.x.name)) is not None:
        axes.axvline(limit, color=INK, linewidth=1, linestyle=dashed, zorder=1)
        axes.text(limit, 0.015, f"limit {short(limit)} ", transform=floor, ha="right", va="bottom", color=INK)
    if (limit := p.limits.get(p.y.name)) is not None:
        axes.axhline(limit, color=INK, linewidth=1, linestyle=dashed, zorder=1)
        sides = axes.get_yaxis_transform()
        axes.text(0.005, limit, f"limit {short(limit)}", transform=sides, ha="left", va="bottom", color=INK)
    for objective, axis in ((p.x, axes.xaxis), (p.y, axes.yaxis)):
        low, high = p.span(objective)
        if _is_log(objective):
            axis.axes.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_ticks(_ticks(low, high), labels=[short(v) for v in _ticks(low, high)])
            axis.set_ticks([], minor=True)
        axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})
        axis.set_label_text(_axis_label(p, objective), color=INK)
    axes.set_title(p.title, loc="left", color=INK, fontsize=12, pad=26)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, borderpad=0.2, labelcolor=INK)
    figure.savefig(path)


def _draw_front(figure: matplotlib.figure.Figure, axes: matplotlib.axes.Axes, p: _Picture) -> None:
    x, y = _xy(p, p.members)
    if p.colour is None:
        axes.step(x, y, where="post", color=BLUE, linewidth=2, zorder=3)
        axes.scatter(x, y, s=56, color=BLUE, edgecolors="white", linewidths=1.2, zorder=4, label="front")
        return
    shades = [r.values[p.colour.name] for r in p.members]
    scale = "log" if _is_log(p.colour) and min(shades) > 0 else "linear"
    dots = axes.scatter(
        x, y, 70, shades, cmap=SCALE, norm=scale, edgecolors=INK, linewidths=0.6, zorder=4, label="front"
    )
    bar = figure.colorbar(dots, ax=axes, pad=0.02)
    bar.set_label(LABELS.get(p.colour.name, p.colour.name), color=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(colors=INK, length=0)
    if scale == "log":
        marks = _ticks(min(shades), max(shades)) or shades
        bar.set_ticks(marks, labels=[short(v) for v in marks])
        bar.ax.minorticks_off()


def hypervolume_png(path: Path, history: Sequence[tuple[int, float]], reference: Mapping[str, float]) -> None:
    """Hypervolume over the number of finished trials, as `nas.pareto.hypervolume_history` gives it.

    The reference point is written into the picture: values compare under one reference only.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _canvas()
    counts, values = [n for n, _ in history], [v for _, v in history]
    axes.step(counts, values, where="post", color=BLUE, linewidth=2)
    axes.fill_between(counts, values, step="post", color=BLUE, alpha=0.08, linewidth=0)
    if len(history) == 1:
        axes.scatter(counts, values, s=56, color=BLUE)
    if not history:
        axes.text(0.5, 0.5, "No finished trial yet", transform=axes.transAxes, ha="center", color=INK, fontsize=12)
    units = [_brief(n) if OBJECTIVES[n].maximize else f"decades of {_brief(n)}" for n in reference]
    corner = ", ".join(f"{_brief(n)} {short(v)}" for n, v in reference.items())
    axes.set_xlabel("finished trials", color=INK)
    axes.set_ylabel("hypervolume\n" + textwrap.fill(" × ".join(units), 40), color=INK)
    axes.set_title(f"Hypervolume, from the reference {corner}", loc="left", color=INK, fontsize=12)
    axes.set_ylim(0, max(values, default=0.0) * 1.08 or 1.0)
    axes.set_xlim(0, max(counts, default=10) * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path)


def _picture(
    results: Iterable[Result], objectives: Sequence[Objective], limits: Mapping[str, float] | None
) -> _Picture:
    """The last record of every trial, in its place. Retrainings (kind "final") are other numbers, not other points."""
    rows = list({(r.kind, r.trial): r for r in results if r.kind != "final"}.values())
    y = next((o for o in objectives if o.maximize), objectives[-1])
    costs = [o for o in objectives if o != y and not o.maximize] or [OBJECTIVES["flops"]]
    members = sorted(front(rows, objectives), key=lambda r: r.values.get(costs[0].name, math.nan))
    on = {(r.kind, r.trial) for r in members}
    return _Picture(
        x=costs[0],
        y=y,
        colour=costs[1] if len(costs) > 1 else None,
        members=members,
        dominated=[r for r in comparable(rows, objectives) if (r.kind, r.trial) not in on],
        stopped=[r for r in rows if r.state == "stopped" or (r.state == "complete" and not r.final)],
        failed=[r for r in rows if r.state == "failed"],
        limits=limits or {},
    )


def _is_log(objective: Objective) -> bool:
    return not objective.maximize


def _xy(p: _Picture, rows: list[Result]) -> tuple[list[float], list[float]]:
    return [_drawn(p, p.x, r) for r in rows], [_drawn(p, p.y, r) for r in rows]


def _drawn(p: _Picture, objective: Objective, result: Result) -> float:
    """The value as it is drawn: a logarithmic axis has no 0, which stands at its edge."""
    value = result.values.get(objective.name, math.nan)
    return max(value, p.span(objective)[0]) if _is_log(objective) and value <= 0 else value


def _axis_label(p: _Picture, objective: Objective) -> str:
    rows = (*p.members, *p.dominated, *p.stopped, *p.failed)
    zero = _is_log(objective) and any(r.values.get(objective.name, 1) <= 0 for r in rows)
    return LABELS.get(objective.name, objective.name) + ("; 0 is drawn at the edge" if zero else "")


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside a range of a log axis: decades from 1,000 up, 1-2-5 from 5 up, closer ones below."""
    steps: tuple[float, ...] = (1,) if high / low >= 1e3 else (1, 2, 5) if high / low >= 5 else (1, 1.5, 2, 3, 4, 6, 8)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [s * 10.0**n for n in powers for s in steps if low <= s * 10.0**n <= high]


def _brief(name: str) -> str:
    """A label without what only an axis has room for."""
    label = LABELS.get(name, name)
    return label.removesuffix(" (1 multiply-add = 1)").removesuffix(" of convolutions and linear layers")


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if name.endswith("accuracy") else f"{value:.3g}" if name == "latency_ms" else f"{value:,.0f}"


def _name(result: Result) -> str:
    return f"{result.kind}-{result.trial:04d}"


def _shade(objective: Objective, result: Result) -> float:
    value = result.values[objective.name]
    return math.log10(value) if _is_log(objective) and value > 0 else value


def _colour_ticks(p: _Picture) -> dict[str, object]:
    """Ticks of the colour bar in the objective's own unit: its shades are logarithms."""
    seen = [r.values[p.colour.name] for r in p.members] if p.colour else []
    if len(seen) < 2 or min(seen) <= 0 or min(seen) == max(seen):
        return {}
    marks = _ticks(min(seen), max(seen)) or seen
    return {"tickvals": [math.log10(v) for v in marks], "ticktext": [short(v) for v in marks]}


def _hover(result: Result) -> str:
    values = [f"{_brief(n)} {_value(n, v)}" for n, v in result.values.items()]
    if not (result.final and result.state == "complete"):
        values = [v.replace("validation accuracy", f"accuracy at epoch {result.epoch}, not final,") for v in values]
        values.insert(0, f"{'failed' if result.state == 'failed' else 'stopped'} at epoch {result.epoch}")
    lines = textwrap.wrap(result.words, 64) or ["(no words)"]
    lines = [f"<b>{_name(result)}</b>", *(html.escape(line) for line in lines), "", *map(html.escape, values)]
    if result.error:
        lines.append(html.escape(textwrap.shorten(result.error.strip().splitlines()[-1], 80)))
    worker = f"{result.worker.node} · process {result.worker.pid} · {result.worker.device} · seed {result.seed}"
    return "<br>".join([*lines, "", html.escape(worker)])


def _dots(
    go: object,
    p: _Picture,
    rows: list[Result],
    name: str,
    *,
    marker: Mapping[str, object],
    line: Mapping[str, object] | None = None,
    mode: str = "markers",
    on_floor: bool = False,
) -> go.Scatter:
    """One trace, at the objective's values or on the picture's floor."""
    x = [r.values.get(p.x.name) for r in rows]
    return go.Scatter(  # type: ignore[attr-defined]
        x=x,
        y=[FLOOR] * len(rows) if on_floor else [r.values[p.y.name] for r in rows],
        yaxis="y2" if on_floor else "y",
        text=[_hover(r) for r in rows],
        hovertemplate="%{text}<extra></extra>",
        name=f"{name} ({len(rows)})",
        mode=mode,
        marker=marker,
        line=line,
    )


def _frame(figure: go.Figure, p: _Picture) -> None:
    """Axes, limits, title."""
    grid = {"gridcolor": "rgba(128,128,128,0.18)", "zeroline": False, "automargin": True}
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 14, "color": INK},
        title={"text": p.title, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top", "font": {"size": 16}},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": 1.01, "yanchor": "bottom"},
        margin={"l": 60, "r": 20, "t": 80, "b": 60},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        hoverlabel={"bgcolor": "white", "bordercolor": BLUE, "align": "left", "font": {"size": 13, "color": INK}},
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        uirevision="front",
    )
    for axis, objective in (("xaxis", p.x), ("yaxis", p.y)):
        low, high = p.span(objective)
        settings = grid | {"title": {"text": _axis_label(p, objective)}, "range": [low, high]}
        if _is_log(objective):
            marks = _ticks(low, high)
            settings |= {"type": "log", "range": [math.log10(low), math.log10(high)]}
            settings |= {"tickvals": marks, "ticktext": [short(v) for v in marks]}
        figure.update_layout({axis: settings})
    dashed = {"color": INK, "width": 1, "dash": "dash"}
    aside = {"showarrow": False, "font": {"size": 13}}
    if (limit := p.limits.get(p.x.name)) is not None:
        figure.add_vline(limit, line=dashed)
        place = {"x": math.log10(limit), "xanchor": "right", "y": 0, "yref": "paper", "yanchor": "bottom"}
        figure.add_annotation(text=f"limit {short(limit)} ", **place, **aside)
    if (limit := p.limits.get(p.y.name)) is not None:
        figure.add_hline(limit, line=dashed)
        place = {"x": 0, "xref": "paper", "xanchor": "left", "y": math.log10(limit) if _is_log(p.y) else limit}
        figure.add_annotation(text=f"limit {short(limit)}", yanchor="bottom", **place, **aside)


def _canvas() -> tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]:
    """A figure of its own on the Agg backend: no pyplot, no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), dpi=160, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#C4CAD1")
    axes.tick_params(colors=INK, length=0)
    axes.grid(color="#E8EBEE", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #374151; --quiet: #6b7280; --rule: #e5e7eb; --paper: #ffffff; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e5e7eb; --quiet: #9ca3af; --rule: #374151; --paper: #15181d; }}
  .js-plotly-plot .shapelayer path {{ stroke: var(--ink) !important; }}
  .js-plotly-plot .hoverlayer .hovertext > path {{ fill: #262b33 !important; }}
}}
body {{ margin: 2rem auto; padding: 0 1.5rem; max-width: 76rem; color: var(--ink); background: var(--paper);
  font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ font-size: 1.4rem; margin: 0; }}
p {{ margin: 0.2rem 0 1rem; color: var(--quiet); }}
.js-plotly-plot text {{ fill: var(--ink) !important; }}
table {{ border-collapse: collapse; width: 100%; margin-top: 1.5rem; font-size: 0.87rem; }}
th, td {{ padding: 0.4rem 0.9rem 0.4rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--rule);
  font-variant-numeric: tabular-nums; }}
th {{ color: var(--quiet); font-weight: 500; }}
th:first-child, td:first-child, th:last-child, td.words {{ text-align: left; }}
td:first-child {{ white-space: nowrap; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{note}</p>
{plot}
{table}
</body>
</html>
"""
