"""A sampler that proposes what would add most to the front, by what it expects of architectures.

Of a pool of screened candidates the one is proposed whose optimistic point, the mean and some of the doubt [ucb], adds
most hypervolume [sms] to the front, on which work that is not decided stands at its mean. So a batch for several
workers is filled greedily: each trial that begins joins that front.

Sources: [ucb] Auer, "Using confidence bounds for exploitation-exploration trade-offs", JMLR 3, 2002; [sms] Ponweiser,
Wagner, Biermann, Vincze, "Multiobjective optimization on a limited budget of evaluations using model-assisted
S-metric selection", PPSN 2008; [smac] Hutter, Hoos, Leyton-Brown, "Sequential model-based optimization for general
algorithm configuration", LION 2011, whose trees and candidates from the neighbourhood of the best these are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from time import perf_counter

import numpy as np

from nas.gain import gains, losses, nondominated
from nas.learner import Learner
from nas.outlook import Begun, Outlook
from nas.pareto import MARGIN, Objective
from nas.pool import Pool, Screened
from nas.results import Result
from nas.sweep import Limits
from searchspace.architecture import Architecture
from searchspace.codes import Candidate, Code, Codes
from searchspace.cost import Cost

KAPPA = 1.0  # doubts that an optimistic point lies above the mean
LEAST = 4  # rows that a forest is made of
GROWTH = 64  # the forests are fitted anew when the rows grew by this part
GRACE_S = 5.0  # beside the share of the seconds that pass


class Surrogate(Learner):
    """A pure function of the seed and of what it was told, unless a `share` is given: then its seconds stay below that
    share of those that pass (and a few), and where they would not, it goes on with what it predicted last."""

    def __init__(
        self,
        space: Codes,
        limits: Limits,
        objectives: Sequence[Objective],
        epochs: int,
        seed: int,
        *,
        extra: Callable[[Architecture], float] | None = None,
        share: float | None = None,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.space, self.limits, self.objectives = space, limits, tuple(objectives)
        self._share, self._clock = share, clock
        self.outlook = Outlook(space, limits, objectives, epochs, seed, extra)
        self._sources: dict[str, str | None] = {}  # of what was proposed: the digest of the network it was made from
        self.pool = Pool(
            space, limits, self.outlook.features, (self.outlook.digests(), self._sources.keys()), Random(seed)
        )
        self._parents: list[Candidate] = []
        self._fitted: int | None = None  # rows of the forests
        self._reference: dict[str, float] = {}
        self.front = np.zeros((0, len(self.objectives)))  # losses of what is known and what is expected
        self._version = 0  # of that front
        self._made_s, self.spent_s = clock(), 0.0  # when this began; what proposals took
        self._fit_s = self._feed_s = 0.0  # what the last fit took a row, and the last feeding of the pool
        self._shrunk = False  # something that the front stood on was lost

    def begin(self, candidate: Candidate, price: Cost) -> None:
        if candidate.code:
            self.pool.discard(candidate.architecture.digest)
            begun = self.outlook.begin(candidate, price)
            if self._fitted is not None and not begun.decided:
                self._join([begun])

    def learn(self, row: Result) -> None:
        begun = self.outlook.learn(row)
        self.pool.discard(row.digest)
        if self._fitted is not None and begun is not None and begun.final:
            self._join([begun])
        self._shrunk = self._shrunk or (begun is not None and begun.decided and not begun.final)

    def propose(self) -> Code | None:
        start = self._clock()
        best = self._best()
        self.spent_s += self._clock() - start
        if best is None:
            return None
        self.pool.discard(best.digest)
        self._sources[best.digest] = best.parent
        return best.candidate.code

    def parent(self, digest: str) -> int | None:
        begun = self.outlook.begun(self._sources.get(digest) or "")
        return begun.trial if begun and begun.final else None

    def _best(self) -> Screened | None:
        """The candidate of the greatest gain; ties: of the greatest doubt, then the oldest. None without a model."""
        start, rows = self._clock(), self.outlook.rows
        if rows < LEAST and self.outlook.learns:
            return None
        new = rows - (self._fitted or 0)
        if self._fitted is None or (new >= max(1, rows // GROWTH) and self._affords(self._fit_s * rows)):
            self.outlook.fit()
            self._fitted = rows
            self._stand()
            self._fit_s = (self._clock() - start) / max(1, rows)
        elif self._shrunk:
            self._stand()
        start = self._clock()
        if self._affords(self._feed_s):
            self._weigh(self.pool.feed(self._parents, lambda: self._affords(self._clock() - start)))
            self._feed_s = self._clock() - start
        while self.pool:
            best = max(self.pool, key=lambda c: (c.gain, c.doubt))
            if best.gain <= 0 or best.version == self._version:
                return best
            best.gain, best.version = float(gains(self.front, best.hoped[None])[0]), self._version  # it only fell
        return None

    def _affords(self, seconds: float) -> bool:
        return self._share is None or self.spent_s + seconds <= self._share * (self._clock() - self._made_s) + GRACE_S

    def _stand(self) -> None:
        """The front that gains are measured from, the parents, and every gain, by the forests as they are."""
        self._shrunk = False
        standing = [*self.outlook.finals(), *self.outlook.work()]
        self._reference = self._corner(standing)
        self.front = np.zeros((0, len(self.objectives)))
        members = self._join(standing)
        self._parents = [self.space.candidate(b.code) for b in members if b.trial is not None]
        self._weigh(list(self.pool))

    def _corner(self, standing: Iterable[Begun]) -> dict[str, float]:
        """The reference of the gains: of a cost its limit, else the largest that was begun or is in the pool."""
        corner = {"accuracy": 0.0}
        for name in (o.name for o in self.objectives if not o.maximize):
            if name == "latency_ms":
                top = self.limits.latency_ms or max((b.latency_ms for b in standing if b.latency_ms > 0), default=1.0)
            else:
                seen = (costs[name] for costs in (*(b.costs for b in standing), *(c.costs for c in self.pool)))
                top = self.limits.costs.get(name) or max(seen, default=1.0)
            corner[name] = MARGIN * max(top, 1e-9)
        return corner

    def _join(self, networks: Sequence[Begun]) -> list[Begun]:
        """Put networks, known or expected, on the front; those of them that are members."""
        points = losses(self.outlook.expected(networks), self.objectives, self._reference)
        both = np.concatenate([self.front, points])
        kept = nondominated(both)
        members = [n for n, keep in zip(networks, kept[len(self.front) :], strict=True) if keep]
        if members:
            self.front = both[kept]
            self._version += 1
        return members

    def _weigh(self, candidates: Sequence[Screened]) -> None:
        """What the forests hope for candidates, and what that adds; beyond the latency limit, less than nothing."""
        if not candidates:
            return
        values, doubt, excess = self.outlook.hoped(
            [c.columns for c in candidates], [c.costs for c in candidates], KAPPA
        )
        points = losses(values, self.objectives, self._reference)
        added = np.where(excess > 0, -excess, gains(self.front, points))
        for candidate, point, gain, unsure in zip(candidates, points, added.tolist(), doubt.tolist(), strict=True):
            candidate.hoped, candidate.gain, candidate.doubt = point, gain, unsure
            candidate.version = self._version
