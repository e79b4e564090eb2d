"""A sweep: everything a search needs, read from YAML at once and handed on as plain values.

All faults of the file (and of the space file it names) are reported together, each as
`file:line: field: rule (got value; did you mean ...)`.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_type_hints

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
)

from nas.pareto import OBJECTIVES
from nas.quantities import count, milliseconds
from nas.rungs import ETA, FIRST, LEAST, Rungs, halving
from nas.training import MOST, Training, TrainingError
from searchspace.choices import Place, SpaceError, meant
from searchspace.named import read_network
from searchspace.spaces import check_space

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
    def halving(self) -> Rungs | None:
        """The rungs that hold; None where every trial is trained to its end."""
        return SAMPLERS[self.sampler] if self.rungs == "default" else self.rungs

    @property
    def levels(self) -> tuple[int, ...]:
        """The epochs at which trials are compared, rising; the last is the training's end."""
        epochs = self.training.epochs
        return self.halving.levels(epochs) if self.halving else (epochs,)

    def to_json(self) -> dict[str, object]:
        """Plain data that says all of the sweep."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

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
            return cls(**{**values, "objectives": _objectives(values["objectives"]), "seeds": seeds})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise SweepError([f"A sweep must have all its parts ({error})."]) from None


def _tuples(record: Mapping[str, object]) -> dict[str, object]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def _objectives(value: object) -> tuple[str, ...]:
    names = list(value) if isinstance(value, list | tuple) else [value]
    for name in names:
        if not isinstance(name, str) or name not in OBJECTIVES:
            raise ValueError(f"must be among {', '.join(OBJECTIVES)} (got {name!r}{meant(name, OBJECTIVES)})")
    if len(set(names)) < len(names):
        raise ValueError(f"must be different objectives (got {names})")
    if not 1 <= len(names) <= 4:
        raise ValueError(f"must be one to four objectives (got {len(names)})")
    return tuple(map(str, names))


def _space_form(value: object) -> object:
    if not isinstance(value, str | dict):
        raise ValueError(f"must be a preset, a file, or a mapping of choices (got {value!r})")
    return value


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class _Budget(_Model):
    trials: int | None = Field(default=None, ge=1, le=MOST)
    epochs: int | None = Field(default=None, ge=1, le=MOST)
    hours: float | None = Field(default=None, gt=0)
    gpu_hours: float | None = Field(default=None, gt=0)


_Count = Annotated[float | None, BeforeValidator(count)]


class _Limits(_Model):
    flops: _Count = None
    macs: _Count = None
    params: _Count = None
    activations: _Count = None
    interactions: _Count = None
    latency: Annotated[float | None, BeforeValidator(milliseconds)] = None


def ray_share(name: str, value: float) -> float:
    """What Ray can give a trial of `name`: steps of 0.0001, and of cards beyond one whole ones. Raises `ValueError`."""
    if value != round(value, 4):
        raise ValueError(f"must be a multiple of 0.0001 (got {value:g})")
    if name == "gpus_per_trial" and value > 1 and value % 1:
        raise ValueError(f"must be a whole number beyond 1: parts of one card are shared (got {value:g})")
    return value


class _Workers(_Model):
    cpus_per_trial: float = Field(default=1.0, gt=0, le=MOST)
    gpus_per_trial: float = Field(default=0.0, ge=0, le=MOST)
    max_concurrent: int | None = Field(default=None, ge=1)
    address: str | None = None
    epoch_minutes: float = Field(default=60.0, gt=0)

    @field_validator("cpus_per_trial", "gpus_per_trial")
    @classmethod
    def _shared(cls, value: float, info: ValidationInfo) -> float:
        return ray_share(str(info.field_name), value)


class _Rungs(_Model):
    first: float = Field(default=FIRST, ge=LEAST, lt=1)
    eta: float = Field(default=ETA, ge=1.1, le=100)


def _switch(value: object) -> object:
    """YAML's on and off."""
    return {} if value is True else None if value is False else value


class _Tracking(_Model):
    uri: Annotated[str | None, BeforeValidator(lambda v: "off" if v is False else v)] = None  # YAML's false
    experiment: str | None = None


# Each setting of Training with its own type and default; Training itself checks the values.
_Training = create_model(
    "_Training",
    __base__=_Model,
    **{f.name: (get_type_hints(Training)[f.name], f.default) for f in dataclasses.fields(Training)},  # type: ignore[call-overload]
)
_NESTED = {
    "budget": _Budget,
    "limits": _Limits,
    "rungs": _Rungs,
    "workers": _Workers,
    "tracking": _Tracking,
    "training": _Training,
}


_NAME, _FUNCTION = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", r"^[\w.]+:\w+$"
_PATTERNS = {
    _NAME: "a word of letters, digits and _.- that begins with a letter or digit",
    _FUNCTION: "package.module:function",
}


class _SweepFile(_Model):
    format: Literal["sweep/1"]
    name: str = Field(pattern=_NAME)
    purpose: str = ""
    data: str
    space: Annotated[object, AfterValidator(_space_form)]
    objectives: Annotated[tuple[str, ...], BeforeValidator(_objectives)] = ("accuracy", "flops")
    limits: _Limits = _Limits()
    sampler: Literal["surrogate", "moasha", "screen", "random", "tpe", "nsga2", "evolution", "local"] = "surrogate"
    rungs: Annotated[_Rungs | None, BeforeValidator(_switch)] = None
    proxy: Literal["none", "naswot", "noise"] = "none"
    inherit: bool = False
    budget: _Budget = _Budget(trials=40)
    training: _Training = _Training()  # type: ignore[valid-type]
    workers: _Workers = _Workers()
    tracking: _Tracking = _Tracking()
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    train: str = Field(default="nas.train:train", pattern=_FUNCTION)
    storage: str | None = None
    seeds: Annotated[object, Field(default_factory=list)]


def read_sweep(path: Path, spaces: Mapping[str, Path] | None = None) -> Sweep:
    """The sweep in the YAML file `path`; `spaces` are presets a sweep may name. Raises `SweepError`."""
    text, record = _load(path)
    try:
        model = _SweepFile.model_validate(record)
        faults = []
    except ValidationError as error:
        model = None
        faults = [_fault(path, text, _place(e["loc"]), _rule(e)) for e in error.errors()]
    where, space_text, space = _space(path, text, record, spaces or {}, faults)
    if space is not None:
        try:
            check_space(space)
        except SpaceError as error:
            faults += _space_faults(error, path, where, space_text)
    seeds, problems = _seeds(record.get("seeds", []))
    faults += [_fault(path, text, place, rule) for place, rule in problems]
    training = Training()
    if model is not None:
        try:
            training = Training(**model.training.model_dump())  # type: ignore[attr-defined]
        except TrainingError as error:
            name, _, rule = str(error).removeprefix("`").partition("` ")
            faults.append(_fault(path, text, ("training", name), rule))
        if model.budget == _Budget():
            faults.append(_fault(path, text, ("budget",), "must set trials, epochs, hours or gpu_hours"))
    if faults or model is None or space is None:
        raise SweepError(faults)
    limits = model.limits.model_dump()
    latency = limits.pop("latency")
    return Sweep(
        name=model.name,
        data=_relative(path, model.data),
        space=space,
        objectives=model.objectives,
        limits=Limits(costs={k: v for k, v in limits.items() if v is not None}, latency_ms=latency),
        sampler=model.sampler,
        rungs=_rungs(model),
        proxy=model.proxy,
        inherit=model.inherit,
        budget=Budget(**model.budget.model_dump()),
        training=training,
        workers=Workers(**model.workers.model_dump()),
        tracking=Tracking(**model.tracking.model_dump()),
        seed=model.seed,
        train=model.train,
        storage=model.storage,
        seeds=seeds,
    )


def _rungs(model: _SweepFile) -> Rungs | Literal["default"] | None:
    if "rungs" not in model.model_fields_set:
        return "default"
    return halving(model.rungs.first, model.rungs.eta) if model.rungs else None


def placed(error: SpaceError, path: Path, spaces: Mapping[str, Path]) -> SweepError:
    """`error`, of the space of the sweep in `path`, with file and line."""
    text, record = _load(path)
    where, text, _ = _space(path, text, record, spaces, [])
    return SweepError(_space_faults(error, path, where, text))


def _space_faults(error: SpaceError, path: Path, where: Path, text: str) -> list[str]:
    """Each problem of a space that lies in `where`: the sweep's `path`, or a file of its own."""
    prefix: Place = ("space",) if where == path else ()
    return [_fault(where, text, (*prefix, *place), rule) for place, rule in error.problems]


def _relative(path: Path, data: str) -> str:
    """A data file, absolute: from the sweep's folder where it is there, else from where the command runs."""
    if "/" not in data and "." not in data:
        return data
    found = next((p for p in (path.parent / data, Path(data)) if os.path.isfile(p)), None)
    return str(found.resolve()) if found else data


class _Loader(yaml.SafeLoader):
    """YAML's safe loader; a key that stands twice in one mapping is a fault, not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError) as error:  # a day that is none, a number of 5,000 digits
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None


# YAML 1.1 takes 1e-3 for text, where all else takes it for a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _load(path: Path) -> tuple[str, dict[str, object]]:
    try:
        text = path.read_text()
        record = yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise SweepError([f"{path}: must be a readable file ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise SweepError([f"{path}: must be text in UTF-8"]) from None
    except RecursionError:
        raise SweepError([f"{path}: must be YAML of a few levels (got too many)"]) from None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or error
        line = f":{mark.line + 1}" if mark else ""
        hint = "; is the indentation right?" if "expected <block end>" in str(problem) else ""
        raise SweepError([f"{path}{line}: must be YAML ({' '.join(str(problem).split())}{hint})"]) from None
    if not isinstance(record, dict):
        got = "nothing" if record is None else f"a {type(record).__name__}"
        raise SweepError([f"{path}: must be a mapping, lines of `name: value` (got {got})"])
    return text, record


def _space(
    path: Path, text: str, record: Mapping[str, object], spaces: Mapping[str, Path], faults: list[str]
) -> tuple[Path, str, dict[str, object] | None]:
    """(file, its text, mapping) of the space: written in the sweep, a file beside it, or a preset by name."""
    named = record.get("space")
    if isinstance(named, dict):
        return path, text, named
    if not isinstance(named, str):
        return path, text, None
    found = next((p for p in (path.parent / named, Path(named)) if os.path.isfile(p)), spaces.get(named))
    if found is None:
        rule = f"must be a preset ({', '.join(spaces)}) or a file (got {named!r}{meant(named, spaces)})"
        faults.append(_fault(path, text, ("space",), rule))
        return path, text, None
    try:
        return found, *_load(found)
    except SweepError as error:
        faults += error.faults
        return path, text, None


def _seeds(value: object) -> tuple[tuple[dict[str, object], ...], list[tuple[Place, str]]]:
    """(mappings, problems) of the published networks in `seeds`."""
    if not isinstance(value, list):
        return (), [(("seeds",), f"must be a list of published networks (got {value!r})")]
    read = [read_network(item, ("seeds", number)) for number, item in enumerate(value)]
    return tuple(record for record, _ in read), [problem for _, problems in read for problem in problems]


def _place(loc: tuple[int | str, ...]) -> Place:
    return tuple(part for part in loc if not (isinstance(part, str) and part in ("str", "dict[str,any]")))


def _rule(error: object) -> str:
    """pydantic's message in our form: rule (got value; did you mean ...)."""
    assert isinstance(error, dict)
    kind, got = error["type"], error.get("input")
    if kind == "extra_forbidden":
        known = list(_fields(error["loc"]))
        return f"must be one of {', '.join(known)} (got {error['loc'][-1]!r}{meant(error['loc'][-1], known)})"
    if kind == "missing":
        return "must be given"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    if kind == "literal_error":
        known = [word.strip("' ") for word in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        return f"must be one of {', '.join(known)} (got {got!r}{meant(got, known)})"
    if kind == "invalid_key":
        return f"must be a word (got {got!r})"
    if kind == "model_type":
        return f"must be a mapping of {', '.join(_fields((*error['loc'], '')))} (got {got!r})"
    if kind == "string_pattern_mismatch":
        return f"must be {_PATTERNS[error['ctx']['pattern']]} (got {got!r})"
    return f"must {str(error['msg']).removeprefix('Input should ').removeprefix('String should ')} (got {_cut(got)})"


def _cut(value: object) -> str:
    text = repr(value)
    return text if len(text) < 120 else f"{text[:117]}..."


def _fields(loc: tuple[int | str, ...]) -> Mapping[str, object]:
    model: type[BaseModel] = _SweepFile
    for part in loc[:-1]:
        model = _NESTED.get(str(part), model)
    return model.model_fields


def _fault(path: Path, text: str, place: Place, rule: str) -> str:
    name = ".".join(str(part + 1) if isinstance(part, int) else part for part in place)
    return f"{path}:{_line(text, place)}: {name + ': ' if name else ''}{rule}"


def _line(text: str, place: Place) -> int:
    """The line (from 1) of the deepest part of `place` that the file has."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    break
            else:
                return line
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line
    return line
