"""A standing pool of screened candidates: buildable, inside the limits, and new.

Screening takes most of a millisecond, so the pool is kept from one proposal to the next: some fresh candidates come
in, the oldest go.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np

from nas.features import Features
from nas.sweep import Limits
from searchspace.codes import Candidate, Codes
from searchspace.cost import cost

SIZE = 1_000  # candidates that are kept
FIRST = 256  # attempts that an empty pool begins with
FRESH = 24  # attempts for each proposal
FEW = 8  # attempts that there is always time for
CHANGED = 2 / 3  # of the attempts change a parent; the others are members drawn uniformly
CROSSED = 1 / 4  # of the changed ones have two parents


@dataclass(slots=True, eq=False)
class Screened:
    """A candidate, its counts by name, its columns for the forest, and the digest of the network it was made from.

    The rest is the surrogate's: the losses hoped for, what they add to a front, that front's version, and the doubt.
    """

    candidate: Candidate
    costs: dict[str, float]
    columns: np.ndarray
    parent: str | None = None
    hoped: np.ndarray = field(default_factory=lambda: np.zeros(0))
    gain: float = 0.0
    version: int = -1
    doubt: float = 0.0

    @property
    def digest(self) -> str:
        return self.candidate.architecture.digest


class Pool:
    """Candidates in order of age; what is in one of `seen`, sets of digests that may grow, is none."""

    def __init__(
        self, space: Codes, limits: Limits, features: Features, seen: Sequence[Container[str]], rng: Random
    ) -> None:
        self.space, self.limits, self.features, self.seen, self.rng = space, limits, features, seen, rng
        self._members: dict[str, Screened] = {}

    def __iter__(self) -> Iterator[Screened]:
        return iter(self._members.values())

    def __len__(self) -> int:
        return len(self._members)

    def discard(self, digest: str) -> None:
        self._members.pop(digest, None)

    def feed(self, parents: Sequence[Candidate], more: Callable[[], bool] = lambda: True) -> list[Screened]:
        """Let in what a bounded number of attempts finds, and drop the oldest beyond the size; what came in.

        Beyond a few, attempts go on while there is time for `more`.
        """
        fresh: list[Screened] = []
        for number in range(FRESH if self._members else FIRST):
            if number >= FEW and not more():
                break
            parent = self.rng.choice(parents) if parents and self.rng.random() < CHANGED else None
            found = self._screened(self._made(parent, parents), parent)
            if found is not None:
                self._members[found.digest] = found
                fresh.append(found)
        for digest in list(self._members)[: max(0, len(self._members) - SIZE)]:
            del self._members[digest]
        return fresh

    def _made(self, parent: Candidate | None, parents: Sequence[Candidate]) -> Candidate:
        if parent is None:
            return self.space.sample(self.rng)
        if len(parents) > 1 and self.rng.random() < CROSSED:
            return self.space.cross(parent, self.rng.choice(parents), self.rng)
        return self.space.mutate(parent, self.rng)

    def _screened(self, candidate: Candidate, parent: Candidate | None) -> Screened | None:
        digest = candidate.architecture.digest
        price = cost(candidate.architecture)
        if any(digest in known for known in (self._members, *self.seen)) or self.limits.excess(price):
            return None
        costs = price.values()
        columns = self.features.network(candidate.code, costs, candidate.architecture)
        return Screened(candidate, costs, columns, parent.architecture.digest if parent else None)
