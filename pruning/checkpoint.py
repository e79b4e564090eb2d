"""A pruned module of somebody else's on disk: what made it, what was changed since, its tensors. No pickle.

The file names the factory and holds the *edits*: what the module has otherwise than a fresh one from that factory.
They are found by comparing the two, so a module that is pruned again is saved against the fresh one again. Loading
calls the factory, makes the edits, puts the tensors in; nothing is traced. The factory's code is not in the file:
whoever loads it must have the factory, and trust it. So that a file cannot call just anything with arguments of its
choice, it may name only a class of modules, or a function whose annotation says that it returns one.
"""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from searchspace.checkpoint import CheckpointError, read, write
from searchspace.factory import Factory, FactoryError, says_module
from searchspace.layers import Select

FORMAT = "pruned/1"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """A module from a file, in evaluation mode, with what was written beside it."""

    module: nn.Module
    factory: Factory
    input: tuple[int, ...] | None
    metadata: dict[str, str]


def save(
    path: Path,
    module: nn.Module,
    factory: Factory,
    metadata: Mapping[str, str] | None = None,
    input: tuple[int, ...] | None = None,
) -> None:
    """Write `module`, once made by `factory`, as it is now; `input` is what it runs on, (channels, *space).

    Raises `CheckpointError`, naming the first difference, where no edits known here make it from a fresh module.
    """
    refuse_unnameable(factory)
    fresh = factory.make()
    tensors, ties = _tensors(module)
    try:
        record: Json = {
            "factory": factory.name,
            "arguments": dict(factory.arguments),
            "input": input,
            "layers": _layers(fresh),
            "edits": dict(_edits(fresh, module)),
            "ties": ties,
            "frozen": [name for name, t in tensors.items() if isinstance(t, nn.Parameter) and not t.requires_grad],
            "strides": {name: t.stride() for name, t in tensors.items() if not _plainly_laid(t)},
        }
        if difference := _difference(_rebuilt(fresh, record, tensors), module):
            raise CheckpointError(difference)
    except CheckpointError as error:
        raise CheckpointError(
            f"{path}: a module to save must be what {factory} makes but for edits that a file can hold: {error}."
        ) from None
    apart = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    owned = {t.untyped_storage().data_ptr(): name for name, t in apart.items()}
    whole = {name: t if owned[t.untyped_storage().data_ptr()] == name else t.clone() for name, t in apart.items()}
    write(path, whole, {**(metadata or {}), "format": FORMAT, "pruned": json.dumps(record)})


def load(path: Path) -> nn.Module:
    """The module in `path`, in evaluation mode. Raises `CheckpointError`."""
    return load_all(path).module


def load_all(path: Path) -> Loaded:
    """The module in `path` with its factory, input and metadata. Raises `CheckpointError`."""
    tensors, header = read(path, FORMAT)
    header.pop("format")
    try:
        record = json.loads(header.pop("pruned"))
        factory = Factory(name=record["factory"], arguments=dict(record["arguments"]))
        size = None if record["input"] is None else tuple(map(int, record["input"]))
        layers = dict(record["layers"])
        refuse_unnameable(factory)
        fresh = factory.make()
        if changed := _changed(layers, _layers(fresh)):
            raise CheckpointError(f"{factory} must make the layers that it made for this file, but {changed}.")
        module = _rebuilt(fresh, record, tensors)
    except (CheckpointError, FactoryError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path}: must be a pruned module's file, but its record is damaged ({said}).") from None
    return Loaded(module=module.eval(), factory=factory, input=size, metadata=header)


def refuse_unnameable(factory: Factory) -> None:
    """Raises `CheckpointError` where a file may not name `factory`, `FactoryError` where it is not there."""
    if not says_module(factory.name):
        raise CheckpointError(
            f"{factory.name}: a file may name only a torch.nn.Module class, or a function annotated as returning one: "
            "write `-> torch.nn.Module` behind its arguments."
        )


# Finding edits --------------------------------------------------------------------------------------------------


def _edits(
    fresh: nn.Module, module: nn.Module, name: str = "", seen: set[tuple[int, int]] | None = None
) -> Iterator[tuple[str, Json]]:
    """Module name -> {"set": attributes} or {"replace": description}, from the outside in.

    Parts that are one and the same under several names, here and there, are edited under the first.
    """
    seen = set() if seen is None else seen
    if (id(fresh), id(module)) in seen:
        return
    seen.add((id(fresh), id(module)))
    if _class(fresh) != _class(module):
        yield name, {"replace": _description(module, name, fresh)}
        return
    before, now = _plain(fresh), _plain(module)
    changed = {k: v for k, v in now.items() if k in before and type(v) is type(before[k]) and not _equal(v, before[k])}
    if changed:
        yield name, {"set": changed}
    for child, part in module._modules.items():
        path, origin = f"{name}.{child}".lstrip("."), fresh._modules.get(child)
        if part is not None and origin is not None:
            yield from _edits(origin, part, path, seen)
        elif part is not None:
            yield path, {"replace": _description(part, path, None)}


def _description(module: nn.Module, name: str, original: nn.Module | None) -> Json:
    """What stands in place of `original`: a selection, several modules in a row, or among them the original, edited."""
    if original is not None and _class(original) == _class(module):
        return {"kind": "original", "edits": dict(_edits(original, module))}
    if type(module) is Select:
        return {"kind": "select", "channels": module.channels, "high": _high(module)}
    if type(module) is nn.Sequential and name:
        parts = {child: part for child, part in module._modules.items() if part is not None}
        return {"kind": "sequential", "parts": {c: _description(p, f"{name}.{c}", original) for c, p in parts.items()}}
    raise CheckpointError(
        f"only a Select or a Sequential may stand in place of what the factory made, but {name or 'the module'} is now "
        f"a {type(module).__name__}"
    )


def _high(select: Select) -> int:
    """How many inputs are high ones; only the module's indices still tell."""
    high = set(select.high.tolist())
    low = [channel for channel in select.channels if channel not in high]
    return low[0] - int(select.low[0]) if low else max(high, default=-1) + 1


def _tensors(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every parameter and buffer, kept ones or not, once; and its other names -> the first one."""
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        for leaf, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is None:
                continue
            name = f"{path}.{leaf}".lstrip(".")
            if id(tensor) in first:
                ties[name] = first[id(tensor)]
            else:
                first[id(tensor)] = name
                tensors[name] = tensor
    return tensors, ties


def _plainly_laid(tensor: Tensor) -> bool:
    """Whether it lies in memory as a fresh tensor does, not channels last; kernels round by how weights lie."""
    return tensor.stride() == torch.empty(tensor.shape, device="meta").stride() or not _dense(tensor, tensor.stride())


def _dense(tensor: Tensor, strides: Sequence[int]) -> bool:
    """Whether its elements at those strides would fill as much memory as it has elements."""
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, strides, strict=True))
    return tensor.numel() > 0 and steps == tensor.numel() - 1 and min(strides, default=1) > 0


# Making them ----------------------------------------------------------------------------------------------------


def _rebuilt(fresh: nn.Module, record: Json, tensors: Mapping[str, Tensor]) -> nn.Module:
    """`fresh` with the edits of `record` and these tensors in its place."""
    _edit(fresh, record["edits"])
    ties, frozen, strides = record["ties"], set(record["frozen"]), record["strides"]
    wanted = set(tensors) | set(ties)
    if lost := [name for name in (*_tensors(fresh)[0], *_tensors(fresh)[1]) if name not in wanted]:
        raise CheckpointError(f"every tensor must be there, but {lost[0]} is not")
    for name, tensor in tensors.items():
        if name in strides and _dense(tensor, strides[name]):
            tensor = torch.empty_strided(tensor.shape, strides[name], dtype=tensor.dtype).copy_(tensor.detach())
        owner, leaf = _owner(fresh, name)
        if leaf in owner._parameters:
            owner._parameters[leaf] = nn.Parameter(tensor.detach(), requires_grad=name not in frozen)
        else:
            owner._buffers[leaf] = tensor.detach()
    for name, first in ties.items():
        owner, leaf = _owner(fresh, name)
        source, source_leaf = _owner(fresh, first)
        slots, origin = (
            (owner._parameters, source._parameters) if leaf in owner._parameters else (owner._buffers, source._buffers)
        )
        slots[leaf] = origin[source_leaf]  # type: ignore[assignment]
    return fresh


def _edit(module: nn.Module, edits: Json) -> None:
    for name, edit in edits.items():
        if "set" in edit:
            _set(module.get_submodule(name), edit["set"], name)
        else:
            path, _, leaf = name.rpartition(".")
            parent = module.get_submodule(path)
            parent.add_module(leaf, _made(edit["replace"], parent._modules.get(leaf)))


def _made(description: Json, original: nn.Module | None) -> nn.Module:
    """The module that `_description` described; its indices come with the tensors."""
    match description["kind"]:
        case "original" if original is not None:
            part = copy.deepcopy(original)
            _edit(part, description["edits"])
            return part
        case "select":
            with torch.device("meta"):
                return Select(tuple(map(int, description["channels"])), int(description["high"]))
        case "sequential":
            return nn.Sequential(OrderedDict((n, _made(d, original)) for n, d in description["parts"].items()))
        case kind:
            raise CheckpointError(f"what stands in place of another module must be of a known kind, but got {kind!r}")


def _set(module: nn.Module, values: Json, name: str) -> None:
    before, place = _plain(module), name or "the original"
    for key, value in values.items():
        value = _tuple(value) if isinstance(before.get(key), tuple) else value
        if key not in before or type(value) is not type(before[key]):
            raise CheckpointError(f"{key} of {place} must be a {type(before.get(key)).__name__}, but got {value!r}")
        setattr(module, key, value)


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The submodule that has a parameter or buffer of that name, be it None, and the last part of the name."""
    path, _, leaf = name.rpartition(".")
    try:
        owner = module.get_submodule(path)
    except AttributeError:
        owner = nn.Module()
    if leaf not in owner._parameters and leaf not in owner._buffers:
        raise CheckpointError(f"there must be a place for the tensor {name}, but there is none")
    return owner, leaf


def _tuple(value: object) -> object:
    return tuple(map(_tuple, value)) if isinstance(value, list | tuple) else value


# Comparing ------------------------------------------------------------------------------------------------------


def _layers(module: nn.Module) -> dict[str, Json]:
    """What a factory made, a record a submodule: its class, the shapes of its tensors, torch's own settings."""
    return {
        name: {
            "class": _class(part),
            **{
                leaf: "x".join(map(str, t.shape))
                for leaf, t in (*part._parameters.items(), *part._buffers.items())
                if t is not None
            },
            **(json.loads(json.dumps(_plain(part))) if type(part).__module__.startswith("torch.") else {}),
        }
        for name, part in module.named_modules(remove_duplicate=False)
    }


def _changed(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    """The first layer that a factory makes otherwise now; empty where none is."""
    for name in (*before, *(name for name in now if name not in before)):
        place = name or "the module itself"
        if name not in now:
            return f"{place} ({before[name]['class']}) is gone"
        if name not in before:
            return f"{place} ({now[name]['class']}) is new"
        for key in {**before[name], **now[name]}:
            was, got = before[name].get(key), now[name].get(key)
            if not _equal(was, got):
                return f"{key} of {place} was {was}, now it is {got}"
    return ""


def _difference(rebuilt: nn.Module, module: nn.Module) -> str:
    """What of `module` the rebuilt one has otherwise, tensors' values aside; empty where nothing is."""
    ours, theirs = (dict(m.named_modules(remove_duplicate=False)) for m in (rebuilt, module))
    for name in {**theirs, **ours}:
        place = name or "the module itself"
        if name not in theirs:
            return f"{place} is gone"
        if name not in ours:
            return f"{place} is new"
        a, b = ({"class": _class(m), **_plain(m)} for m in (ours[name], theirs[name]))
        for key in {**a, **b}:
            if not (key in a and key in b and _equal(a[key], b[key])):
                return f"{key} of {place} was {a.get(key)!r}, now it is {b.get(key)!r}"
    return ""


def _class(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _plain(module: nn.Module) -> Json:
    """The public attributes of a module that JSON can hold; `training` is no part of what it is."""
    return {k: v for k, v in vars(module).items() if k[:1] != "_" and k != "training" and _is_plain(v)}


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _equal(a: object, b: object) -> bool:
    """Equal when written: a NaN equals itself, a tuple a list, but 1 is not True."""
    return json.dumps(a) == json.dumps(b)
