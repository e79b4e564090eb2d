"""The jobs of a sweep: what a worker is asked to do for a new trial, a seed, or a trial that goes on."""

from __future__ import annotations

from pathlib import Path

from nas.data import mix
from nas.folder import checkpoint, weights
from nas.jobs import Job
from nas.results import Result
from nas.seeds import Seed
from nas.sweep import Sweep
from searchspace.codes import Candidate
from searchspace.cost import Cost
from searchspace.notation import to_json


class Orders:
    """Jobs of `sweep` into the folder `out`; `published` are its seeds by digest."""

    def __init__(self, sweep: Sweep, out: Path, published: dict[str, Seed]) -> None:
        self._sweep, self._out, self._published = sweep, out, published

    def first(self, number: int, candidate: Candidate, price: Cost, parent: int | None = None) -> Job:
        """A trial is begun, to its first rung; a seed, to its end. With a `parent`, from what fits of its weights."""
        architecture = candidate.architecture
        seed = self._published.get(architecture.digest)
        return Job(
            trial=number,
            kind="seed" if seed else "trial",
            name=seed.name if seed else "",
            architecture=to_json(architecture),
            choices=dict(candidate.code) or None,
            words=str(architecture),
            digest=architecture.digest,
            values=price.values(),
            data=self._sweep.data,
            data_seed=self._sweep.seed,
            training=self._sweep.training,
            seed=mix(self._sweep.seed, number),
            until=self._sweep.training.epochs if seed else self._sweep.levels[0],
            parent=parent,
            inherit=None if parent is None else str(weights(self._out, parent)),
            measure_latency="latency_ms" in self._sweep.objectives,
            latency_limit_ms=self._sweep.limits.latency_ms,
            checkpoint=str(checkpoint(self._out, number)),
            train=self._sweep.train,
        )

    def next(self, row: Result, until: int) -> Job:
        """The trial whose last record is `row` goes on to epoch `until`; its latency is known."""
        return Job(
            trial=row.trial,
            architecture=row.architecture,
            choices=row.choices,
            words=row.words,
            digest=row.digest,
            values={name: value for name, value in row.values.items() if name != "accuracy"},
            data=self._sweep.data,
            data_seed=self._sweep.seed,
            training=self._sweep.training,
            seed=row.seed,
            until=until,
            parent=row.parent,
            checkpoint=str(checkpoint(self._out, row.trial)),
            train=self._sweep.train,
        )
