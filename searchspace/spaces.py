"""A space file's mapping as a space: stages of blocks, or, where it names a `base`, grown from a published network."""

from __future__ import annotations

from collections.abc import Mapping

from searchspace import choices, growth
from searchspace.choices import SpaceError
from searchspace.codes import Codes
from searchspace.grown import Grown
from searchspace.space import Space


def check_space(record: object) -> None:
    """Raises `SpaceError` with every problem that shows without the data."""
    if _grows(record):
        _, overall, grown = growth.read(record)
        parts = [overall, *grown.values()]
    else:
        overall, stem, stages, head = choices.read(record, {})
        parts = [overall, stem, head, *(stage.options for stage in stages)]
    if all(len(values) == 1 for part in parts for values in part.values()):
        raise SpaceError([((), "must offer at least one choice: a list of values somewhere (got none)")])


def open_space(record: Mapping[str, object], *, input: tuple[int, ...], classes: int) -> Codes:
    """The space of `record` for inputs of (channels, *space). Raises `SpaceError`."""
    kind = Grown if _grows(record) else Space
    return kind(record, input=input, classes=classes)


def _grows(record: object) -> bool:
    return isinstance(record, Mapping) and "base" in record
