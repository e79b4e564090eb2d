"""The front as one page that shows offline: plotly.js inside, the figure, and a table of the members."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dashboards.picture import brief, value_text
from nas.pareto import Objective
from nas.results import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go


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
    head = "".join(f"<th>{html.escape(brief(n))}</th>" for n in names)
    body = "\n".join(
        f"<tr><td>{html.escape(r.title)}</td>"
        + "".join(f"<td>{value_text(n, r.values.get(n))}</td>" for n in names)
        + f'<td class="words">{html.escape(r.words)}</td></tr>'
        for r in members
    )
    table = f"<table><tr><th>network</th>{head}<th>architecture</th></tr>\n{body}\n</table>" if members else ""
    return PAGE.format(title=html.escape(title), note=html.escape(note), plot=plot, table=table)


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
