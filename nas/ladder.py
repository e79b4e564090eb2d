"""The trials of a search that wait at rungs: who goes on next, and whose checkpoint is kept for that."""

from __future__ import annotations

from collections.abc import Sequence, Set
from itertools import islice

from nas.pareto import Objective
from nas.results import Result
from nas.rungs import Losses, best_first, place, promotion

KEPT = 64  # checkpoints of waiting trials, of each rung, once there are many; one promoted without it is trained anew


class Ladder:
    """`levels` are the rungs in epochs, rising; 1/`eta` of a rung go on. `add` takes every record of the table."""

    def __init__(self, levels: Sequence[int], eta: float, objectives: Sequence[Objective]) -> None:
        self.levels = tuple(levels)
        self._eta, self._objectives = eta, objectives
        self._table: list[dict[int, Losses]] = [{} for _ in levels]
        self._waiting: dict[int, Result] = {}
        self._away: set[int] = set()
        self._nobody: bool | None = None  # as asked with this `closing`, nobody was to go on; nothing came in since

    def add(self, row: Result) -> None:
        """Take note of a record: its trial waits at its rung, or is over."""
        place(self._table, row, self.levels, self._objectives)
        self._nobody = None
        if row.ended:
            self._waiting.pop(row.trial, None)
            self._away.add(row.trial)
        else:
            self._waiting[row.trial] = row
            self._away.discard(row.trial)

    def next(self, *, closing: bool = False) -> tuple[Result, int] | None:
        """(the record of a trial that is to go on, the epoch to go on to), or None. See `nas.rungs.promotion`."""
        if not self._waiting or (self._nobody is not None and self._nobody >= closing):
            return None
        found = promotion(self._table, self._away, self._eta, closing=closing)
        if found is None:
            self._nobody = closing
            return None
        return self._waiting[found[0]], self.levels[found[1]]

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
        return tuple(len(self._from(at)) for at in range(len(self.levels)))

    def _from(self, at: int) -> set[int]:
        """The trials that reached the level of this number."""
        return {trial for rung in self._table[at:] for trial in rung}

    def kept(self, there: Set[int | None]) -> set[int]:
        """Of the trials whose checkpoints are `there`, those that wait; of too many, the best of each rung."""
        waiting = self.waiting
        here = {trial for trial in there if trial in waiting}
        if len(here) <= 2 * KEPT:
            return here
        kept: set[int] = set()
        for at, rung in enumerate(self._table):
            standing = {trial: rung[trial] for trial in (rung.keys() & waiting) - self._from(at + 1)}
            kept.update(trial for *_, trial in islice(best_first(standing), KEPT))
        return here & kept
