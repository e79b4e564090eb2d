"""What our own blocks make of a map, foreseen from their options in whole numbers before anything is built.

A space asks it of every draw, so that most that cannot be built, or are another's network, cost no fragment.
`known` are all options of a block: those said, and its defaults. What is not foreseen is built and seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from searchspace.architecture import Axes
from searchspace.blocks.pieces import grouped, part, whole_width

Known = Mapping[str, Any]

INCEPTIONS = ("inception_a", "inception_b", "inception_c")
# Their first grouped convolution reads the block's input; an Inception module's only where it strides.
GROUPED = ("plain", "residual", "depthwise_separable", "inverted_residual", "shuffle_unit", "grid_reduction")


def refuses(block: str, known: Known, channels: int, low: int | None, width: int) -> bool:
    """Whether the block refuses a map of `channels`, `low` of them at half resolution (None: not known)."""
    groups, strided = _groups(known), known["stride"] != 1
    if block == "dense":
        _, growths = _growths(known, groups, strided, channels, width)
        return min(growths) < groups or growths[-1] % groups != 0
    inception = block in INCEPTIONS
    if inception and _quarters(width, groups)[-1] < 1:
        return True
    if (block in GROUPED or (inception and strided)) and (channels % groups or (low or 0) % groups):
        return True
    if block == "shuffle_unit":
        new = part(known["alpha"], width, groups)
        together = not strided and channels == width and low in (None, new)
    elif block == "grid_reduction" or inception:
        new = part(known["alpha"], width, groups)
        together = not strided or known["reduction"] != "parallel"
    else:
        return False
    return not together and (width <= channels or (low is not None and not 0 <= new - low <= width - channels))


def low_after(block: str, known: Known, channels: int, low: int | None, width: int) -> int | None:
    """How many of the `width` channels that a stage makes are at half resolution, where that is foreseen."""
    alpha, groups = known["alpha"], _groups(known)
    if block == "dense":
        again = known["depth"] > 1
        start, growths = _growths(
            known, groups, known["stride"] != 1 and not again, width if again else channels, width
        )
        kept = part(alpha, start[0], groups) if start else low
        return None if kept is None else kept + sum(part(alpha, growth, groups) for growth in growths)
    if not alpha:
        return 0
    if block == "fire":
        return 2 * part(alpha, width // 2, groups)
    if block in INCEPTIONS:
        return None if block == "inception_c" else sum(part(alpha, each, groups) for each in _quarters(width, groups))
    return part(alpha, width, 1 if block == "bottleneck" else groups)


def numbers(block: str, known: Known, channels: int, width: int) -> Iterator[list[int]]:
    """All whole numbers that a stage's blocks make of their ratios: ratios with the same ones make the same network.

    First those of the first block, then those of the others.
    """
    yield _numbers(block, known, channels, width)
    if known["depth"] > 1:
        yield _numbers(block, {**known, "stride": 1}, width, width)


def _numbers(block: str, known: Known, channels: int, width: int) -> list[int]:
    alpha, groups = known["alpha"], _groups(known)
    widths: list[int] = []
    if block in ("bottleneck", "shuffle_unit"):
        widths = [whole_width(width / known["expansion"], groups)]
    elif block == "inverted_residual" and known["expansion"] != 1:
        widths = [whole_width(channels * known["expansion"], groups)]
    elif block == "fire":
        widths = [whole_width(known["squeeze"] * width, groups), width // 2]
    elif block in INCEPTIONS:
        quarter, *_, rest = _quarters(width, groups)
        widths = [whole_width(known["squeeze"] * quarter, groups), quarter, rest]
        if block == "inception_c" and _is_square(known["kernel"]):
            half = whole_width(quarter / 2, groups)
            widths += [half, quarter - half]
    elif block == "dense":
        start, growths = _growths(known, groups, known["stride"] != 1, channels, width)
        widths = [*start, *growths, *(whole_width(known["expansion"] * growth, groups) for growth in growths)]
    lows = [part(alpha, each, groups) for each in widths]
    if block == "bottleneck":
        lows.append(part(alpha, width))
    elif block != "dense" and (block not in (*INCEPTIONS, "fire") or (block in INCEPTIONS and known["stride"] != 1)):
        lows.append(part(alpha, width, groups))
    return widths + lows


def _is_square(kernel: Axes) -> bool:
    """Whether it has both image axes."""
    return (kernel if isinstance(kernel, int) else min(kernel[-2:])) > 1


def _quarters(width: int, groups: int) -> tuple[int, int, int, int]:
    """The widths of an Inception module's branches."""
    quarter = whole_width(width / 4, groups)
    return quarter, quarter, quarter, width - 3 * quarter


def _growths(known: Known, groups: int, strided: bool, channels: int, width: int) -> tuple[tuple[int, ...], list[int]]:
    """The width of a dense block's transition, if it has one, and by how much each layer grows the map."""
    start = (whole_width(known["squeeze"] * width, groups),) if strided or channels >= width else ()
    grown, layers = width - (start[0] if start else channels), known["layers"]
    step = grown // layers // groups * groups
    return start, [*[step] * (layers - 1), grown - step * (layers - 1)]


def _groups(known: Known) -> int:
    return grouped(known["groups"], known.get("separation", "none"))
