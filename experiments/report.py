"""The files of a front: `front.html`, `front.png`, `hypervolume.png`; and its table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.terminal import table
from nas.pareto import Objective
from nas.quantities import short
from nas.results import Result

if TYPE_CHECKING:
    from nas.search import Outcome


def write_report(outcome: Outcome) -> list[Path]:
    """Write the pictures of `outcome` into its folder; their paths."""
    from dashboards.figures import front_figure
    from dashboards.page import front_html
    from dashboards.prints import front_png, hypervolume_png

    limits = dict(outcome.sweep.limits.costs)
    if outcome.sweep.limits.latency_ms is not None:
        limits["latency_ms"] = outcome.sweep.limits.latency_ms
    figure = front_figure(outcome.results, outcome.objectives, limits)
    corner = ", ".join(f"{name} {short(value)}" for name, value in outcome.reference.items())
    counts = Counter(r.kind for r in {r.trial: r for r in outcome.results}.values())
    known = f" and {counts['seed']} published" if counts["seed"] else ""
    note = (
        f"{counts['trial']} trials{known}, of {outcome.sweep.training.epochs} epochs on "
        f"{outcome.sweep.data}, one seed each; accuracy on validation data; hypervolume measured from {corner}."
    )
    out = outcome.out
    page = front_html(figure, f"Sweep {outcome.sweep.name}", outcome.front, outcome.objectives, note)
    (out / "front.html").write_text(page)
    front_png(out / "front.png", outcome.results, outcome.objectives, limits)
    hypervolume_png(out / "hypervolume.png", outcome.history, outcome.reference)
    return [out / name for name in ("front.html", "front.png", "hypervolume.png")]


def front_table(members: Sequence[Result], objectives: Sequence[Objective]) -> str:
    """The front for the terminal, a member a line; of at least one."""
    tested = any("test_accuracy" in row.values for row in members)
    costs = list(dict.fromkeys([*(o.name for o in objectives if not o.maximize), "flops", "params"]))
    head = ["trial", "accuracy", *(["test"] if tested else []), *costs, "architecture"]
    rows = []
    for row in members:
        accuracy = f"{row.values['accuracy']:.3f}" if "accuracy" in row.values else "-"
        test = [f"{row.values['test_accuracy']:.3f}" if "test_accuracy" in row.values else "-"] if tested else []
        prices = [short(row.values[name]) if name in row.values else "-" for name in costs]
        words = f"{row.name}: {row.words}" if row.name else row.words
        rows.append([str(row.trial), accuracy, *test, *prices, words])
    return table(head, rows)


def no_front(rows: Iterable[Result]) -> str:
    """Why there is no front, in a line."""
    last = {row.trial: row for row in rows}.values()
    failed = [row for row in last if row.state == "failed"]
    stopped = sum(row.state == "stopped" for row in last)
    parts = (
        [f"{len(failed)} failed, first {failed[0].title} by {(failed[0].error or '').splitlines()[0]}"]
        if failed
        else []
    )
    parts += [f"{stopped} stopped by the latency limit"] if stopped else []
    return f"No trial was trained to its end: {'; '.join(parts) or 'none has ended yet'}"
