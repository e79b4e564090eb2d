"""Hypervolume over what a search spent, as an interactive figure and as a PNG.

The reference point is in every title: values compare under one reference only.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dashboards.look import GRID, blank
from dashboards.picture import BLUE, INK, brief
from dashboards.prints import canvas
from nas.pareto import OBJECTIVES, Spent
from nas.quantities import short

if TYPE_CHECKING:
    import plotly.graph_objects as go

X = "epochs trained, of all trials"


def hypervolume_figure(history: Sequence[Spent], reference: Mapping[str, float]) -> go.Figure:
    """Steps over the epochs trained, as `nas.pareto.hypervolume_history` gives them; hover tells work and trials."""
    figure = blank(title(reference) if history else "No trial has come in yet")
    figure.add_scatter(
        x=[spent.epochs for spent in history],
        y=[round(spent.hypervolume, 5) for spent in history],
        customdata=[[spent.trials, short(spent.work)] for spent in history],
        hovertemplate="<b>%{y:.3f}</b> after %{x} epochs<br>%{customdata[0]} trials ended<br>"
        "work %{customdata[1]}: multiply-adds of a forward pass × epochs<extra></extra>",
        mode="lines" if len(history) > 1 else "markers",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        marker={"color": BLUE, "size": 9},
        fill="tozeroy" if len(history) > 1 else None,
        fillcolor="rgba(0,114,178,0.08)",
        showlegend=False,
    )
    width, height = _ends(history)
    figure.update_xaxes(title={"text": X}, range=[0, width], **GRID)
    figure.update_yaxes(
        title={"text": _label(reference).replace("\n", "<br>"), "font": {"size": 12}}, range=[0, height], **GRID
    )
    figure.update_layout(hovermode="x", height=400)
    return figure


def hypervolume_png(path: Path, history: Sequence[Spent], reference: Mapping[str, float]) -> None:
    """The same picture, 1440 x 880 pixels."""
    from matplotlib.ticker import MaxNLocator

    figure, axes = canvas()
    epochs, values = [spent.epochs for spent in history], [spent.hypervolume for spent in history]
    axes.step(epochs, values, where="post", color=BLUE, linewidth=2)
    axes.fill_between(epochs, values, step="post", color=BLUE, alpha=0.08, linewidth=0)
    if len(history) == 1:
        axes.scatter(epochs, values, s=56, color=BLUE)
    if not history:
        axes.text(0.5, 0.5, "No trial has come in yet", transform=axes.transAxes, ha="center", color=INK, fontsize=12)
    axes.set_xlabel(X, color=INK)
    axes.set_ylabel(_label(reference), color=INK)
    axes.set_title(title(reference), loc="left", color=INK, fontsize=12)
    width, height = _ends(history)
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.savefig(path)


def title(reference: Mapping[str, float]) -> str:
    return "Hypervolume, from the reference " + ", ".join(f"{brief(n)} {short(v)}" for n, v in reference.items())


def _label(reference: Mapping[str, float]) -> str:
    """What is measured, in its unit, in short lines."""
    units = " × ".join(brief(n) if OBJECTIVES[n].maximize else f"decades of {brief(n)}" for n in reference)
    return "hypervolume\n" + textwrap.fill(units, 40)


def _ends(history: Sequence[Spent]) -> tuple[float, float]:
    """Where the axes of epochs and of hypervolume end."""
    last = history[-1] if history else None
    return (last.epochs if last else 0) * 1.02 or 10.0, (last.hypervolume if last else 0.0) * 1.08 or 1.0
