"""Rules for the fields of a node: whole numbers, values per axis, words of a list; broken, they say rule and value."""

from __future__ import annotations

Axes = int | tuple[int, ...]


class ArchitectureError(ValueError):
    """A rule of the language is broken: by a field, by the shapes that meet, or by a file that is read."""


def axes(value: Axes, n: int) -> tuple[int, ...]:
    """A per-axis field spelled out for `n` axes."""
    if isinstance(value, int):
        return (value,) * n
    if len(value) != n:
        raise ArchitectureError(f"A field per axis needs {n} values on a map with {n} axes, but got {value}.")
    return value


def whole(node: object, name: str, least: int) -> None:
    value = getattr(node, name)
    if type(value) is not int or value < least:
        raise ArchitectureError(
            f"`{name}` of {type(node).__name__} must be a whole number >= {least}, but got {value!r}."
        )


def per_axis(node: object, name: str, least: int) -> None:
    value = getattr(node, name)
    if type(value) is int and value >= least:
        return
    several = isinstance(value, list | tuple) and len(value) in (2, 3)
    if several and all(type(v) is int and v >= least for v in value):
        equal = all(v == value[0] for v in value)
        object.__setattr__(node, name, value[0] if equal else tuple(value))
        return
    raise ArchitectureError(
        f"`{name}` of {type(node).__name__} must be a whole number >= {least}, or two or three of them, "
        f"but got {value!r}."
    )


def one_of(node: object, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(node, name)
    if value not in allowed:
        raise ArchitectureError(
            f"`{name}` of {type(node).__name__} must be one of {', '.join(allowed)}, but got {value!r}."
        )


def truth(node: object, name: str) -> None:
    value = getattr(node, name)
    if type(value) is not bool:
        raise ArchitectureError(f"`{name}` of {type(node).__name__} must be True or False, but got {value!r}.")


def between(node: object, name: str, low: float, high: float) -> None:
    value = getattr(node, name)
    if type(value) is int and low <= value <= high:
        value = float(value)
        object.__setattr__(node, name, value)
    if not isinstance(value, float) or not low <= value <= high:
        raise ArchitectureError(f"`{name}` of {type(node).__name__} must be in [{low}, {high}], but got {value!r}.")
