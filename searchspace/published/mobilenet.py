"""MobileNets: depthwise separable convolutions, all widths under one multiplier; `input` is the other, resolution.

v1: Howard et al. 2017, arXiv 1704.04861. v2: Sandler et al. 2018, arXiv 1801.04381. v3: Howard et al. 2019,
arXiv 1905.02244. A stage is a run of blocks of one width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    Chain,
    Conv,
    Depthwise,
    Dropout,
    Flatten,
    Linear,
    Node,
    Shape,
    SqueezeExcite,
)
from searchspace.blocks import chain, depthwise_separable, inverted_residual, unit
from searchspace.fields import choice, multiplier
from searchspace.transforms import renorm

Fragment = Callable[[Shape], Chain]
Scaling = Callable[[int], int]
Row = tuple[int, int, int, bool, str, int]

RE, HS = "relu", "hardswish"

# Width, stride.
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))

# Expansion, width, blocks, stride of the first.
V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

# Width, expanded width, kernel, squeeze-excite, activation, stride.
V3: dict[str, tuple[Row, ...]] = {
    "large": (
        (16, 16, 3, False, RE, 1),
        (24, 64, 3, False, RE, 2),
        (24, 72, 3, False, RE, 1),
        (40, 72, 5, True, RE, 2),
        (40, 120, 5, True, RE, 1),
        (40, 120, 5, True, RE, 1),
        (80, 240, 3, False, HS, 2),
        (80, 200, 3, False, HS, 1),
        (80, 184, 3, False, HS, 1),
        (80, 184, 3, False, HS, 1),
        (112, 480, 3, True, HS, 1),
        (112, 672, 3, True, HS, 1),
        (160, 672, 5, True, HS, 2),
        (160, 960, 5, True, HS, 1),
        (160, 960, 5, True, HS, 1),
    ),
    "small": (
        (16, 16, 3, True, RE, 2),
        (24, 72, 3, False, RE, 2),
        (24, 88, 3, False, RE, 1),
        (40, 96, 5, True, HS, 2),
        (40, 240, 5, True, HS, 1),
        (40, 240, 5, True, HS, 1),
        (48, 120, 5, True, HS, 1),
        (48, 144, 5, True, HS, 1),
        (96, 288, 5, True, HS, 2),
        (96, 576, 5, True, HS, 1),
        (96, 576, 5, True, HS, 1),
    ),
}
V3_HIDDEN = {"large": 1280, "small": 1024}


def truncated(width: float) -> int:
    """`width` without its fraction, at least 1."""
    return max(1, int(width))


def divisible(width: float) -> int:
    """The multiple of 8 nearest to `width`, halves up, at least 8; one more where that is under 90% of `width`."""
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * width else nearest + 8


V2_WIDTHS = {"torchvision": divisible, "gluon": truncated}


def mobilenet_v1(*, width: float = 1.0, classes: int = 1000, input: tuple[int, ...] = (3, 224, 224)) -> Architecture:
    """A 3 x 3 convolution, then 13 depthwise separable ones, "block1" to "block13"; widths truncated.

    The last depthwise convolution keeps its map: the paper's table prints a stride there that its costs do not have.
    """
    scaled = _scaling(width, truncated)

    def block(number: int, out: int, stride: int) -> Fragment:
        return lambda into: replace(depthwise_separable(into, out=out, stride=stride), label=f"block{number}")

    blocks = [(out, block(i, scaled(out), stride)) for i, (out, stride) in enumerate(V1, 1)]
    stages = [[fragment for _, fragment in run] for _, run in groupby(blocks, lambda block: block[0])]
    return _network(input, _stem(scaled(32), RE), stages, _head(Linear(classes, label="classifier")))


def mobilenet_v2(
    *,
    width: float = 1.0,
    variant: str = "torchvision",
    classes: int = 1000,
    input: tuple[int, ...] = (3, 224, 224),
) -> Architecture:
    """Inverted residuals between narrow, linear maps, with ReLU6; the last 1 x 1 is not made narrower.

    Widths are multiples of 8. In "gluon", from which the Octave paper starts, they are truncated, and the first block
    has a 1 x 1 expansion although it does not widen.
    """
    rule = V2_WIDTHS[choice("variant", variant, V2_WIDTHS)]
    scaled = _scaling(width, rule)
    stem, last = scaled(32), rule(1280 * max(1.0, width))
    stages: list[list[Node | Fragment]] = []
    for expansion, out, count, stride in V2:
        one = partial(inverted_residual, out=scaled(out), expansion=expansion)
        stages.append([partial(one, stride=stride), *[one] * (count - 1)])
    if variant == "gluon":
        stages[0] = [*unit(Conv(stem, label="expand"), "relu6"), *stages[0]]
    wide = unit(Conv(last, label="pointwise"), "relu6")
    head = _head(Dropout(0.2), Linear(classes, label="classifier"), before=wide)
    return _network(input, _stem(stem, "relu6"), stages, head)


def mobilenet_v3(
    *, size: str = "large", width: float = 1.0, classes: int = 1000, input: tuple[int, ...] = (3, 224, 224)
) -> Architecture:
    """Inverted residuals found by search, some with squeeze-excite, hard-swish in the deeper ones, a hidden layer.

    As in torchvision every width is a multiple of 8, the hidden layer's too, and norms have eps 1e-3.
    """
    choice("size", size, V3)
    scaled = _scaling(width, divisible)
    stages = [
        [partial(_block, row=row, scaled=scaled) for row in run] for _, run in groupby(V3[size], lambda row: row[0])
    ]
    wide = unit(Conv(6 * scaled(V3[size][-1][0]), label="pointwise"), HS)
    hidden = (Linear(scaled(V3_HIDDEN[size])), Activation(HS), Dropout(0.2))
    head = _head(*hidden, Linear(classes, label="classifier"), before=wide)
    return renorm(_network(input, _stem(scaled(16), HS), stages, head), 1e-3)


def _block(into: Shape, row: Row, scaled: Scaling) -> Chain:
    """x + f(x), f = 1 x 1, depthwise, perhaps squeeze-excite to a quarter under a hard sigmoid, linear 1 x 1.

    No first 1 x 1 where it would not widen; no sum where shapes differ.
    """
    width, expanded, kernel, squeezed, activation, stride = row
    out, mid = scaled(width), scaled(expanded)
    branch = Chain(
        (
            *(unit(Conv(mid, label="expand"), activation) if mid != into.channels else ()),
            *unit(Depthwise(kernel, stride, label="depthwise"), activation),
            *((SqueezeExcite(divisible(mid // 4), gate="hardsigmoid"),) if squeezed else ()),
            *unit(Conv(out, label="project"), None),
        )
    )
    same = stride == 1 and into.channels == out
    return Chain((Add((branch, Chain())) if same else branch,), label="inverted_residual")


def _scaling(width: float, rule: Callable[[float], int]) -> Scaling:
    multiplier("width", width)
    return lambda channels: rule(channels * width)


def _stem(out: int, activation: str) -> Chain:
    return Chain(tuple(unit(Conv(out, 3, 2, label="stem"), activation)), label="stem")


def _head(*after: Node, before: Iterable[Node] = ()) -> Chain:
    return Chain((*before, AdaptivePool(), Flatten(), *after), label="head")


def _network(
    input: tuple[int, ...], stem: Chain, stages: Sequence[Sequence[Node | Fragment]], head: Chain
) -> Architecture:
    def stage(number: int, parts: Sequence[Node | Fragment]) -> Fragment:
        return lambda into: chain(into, *parts, label=f"stage{number}")

    numbered = [stage(i, parts) for i, parts in enumerate(stages, 1)]
    return Architecture(input, chain(Architecture(input, Chain()).output, stem, *numbered, head))
