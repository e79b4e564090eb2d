"""A sweep: everything a search needs, as plain values. `nas.sweep_file` reads one from YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from nas.pareto import OBJECTIVES
from nas.rungs import Rungs, halving
from nas.training import Training
from searchspace.choices import meant

if TYPE_CHECKING:
    from searchspace.cost import Cost

FORMAT = "sweep/1"
SAMPLERS: dict[str, Rungs | None] = {  # by name, with the rungs that go with each unless a sweep says others
    "surrogate": halving(),
    "moasha": halving(),
    "screen": Rungs(shares=(0.0,), eta=4.0),  # one epoch, then the best quarter to the end
    "random": None,
    "tpe": None,
    "nsga2": None,
    "evolution": None,
    "local": None,
}
PROXIES = ("none", "naswot", "noise")


class SweepError(ValueError):
    """A sweep that cannot start. `faults` are lines for people, one for each thing to mend."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard upper limits: `costs` by name, held before a trial exists; `latency_ms`, measured before training."""

    costs: dict[str, float] = field(default_factory=dict)
    latency_ms: float | None = None

    def excess(self, cost: Cost) -> dict[str, float]:
        """By how much `cost` is over each limit, as a share of the limit; empty where all hold."""
        over = {name: getattr(cost, name) / limit - 1 for name, limit in self.costs.items()}
        return {name: share for name, share in over.items() if share > 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """When to stop proposing: at the first of these.

    `trials`, `epochs` (trained, of all trials) and `gpu_hours` (of finished trials) count what is in the folder;
    `hours` counts from the start of this call.
    """

    trials: int | None = None
    epochs: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """What a trial takes of the cluster at `address` (None: this machine, "inprocess": this process).

    A worker whose epoch takes longer than `epoch_minutes` hangs: it is ended, and its trial is begun once more. In
    this process nothing limits an epoch: it could only be ended with the search.
    """

    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    max_concurrent: int | None = None
    address: str | None = None
    epoch_minutes: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    """Where MLflow records: `uri` None is a sqlite file beside the results; "off" is nowhere."""

    uri: str | None = None
    experiment: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The whole run. `space` is a space file's mapping; `storage` None is a journal beside the results.

    `seeds` are published networks, each a mapping of `network` and its arguments. `rungs` None trains every trial to
    its end; "default" is what goes with the sampler. Two options of the surrogate are under trial: `proxy` adds a
    score of the untrained network to what it learns from, `inherit` starts a trial from its parent's weights.
    """

    name: str
    data: str
    space: Mapping[str, object]
    objectives: tuple[str, ...] = ("accuracy", "flops")
    limits: Limits = Limits()
    sampler: str = "surrogate"
    rungs: Rungs | Literal["default"] | None = "default"
    proxy: str = PROXIES[0]
    inherit: bool = False
    budget: Budget = Budget(trials=40)
    training: Training = field(default_factory=Training)
    workers: Workers = Workers()
    tracking: Tracking = Tracking()
    seed: int = 0
    train: str = "nas.train:train"
    storage: str | None = None
    seeds: tuple[Mapping[str, object], ...] = ()

    @property
    def effective_rungs(self) -> Rungs | None:
        """The rungs that hold; None where every trial is trained to its end."""
        return SAMPLERS[self.sampler] if self.rungs == "default" else self.rungs

    @property
    def levels(self) -> tuple[int, ...]:
        """The epochs at which trials are compared, rising; the last is the training's end."""
        epochs = self.training.epochs
        return self.effective_rungs.levels(epochs) if self.effective_rungs else (epochs,)

    def to_json(self) -> dict[str, object]:
        """Plain data that says all of the sweep, its rungs as they are held."""
        rungs = dataclasses.asdict(self.effective_rungs) if self.effective_rungs else None
        return {"format": FORMAT, **dataclasses.asdict(self), "rungs": rungs}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The sweep that `to_json` wrote. Raises `SweepError` for another format or missing parts."""
        if record.get("format") != FORMAT:
            raise SweepError([f"A sweep must have format {FORMAT!r} (got {record.get('format')!r})."])
        parts = {"limits": Limits, "budget": Budget, "training": Training, "workers": Workers, "tracking": Tracking}
        try:
            values = {k: parts[k](**v) if k in parts else v for k, v in record.items() if k != "format"}
            seeds = tuple(_tuples(seed) for seed in values.get("seeds", ()))
            if isinstance(rungs := values.get("rungs"), Mapping):
                values["rungs"] = Rungs(shares=tuple(rungs["shares"]), eta=rungs["eta"])
            return cls(**{**values, "objectives": objectives_of(values["objectives"]), "seeds": seeds})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise SweepError([f"A sweep must have all its parts ({error})."]) from None


def rungs_on(sampler: str, rungs: Rungs | Literal["default"] | None) -> Rungs:
    """The rungs of a sweep that is told to have some: its own, else the sampler's, else the usual ones."""
    own = rungs if isinstance(rungs, Rungs) else SAMPLERS[sampler]
    return own or halving()


def _tuples(record: Mapping[str, object]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def objectives_of(value: object) -> tuple[str, ...]:
    """One to four different names of `OBJECTIVES`. Raises ValueError."""
    names = list(value) if isinstance(value, list | tuple) else [value]
    for name in names:
        if not isinstance(name, str) or name not in OBJECTIVES:
            raise ValueError(f"must be among {', '.join(OBJECTIVES)} (got {name!r}{meant(name, OBJECTIVES)})")
    if len(set(names)) < len(names):
        raise ValueError(f"must be different objectives (got {names})")
    if not 1 <= len(names) <= 4:
        raise ValueError(f"must be one to four objectives (got {len(names)})")
    return tuple(map(str, names))


def ray_share(name: str, value: float) -> float:
    """What Ray can give a trial of `name`: steps of 0.0001, and of cards beyond one whole ones. Raises `ValueError`."""
    if value != round(value, 4):
        raise ValueError(f"must be a multiple of 0.0001 (got {value:g})")
    if name == "gpus_per_trial" and value > 1 and value % 1:
        raise ValueError(f"must be a whole number beyond 1: parts of one card are shared (got {value:g})")
    return value
