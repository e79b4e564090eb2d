"""Pareto fronts of results, and the hypervolume they dominate.

A result can be on a front when it is fully trained (`final`, `complete`) and every objective is a finite number;
retrainings (kind "final") stay off, since they repeat a trial that is there already. Domination is the usual one:
at least as good in every objective, better in one.

Hypervolume is measured with accuracy as it is and every cost as log10, so a decade of cost counts the same at either
end of a front and no fixed scale has to be invented: for (accuracy, flops) the unit is accuracy x decades of flops,
the area between the front's staircase and the reference. The reference is accuracy 0 and 1.1 times the largest cost
that a sweep can have (see `reference_point`). Values compare only under one reference: print it beside the value.

Sources: [hv] Fonseca, Paquete, Lopez-Ibanez, "An improved dimension-sweep algorithm for the hypervolume indicator",
CEC 2006, through moocore; [ref] Ishibuchi et al., "How to specify a reference point in hypervolume calculation",
Evolutionary Computation 26(3), 2018: slightly worse than the worst point of interest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from nas.results import Result

MARGIN = 1.1  # [ref]: the reference lies ten per cent beyond the largest cost, so that the dearest member still counts
DEPTH = 1e-12  # a cost of 0 has no logarithm: no cost counts as less than this share of the reference


@dataclass(frozen=True, slots=True)
class Objective:
    """One entry of `Result.values` and its direction."""

    name: str
    maximize: bool


OBJECTIVES: dict[str, Objective] = {
    "accuracy": Objective("accuracy", True),  # validation, 0-1
    "flops": Objective("flops", False),
    "macs": Objective("macs", False),
    "params": Objective("params", False),
    "activations": Objective("activations", False),
    "interactions": Objective("interactions", False),
    "latency_ms": Objective("latency_ms", False),
}


def comparable(results: Iterable[Result], objectives: Sequence[Objective]) -> list[Result]:
    """The results that may be on a front, in the order given: fully trained, every objective finite."""
    return [
        r
        for r in results
        if r.final
        and r.state == "complete"
        and r.kind != "final"
        and all(math.isfinite(r.values.get(o.name, math.nan)) for o in objectives)
    ]


def front(results: Iterable[Result], objectives: Sequence[Objective]) -> list[Result]:
    """The non-dominated results, by the last objective (a cost, usually) ascending.

    Of equal points the lowest trial number is kept. The order of `results` does not matter. Empty for nothing
    comparable.
    """
    rows = sorted(comparable(results, objectives), key=lambda r: r.trial)
    if not rows:
        return []
    points = np.array([[r.values[o.name] for o in objectives] for r in rows])
    kept = moocore.is_nondominated(points, maximise=[o.maximize for o in objectives])
    members = [r for r, keep in zip(rows, kept, strict=True) if keep]
    return sorted(members, key=lambda r: ([r.values[o.name] for o in reversed(objectives)], r.trial))


def reference_point(
    results: Iterable[Result], objectives: Sequence[Objective], limits: Mapping[str, float] | None = None
) -> dict[str, float]:
    """The worst corner that hypervolume is measured from, by objective name, in the objective's own unit.

    Accuracy: 0. A cost: 1.1 times its limit where `limits` has one (a hard limit, or the top of the space's range),
    which never moves within a sweep; otherwise 1.1 times the largest cost among the comparable `results`, and 1 where
    none is above 0. Take it once, from all results, and use it for every point of a history.
    """
    limits = limits or {}
    rows = comparable(results, objectives)
    corner: dict[str, float] = {}
    for o in objectives:
        if o.maximize:
            corner[o.name] = 0.0
        else:
            corner[o.name] = MARGIN * limits[o.name] if o.name in limits else _largest(rows, o)
    return corner


def _largest(rows: list[Result], objective: Objective) -> float:
    costs = [r.values[objective.name] for r in rows if r.values[objective.name] > 0]
    return MARGIN * max(costs) if costs else 1.0


def hypervolume(results: Iterable[Result], objectives: Sequence[Objective], reference: Mapping[str, float]) -> float:
    """The volume that `results` dominate up to `reference`: accuracy x decades of each cost, 0 or more.

    What is not comparable is left out first: one NaN would silently make the whole volume 0. Points beyond the
    reference add nothing, and a cost counts as no less than 1e-12 of its reference, so that a cost of 0 stays finite.
    Raises ValueError when `reference` lacks an objective or has a cost that is not above 0.
    """
    corner = [_corner(reference, o) for o in objectives]
    points = np.array([[r.values[o.name] for o in objectives] for r in comparable(results, objectives)])
    if not len(points):
        return 0.0
    for column, (objective, worst) in enumerate(zip(objectives, corner, strict=True)):
        if not objective.maximize:
            points[:, column] = np.log10(np.maximum(points[:, column] / worst, DEPTH))  # decades from the reference
    origin = [worst if o.maximize else 0.0 for o, worst in zip(objectives, corner, strict=True)]
    return float(moocore.hypervolume(points, ref=origin, maximise=[o.maximize for o in objectives]))


def _corner(reference: Mapping[str, float], objective: Objective) -> float:
    value = reference.get(objective.name, math.nan)
    if not math.isfinite(value) or (not objective.maximize and value <= 0):
        raise ValueError(
            f"`reference` must have a finite {objective.name!r}, above 0 for a cost, but got {dict(reference)}; "
            "take it from `nas.pareto.reference_point`."
        )
    return value


@dataclass(frozen=True, slots=True)
class Spent:
    """The hypervolume that a search had when it had spent so much.

    `trials` that ended (fully trained, stopped at a limit or failed); `epochs` trained, of all trials; `work`, the sum
    over all trainings of macs x epochs: multiply-adds of a forward pass of one image in each epoch.
    """

    trials: int
    epochs: int
    work: float
    hypervolume: float


def hypervolume_history(
    results: Iterable[Result], objectives: Sequence[Objective], reference: Mapping[str, float] | None = None
) -> list[Spent]:
    """What was had for what was spent, after each row in the order of `results`.

    Partial trainings are paid for and add no volume. Seeds and what was imported add volume and cost nothing: before
    the first trial they stand at 0. One reference holds for the whole history (`reference_point` of all results unless
    given), so no number falls.
    """
    rows = [row for row in results if row.kind != "final"]
    corner = reference if reference is not None else reference_point(rows, objectives)
    trained: dict[int, int] = {}
    ended: set[int] = set()
    members: list[Result] = []
    history: list[Spent] = []
    epochs, work, value = 0, 0.0, 0.0
    for row in rows:
        if row.kind == "trial":
            more = max(0, row.epoch - trained.get(row.trial, 0))
            trained[row.trial] = trained.get(row.trial, 0) + more
            epochs, work = epochs + more, work + more * row.values.get("macs", 0.0)
            if row.ended:
                ended.add(row.trial)
        grown = front([*members, row], objectives) if row.final else members
        if grown != members:
            members, value = grown, hypervolume(grown, objectives, corner)
        history.append(Spent(len(ended), epochs, work, value))
    return history
