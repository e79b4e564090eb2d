"""The look that interactive figures share: quiet, and transparent over a light page or a dark one."""

from __future__ import annotations

import html
import textwrap
from typing import TYPE_CHECKING

from dashboards.picture import BLUE, GREY, INK

if TYPE_CHECKING:
    import plotly.graph_objects as go

GRID = {"gridcolor": "rgba(128,128,128,0.18)", "zeroline": False, "automargin": True}


def blank(title: str) -> go.Figure:
    """A figure with a title and nothing in it yet."""
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 14, "color": INK},
        title={"text": title, "x": 0, "xref": "paper", "y": 0.97, "yanchor": "top", "font": {"size": 16}},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.01,
            "yanchor": "bottom",
            "itemsizing": "constant",
        },
        margin={"l": 60, "r": 20, "t": 80, "b": 60},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        hoverlabel={"bgcolor": "white", "bordercolor": BLUE, "align": "left", "font": {"size": 13, "color": INK}},
    )
    return figure


def wrapped(words: str, most: int | None = None) -> list[str]:
    """An architecture in lines for a hover, escaped, at most so many."""
    lines = textwrap.wrap(words, 64, max_lines=most, placeholder=" ...") or ["(no words)"]
    return [html.escape(line, quote=False) for line in lines]
