"""A Tree-structured Parzen Estimator over categorical choices, in arrays: Optuna's multivariate one, for long studies.

The densities are Optuna's, with its multi-objective split and its lie about trials in work [tpe, motpe], and every
trial counts. Optuna builds them in Python for each proposal, 250 ms at 1,000 trials, and then proposes mostly copies
of its best trials; here that takes milliseconds, and a point that was there before is left out.

Sources: [tpe] Bergstra, Bardenet, Bengio, Kegl, "Algorithms for hyper-parameter optimization", NeurIPS 2011; [motpe]
Ozaki, Tanigaki, Watanabe, Nomura, Onishi, "Multiobjective Tree-structured Parzen Estimator", JAIR 73, 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import moocore
import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

STARTUP = 10  # trials before there is a model
GOOD = 0.1  # the share of trials that the good density is made of
CANDIDATES = 24  # drawn from it at a time
DRAWS = 20  # until a point may be one that was there before
FULL_WEIGHT = 25  # of the other trials, the newest that count in full; the older, the less


class TPE(BaseSampler):
    """For one fixed set of `CategoricalDistribution`s, asked by `sample_relative` alone.

    An empty dict while there is no model. Asked again for the same trial, it gives the next best point.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._memory: _Memory | None = None
        self._number = -1  # of the trial that `_points` are for
        self._points: Iterator[np.ndarray] = iter(())

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        raise RuntimeError(f"All choices are proposed at once, but {name!r} was asked for by itself.")

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if self._memory is None:
            self._memory = _Memory(search_space, study.directions)
            for old in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
                self._memory.add(old, old.values)
        if self._memory.count < STARTUP:
            return {}
        if trial.number != self._number:
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            flying = [t for t in running if t.number != trial.number]
            self._number = trial.number
            self._points = _points(*self._memory.split(flying), self._memory.sizes, self._rng)
        point = zip(search_space.items(), next(self._points).tolist(), strict=True)
        return {name: distribution.to_external_repr(index) for (name, distribution), index in point}

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        if self._memory is not None and values is not None:
            self._memory.add(trial, values)


class _Memory:
    """The complete trials, a row each in arrays that double: choices by index, losses, excess over limits."""

    def __init__(self, space: dict[str, BaseDistribution], directions: Sequence[StudyDirection]) -> None:
        self._space = space
        self._signs = np.array([-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in directions])
        self.sizes = np.array([len(d.choices) for d in space.values()])  # type: ignore[attr-defined]
        self.count = 0
        self._rows = np.zeros((64, len(space)), dtype=np.uint16, order="F")
        self._losses = np.zeros((64, len(directions)))
        self._excess = np.zeros(64)

    def add(self, trial: FrozenTrial, values: Sequence[float]) -> None:
        row = self._row(trial)
        if row is None:
            return
        if self.count == len(self._rows):
            self._rows = np.asfortranarray(np.concatenate([self._rows, self._rows]))
            self._losses = np.concatenate([self._losses, self._losses])
            self._excess = np.concatenate([self._excess, self._excess])
        self._rows[self.count] = row
        self._losses[self.count] = self._signs * values
        self._excess[self.count] = sum(max(0.0, value) for value in trial.constraints.values())
        self.count += 1

    def _row(self, trial: FrozenTrial) -> list[float] | None:
        if self._space.keys() <= trial.params.keys():
            return [d.to_internal_repr(trial.params[name]) for name, d in self._space.items()]
        return None  # a trial without parameters

    def split(self, flying: Sequence[FrozenTrial]) -> tuple[np.ndarray, np.ndarray]:
        """The rows (trials, choices) of the good trials; of the others, and of those in work."""
        rows = self._rows[: self.count]
        good = np.zeros(self.count, dtype=bool)
        good[_best(self._losses[: self.count], self._excess[: self.count], math.ceil(GOOD * self.count))] = True
        lies = [row for trial in flying if (row := self._row(trial)) is not None]
        return rows[good], np.concatenate([rows[~good], np.array(lies, dtype=rows.dtype).reshape(-1, rows.shape[1])])


def _best(losses: np.ndarray, excess: np.ndarray, wanted: int) -> np.ndarray:
    """Indices of the `wanted` best rows of losses (trials, objectives): within the limits before beyond them, then by
    rank of non-domination, then by the hypervolume that a point adds to its rank."""
    fit = np.flatnonzero(excess == 0)
    ranks = np.full(len(losses), np.inf)
    if len(fit):
        ranks[fit] = moocore.pareto_rank(losses[fit])
    order = np.lexsort((excess, ranks))
    last = ranks[order[wanted - 1]]
    tied = np.flatnonzero(ranks == last)
    if last == np.inf or len(tied) == 1:
        return order[:wanted]
    worst = losses[tied].max(axis=0)
    reference = np.maximum(1.1 * worst, 0.9 * worst) + 1e-12
    added = moocore.hv_contributions(losses[tied], ref=reference)
    return np.concatenate([np.flatnonzero(ranks < last), tied[np.argsort(-added, kind="stable")]])[:wanted]


def _points(good: np.ndarray, others: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Points (choices,) drawn from the density of `good`: of each draw the new ones, by good / others, without end."""
    old = len(others)
    age = np.ones(old)
    age[: max(0, old - FULL_WEIGHT)] = np.linspace(1 / max(1, old), 1, max(0, old - FULL_WEIGHT))
    kernels = len(good) + 1  # the last is the prior: uniform
    draws = 0
    while True:
        draws += 1
        kernel = rng.integers(kernels, size=CANDIDATES)
        kept = rng.random((CANDIDATES, len(sizes))) < 1 / (1 + sizes / kernels)
        kept[kernel == len(good)] = False
        drawn = rng.integers(sizes, size=(CANDIDATES, len(sizes)))
        points = np.unique(np.where(kept, good[kernel % len(good)], drawn).astype(good.dtype), axis=0)
        better, in_good = _log_density(points, good, np.ones(len(good)), sizes)
        worse, in_others = _log_density(points, others, age, sizes)
        for i in np.argsort(worse - better, kind="stable"):
            if not (in_good[i] or in_others[i]) or draws > DRAWS:
                yield points[i]


def _log_density(
    points: np.ndarray, rows: np.ndarray, weights: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The log of a mixture at `points` (points, choices), and whether each is one of `rows` (trials, choices).

    A kernel a row: a choice has its row's value with odds of 1 + 1/k to 1/k for each other value, where k is the number
    of kernels. One kernel more, of weight 1, is uniform.
    """
    k = len(rows) + 1
    matches = np.zeros((len(points), len(rows)), dtype=np.int16)
    for a, b in zip(points.T, rows.T, strict=True):
        matches += a[:, None] == b
    none = -(np.log(k) + np.log1p(sizes / k)).sum()
    logs = np.full((len(points), k), -np.log(sizes).sum())
    logs[:, :-1] = none + matches * math.log(k + 1) + np.log(weights)
    top = logs.max(axis=1)
    total = np.log(np.exp(logs - top[:, None]).sum(axis=1)) + top - math.log(weights.sum() + 1)
    return total, (matches == len(sizes)).any(axis=1)
