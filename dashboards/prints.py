"""The front as a PNG, for a README or a tracker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
    drawn,
    is_log,
    picture_of,
    quiet,
    ticks,
)
from nas.pareto import Objective
from nas.quantities import short
from nas.results import Result

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure


def front_png(
    path: Path, results: Iterable[Result], objectives: Sequence[Objective], limits: Mapping[str, float] | None = None
) -> None:
    """The same picture as `front_figure`, 1440 x 880 pixels, for a README or a tracker."""
    p = picture_of(results, objectives, limits)
    figure, axes = canvas()
    if p.dominated:
        axes.scatter(*_xy(p, p.dominated), s=22, color=GREY, alpha=0.6, linewidths=0, label="fully trained, dominated")
    if p.members:
        _draw_front(figure, axes, p)
    if p.seeds:
        x, y = _xy(p, p.seeds)
        ring: dict[str, object] = {"marker": "D", "facecolors": "none", "edgecolors": INK, "linewidths": 1.1}
        axes.scatter(x, y, s=90, zorder=5, label="published", **ring)  # type: ignore[arg-type]
        for r, *place in zip(p.seeds, x, y, strict=True):
            left = p.right(r)
            aside = {
                "xytext": (-7 if left else 7, -11),
                "textcoords": "offset points",
                "ha": "right" if left else "left",
            }
            axes.annotate(r.title, place, fontsize=9, color=INK, zorder=6, **aside)  # type: ignore[arg-type]
    floor = axes.get_xaxis_transform()  # x in data, y in shares of the height
    for rows, name, colour, mark, height in (
        (p.stopped, "stopped early", ORANGE, "|", FLOOR),
        (p.failed, "failed", VERMILLION, "x", LEDGE),
    ):
        costs = [v for r in rows if math.isfinite(v := drawn(p, p.x, r))]
        if costs:
            look = {"marker": mark, "linewidths": 1.2, "alpha": quiet(len(costs)), "transform": floor}
            axes.scatter(costs, [height] * len(costs), 34, colour, label=name, **look)  # type: ignore[arg-type]
    dashed = (0, (4, 3))
    if (limit := p.limits.get(p.x.name)) is not None:
        axes.axvline(limit, color=INK, linewidth=1, linestyle=dashed, zorder=1)
        axes.text(limit, 0.01 + LEDGE, f"limit {short(limit)} ", transform=floor, ha="right", va="bottom", color=INK)
    if (limit := p.limits.get(p.y.name)) is not None:
        axes.axhline(limit, color=INK, linewidth=1, linestyle=dashed, zorder=1)
        sides = axes.get_yaxis_transform()
        axes.text(0.005, limit, f"limit {short(limit)}", transform=sides, ha="left", va="bottom", color=INK)
    for objective, axis in ((p.x, axes.xaxis), (p.y, axes.yaxis)):
        low, high = p.span(objective)
        if is_log(objective):
            axis.axes.set(**{f"{axis.axis_name}scale": "log"})
            axis.set_ticks(ticks(low, high), labels=[short(v) for v in ticks(low, high)])
            axis.set_ticks([], minor=True)
        axis.axes.set(**{f"{axis.axis_name}lim": (low, high)})
        axis.set_label_text(axis_label(p, objective), color=INK)
    axes.set_title(p.title, loc="left", color=INK, fontsize=12, pad=26)
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(
            loc="lower left", bbox_to_anchor=(0, 1), ncols=5, frameon=False, borderpad=0.2, labelcolor=INK
        )
        for handle in legend.legend_handles:
            if handle is not None:
                handle.set_alpha(1)
    figure.savefig(path)


def _draw_front(figure: matplotlib.figure.Figure, axes: matplotlib.axes.Axes, p: Picture) -> None:
    x, y = _xy(p, p.members)
    if p.colour is None:
        axes.step(x, y, where="post", color=BLUE, linewidth=2, zorder=3)
        axes.scatter(x, y, s=56, color=BLUE, edgecolors="white", linewidths=1.2, zorder=4, label="front")
        return
    shades = [r.values[p.colour.name] for r in p.members]
    scale = "log" if is_log(p.colour) and min(shades) > 0 else "linear"
    dots = axes.scatter(
        x, y, 70, shades, cmap=SCALE, norm=scale, edgecolors=INK, linewidths=0.6, zorder=4, label="front"
    )
    bar = figure.colorbar(dots, ax=axes, pad=0.02)
    bar.set_label(LABELS.get(p.colour.name, p.colour.name), color=INK)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(colors=INK, length=0)
    if scale == "log":
        marks = ticks(min(shades), max(shades)) or shades
        bar.set_ticks(marks, labels=[short(v) for v in marks])
        bar.ax.minorticks_off()


def _xy(p: Picture, rows: list[Result]) -> tuple[list[float], list[float]]:
    return [drawn(p, p.x, r) for r in rows], [drawn(p, p.y, r) for r in rows]


def canvas() -> tuple[matplotlib.figure.Figure, matplotlib.axes.Axes]:
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
