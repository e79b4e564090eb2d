"""The trials of a search that wait at rungs: who goes on next, and whose checkpoint is kept for that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nas.pareto import Objective
from nas.results import Result
from nas.rungs import Losses, best_first, place, promotion

KEPT = 64  # checkpoints of waiting trials, of each rung; one that is promoted without its own is trained anew


class Ladder:
    """`levels` are the rungs in epochs, rising; 1/`eta` of a rung go on. `add` takes every record of the table."""

    def __init__(self, levels: Sequence[int], eta: float, objectives: Sequence[Objective]) -> None:
        self.levels = tuple(levels)
        self._eta, self._objectives = eta, objectives
        self._table: list[dict[int, Losses]] = [{} for _ in levels]
        self._waiting: dict[int, Result] = {}
        self._away: set[int] = set()
        self._nobody: bool | None = None  # asked with this `closing`, nobody was to go on, and nothing came in since

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
        if self._nobody is closing or not self._waiting:
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

    def kept(self) -> Iterable[int]:
        """The waiting trials whose checkpoints are kept: the best of each rung."""
        waiting = self.waiting
        if len(waiting) <= KEPT:
            return waiting
        kept: set[int] = set()
        for at, rung in enumerate(self._table):
            here = {trial: rung[trial] for trial in (rung.keys() & waiting) - self._from(at + 1)}
            kept.update(trial for _, place, trial in best_first(here) if place < KEPT)
        return kept
