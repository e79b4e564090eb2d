"""Optuna samplers under one roof: whatever the sampler, a trial is buildable, inside the limits and new.

`Proposals` is the sampler that Optuna sees. It asks the inner one a few times for a point of the space; a point that
cannot be built, is over a limit or was there before is then mended by a walk of single changes, and at last replaced
by a fresh draw. What it did is counted. So nothing infeasible or double is ever a trial, for every sampler alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nas.evolution import Evolution, LocalSearch
from nas.learner import Learner, decoded, plain
from nas.pareto import Objective
from nas.results import Result
from nas.start import Start
from nas.surrogate import Surrogate
from nas.sweep import Limits
from searchspace.architecture import Architecture, ArchitectureError
from searchspace.choices import SpaceError
from searchspace.codes import Candidate, Code, Codes
from searchspace.cost import Cost, cost

ASKS = 8  # of the inner sampler, for one trial
STEPS = 300  # of the mending walk
DRAWS = 2_000  # of the space, when nothing else helped
WALK = 20_000  # codes of a space that is small enough to be walked from end to end


class SpaceFull(Exception):
    """No architecture inside the limits is left that was not proposed before, or none was found in bounded time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a sampler is made for; a training has `epochs`.

    `extra` is one more feature of the surrogate. With a `share` it may use that share of the seconds that pass;
    without, what it proposes depends on the seed and the rows alone.
    """

    space: Codes
    limits: Limits
    objectives: tuple[Objective, ...]
    epochs: int
    seed: int
    extra: Callable[[Architecture], float] | None = None
    share: float | None = None


def _random(setting: Setting) -> BaseSampler:
    return RandomSampler(seed=setting.seed)


def _tpe(setting: Setting) -> BaseSampler:
    with warnings.catch_warnings():  # Optuna calls both options experimental
        warnings.simplefilter("ignore", ExperimentalWarning)
        return TPESampler(seed=setting.seed, multivariate=True, n_startup_trials=10, constant_liar=True)


def _surrogate(s: Setting) -> BaseSampler:
    return Surrogate(s.space, s.limits, s.objectives, s.epochs, s.seed, extra=s.extra, share=s.share)


SAMPLERS: dict[str, Callable[[Setting], BaseSampler]] = {
    "surrogate": _surrogate,
    "moasha": _random,
    "screen": _random,
    "random": _random,
    "tpe": _tpe,
    # A population of 50 would spend most of a few hundred trials on its first, random generation.
    "nsga2": lambda s: NSGAIISampler(seed=s.seed, population_size=20),
    "evolution": lambda s: Evolution(s.space, s.objectives, s.seed),
    "local": lambda s: LocalSearch(s.space, s.objectives, s.seed),
}


@dataclass(slots=True)
class Counts:
    """What became of the proposals: `asked` of the sampler; `unbuildable`, `over_limit` and `repeated` of those;
    `mended` by single changes, `drawn` afresh."""

    asked: int = 0
    unbuildable: int = 0
    over_limit: int = 0
    repeated: int = 0
    mended: int = 0
    drawn: int = 0

    def __str__(self) -> str:
        return ", ".join(f"{getattr(self, f.name)} {f.name.replace('_', ' ')}" for f in fields(self))


class Proposals(BaseSampler):
    """The sampler of a study over `space` under `limits`. `seen` holds the digests there already are.

    With a `start` the first points are its own; while the inner sampler has no model yet, each is a uniform draw.
    After `study.ask(fixed_distributions=proposals.distributions)` the proposal is in `candidate`, its cost in `cost`.
    What is put into `given` is the next proposal, whatever the sampler would say.
    """

    def __init__(
        self,
        space: Codes,
        limits: Limits,
        inner: BaseSampler,
        rng: Random,
        seen: set[str],
        start: Start | None = None,
    ) -> None:
        self.space, self.limits, self.inner, self.rng, self.seen = space, limits, inner, rng, seen
        if not space.choices:
            raise SpaceError([((), "must offer at least one choice: a list of values somewhere (got none)")])
        self.start = start
        self.counts = Counts()
        self.given: Candidate | None = None
        self.candidate: Candidate | None = None
        self.cost: Cost | None = None
        self.distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(tuple(plain(value) for value in values))
            for name, values in space.choices.items()
        }

    def code(self, parameters: Mapping[str, object]) -> Code:
        """The space's code of a trial's parameters. Raises `SpaceError` for parameters of another space."""
        return decoded(self.space, parameters)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self.candidate, self.cost = self._propose(study, trial)
        self.remember(self.candidate, self.cost)
        return {name: plain(value) for name, value in self.candidate.code.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        raise RuntimeError(f"All choices are proposed at once, but {param_name!r} was asked for by itself.")

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.inner.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self.inner.after_trial(study, trial, state, values)

    def _propose(self, study: Study, trial: FrozenTrial) -> tuple[Candidate, Cost]:
        if self.given is not None:
            given, self.given = self.given, None
            return given, cost(given.architecture)
        start: Code = {}
        for _ in range(ASKS):
            self.counts.asked += 1
            start = self._ask(study, trial)
            found = self._feasible(start, count=True)
            if found:
                return found
        found = self._mend(start)
        if found:
            self.counts.mended += 1
            return found
        found = self._draw()
        if found:
            self.counts.drawn += 1
            return found
        raise SpaceFull(
            f"{len(self.seen):,} architectures were proposed, and no further one inside the limits was found among "
            f"{self.space.size:,} codes"
        )

    def _ask(self, study: Study, trial: FrozenTrial) -> Code:
        """The start's point, then the inner sampler's; while it has no model yet, a uniform member of the space."""
        if self.start and (first := self.start.propose(self.space, self._feasible, self.rng)):
            return first.code
        point = self.inner.sample_relative(study, trial, self.distributions)
        return self.code(point) if len(point) == len(self.distributions) else self.space.sample(self.rng).code

    def remember(self, candidate: Candidate, price: Cost) -> None:
        """Take note of a candidate that is a trial."""
        self.seen.add(candidate.architecture.digest)
        if self.start:
            self.start.take(price.values())
            self.start.show((name, candidate.code[name]) for name in self.space.active(candidate.code))
        if isinstance(self.inner, Learner):
            self.inner.begin(candidate, price)

    def learn(self, row: Result) -> None:
        """Hand on a row of the table, each once, in order of arrival; on resume all that there are."""
        if self.start:
            self.start.take(row.values)
        if isinstance(self.inner, Learner):
            self.inner.learn(row)

    def parent(self, digest: str) -> int | None:
        """The trial that a proposed architecture was made from, where the sampler says so."""
        return self.inner.parent(digest) if isinstance(self.inner, Learner) else None

    def _feasible(self, code: Code, count: bool = False) -> tuple[Candidate, Cost] | None:
        try:
            candidate = self.space.candidate(code)
        except ArchitectureError:
            self.counts.unbuildable += count
            return None
        price = cost(candidate.architecture)
        if self.limits.excess(price):
            self.counts.over_limit += count
            return None
        if candidate.architecture.digest in self.seen:
            self.counts.repeated += count
            return None
        return candidate, price

    def _mend(self, code: Code) -> tuple[Candidate, Cost] | None:
        """A walk of single changes from `code`, never further over the limits, to the first feasible new point."""
        here = self._excess(code)
        for _ in range(STEPS):
            name = self.rng.choice(list(self.space.choices))
            changed = {**code, name: self.rng.choice(self.space.choices[name])}
            found = self._feasible(changed)
            if found:
                return found
            there = self._excess(changed)
            if there <= here:
                code, here = changed, there
        return None

    def _excess(self, code: Code) -> float:
        try:
            return sum(self.limits.excess(cost(self.space.decode(code))).values())
        except ArchitectureError:
            return float("inf")

    def _draw(self) -> tuple[Candidate, Cost] | None:
        small = self.space.size <= WALK
        source = self.space.members() if small else (self.space.sample(self.rng) for _ in range(DRAWS))
        return next((found for candidate in source if (found := self._feasible(candidate.code))), None)
