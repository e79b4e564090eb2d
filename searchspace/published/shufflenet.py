"""ShuffleNet (Zhang et al. 2017, arXiv 1707.01083)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    ArchitectureError,
    Chain,
    Conv,
    Flatten,
    Linear,
    Norm,
    Pool,
    Shape,
)
from searchspace.blocks import chain, shuffle_unit, whole_width
from searchspace.fields import integer, multiplier
from searchspace.transforms import regroup, role, under

UNITS = (4, 8, 4)


def shufflenet_v1(
    *,
    groups: int = 3,
    scale: float = 1.0,
    stem: int | None = None,
    shuffle: bool = True,
    squeeze_excite: float = 0.0,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> Architecture:
    """Three stages of shuffle units: 1 x 1 convolutions in `groups`, channels shuffled between the groups.

    `scale` multiplies the widths of the stages, rounded to the nearest multiple of `groups`, as are the inner widths,
    a quarter of them (halves to the even multiple): the paper prints no rule. Nor does it say what becomes of the
    stem's 24 channels: by default they stay, at most half of stage 2, and are 48 from scale 2 on.
    Without `shuffle` it is the ablation of Table 3. `squeeze_excite`, Table 5's, is a share of a unit's branch.
    """
    width = whole_width(stage2_width(integer("groups", groups)) * multiplier("scale", scale), groups)
    first = whole_width(min(48 if scale >= 2 else 24, width / 2), groups) if stem is None else stem
    if type(first) is not int or first % groups or not 0 < first < width:
        raise ArchitectureError(
            f"`stem` must be a multiple of `groups` below stage 2's width, since the first unit makes the rest in "
            f"groups, but got (stem={first}, {groups=}, {width=})."
        )

    def stage(number: int, out: int, count: int) -> Callable[[Shape], Chain]:
        unit = partial(shuffle_unit, out=out, groups=groups, shuffle=shuffle, squeeze_excite=squeeze_excite)
        return lambda into: chain(into, partial(unit, stride=2), *[unit] * (count - 1), label=f"stage{number}")

    body = chain(
        Architecture(input, Chain()).output,
        Chain((Conv(first, 3, 2, label="stem"), Norm(), Activation(), Pool("max", 3, 2)), label="stem"),
        *(stage(i, width * 2 ** (i - 2), count) for i, count in enumerate(UNITS, 2)),
        Chain((AdaptivePool(), Flatten(), Linear(classes, label="classifier")), label="head"),
    )
    reads_stem = under("stage2") & role("reduce") & (lambda site: site.before.channels == first)
    return regroup(Architecture(input, body), 1, False, reads_stem)  # few channels: the paper does not group there


def stage2_width(groups: int) -> int:
    """Width of stage 2 at scale 1: 144, 200, 240, 272, 384 in the paper, for 1, 2, 3, 4, 8 groups at about equal cost.

    A power law through the first and the last meets all five, to the nearest multiple of 4 * `groups`; so is the
    width for other counts, which the paper does not give.
    """
    return whole_width(144 * groups**0.47, 4 * groups)
