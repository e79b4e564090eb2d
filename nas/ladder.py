"""The trials of a search that wait at rungs: who goes on next, and whose checkpoint is kept for that."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import islice

from nas.pareto import Objective
from nas.results import Result
from nas.rungs import Losses, best_first, place, promotable

KEPT = 64  # checkpoints of waiting trials, of each rung, once there are many; one promoted without it is trained anew


class Ladder:
    """`levels` are the rungs in epochs, rising; 1/`eta` of a rung go on. `add` takes every record of the table.

    It says what `nas.rungs.promotion` says of the whole table, and looks at a rung again only when it changed.
    """

    def __init__(self, levels: Sequence[int], eta: float, objectives: Sequence[Objective]) -> None:
        self.levels = tuple(levels)
        self._eta, self._objectives = eta, objectives
        self._table: list[dict[int, Losses]] = [{} for _ in levels]
        self._at: dict[int, int] = {}  # the highest rung of each trial, by number
        self._counts = [0] * len(levels)
        self._waiting: dict[int, Result] = {}
        self._away: set[int] = set()
        self._nobody: dict[int, bool] = {}  # rungs that did not change since nobody was to go on, asked as `closing`

    def add(self, row: Result) -> None:
        """Take note of a record: its trial waits at its rung, or is over."""
        at = place(self._table, row, self.levels, self._objectives)
        if at is not None:
            self._nobody.pop(at, None)
            for passed in range(self._at.get(row.trial, -1) + 1, at + 1):
                self._counts[passed] += 1
            self._at[row.trial] = at
        if row.ended:
            self._waiting.pop(row.trial, None)
            self._away.add(row.trial)
        else:
            self._waiting[row.trial] = row
            self._away.discard(row.trial)

    def next(self, *, closing: bool = False) -> tuple[Result, int] | None:
        """(the record of a trial that is to go on, the epoch to go on to), or None. See `nas.rungs.promotion`."""
        for below in reversed(range(len(self.levels) - 1)):
            if self._nobody.get(below, -1) >= closing:
                continue
            gone = self._away | {trial for trial, at in self._at.items() if at > below}
            trial = promotable(self._table[below], gone, self._eta, closing=closing)
            if trial is not None:
                return self._waiting[trial], self.levels[below + 1]
            self._nobody[below] = closing
        return None

    def leave(self, trial: int) -> Result:
        """A waiting trial is in work now; its last record."""
        self._away.add(trial)
        return self._waiting[trial]

    @property
    def waiting(self) -> set[int]:
        """The trials at a rung that are not in work."""
        return self._waiting.keys() - self._away

    @property
    def reached(self) -> tuple[int, ...]:
        """How many trials reached each level."""
        return tuple(self._counts)

    def kept(self, there: Set[int | None]) -> set[int]:
        """Of the trials whose checkpoints are `there`, those that wait; of too many, the best of each rung."""
        waiting = self.waiting
        here = {trial for trial in there if trial in waiting}
        if len(here) <= 2 * KEPT:
            return here
        kept: set[int] = set()
        for number, rung in enumerate(self._table):
            standing = {trial: rung[trial] for trial in rung.keys() & waiting if self._at[trial] == number}
            kept.update(trial for *_, trial in islice(best_first(standing), KEPT))
        return here & kept
