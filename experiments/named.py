"""A network named on the command line: a published one with its settings, or a file.

A word names a published network if there is one of that name, else a file; a file that is called like a network is
reached as ./NAME. Settings are NAME=VALUE words, read as the network's function declares them.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Union, get_args, get_origin

from searchspace.architecture import Architecture, ArchitectureError
from searchspace.choices import meant
from searchspace.notation import from_json
from searchspace.published import NETWORKS


def find(word: str, settings: Sequence[str] = (), input: str | None = None, classes: int | None = None) -> Architecture:
    """The published network or the file that `word` names. Raises `ArchitectureError` or `CheckpointError`."""
    if word in NETWORKS:
        given = list(settings)
        given += [f"input={input}"] if input is not None else []
        given += [f"classes={classes}"] if classes is not None else []
        return NETWORKS[word](**read_settings(word, NETWORKS[word], given))
    path = Path(word)
    if not path.is_file() and not path.suffix and "/" not in word:
        raise ArchitectureError(f"NETWORK must be a file or one of {', '.join(NETWORKS)} (got {_got(word, NETWORKS)}).")
    if settings or input is not None or classes is not None:
        raise ArchitectureError(
            f"{word}: a file says all of its network: --set, --input and --classes go with a published network's name."
        )
    return read_file(path)


def read_file(path: Path) -> Architecture:
    """The architecture in a JSON file, or of the network in a .safetensors file."""
    if path.suffix == ".safetensors":
        from searchspace.checkpoint import load

        return load(path).architecture
    try:
        record = json.loads(path.read_text())
    except OSError as error:
        raise ArchitectureError(f"{path}: must be a readable file ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise ArchitectureError(f"{path}: must be JSON ({error}).") from None
    try:
        return from_json(record)
    except ArchitectureError as error:
        raise ArchitectureError(f"{path}: {error}") from None


def read_trial(out: Path, number: int) -> Architecture:
    """The architecture of a fully trained trial of the sweep in `out`."""
    from nas.folder import find_trial

    try:
        return from_json(find_trial(out, number).architecture)
    except ArchitectureError as error:
        raise ArchitectureError(f"{out}, trial {number}: {error}") from None


# Settings -------------------------------------------------------------------------------------------------------


def read_settings(name: str, function: Callable[..., object], given: Sequence[str]) -> dict[str, object]:
    """The keyword arguments that NAME=VALUE words say, by the annotations of the function, where it has any."""
    known, anything = _parameters(function)
    values: dict[str, object] = {}
    for word in given:
        key, separator, text = word.partition("=")
        if not separator or not key.isidentifier():
            raise ArchitectureError(f"A setting of {name} must be NAME=VALUE (got {word!r}).")
        if key not in known and not anything:
            listed = f"one of {', '.join(known)}" if known else "left out: there are none"
            raise ArchitectureError(f"A setting of {name} must be {listed} (got {_got(key, known)}).")
        if key in values:
            raise ArchitectureError(f"`{key}` of {name} must be set once (got {text!r} too).")
        values[key] = _value(f"`{key}` of {name}", text, known[key].annotation if key in known else object)
    missing = [k for k, parameter in known.items() if parameter.default is parameter.empty and k not in values]
    if missing:
        raise ArchitectureError(f"{name} needs {', '.join(missing)}: --set {missing[0]}=VALUE.")
    return values


def read_sizes(name: str, text: str) -> tuple[int, ...]:
    """Channels, [frames,] height and width of an input: 3x224x224."""
    try:
        sizes = _sizes(text)
    except ValueError:
        sizes = ()
    if len(sizes) not in (3, 4) or 0 in sizes:
        raise ArchitectureError(f"{name} must be {_WORDS[tuple]} (got {text!r}).")
    return sizes


def _parameters(function: Callable[..., object]) -> tuple[dict[str, inspect.Parameter], bool]:
    """What can be set by keyword, and whether any other keyword is taken as well."""
    try:
        found = inspect.signature(function, eval_str=True).parameters.values()
    except (NameError, AttributeError, SyntaxError):  # annotations that only a type checker can read
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function of C has no signature
        return {}, True
    named = {p.name: p for p in found if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, any(p.kind is p.VAR_KEYWORD for p in found)


def _got(word: str, known: Mapping[str, object]) -> str:
    return f"{word!r}{meant(word, known)}"


def _value(name: str, text: str, annotation: object) -> object:
    """`text` as the first of the annotation's types that can be read from it."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if NoneType in kinds and text.lower() == "none":
        return None
    types = [get_origin(kind) or kind for kind in kinds]
    for kind in types:
        try:
            if kind is not NoneType:
                return _READERS.get(kind, _plain)(text)
        except ValueError:
            continue
    expected = " or ".join(_WORDS[kind] for kind in types)
    raise ArchitectureError(f"{name} must be {expected} (got {text!r}).")


def _bool(text: str) -> bool:
    if text.lower() not in (*_TRUE, *_FALSE):
        raise ValueError(text)
    return text.lower() in _TRUE


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(text)
    return value


def _sizes(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})*", text):
        raise ValueError(text)
    return tuple(map(int, text.split("x")))


def _plain(text: str) -> object:
    """JSON where it is JSON, none, true or false; else the text itself."""
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    try:
        return json.loads(text, parse_constant=str)  # NaN and its like are no JSON
    except (ValueError, RecursionError):
        return text


_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_READERS: dict[object, Callable[[str], object]] = {bool: _bool, int: int, float: _float, tuple: _sizes, str: str}
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "sizes such as 3x224x224 or 3x8x224x224",
    NoneType: "none",
}
