"""Asynchronous successive halving for several objectives [moasha], as pure functions on a table.

The table holds, for each rung (a training length in epochs), the losses of the trials that reached it. Whenever a
worker is free, the best trial that stands among the first 1/eta of its rung and was not promoted yet is trained to the
next one, higher rungs first; where there is none, a new trial is begun. Nothing waits for a rung to fill, and a trial
passed over today may be promoted when others have come in below it. With one objective this is ASHA [asha].

Best first: by rank of non-domination; within a rank, the trial with the least first loss where none is chosen yet, then
always the one farthest from those chosen, so that few promotions spread over the whole front. Of equals, the older.

Sources: [asha] Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020; [moasha] Schmucker,
Donini, Zafar, Salinas, Archambeau, "Multi-objective Asynchronous Successive Halving", arXiv 2106.12639.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import moocore
import numpy as np

from nas.pareto import Objective
from nas.results import Result

FIRST, ETA = 0.25, 2.0
LEAST = 0.12  # of a training: what is shorter ranks too badly to decide anything
TINY = 1e-300  # a cost of 0 has no logarithm

Losses = tuple[float, ...]  # each to be minimised
Rung = Mapping[int, Losses]  # by trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Rungs:
    """Trainings are compared at these `shares` of their epochs, rising; 1/`eta` of those there go on."""

    shares: tuple[float, ...] = (FIRST, FIRST * ETA)
    eta: float = ETA

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in pairwise((-1.0, *self.shares, 1.0)))
        if not (rising and self.shares and self.shares[0] >= 0 and 1 < self.eta < math.inf):
            raise ValueError(f"`shares` must rise within [0, 1) and `eta` be above 1, but got {self}.")

    def levels(self, epochs: int) -> tuple[int, ...]:
        """The rungs in epochs, rising; the last is `epochs`."""
        reached = {max(1, math.ceil(share * epochs - 1e-9)) for share in self.shares}
        return (*sorted(level for level in reached if level < epochs), epochs)


def halving(first: float = FIRST, eta: float = ETA) -> Rungs:
    """Rungs at `first` of the epochs and at every `eta` times as many. Raises ValueError."""
    if not (LEAST <= first < 1 and 1.1 <= eta <= 100):
        raise ValueError(
            f"`first` must be in [{LEAST}, 1) and `eta` in [1.1, 100], but got ({first=}, {eta=}): a shorter training "
            "ranks too badly to decide anything."
        )
    count = math.ceil(-math.log(first) / math.log(eta) - 1e-9)
    return Rungs(shares=tuple(first * eta**k for k in range(count)), eta=eta)


def losses(row: Result, objectives: Sequence[Objective]) -> Losses | None:
    """What is minimised: accuracy negated, costs as logarithms; None where one is missing or not finite."""
    values = [row.values.get(o.name, math.nan) for o in objectives]
    if not all(map(math.isfinite, values)):
        return None
    return tuple(-v if o.maximize else math.log10(max(v, TINY)) for o, v in zip(objectives, values, strict=True))


def rungs_of(rows: Iterable[Result], levels: Sequence[int], objectives: Sequence[Objective]) -> list[dict[int, Losses]]:
    """The table: for each level, the trials that reached it. Seeds, which train to their end at once, are not in it."""
    table: list[dict[int, Losses]] = [{} for _ in levels]
    for row in rows:
        place(table, row, levels, objectives)
    return table


def place(
    table: Sequence[dict[int, Losses]], row: Result, levels: Sequence[int], objectives: Sequence[Objective]
) -> int | None:
    """Put a row where it belongs in the table; the number of that rung, None where it belongs nowhere."""
    point = losses(row, objectives)
    if row.kind != "trial" or row.state != "complete" or point is None or row.epoch < levels[0]:
        return None
    at = max(k for k, level in enumerate(levels) if level <= row.epoch)
    table[at][row.trial] = point
    return at


def promotion(table: Sequence[Rung], away: Set[int], eta: float, *, closing: bool = False) -> tuple[int, int] | None:
    """(trial, the rung's number that it goes on to), or None where nobody is to go on now.

    `away` are the trials in work and those that failed. When a sweep is `closing`, and no new trial will come, whoever
    is on the front of its rung goes on as well.
    """
    for below in reversed(range(len(table) - 1)):
        gone = away | {trial for rung in table[below + 1 :] for trial in rung}
        trial = promotable(table[below], gone, eta, closing=closing)
        if trial is not None:
            return trial, below + 1
    return None


def promotable(rung: Rung, gone: Set[int], eta: float, *, closing: bool = False) -> int | None:
    """The best trial that is not `gone`, if it is among the first 1/`eta` of its rung (closing: or on its front)."""
    places = int(len(rung) / eta + 1e-9)
    for rank, place, trial in best_first(rung, gone):
        if place >= places and not (closing and rank == 0):
            return None
        if trial not in gone:
            return trial
    return None


def best_first(rung: Rung, gone: Set[int] = frozenset()) -> Iterator[tuple[int, int, int]]:
    """(rank of non-domination from 0, place from 0, trial) of the trials, best first.

    A rank of which all are `gone` is left out; its places count.
    """
    trials = sorted(rung)
    if not trials:
        return
    points = np.array([rung[trial] for trial in trials], dtype=float)
    ranks = moocore.pareto_rank(points)
    free = np.array([trial not in gone for trial in trials])
    span = np.ptp(points, axis=0)
    scaled = (points - points.min(axis=0)) / np.where(span > 0, span, 1.0)
    for rank in np.unique(ranks[free]):
        before, members = np.flatnonzero(ranks < rank), np.flatnonzero(ranks == rank)
        for place, at in enumerate(_spread(scaled, members, before), len(before)):
            yield int(rank), place, trials[at]


def _spread(scaled: np.ndarray, members: np.ndarray, before: np.ndarray) -> Iterator[int]:
    """The `members`, each time the one farthest from those `before` and those given; to begin, by the first loss."""
    if len(before):
        gaps = scaled[members][:, None, :] - scaled[before][None, :, :]
        far = (gaps**2).sum(axis=2).min(axis=1)
    else:
        far = np.where(scaled[members, 0] == scaled[members, 0].min(), np.inf, 0.0)
    left = np.ones(len(members), dtype=bool)
    first = not len(before)
    for _ in members:
        at = int(np.argmax(np.where(left, far, -1.0)))
        yield int(members[at])
        left[at] = False
        near = ((scaled[members] - scaled[members[at]]) ** 2).sum(axis=1)
        far, first = (near if first else np.minimum(far, near)), False
