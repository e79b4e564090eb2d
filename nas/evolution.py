"""Two baselines that change what is good: regularised evolution [age], and local search [local].

Sources: [age] Real, Aggarwal, Huang, Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI 2019;
[local] White, Nolen, Savani, "Exploring the Loss Landscape in Neural Architecture Search", UAI 2021. Both have one
objective there; here the better one is the one of lower non-dominated rank, and what is best is a front.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from random import Random

import moocore
import numpy as np

from nas.learner import Learner, code_of
from nas.pareto import Objective, comparable, front
from nas.results import Result
from searchspace.architecture import ArchitectureError
from searchspace.codes import Candidate, Code, Codes

POPULATION = 20  # the youngest fully trained trials; 100 in [age], which trains 20,000
TOURNAMENT = 5  # members that a parent is the best of
TRIES = 200  # at a neighbour that can be built


class _Changing(Learner):
    """A learner whose proposals are changed trials."""

    def __init__(self, space: Codes, objectives: Sequence[Objective], seed: int) -> None:
        self.space, self.objectives, self.rng = space, tuple(objectives), Random(seed)
        self._parents: dict[str, int] = {}

    def propose(self) -> Code | None:
        parent = self._parent()
        if parent is None or parent.choices is None:
            return None
        child = self._child(self.space.candidate(code_of(parent.choices)))
        self._parents[child.architecture.digest] = parent.trial
        return child.code

    def parent(self, digest: str) -> int | None:
        return self._parents.get(digest)

    @abstractmethod
    def _parent(self) -> Result | None:
        """The trial to change; None while there is none."""

    @abstractmethod
    def _child(self, candidate: Candidate) -> Candidate:
        """A changed `candidate`."""


class Evolution(_Changing):
    """Each proposal is a mutant of the best of a few of the youngest trials; None until there is a population."""

    def __init__(self, space: Codes, objectives: Sequence[Objective], seed: int) -> None:
        super().__init__(space, objectives, seed)
        self._population: deque[Result] = deque(maxlen=POPULATION)

    def learn(self, row: Result) -> None:
        if row.choices is not None:
            self._population.extend(comparable([row], self.objectives))

    def _parent(self) -> Result | None:
        if len(self._population) < POPULATION:
            return None
        players = self.rng.sample(list(self._population), TOURNAMENT)
        signs = [-1.0 if o.maximize else 1.0 for o in self.objectives]
        points = np.array([[row.values[o.name] for o in self.objectives] for row in players]) * signs
        ranks = moocore.pareto_rank(points)
        return self.rng.choice([row for row, rank in zip(players, ranks, strict=True) if rank == ranks.min()])

    def _child(self, candidate: Candidate) -> Candidate:
        return self.space.mutate(candidate, self.rng)


class LocalSearch(_Changing):
    """Each proposal is a member of the present front with one choice changed; None until there is a front."""

    def __init__(self, space: Codes, objectives: Sequence[Objective], seed: int) -> None:
        super().__init__(space, objectives, seed)
        self._front: list[Result] = []

    def learn(self, row: Result) -> None:
        if row.choices is not None:
            self._front = front([*self._front, row], self.objectives)

    def _parent(self) -> Result | None:
        return self.rng.choice(self._front) if self._front else None

    def _child(self, candidate: Candidate) -> Candidate:
        """One choice changed, buildable and another architecture; where that is not found, a mutant."""
        names = list(self.space.choices)
        for _ in range(TRIES):
            name = self.rng.choice(names)
            code = {**candidate.code, name: self.rng.choice(self.space.choices[name])}
            try:
                found = self.space.candidate(code)
            except ArchitectureError:
                continue
            if found.architecture != candidate.architecture:
                return found
        return self.space.mutate(candidate, self.rng)
