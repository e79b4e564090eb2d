"""Rules for values: whole numbers, values per axis, words of a list; broken, they say the rule and the value.

A rule takes the name of the value and returns it. `of` is the node whose field it is; `whole`, `per_axis`, `one_of`,
`truth` and `between` read the field from the node, and write it as one value has one spelling.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

Axes = int | tuple[int, ...]
Word = TypeVar("Word", int, str)


class ArchitectureError(ValueError):
    """A rule of the language is broken: by a field, by the shapes that meet, or by a file that is read."""


def refusal(name: str, rule: str, value: object, of: object = None) -> ArchitectureError:
    owner = "" if of is None else f" of {type(of).__name__}"
    return ArchitectureError(f"`{name}`{owner} must be {rule}, but got {value!r}.")


def integer(name: str, value: int, least: int = 1, of: object = None) -> int:
    """A whole number; True is none."""
    if type(value) is not int or value < least:
        raise refusal(name, f"a whole number >= {least}", value, of)
    return value


def integers(name: str, value: Axes, least: int = 1, of: object = None) -> Axes:
    """A whole number, or one per axis; equal ones are written as one."""
    if type(value) is int and value >= least:
        return value
    several = isinstance(value, list | tuple) and len(value) in (2, 3)
    if several and all(type(v) is int and v >= least for v in value):  # type: ignore[union-attr]
        return value[0] if all(v == value[0] for v in value) else tuple(value)  # type: ignore[union-attr, index, arg-type]
    raise refusal(name, f"a whole number >= {least}, or two or three of them", value, of)


def real(name: str, value: float, low: float, high: float, of: object = None) -> float:
    """A number in [low, high], as a float; nan is in none."""
    if not (type(value) is int or isinstance(value, float)) or not low <= value <= high:
        raise refusal(name, f"in [{low}, {high}]", value, of)
    return float(value)


def share(name: str, value: float) -> float:
    return real(name, value, 0, 1)


def multiplier(name: str, value: float) -> float:
    """A positive number; what is beyond 10^6 or below 10^-6 is a slip, and may not fit a float."""
    if not (type(value) is int or isinstance(value, float)) or not 1e-6 <= value <= 1e6:
        raise refusal(name, "a positive number (1e-6 to 1e6)", value)
    return value


def choice(name: str, value: Word, allowed: Collection[Word], of: object = None) -> Word:
    """One of the `allowed` words or whole numbers; 50.0 is not 50, nor True 1."""
    if not (isinstance(value, str) or type(value) is int) or value not in allowed:
        raise refusal(name, f"one of {', '.join(map(str, allowed))}", value, of)
    return value


def switch(name: str, value: bool, of: object = None) -> bool:
    if type(value) is not bool:
        raise refusal(name, "True or False", value, of)
    return value


def axes(value: Axes, n: int) -> tuple[int, ...]:
    """A per-axis field spelled out for `n` axes."""
    if isinstance(value, int):
        return (value,) * n
    if len(value) != n:
        raise ArchitectureError(f"A field per axis needs {n} values on a map with {n} axes, but got {value}.")
    return value


def whole(node: object, name: str, least: int) -> None:
    integer(name, getattr(node, name), least, node)


def per_axis(node: object, name: str, least: int) -> None:
    value = getattr(node, name)
    if type(value) is not int or value < least:
        object.__setattr__(node, name, integers(name, value, least, node))


def one_of(node: object, name: str, allowed: tuple[str, ...]) -> None:
    choice(name, getattr(node, name), allowed, node)


def truth(node: object, name: str) -> None:
    switch(name, getattr(node, name), node)


def between(node: object, name: str, low: float, high: float) -> None:
    object.__setattr__(node, name, real(name, getattr(node, name), low, high, node))
