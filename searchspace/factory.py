"""Modules of others, by the name of what makes them: `package.module:function`, `torchvision:NAME`, `timm:NAME`.

A factory is code: to find it imports it, to make a module calls it. So whoever names one must trust it, as with any
import. torchvision and timm are imported only where a name asks for them.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import nn

from searchspace.choices import meant

LIBRARIES = ("torchvision", "timm")


class FactoryError(ValueError):
    """A factory that is not there, fails, or makes no module."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factory:
    """What makes a module: the name of a function or class, and its arguments as JSON holds them, lists as tuples."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", {key: _plain(value, key) for key, value in self.arguments.items()})

    def __str__(self) -> str:
        said = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({said})" if said else self.name

    def make(self) -> nn.Module:
        """A module, its random weights always the same. Raises `FactoryError`."""
        function = find(self.name)
        if self.name.partition(":")[0] in LIBRARIES:
            for word in self.arguments:
                if word.startswith(("weights", "pretrained", "checkpoint")):
                    raise FactoryError(f"`{word}` of {self.name} cannot be set: weights come from a file of tensors.")
        try:
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.filterwarnings(
                    "ignore", message="The default weight initialization of", category=FutureWarning
                )
                torch.manual_seed(0)
                made = function(**self.arguments)
        except (Exception, SystemExit) as error:  # whatever code that is not ours raises
            raise FactoryError(f"{self} must make a module, but it raised {one_line(error)}") from error
        if not isinstance(made, nn.Module):
            raise FactoryError(f"{self} must make a torch.nn.Module, but it returned {type(made).__name__}.")
        return made


def says_module(name: str) -> bool:
    """Whether what `name` names is a class of modules, or a function whose annotation says that it returns one."""
    found: Any = find(name)
    if name.partition(":")[0] in LIBRARIES:
        return True
    if not isinstance(found, type):
        try:
            found = inspect.signature(found, eval_str=True).return_annotation
        except Exception:  # annotations are code too
            return False
    return isinstance(found, type) and issubclass(found, nn.Module)


def find(name: str) -> Callable[..., object]:
    """The function that `name` names. Raises `FactoryError`."""
    place, separator, path = name.partition(":")
    if not (place and separator and path):
        raise FactoryError(f"A factory must be named package.module:function, but got {name!r}.")
    if place in LIBRARIES:
        return _builder(place, path)
    found: Any = _imported(place)
    for part in path.split("."):
        if not hasattr(found, part):
            known = [word for word, value in vars(found).items() if callable(value)]
            raise FactoryError(f"{name}: {place} must have {path}, but it has none{meant(part, known)}.")
        found = getattr(found, part)
    if isinstance(found, nn.Module) or not callable(found):
        raise FactoryError(
            f"{name}: must be a function or a class that makes the module, but it is a {type(found).__name__}. "
            "Write a function that returns a new module."
        )
    return found  # type: ignore[no-any-return]


def names(library: str) -> list[str]:
    """The models of torchvision or timm; none where it is not installed."""
    try:
        return _listed(_library(library))
    except FactoryError:
        return []


def torchvision() -> ModuleType:
    """torchvision, with a torch that its compiled part does not fit, too. Raises `ModuleNotFoundError`."""
    try:
        import torchvision
    except RuntimeError:  # two operators of the compiled part are missing, which no classifier calls
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            scheme = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(scheme)  # type: ignore[no-untyped-call]
        import torchvision

        torchvision.declared = library  # the declarations last as long as the module
    return torchvision  # type: ignore[no-any-return]


def one_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said[:300]}" if said else type(error).__name__


def _builder(library: str, name: str) -> Callable[..., object]:
    package = _library(library)
    listed = _listed(package)
    if name not in listed:
        raise FactoryError(f"{library}:{name}: must be a model of {library}, but it has none{meant(name, listed)}.")
    if library == "timm":
        return partial(package.create_model, name)
    return package.models.get_model_builder(name)  # type: ignore[no-any-return]


def _library(library: str) -> ModuleType:
    try:
        return torchvision() if library == "torchvision" else importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise FactoryError(
            f"{library} must be installed for {library}:NAME, but it is not ({error}): "
            f"pip install --no-deps {library}, so that torch stays as it is."
        ) from None


def _listed(package: ModuleType) -> list[str]:
    return list((package.models if package.__name__ == "torchvision" else package).list_models())


def _plain(value: object, name: str) -> object:
    if isinstance(value, list | tuple):
        return tuple(_plain(part, name) for part in value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part, name) for key, part in value.items()}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise FactoryError(f"`{name}` of a factory must be what JSON can hold, but got a {type(value).__name__}.")


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(f"{missing}."):
            raise FactoryError(
                f"{name} must be a module that Python can import, but there is no {missing}"
                f"{meant(missing, sys.modules)}. It is looked for in the current folder too."
            ) from None
        raise FactoryError(f"{name} must be importable, but it raised {one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise FactoryError(f"{name} must be importable, but it raised {one_line(error)}") from error
