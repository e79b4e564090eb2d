"""The front as one page that shows offline: plotly.js inside once, figures and tables."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dashboards.fates import Fates
from dashboards.picture import brief, value_text
from nas.pareto import Objective
from nas.results import Result

if TYPE_CHECKING:
    import plotly.graph_objects as go


def front_html(
    figure: go.Figure,
    title: str,
    members: Sequence[Result] = (),
    objectives: Sequence[Objective] = (),
    note: str = "",
    below: Sequence[go.Figure | str] = (),
) -> str:
    """One page that shows offline: plotly.js inside, the figure, a table of the front's members, and what is `below`.

    `note` is a line under the title (conditions, the reference point). Strings `below` are HTML. Follows the reader's
    light or dark setting.
    """
    parts = [figure, front_table(members, objectives), *below]
    body = [library(), *(part if isinstance(part, str) else _headed(part) for part in parts)]
    return PAGE.format(title=html.escape(title), note=html.escape(note), body="\n".join(body))


def library() -> str:
    """plotly.js itself, once a page, before any `plot`."""
    from plotly.offline import get_plotlyjs

    return f"<script>{get_plotlyjs()}</script>"


def plot(figure: go.Figure) -> str:
    settings = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=settings, default_height="34rem"))


def _headed(figure: go.Figure) -> str:
    """The figure under its title as a heading, which a narrow page wraps."""
    import plotly.graph_objects as go

    bare = go.Figure(figure)
    bare.update_layout(title=None, margin_t=40)
    return f"<h2>{html.escape(figure.layout.title.text)}</h2>\n{plot(bare)}"


def front_table(members: Sequence[Result], objectives: Sequence[Objective]) -> str:
    """A row a member; nothing without any."""
    if not members:
        return ""
    tested = ["test_accuracy"] if any("test_accuracy" in r.values for r in members) else []
    names = list(dict.fromkeys(["accuracy", *tested, *(o.name for o in objectives), "flops", "params"]))
    rows = [
        [html.escape(r.title), *(value_text(n, r.values.get(n)) for n in names), html.escape(r.words)] for r in members
    ]
    return table(["network", *(html.escape(brief(n)) for n in names), "architecture"], rows, words=True)


def levels_table(counts: Fates) -> str:
    """What became of the trials: a sentence, and a row a level."""
    late = any(level.late for level in counts.levels)
    head = ["level", "trials that reached it", "went on", "waiting or stopped there", "failed on the way"]
    *lower, top = counts.levels
    rows = [[f"epoch {v.epoch}", *map(str, (v.reached, v.went_on, v.ended, v.failed))] for v in lower]
    rows.append([f"epoch {top.epoch}: fully trained", str(top.reached), "–", "–", str(top.failed)])
    if late:
        head.append("over the latency limit")
        rows = [[*row, str(level.late)] for row, level in zip(rows, counts.levels, strict=True)]
    many = f"{counts.trials} trial{'' if counts.trials == 1 else 's'}"
    return f"<p>{many}: {html.escape(counts.said())}.</p>\n{table(head, rows)}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """Cells are HTML; with `words` the last column is text, which takes what width there is."""
    kind, last = ("", '<td class="words">') if words else (' class="counts"', "<td>")
    lines = [
        "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>",
        *("<tr>" + "".join(f"<td>{c}</td>" for c in row[:-1]) + f"{last}{row[-1]}</td></tr>" for row in rows),
    ]
    return f'<div class="wide"><table{kind}>\n' + "\n".join(lines) + "\n</table></div>"


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
h2 {{ font-size: 1.05rem; font-weight: 500; margin: 2.5rem 0 0.5rem; }}
p {{ margin: 0.2rem 0 1rem; color: var(--quiet); }}
.js-plotly-plot text {{ fill: var(--ink) !important; }}
.wide {{ overflow-x: auto; margin-top: 1.5rem; }}
table {{ border-collapse: collapse; width: 100%; font-size: 0.87rem; }}
table.counts {{ width: auto; }}
.counts th, .counts td {{ padding-right: 2rem; text-align: right !important; }}
.counts :first-child {{ text-align: left !important; }}
th, td {{ padding: 0.4rem 0.9rem 0.4rem 0; text-align: right; vertical-align: top; border-bottom: 1px solid var(--rule);
  font-variant-numeric: tabular-nums; }}
th {{ color: var(--quiet); font-weight: 500; }}
th:first-child, td:first-child, th:last-child, td.words {{ text-align: left; }}
td:first-child {{ white-space: nowrap; }}
td.words {{ min-width: 22rem; }}
@media (max-width: 40rem) {{ body {{ padding: 0 0.8rem; }} .modebar-container {{ display: none; }}
  td.words {{ white-space: nowrap; }} .counts th, .counts td {{ padding-right: 1rem; }} }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{note}</p>
{body}
</body>
</html>
"""
