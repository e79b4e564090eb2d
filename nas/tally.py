"""Running totals of a results table: what budgets and status lines ask for, without reading the table again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from nas.pareto import Objective, comparable
from nas.results import Result


class Tally:
    """Totals of the records added, each trial's last one counting. Seeds cost `seconds` and are no trials.

    `done` trials, of which `failed` and `stopped`; their `epochs`; `seconds` of everything; `largest`: of each value
    above 0, the largest among the records that may be on a front of `objectives`.
    """

    def __init__(self, results: Iterable[Result], objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        self._last: dict[int, tuple[bool, str, int, float]] = {}
        self._states: Counter[str] = Counter()
        self.epochs = 0
        self.seconds = 0.0
        self.largest: dict[str, float] = {}
        for row in results:
            self.add(row)

    def add(self, row: Result) -> None:
        if row.trial in self._last:
            self._count(*self._last[row.trial], -1)
        self._last[row.trial] = row.kind == "trial", row.state, row.epoch, row.seconds
        self._count(*self._last[row.trial], 1)
        for fit in comparable([row], self._objectives):
            for name, value in fit.values.items():
                if math.isfinite(value) and value > self.largest.get(name, 0.0):
                    self.largest[name] = value

    def _count(self, trial: bool, state: str, epoch: int, seconds: float, sign: int) -> None:
        self.seconds += sign * seconds
        if trial:
            self._states[state] += sign
            self.epochs += sign * epoch

    @property
    def done(self) -> int:
        return self._states.total()

    @property
    def failed(self) -> int:
        return self._states["failed"]

    @property
    def stopped(self) -> int:
        return self._states["stopped"]
