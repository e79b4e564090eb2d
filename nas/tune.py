"""A sweep under Ray Tune: the same space, limits, costs and training, for people whose runs live in `tune.Tuner`.

`searcher` proposes, `trainable` trains; `choices` is the space alone, as the define-by-run function that Optuna calls.
Every trial of `searcher` can be built, is inside the limits and new. What the trials report can join a sweep's results
table (`nas.imports`), on one front with what a search found. Rungs, seeds, budget, workers and tracking of the sweep
are not used: Tune has its own.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from nas.data import load, mix
from nas.jobs import Job, resolve, run
from nas.learner import decoded
from nas.pareto import OBJECTIVES
from nas.proposals import SAMPLERS, Proposals, Setting, SpaceFull, plain
from nas.quantities import short
from nas.ray_session import quiet_ray
from nas.sweep import Sweep, SweepError
from nas.tune_report import NETWORK, record_of, setting_of
from searchspace.choices import Value, meant
from searchspace.codes import Codes
from searchspace.cost import cost
from searchspace.notation import to_json
from searchspace.spaces import open_space

ray = quiet_ray()

from ray import tune  # noqa: E402 (after Ray was made quiet)
from ray.tune.search import Searcher  # noqa: E402
from ray.tune.search.optuna import OptunaSearch  # noqa: E402

TOLD = ("tpe", "nsga2", "random")  # samplers that learn from what Tune tells them: a trial's last values


@dataclass(frozen=True, slots=True)
class Choices:
    """The space as a define-by-run function: every choice is suggested by name, a value per axis written 1x3x3."""

    values: Mapping[str, tuple[Value, ...]]

    def __call__(self, trial: Trial) -> None:
        for name, values in self.values.items():
            trial.suggest_categorical(name, [plain(value) for value in values])


def choices(sweep: Sweep) -> Choices:
    """The space of `sweep` for any sampler of Optuna's. It keeps no limit: `trainable` refuses what breaks one."""
    return Choices(_Task.of(sweep).space().choices)


def searcher(sweep: Sweep, *, sampler: str = "tpe") -> OptunaSearch:
    """An OptunaSearch over the space and the objectives of `sweep`, which ends when the space is used up.

    `sampler` is tpe, nsga2 or random: the others learn from a results table, which Tune does not keep. Raises
    `SweepError`.
    """
    if sampler not in TOLD:
        rule = f"must be one of {', '.join(TOLD)}; the others learn from trials on the way and from a results table"
        raise SweepError([f"sampler: {rule}, which Ray Tune does not tell (got {sampler!r}{meant(sampler, TOLD)})"])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    task, rng = _Task.of(sweep), Random(sweep.seed)
    space, objectives = task.space(), tuple(OBJECTIVES[name] for name in sweep.objectives)
    inner = SAMPLERS[sampler](
        Setting(
            space=space,
            limits=sweep.limits,
            objectives=objectives,
            epochs=sweep.training.epochs,
            seed=rng.getrandbits(31),
        )
    )
    names = [o.name for o in objectives]
    modes = ["max" if o.maximize else "min" for o in objectives]
    several = len(names) > 1
    return _Search(
        Choices(space.choices),
        metric=names if several else names[0],
        mode=modes if several else modes[0],
        sampler=_Proposals(task, inner, rng),
    )


def trainable(sweep: Sweep, *, every_epoch: bool = False) -> Callable[[dict[str, Any]], None]:
    """What `tune.Tuner` runs: build, train and measure the architecture of a config as `sweep` says.

    It reports once, fully trained: `accuracy` (validation, 0-1), every cost, `epoch`, `digest`, and under `nas` what an
    import needs; the network is the checkpoint. With `every_epoch` also on the way, for schedulers: there `accuracy` is
    NaN, since it is no result, and `accuracy_so_far` the number to compare. What cannot be built, is over a limit or
    fails in training is an error of the trial. One CPU a trial, or a card that Tune gives.
    """
    resolve(sweep.train)
    return partial(train_config, _Task.of(sweep), every_epoch)


class OverLimit(ValueError):
    """An architecture that costs more than the sweep allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A sweep and what its data says of it: plain values, which travel to workers where a space's caches cannot."""

    sweep: Sweep
    input: tuple[int, ...]
    classes: int
    fingerprint: str
    path: tuple[str, ...]  # the driver's, for training functions that lie there

    @classmethod
    def of(cls, sweep: Sweep) -> _Task:
        file = Path(sweep.data)
        if file.is_file():
            sweep = replace(sweep, data=str(file.resolve()))  # a trial of Tune runs in a folder of its own
        data = load(sweep.data, seed=sweep.seed)
        path = tuple(os.path.abspath(entry) for entry in sys.path)
        return cls(sweep=sweep, input=data.input, classes=data.classes, fingerprint=data.fingerprint, path=path)

    def space(self) -> Codes:
        return open_space(self.sweep.space, input=self.input, classes=self.classes)

    def job(self, config: Mapping[str, object], folder: str) -> Job:
        """The training of a config. Raises `SpaceError`, `ArchitectureError` or `OverLimit`."""
        sweep, space = self.sweep, self.space()
        candidate = space.candidate(decoded(space, config))
        price, digest = cost(candidate.architecture), candidate.architecture.digest
        over = [
            f"{n} is {short(getattr(price, n))}, the limit {short(sweep.limits.costs[n])}"
            for n in sweep.limits.excess(price)
        ]
        if over:
            raise OverLimit(f"A trial must be inside the limits, but {', '.join(over)}; `searcher` proposes none such.")
        return Job(
            trial=0,
            architecture=to_json(candidate.architecture),
            choices=dict(candidate.code),
            digest=digest,
            values=price.values(),
            data=sweep.data,
            data_seed=sweep.seed,
            training=sweep.training,
            seed=mix(sweep.seed, int(digest, 16)),
            until=sweep.training.epochs,
            measure_latency="latency_ms" in sweep.objectives,
            latency_limit_ms=sweep.limits.latency_ms,
            checkpoint=str(Path(folder, NETWORK).with_suffix("")),
            train=sweep.train,
        )


def train_config(task: _Task, every_epoch: bool, config: dict[str, Any]) -> None:
    """One trial of Tune; what `trainable` gives it, but for the config, is filled in there."""
    sys.path += [entry for entry in task.path if entry not in sys.path and os.path.isdir(entry)]
    with tempfile.TemporaryDirectory() as folder:
        job = task.job(config, folder)
        epochs, seconds = job.training.epochs, 0.0
        for until in range(1, epochs + 1) if every_epoch else (epochs,):
            result = run(replace(job, until=until), device="cuda:0" if ray.get_gpu_ids() else "cpu")
            if result.state == "stopped":
                latency, limit = result.values["latency_ms"], job.latency_limit_ms
                raise OverLimit(
                    f"A trial must be inside the limits, but latency is {latency:.3g} ms, the limit {limit:g} ms."
                )
            if result.state == "failed":
                raise RuntimeError(result.error)
            job = replace(job, values=result.values, measure_latency=False, latency_limit_ms=None)  # known now
            seconds += result.seconds
            so_far = result.values["accuracy"]
            report = {
                **result.values,
                "accuracy": so_far if result.final else math.nan,
                "accuracy_so_far": so_far,
                "epoch": result.epoch,
                "digest": job.digest,
                "nas": record_of(replace(result, seconds=seconds), setting_of(task.sweep, task.fingerprint)),
            }
            network = None
            if result.final:
                Path(job.checkpoint).unlink(missing_ok=True)  # type: ignore[arg-type]
                network = tune.Checkpoint.from_directory(folder)
            tune.report(report, checkpoint=network)


class _Proposals(Proposals):
    """The wrapper of every sampler, with a space that is opened again where it was pickled."""

    def __init__(self, task: _Task, inner: BaseSampler, rng: Random) -> None:
        super().__init__(task.space(), task.sweep.limits, inner, rng, set())
        self._task = task

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "space": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.space = self._task.space()


class _Search(OptunaSearch):  # type: ignore[misc]
    """Ends the experiment where the space is used up."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        try:
            return super().suggest(trial_id)  # type: ignore[no-any-return]
        except SpaceFull:
            return Searcher.FINISHED  # type: ignore[no-any-return]
