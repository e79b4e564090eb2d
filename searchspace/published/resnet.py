"""ResNet (He et al. 2015, arXiv 1512.03385) and ResNeXt (Xie et al. 2016, arXiv 1611.05431)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

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
from searchspace.blocks import Block, bottleneck, chain, residual, whole_width

Depths = dict[int, tuple[int, ...]]

# Blocks of stages 2 to 5. 26 is the Octave paper's (arXiv 1904.05049), 200 that of He et al. 2016 (arXiv 1603.05027).
BASIC: Depths = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BOTTLENECK: Depths = {26: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}

STRIDE_IN = {"3x3": "spatial", "1x1": "reduce"}


def resnet(
    *,
    depth: int = 50,
    stride_in: str = "3x3",
    expansion: int = 4,
    width: float = 1.0,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> Architecture:
    """Four stages of basic (18, 34) or bottleneck blocks, each at half the size and twice the width of the last.

    A bottleneck strides in its 3 x 3 convolution, as torchvision's do, or in its first 1 x 1, as the paper's do.
    It ends `expansion` times as wide as it is inside. `width` multiplies all widths.
    """
    blocks = _blocks(depth, BASIC | BOTTLENECK)
    if stride_in not in STRIDE_IN:
        raise ArchitectureError(f"`stride_in` must be one of {', '.join(STRIDE_IN)}, but got {stride_in!r}.")
    if type(expansion) is not int or expansion < 1:
        raise ArchitectureError(f"`expansion` must be a whole number >= 1, but got {expansion!r}.")
    if depth in BASIC and stride_in != "3x3":
        raise ArchitectureError(
            f"`stride_in` must be 3x3 at depths whose blocks have no 1x1, but got ({depth=}, {stride_in=})."
        )
    if depth in BASIC and expansion != 4:
        raise ArchitectureError(
            f"`expansion` must be left at depths whose blocks have no 1x1, but got ({depth=}, {expansion=})."
        )
    if not isinstance(width, int | float) or not 0 < width < inf:
        raise ArchitectureError(f"`width` must be a positive number, the multiplier of all widths, but got {width!r}.")
    first = whole_width(64 * width)
    if depth in BASIC:
        return _network(residual, first, first, blocks, classes, input)
    block = partial(bottleneck, stride_in=STRIDE_IN[stride_in], expansion=expansion)
    return _network(block, first, expansion * first, blocks, classes, input)


def resnext(
    *,
    depth: int = 50,
    groups: int = 32,
    width_per_group: int = 4,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> Architecture:
    """ResNet with 3 x 3 convolutions in `groups`, `groups` * `width_per_group` wide in stage 2.

    One group 128 wide makes the wide ResNet of torchvision (Zagoruyko & Komodakis 2016, arXiv 1605.07146).
    """
    blocks = _blocks(depth, BOTTLENECK)
    if any(type(value) is not int or value < 1 for value in (groups, width_per_group)):
        raise ArchitectureError(
            f"`groups` and `width_per_group` must be whole numbers >= 1, but got ({groups=}, {width_per_group=})."
        )
    block = partial(bottleneck, groups=groups, expansion=256 / (groups * width_per_group))
    return _network(block, 64, 256, blocks, classes, input)


def _blocks(depth: int, depths: Depths) -> tuple[int, ...]:
    if depth not in depths:
        raise ArchitectureError(f"`depth` must be one of {', '.join(map(str, sorted(depths)))}, but got {depth!r}.")
    return depths[depth]


def _network(
    block: Block, stem: int, out: int, blocks: tuple[int, ...], classes: int, input: tuple[int, ...]
) -> Architecture:
    """A stem of width `stem`, a stage of `out` that keeps its size, stages that halve it and double `out`, a head."""

    def stage(number: int, count: int) -> Callable[[Shape], Chain]:
        one = partial(block, out=out * 2 ** (number - 2))
        first = partial(one, stride=1 if number == 2 else 2)
        return lambda into: chain(into, first, *[one] * (count - 1), label=f"stage{number}")

    body = chain(
        Architecture(input, Chain()).output,
        Chain((Conv(stem, 7, 2, label="stem"), Norm(), Activation(), Pool("max", 3, 2)), label="stem"),
        *(stage(number, count) for number, count in enumerate(blocks, 2)),
        Chain((AdaptivePool(), Flatten(), Linear(classes, label="classifier")), label="head"),
    )
    return Architecture(input, body)
