"""What a picture of a search shows, whichever library draws it: who is on the front, who is not, ranges, labels.

Fully trained networks are quiet dots, the front is the one strong line, a staircase because nothing between two
members has been shown to exist. What was stopped or failed is a mark at its cost on the floor of the picture, since an
accuracy on the way is not a final one. Colours are Okabe and Ito's, which stay apart for colour-blind readers; a third
objective is cividis.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nas.pareto import OBJECTIVES, Objective, comparable, front
from nas.results import Result

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
FLOOR, LEDGE = 0.025, 0.06  # where what stopped and what failed lies, as shares of the picture's height


@dataclass(frozen=True, slots=True)
class Picture:
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
    def seeds(self) -> list[Result]:
        """The published networks among what is fully trained, on the front or not."""
        return [r for r in (*self.members, *self.dominated) if r.kind == "seed"]

    def right(self, result: Result) -> bool:
        """Whether it is drawn in the right half, so that its name has room on the left."""
        (low, high), value = self.span(self.x), drawn(self, self.x, result)
        return value > math.sqrt(low * high) if is_log(self.x) else value > (low + high) / 2

    @property
    def title(self) -> str:
        """What there is to see, also where that is little."""
        trained = len(self.members) + len(self.dominated)
        if trained == 0:
            return "No fully trained network yet"
        more = ": no trade-off to draw yet" if len(self.members) == 1 else ""
        return f"{len(self.members)} on the front, of {trained} fully trained{more}"

    def span(self, objective: Objective) -> tuple[float, float]:
        """The range of an axis: everything drawn on it, with some air, more below. Accuracies end at 0 and 1."""
        rows = self.members + self.dominated + (self.stopped + self.failed if objective == self.x else [])
        seen = [v for r in rows if math.isfinite(v := r.values.get(objective.name, math.nan))]
        seen += [self.limits[objective.name]] if objective.name in self.limits else []
        if is_log(objective):
            seen = [v for v in seen if v > 0] or [1e5, 1e7]
            low, high = min(seen), max(seen)
            air = max((high / low) ** 0.06, 1.15, (2.5 * low / high) ** 0.5)  # 2.5 always holds two round numbers
            return low / air, high * air
        low, high = min(seen, default=0.0), max(seen, default=1.0)
        air = max((high - low) * 0.08, 0.05)
        return max(low - 1.6 * air, -0.01), min(high + air, 1.01)


def picture_of(
    results: Iterable[Result], objectives: Sequence[Objective], limits: Mapping[str, float] | None
) -> Picture:
    """The last record of every trial, in its place. Retrainings (kind "final") are other numbers, not other points."""
    rows = list({(r.kind, r.trial): r for r in results if r.kind != "final"}.values())
    y = next((o for o in objectives if o.maximize), objectives[-1])
    costs = [o for o in objectives if o != y and not o.maximize] or [OBJECTIVES["flops"]]
    members = sorted(front(rows, objectives), key=lambda r: r.values.get(costs[0].name, math.nan))
    on = {(r.kind, r.trial) for r in members}
    return Picture(
        x=costs[0],
        y=y,
        colour=costs[1] if len(costs) > 1 else None,
        members=members,
        dominated=[r for r in comparable(rows, objectives) if (r.kind, r.trial) not in on],
        stopped=[r for r in rows if r.state == "stopped" or (r.state == "complete" and not r.final)],
        failed=[r for r in rows if r.state == "failed"],
        limits=limits or {},
    )


def quiet(count: int) -> float:
    """The opacity of `count` marks that lie over each other: many make no block."""
    return max(0.3, min(1.0, 100 / max(count, 1)))


def is_log(objective: Objective) -> bool:
    return not objective.maximize


def drawn(p: Picture, objective: Objective, result: Result) -> float:
    """The value as it is drawn: a logarithmic axis has no 0, which stands at its edge."""
    value = result.values.get(objective.name, math.nan)
    return max(value, p.span(objective)[0]) if is_log(objective) and value <= 0 else value


def axis_label(p: Picture, objective: Objective) -> str:
    rows = (*p.members, *p.dominated, *p.stopped, *p.failed)
    zero = is_log(objective) and any(r.values.get(objective.name, 1) <= 0 for r in rows)
    return LABELS.get(objective.name, objective.name) + ("; 0 is drawn at the edge" if zero else "")


def ticks(low: float, high: float) -> list[float]:
    """Round numbers inside a range of a log axis: decades from 1,000 up, 1-2-5 from 5 up, closer ones below."""
    steps: tuple[float, ...] = (1,) if high / low >= 1e3 else (1, 2, 5) if high / low >= 5 else (1, 1.5, 2, 3, 4, 6, 8)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [s * 10.0**n for n in powers for s in steps if low <= s * 10.0**n <= high]


def brief(name: str) -> str:
    """A label without what only an axis has room for."""
    label = LABELS.get(name, name)
    return label.removesuffix(" (1 multiply-add = 1)").removesuffix(" of convolutions and linear layers")


def value_text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.4f}" if name.endswith("accuracy") else f"{value:.3g}" if name == "latency_ms" else f"{value:,.0f}"
