"""A space file's mapping as a space: stages of blocks, or, where it names a `base`, grown from a published network."""

from __future__ import annotations

from collections.abc import Mapping

from searchspace import choices, growth
from searchspace.codes import Codes
from searchspace.grown import Grown
from searchspace.space import Space


def check_space(record: object) -> None:
    """Raises `SpaceError` with every problem that shows without the data."""
    if _grows(record):
        growth.read(record)
    else:
        choices.read(record, {})


def open_space(record: Mapping[str, object], *, input: tuple[int, ...], classes: int) -> Codes:
    """The space of `record` for inputs of (channels, *space). Raises `SpaceError`."""
    kind = Grown if _grows(record) else Space
    return kind(record, input=input, classes=classes)


def _grows(record: object) -> bool:
    return isinstance(record, Mapping) and "base" in record
