"""What is known of each network that was begun, and what is expected of it and of candidates.

A forest learns the accuracy at an epoch from the network and that epoch, another what a network gains from a known
epoch to a later one: a partial training teaches at its own epoch, and nothing pretends to be final. (One forest with
the known accuracy as a feature hardly looked at it: taught by 100 of 211 digits networks, Kendall's tau of the others
against their final accuracy was 0.60 by a quarter of the curve and 0.59 by half of it, and is 0.73 and 0.86 now.)
Where latency is an objective or has a limit, a third forest learns its logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, KeysView, Sequence
from dataclasses import dataclass, field

import numpy as np

from nas.features import Features
from nas.forest import TREES, Forest
from nas.learner import code_of
from nas.pareto import Objective
from nas.results import Result
from nas.sweep import Limits
from searchspace.architecture import Architecture
from searchspace.codes import Candidate, Code, Codes
from searchspace.cost import COUNTS, Cost

PREDICTED = ("accuracy", "latency_ms")  # the others are counts


@dataclass(slots=True, eq=False)
class Begun:
    """A network that is or was a trial: its counts by name, its columns for the forests, what is known of it."""

    code: Code
    costs: dict[str, float]
    columns: np.ndarray
    trial: int | None = None  # None until a row of it came
    curve: dict[int, float] = field(default_factory=dict)  # accuracy by epoch, of the rows of the table
    latency_ms: float = math.nan
    decided: bool = False  # fully trained, stopped or failed
    final: bool = False  # fully trained, every objective finite


class Outlook:
    """Told of networks and rows in order of arrival; the same ones, in the same order, give the same forests."""

    def __init__(
        self,
        space: Codes,
        limits: Limits,
        objectives: Sequence[Objective],
        epochs: int,
        seed: int,
        extra: Callable[[Architecture], float] | None,
    ) -> None:
        self.objectives, self.limits = tuple(objectives), limits
        self.features = Features(space, epochs, extra)
        self.rows = 0  # that taught something
        self.learns = {o.name for o in objectives} & {"accuracy", "latency_ms"}
        if limits.latency_ms is not None:
            self.learns.add("latency_ms")
        self._reach, self._rise, self._latency = (Forest(seed + i * TREES) for i in range(3))
        self._begun: dict[str, Begun] = {}

    def begun(self, digest: str) -> Begun | None:
        return self._begun.get(digest)

    def digests(self) -> KeysView[str]:
        """A view of all that was begun."""
        return self._begun.keys()

    def finals(self) -> list[Begun]:
        return [begun for begun in self._begun.values() if begun.final]

    def work(self) -> list[Begun]:
        """What is not decided: in work, or waiting at a level."""
        return [begun for begun in self._begun.values() if not begun.decided]

    def begin(self, candidate: Candidate, price: Cost) -> Begun:
        """Take note of a trial in work."""
        costs = price.values()
        columns = self.features.network(candidate.code, costs, candidate.architecture)
        return self._begun.setdefault(candidate.architecture.digest, Begun(candidate.code, costs, columns))

    def learn(self, row: Result) -> Begun | None:
        """Take in a row; the network it is of, None where the space does not hold it."""
        if row.choices is None or row.kind == "final":
            return None
        begun = self._begun.get(row.digest)
        if begun is None:
            code, costs = code_of(row.choices), {name: row.values.get(name, 0.0) for name in COUNTS}
            begun = self._begun[row.digest] = Begun(code, costs, self.features.network(code, costs))
        begun.trial = row.trial
        accuracy, latency_ms = (row.values.get(n, math.nan) if n in self.learns else math.nan for n in PREDICTED)
        if row.state == "complete" and math.isfinite(accuracy):
            self._reach.teach(self.features.reach(begun.columns, row.epoch), accuracy)
            for known in begun.curve.items():
                self._rise.teach(self.features.rise(begun.columns, known, row.epoch), accuracy - known[1])
            begun.curve[row.epoch] = accuracy
        if 0 < latency_ms < math.inf and math.isnan(begun.latency_ms):
            self._latency.teach(begun.columns, math.log10(latency_ms))
            begun.latency_ms = latency_ms
        self.rows += math.isfinite(accuracy) or math.isfinite(latency_ms)
        begun.decided = row.ended
        values = [row.values.get(o.name, math.nan) for o in self.objectives]
        begun.final = row.final and row.state == "complete" and all(map(math.isfinite, values))
        return begun

    def fit(self) -> None:
        for forest in (self._reach, self._rise, self._latency):
            forest.fit()

    def expected(self, networks: Sequence[Begun]) -> np.ndarray:
        """The values of each network, shape (networks, objectives): what is known, else the forests' mean."""
        epochs = self.features.epochs
        accuracy, _ = self._reach.predict([self.features.reach(n.columns, epochs) for n in networks])
        begun = [i for i, n in enumerate(networks) if n.curve]
        last = [list(networks[i].curve.items())[-1] for i in begun]
        more, _ = self._rise.predict(
            [self.features.rise(networks[i].columns, k, epochs) for i, k in zip(begun, last, strict=True)]
        )
        for i, known, rise in zip(begun, last, more.tolist(), strict=True):
            accuracy[i] = known[1] if networks[i].final else min(1.0, known[1] + rise)
        measured = np.array([n.latency_ms for n in networks])
        latency, _ = self._latency.predict([n.columns for n in networks])
        return self._values([n.costs for n in networks], accuracy, np.where(measured > 0, measured, 10**latency))

    def hoped(
        self, columns: Sequence[np.ndarray], costs: Sequence[dict[str, float]], kappa: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of candidates: (values at `kappa` doubts better than the mean, shape (candidates, objectives); doubt; share
        by which the mean latency is over its limit, 0 where it is not)."""
        accuracy, doubt = self._reach.predict([self.features.reach(row, self.features.epochs) for row in columns])
        latency, slack = self._latency.predict(columns)
        values = self._values(costs, np.minimum(1.0, accuracy + kappa * doubt), 10 ** (latency - kappa * slack))
        limit = self.limits.latency_ms if len(self._latency) else None
        return values, doubt + slack, np.maximum(0.0, 10**latency / (limit or math.inf) - 1)

    def _values(self, costs: Sequence[dict[str, float]], accuracy: np.ndarray, latency: np.ndarray) -> np.ndarray:
        predicted = dict(zip(PREDICTED, (accuracy, latency), strict=True))
        columns = [
            predicted[o.name] if o.name in predicted else np.array([count[o.name] for count in costs])
            for o in self.objectives
        ]
        return np.column_stack(columns)
