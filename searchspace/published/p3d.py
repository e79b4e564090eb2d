"""P3D, pseudo-3D residual networks (Qiu et al. 2017, arXiv 1711.10305)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import cycle

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    Chain,
    Conv,
    Dropout,
    Flatten,
    Linear,
    Norm,
    Shape,
)
from searchspace.blocks import bottleneck, chain
from searchspace.fields import choice
from searchspace.published.clip import clip, fitting_pool

# Blocks of stages 2 to 5; the depth counts the temporal convolutions of the first three too.
DEPTHS = {63: (3, 4, 6, 3), 131: (3, 4, 23, 3), 199: (3, 8, 36, 3)}


def p3d(*, depth: int = 199, classes: int = 101, input: tuple[int, ...] = (3, 16, 160, 160)) -> Architecture:
    """Bottleneck ResNet whose 3 x 3 x 3 is S = 1 x 3 x 3 with T = 3 x 1 x 1, cycling T(S), S + T and S + T(S).

    Strides are on the image alone, in the first 1 x 1 x 1; pooling by 2 halves time after each stage; stage 5 is 2D.
    """
    choice("depth", depth, DEPTHS)
    kinds = cycle(("p3d_a", "p3d_b", "p3d_c"))

    def stage(number: int, count: int) -> Callable[[Shape], Chain]:
        block = partial(bottleneck, out=2 ** (number + 6), kernel=(1, 3, 3) if number == 5 else 3, stride_in="reduce")
        strides = [(1, 2, 2) if number > 2 else 1, *[1] * (count - 1)]
        blocks = [partial(block, stride=stride, factorization=kind) for stride, kind in zip(strides, kinds)]
        halving = [] if number == 5 else [fitting_pool("max", (2, 1, 1), (2, 1, 1))]
        return lambda into: chain(into, *blocks, *halving, label=f"stage{number}")

    stem = Conv(64, (1, 7, 7), (1, 2, 2), label="stem")
    network = chain(
        clip(input),
        lambda into: chain(
            into, stem, Norm(), Activation(), fitting_pool("max", (2, 3, 3), 2, (0, 1, 1)), label="stem"
        ),
        *(stage(number, count) for number, count in enumerate(DEPTHS[depth], 2)),
        Chain((AdaptivePool(), Flatten(), Dropout(0.5), Linear(classes, label="classifier")), label="head"),
    )
    return Architecture(input, network)
