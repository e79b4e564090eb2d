"""An inspected module as one page that shows offline: zeros after activations, dead edges, correlations, a table.

Pure: a report in, figures and HTML out. What is nothing stays blank: bins without channels, pairs that are weak.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dashboards.look import GRID, blank
from dashboards.page import PAGE, library, plot, table
from dashboards.picture import BLUE, GREY, INK, ORANGE
from pruning.report import HEAD, Layer, Report

if TYPE_CHECKING:
    import plotly.graph_objects as go

BINS = 20  # of APoZ, from 0 to 1
SHADES = [[0, "rgba(0,114,178,0.15)"], [1, "rgba(0,114,178,1)"]]  # on a light page and on a dark one
MENU = "<style>.updatemenu-item-rect { fill: var(--paper) !important; }</style>"
CELLS = 96  # of a drawn matrix along each axis; larger ones show the strongest of each block


def inspection_html(report: Report, title: str, note: str = "") -> str:
    """The page of a report; plotly.js is inside. `note` is a line under the title."""
    said = f"{note} What is removable is not known: {report.refusal}".strip() if report.refusal else note
    figures = [apoz_figure(report), edges_figure(report), correlation_figure(report)]
    rows = [[html.escape(cell) for cell in row] for row in report.rows()]
    below = [table(HEAD, rows, words=True), f"<p>{html.escape(report.reading)}</p>"]
    body = "\n".join([MENU, library(), *map(plot, figures), *below])
    return PAGE.format(title=html.escape(title), note=html.escape(said), body=body)


def apoz_figure(report: Report) -> go.Figure:
    """A histogram a layer: how many of its channels have how many zeros after the activation."""
    layers = [layer for layer in report.layers if layer.apoz]
    counts = torch.stack([torch.histc(torch.tensor(layer.apoz), BINS, 0, 1) for layer in layers]) if layers else None
    figure = blank("")
    if counts is not None:
        shares = counts / counts.sum(1, keepdim=True)
        figure.add_heatmap(
            x=[(i + 0.5) / BINS for i in range(BINS)],
            y=[layer.name for layer in layers],
            z=[[s or None for s in row] for row in shares.tolist()],
            customdata=counts.int().tolist(),
            colorscale=SHADES,
            zmin=0,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "channels"}, "thickness": 12, "tickformat": ".0%"},
            hovertemplate="%{y}: %{customdata} channels (%{z:.0%}) at an APoZ near %{x:.0%}<extra></extra>",
        )
    title = "Zeros after the activation, a histogram a layer" if layers else "No activation follows any layer"
    _frame(figure, f"{title} ({report.samples} samples)", "APoZ: average percentage of zeros", len(layers))
    figure.update_xaxes(range=[0, 1], tickformat=".0%")
    return figure


def edges_figure(report: Report) -> go.Figure:
    """A bar a layer: the share of edges that are zero or negligible, and of pairs that correlate weakly."""
    layers = [layer for layer in report.layers if layer.edges is not None]
    names = [layer.name for layer in layers]
    zero, negligible = (
        [getattr(layer.edges, kind) / layer.edges.edges for layer in layers if layer.edges]
        for kind in ("zero", "negligible")
    )
    weak = [(layer.name, layer.weak.share, layer.weak.power) for layer in layers if layer.weak]
    limits = report.thresholds
    figure = blank("")
    bar = {"orientation": "h", "y": names}
    tip = "%{y}: %{x:.1%} zero<extra></extra>"
    figure.add_bar(x=zero, name="zero edges", marker_color=BLUE, hovertemplate=tip, **bar)
    if any(negligible):
        words = f"negligible edges (norm at most {limits.negligible:g} of the largest)"
        tip = "%{y}: %{x:.1%} negligible<extra></extra>"
        figure.add_bar(x=negligible, name=words, marker_color=GREY, hovertemplate=tip, **bar)
    if weak:
        figure.add_scatter(
            x=[share for _, share, _ in weak],
            y=[name for name, _, _ in weak],
            customdata=[power for _, _, power in weak],
            mode="markers",
            name=f"weak pairs (|correlation| below {limits.weak:g}, or tiny)",
            marker={"color": ORANGE, "size": 9, "symbol": "diamond"},
            hovertemplate="%{y}: %{x:.1%} of pairs are weak, with %{customdata:.1%} of the variance<extra></extra>",
        )
    _frame(figure, "Dead edges and weak pairs, by layer", "share of the layer's pairs of input and filter", len(layers))
    figure.update_layout(barmode="stack", legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"})
    figure.update_xaxes(range=[-0.01, 1.01], tickformat=".0%")
    figure.update_yaxes(range=[len(layers) - 0.5, -0.5], autorange=False)
    return figure


def correlation_figure(report: Report, layer: str | None = None) -> go.Figure:
    """The correlation matrix of one layer, with a menu of the others; by default the one with most weak pairs.

    Rows and columns stand in the order of the groups that the strong pairs support, where those are more than there
    are. Raises `ValueError` for a `layer` without a matrix.
    """
    known = {found.name: found for found in report.layers if found.weak is not None}
    if layer is not None and layer not in known:
        raise ValueError(f"`layer` must be one with correlations, {', '.join(known)}, but got {layer!r}.")
    figure = blank("")
    if not known:
        _frame(figure, "No layer has pairs to correlate", "", 0)
        return figure
    shown = layer or max(known, key=lambda name: known[name].weak.share)  # type: ignore[union-attr]
    bar = {"title": {"text": "|correlation|", "side": "right"}, "thickness": 12}
    scale = {"colorscale": SHADES, "zmin": 0, "zmax": 1, "colorbar": bar}
    buttons = []
    for name, found in known.items():
        z, rows, columns, step = _drawn(found)
        tip = "filter %{y}, input %{x}: %{z:.2f}" + (f", strongest of {step}" if step else "")
        figure.add_heatmap(
            x=columns, y=rows, z=z, visible=name == shown, hovertemplate=f"{tip}<extra></extra>", **scale
        )
        seen = {"visible": [other == name for other in known]}
        buttons.append({"label": name or "(itself)", "method": "update", "args": [seen, {"title.text": _title(found)}]})
    _frame(figure, _title(known[shown]), "input", 24)
    figure.update_xaxes(type="category", showgrid=False, nticks=12)
    figure.update_yaxes(type="category", showgrid=False, nticks=12, title={"text": "filter"})
    menu = {"buttons": buttons, "active": list(known).index(shown), "x": 1, "xanchor": "right", "y": 1.02}
    menu |= {"yanchor": "bottom", "bgcolor": "white", "font": {"color": INK}}
    if len(known) > 1:
        figure.update_layout(updatemenus=[menu])
    return figure


def _title(layer: Layer) -> str:
    weak = layer.weak
    assert weak is not None
    ordered = ", in their order" if weak.groups_supported > weak.groups else ""
    many = "" if weak.groups_supported == 1 else "s"
    return (
        f"How filters of {layer.name or 'the layer'} follow their inputs: {weak.share:.0%} of pairs are weak, "
        f"the others support {weak.groups_supported} group{many}{ordered}"
    )


def _drawn(layer: Layer) -> tuple[list[list[float | None]], list[str], list[str], str]:
    """(cells, names of rows, of columns, size of the blocks that cells stand for); weak cells are None."""
    whole, weak = layer.matrix(strong=True), layer.weak
    assert whole is not None
    assert weak is not None
    rows, columns = list(range(len(whole))), list(range(whole.shape[1]))
    if weak.groups_supported > weak.groups:
        orders = [n for order in weak.orders for n in order]
        columns = [n for n in orders if n < whole.shape[1]]
        rows = [n - whole.shape[1] for n in orders if n >= whole.shape[1]]
    strength = whole.abs().nan_to_num(0.0)[rows][:, columns]
    steps = [-(-size // CELLS) for size in strength.shape]
    small = _strongest(_strongest(strength, steps[0]).T, steps[1]).T
    cells = [[round(v, 3) if v > 0 else None for v in row] for row in small.tolist()]
    size = f"{steps[0]} x {steps[1]} pairs" if max(steps) > 1 else ""
    return cells, _labels(rows, steps[0]), _labels(columns, steps[1]), size


def _strongest(strength: Tensor, step: int) -> Tensor:
    """The greatest of every `step` rows."""
    return torch.stack([part.amax(0) for part in torch.split(strength, step)])


def _labels(numbers: Sequence[int], step: int) -> list[str]:
    return [str(numbers[i]) if step == 1 else f"{numbers[i]}.." for i in range(0, len(numbers), step)]


def _frame(figure: go.Figure, title: str, across: str, layers: int) -> None:
    """Title, axes, and a height that gives each layer room."""
    figure.update_layout(
        font={"size": 13},
        title={"text": title, "y": 1, "yref": "container", "pad": {"t": 14}},
        height=160 + 24 * max(layers, 4),
    )
    figure.update_xaxes(title={"text": across}, **GRID)
    figure.update_yaxes(autorange="reversed", type="category", **GRID)
