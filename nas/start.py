"""A start that is spread over cost: the first proposals lie evenly over the log of a cost's range.

The range is cut into as many strata as there are proposals. They are filled in bit-reversed order, so that the first
few are spread too; what was there before (seeds, an earlier run) fills the strata that it lies in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Protocol

from searchspace.choices import Value
from searchspace.codes import Candidate, Code, Codes
from searchspace.cost import Cost

COUNT = 16  # proposals of a start
DRAWS = 48  # members of the space that a stratum's network is chosen from
STEPS = 48  # single changes towards a stratum that no draw fell into

Feasible = Callable[[Code], tuple[Candidate, Cost] | None]


class Range(Protocol):
    """The ends of a cost, as `nas.survey` finds them."""

    @property
    def least(self) -> float: ...
    @property
    def largest(self) -> float: ...


class Start:
    """`count` proposals over the range `costs` of the cost `name`; `taken` are costs that are there already."""

    def __init__(self, costs: Range, taken: Iterable[float] = (), count: int = COUNT, name: str = "flops") -> None:
        self.name, self.count = name, count
        self._least = math.log(max(1.0, costs.least))
        self._width = max(1e-9, math.log(max(1.0, costs.largest)) - self._least) / count
        self._left = sorted(range(count), key=_reversed)
        self._shown: set[tuple[str, Value]] = set()
        for value in taken:
            self.take({name: value})

    def __len__(self) -> int:
        """How many strata are empty."""
        return len(self._left)

    def stratum(self, cost: float) -> int:
        """Which stratum, from 0, a cost lies in; those beyond the range lie in the first or the last."""
        at = (math.log(max(1.0, cost)) - self._least) / self._width
        return max(0, min(self.count - 1, math.floor(at)))

    def take(self, costs: Mapping[str, float]) -> None:
        """A network of these costs, by name, is there: its stratum is filled."""
        if self.name in costs and (filled := self.stratum(costs[self.name])) in self._left:
            self._left.remove(filled)

    def show(self, values: Iterable[tuple[str, Value]]) -> None:
        """Values of choices that a trial has."""
        self._shown.update(values)

    def propose(self, space: Codes, feasible: Feasible, rng: Random) -> Candidate | None:
        """A member in the next empty stratum; None where all are filled, or nothing feasible was found.

        Of the draws that fall into the stratum, the one that shows most values that were not shown; where none does,
        single changes lead from the nearest draw towards it, as far as they do. Ties: the first.
        """
        if not self._left:
            return None
        aim = self._left.pop(0)
        middle = self._least + (aim + 0.5) * self._width

        def miss(pair: tuple[Candidate, Cost]) -> float:
            return abs(math.log(max(1.0, getattr(pair[1], self.name))) - middle)

        drawn = [found for _ in range(DRAWS) if (found := feasible(space.sample(rng).code))]
        inside = [pair for pair in drawn if self.stratum(getattr(pair[1], self.name)) == aim]
        if inside:
            return max(inside, key=lambda pair: len(self._new(space, pair[0])))[0]
        if not drawn:
            return None
        best = min(drawn, key=miss)
        for _ in range(STEPS):
            if self.stratum(getattr(best[1], self.name)) == aim:
                break
            found = feasible(space.mutate(best[0], rng).code)
            best = min(best, found, key=miss) if found else best
        return best[0]

    def _new(self, space: Codes, candidate: Candidate) -> set[tuple[str, Value]]:
        return {(name, candidate.code[name]) for name in space.active(candidate.code)} - self._shown


def _reversed(number: int, bits: int = 16) -> int:
    """The bits of `number` in reverse order."""
    return int(f"{number:0{bits}b}"[::-1], 2)
