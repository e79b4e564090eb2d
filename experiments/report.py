"""The files of a front: `front.html`, `front.png`, `hypervolume.png`; and in words, its table or why there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dashboards.fates import climbs, fate, fates
from experiments.terminal import table
from nas.pareto import Objective
from nas.quantities import short
from nas.results import Result

if TYPE_CHECKING:
    from nas.search import Outcome

BESIDE = {"seed": "published", "tune": "from Ray Tune"}  # kinds of results that are no trials


def write_report(outcome: Outcome) -> list[Path]:
    """Write the pictures of `outcome` into its folder; their paths."""
    from dashboards.figures import front_figure
    from dashboards.hypervolume import hypervolume_figure, hypervolume_png
    from dashboards.page import front_html, levels_table
    from dashboards.prints import front_png
    from dashboards.rungs import rungs_figure

    sweep, rows, objectives, levels = outcome.sweep, outcome.results, outcome.objectives, outcome.levels
    limits = dict(sweep.limits.costs)
    if sweep.limits.latency_ms is not None:
        limits["latency_ms"] = sweep.limits.latency_ms
    compared = f", compared after {', '.join(map(str, levels[:-1]))}" if levels[:-1] else ""
    note = (
        f"{begun(outcome)}, of {levels[-1]} epochs{compared}, on {sweep.data}, one seed each; "
        "accuracy on validation data."
    )
    rungs = [rungs_figure(rows, levels, objectives), levels_table(fates(rows, levels))] if levels[:-1] else []
    below = [*rungs, hypervolume_figure(outcome.history, outcome.reference)]
    figure = front_figure(rows, objectives, limits)
    out = outcome.out
    page = front_html(figure, f"Sweep {sweep.name}", outcome.front, objectives, note, below)
    (out / "front.html").write_text(page)
    front_png(out / "front.png", rows, objectives, limits)
    hypervolume_png(out / "hypervolume.png", outcome.history, outcome.reference)
    return [out / name for name in ("front.html", "front.png", "hypervolume.png")]


def begun(outcome: Outcome) -> str:
    """How many trials began, and what stands beside them, such as published networks."""
    found = climbs(outcome.results)
    kinds = Counter(climb[-1].kind for climb in found)
    lost = sum(climb[-1].kind == "seed" and fate(climb) != "trained" for climb in found)
    trials = kinds.pop("trial", 0)
    parts = [f"{trials} trial{'' if trials == 1 else 's'}"]
    parts += [f"{count} {BESIDE.get(kind, kind)}" for kind, count in sorted(kinds.items())]
    return " and ".join(parts) + (f" ({lost} published not trained)" if lost else "")


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
    ends: dict[str, list[Result]] = {"failed": [], "late": [], "below": [], "trained": []}
    for climb in climbs(rows):
        ends[fate(climb)].append(climb[-1])
    parts = []
    if failed := ends["failed"]:
        parts.append(f"{len(failed)} failed, first {failed[0].title} by {(failed[0].error or '?').splitlines()[0]}")
    if late := ends["late"]:
        parts.append(f"{len(late)} stopped by the latency limit")
    if below := ends["below"]:
        rungs = " or ".join(map(str, sorted({row.epoch for row in below})))
        parts.append(f"{len(below)} trained in part, to epoch {rungs}, which is no result")
    return f"No trial was trained to its end: {'; '.join(parts) or 'none has ended yet'}"
