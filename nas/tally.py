"""Running totals of a results table: what budgets and status lines ask for, without reading the table again."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from nas.pareto import Objective, comparable
from nas.results import Result


class Tally:
    """Totals of the records added. Seeds cost `seconds` and are no trials; what was imported costs nothing.

    `done` trials came in at least once; the last record says which are `failed` or `stopped`. `epochs` trained, of all
    trials; `seconds` of everything; `largest`: of each value above 0, the largest among the records that may be on a
    front of `objectives`.
    """

    def __init__(self, results: Iterable[Result], objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        self._last: dict[int, tuple[str, int]] = {}
        self._states: Counter[str] = Counter()
        self.epochs = 0
        self.seconds = 0.0
        self.largest: dict[str, float] = {}
        for row in results:
            self.add(row)

    def add(self, row: Result) -> None:
        if row.kind in ("trial", "seed"):
            self.seconds += row.seconds
        if row.kind == "trial":
            state, epoch = self._last.get(row.trial, ("", 0))
            self._states[state] -= 1
            self._states[row.state] += 1
            self._last[row.trial] = row.state, max(epoch, row.epoch)  # a worker that was lost says 0
            self.epochs += max(epoch, row.epoch) - epoch
        for fit in comparable([row], self._objectives):
            for name, value in fit.values.items():
                if math.isfinite(value) and value > self.largest.get(name, 0.0):
                    self.largest[name] = value

    def epoch(self, trial: int) -> int:
        """The epoch that a trial stands at; 0 where it never came in."""
        return self._last.get(trial, ("", 0))[1]

    def __contains__(self, trial: int) -> bool:
        return trial in self._last

    @property
    def done(self) -> int:
        return len(self._last)

    @property
    def failed(self) -> int:
        return self._states["failed"]

    @property
    def stopped(self) -> int:
        return self._states["stopped"]
