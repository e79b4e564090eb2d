"""A sweep's YAML file, read at once and handed on as plain values.

All faults of the file (and of the space file it names) are reported together, each as
`file:line: field: rule (got value; did you mean ...)`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

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

from nas.quantities import count, milliseconds
from nas.rungs import ETA, FIRST, LEAST, Rungs, halving
from nas.sweep import (
    PROXIES,
    SAMPLERS,
    Budget,
    Limits,
    Sweep,
    SweepError,
    Tracking,
    Workers,
    objectives_of,
    ray_share,
    rungs_on,
)
from nas.training import MOST, Training, TrainingError
from nas.yaml_text import fault, load_yaml
from searchspace.choices import Place, SpaceError, meant
from searchspace.named import read_network
from searchspace.spaces import check_space


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
    """YAML's off, and on: what the sampler has."""
    return None if type(value) is bool else value


def _among(known: Iterable[str]) -> AfterValidator:
    """A rule: one of these words."""
    words = list(known)

    def check(name: str) -> str:
        if name not in words:
            raise ValueError(f"must be one of {', '.join(words)} (got {name!r}{meant(name, words)})")
        return name

    return AfterValidator(check)


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
    objectives: Annotated[tuple[str, ...], BeforeValidator(objectives_of)] = ("accuracy", "flops")
    limits: _Limits = _Limits()
    sampler: Annotated[str, _among(SAMPLERS)] = "surrogate"
    rungs: Annotated[_Rungs | None, BeforeValidator(_switch)] = None
    proxy: Annotated[str, _among(PROXIES)] = "none"
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
    text, record = load_yaml(path)
    try:
        model = _SweepFile.model_validate(record)
        faults = []
    except ValidationError as error:
        model = None
        faults = [fault(path, text, _place(e["loc"]), _rule(e)) for e in error.errors()]
    where, space_text, space = _space(path, text, record, spaces or {}, faults)
    if space is not None:
        try:
            check_space(space)
        except SpaceError as error:
            faults += _space_faults(error, path, where, space_text)
    seeds, problems = _seeds(record.get("seeds", []))
    faults += [fault(path, text, place, rule) for place, rule in problems]
    training = Training()
    if model is not None:
        try:
            training = Training(**model.training.model_dump())  # type: ignore[attr-defined]
        except TrainingError as error:
            name, _, rule = str(error).removeprefix("`").partition("` ")
            faults.append(fault(path, text, ("training", name), rule))
        if model.budget == _Budget():
            faults.append(fault(path, text, ("budget",), "must set trials, epochs, hours or gpu_hours"))
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
        rungs=_rungs(model, record.get("rungs", "default")),
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


def _rungs(model: _SweepFile, said: object) -> Rungs | Literal["default"] | None:
    if model.rungs is not None:
        return halving(model.rungs.first, model.rungs.eta)
    return "default" if said == "default" else rungs_on(model.sampler, None) if said is True else None


def placed(error: SpaceError, path: Path, spaces: Mapping[str, Path]) -> SweepError:
    """`error`, of the space of the sweep in `path`, with file and line."""
    text, record = load_yaml(path)
    where, text, _ = _space(path, text, record, spaces, [])
    return SweepError(_space_faults(error, path, where, text))


def _space_faults(error: SpaceError, path: Path, where: Path, text: str) -> list[str]:
    """Each problem of a space that lies in `where`: the sweep's `path`, or a file of its own."""
    prefix: Place = ("space",) if where == path else ()
    return [fault(where, text, (*prefix, *place), rule) for place, rule in error.problems]


def _relative(path: Path, data: str) -> str:
    """A data file, absolute: from the sweep's folder where it is there, else from where the command runs."""
    if "/" not in data and "." not in data:
        return data
    found = next((p for p in (path.parent / data, Path(data)) if os.path.isfile(p)), None)
    return str(found.resolve()) if found else data


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
        faults.append(fault(path, text, ("space",), rule))
        return path, text, None
    try:
        return found, *load_yaml(found)
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
