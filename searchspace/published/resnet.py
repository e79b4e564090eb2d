"""ResNet (He et al. 2015, arXiv 1512.03385) and ResNeXt (Xie et al. 2016, arXiv 1611.05431)."""

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
from searchspace.blocks import Block, bottleneck, chain, residual, whole_width
from searchspace.fields import choice, integer, multiplier

# Blocks of stages 2 to 5. 26 is the Octave paper's (arXiv 1904.05049), 200 that of He et al. 2016 (arXiv 1603.05027).
DEPTHS = {
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
BASIC = (18, 34)
BOTTLENECK = tuple(depth for depth in DEPTHS if depth not in BASIC)

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
    choice("depth", depth, DEPTHS)
    choice("stride_in", stride_in, STRIDE_IN)
    integer("expansion", expansion)
    if depth in BASIC and stride_in != "3x3":
        raise ArchitectureError(
            f"`stride_in` must be 3x3 at depths whose blocks have no 1x1, but got ({depth=}, {stride_in=})."
        )
    if depth in BASIC and expansion != 4:
        raise ArchitectureError(
            f"`expansion` must be left at depths whose blocks have no 1x1, but got ({depth=}, {expansion=})."
        )
    first = whole_width(64 * multiplier("width", width))
    if depth in BASIC:
        return _network(residual, first, first, depth, classes, input)
    block = partial(bottleneck, stride_in=STRIDE_IN[stride_in], expansion=expansion)
    return _network(block, first, expansion * first, depth, classes, input)


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
    choice("depth", depth, BOTTLENECK)
    inside = integer("groups", groups) * integer("width_per_group", width_per_group)
    block = partial(bottleneck, groups=groups, expansion=256 / inside)
    return _network(block, 64, 256, depth, classes, input)


def _network(block: Block, stem: int, out: int, depth: int, classes: int, input: tuple[int, ...]) -> Architecture:
    """A stem of width `stem`, a stage of `out` that keeps its size, stages that halve it and double `out`, a head."""

    def stage(number: int, count: int) -> Callable[[Shape], Chain]:
        one = partial(block, out=out * 2 ** (number - 2))
        first = partial(one, stride=1 if number == 2 else 2)
        return lambda into: chain(into, first, *[one] * (count - 1), label=f"stage{number}")

    body = chain(
        Architecture(input, Chain()).output,
        Chain((Conv(stem, 7, 2, label="stem"), Norm(), Activation(), Pool("max", 3, 2)), label="stem"),
        *(stage(number, count) for number, count in enumerate(DEPTHS[depth], 2)),
        Chain((AdaptivePool(), Flatten(), Linear(classes, label="classifier")), label="head"),
    )
    return Architecture(input, body)
