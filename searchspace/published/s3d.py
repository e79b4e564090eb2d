"""S3D (Xie et al. 2017, arXiv 1712.04851)."""

from __future__ import annotations

from collections.abc import Callable

from searchspace.architecture import (
    AdaptivePool,
    Architecture,
    Chain,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Pool,
    Shape,
)
from searchspace.blocks import chain, spatial, unit
from searchspace.published.clip import clip, fitting_pool
from searchspace.published.googlenet import MODULES
from searchspace.transforms import renorm


def s3d(*, classes: int = 400, input: tuple[int, ...] = (3, 64, 224, 224)) -> Architecture:
    """GoogLeNet's widths on clips; every k x k x k convolution is 1 x k x k, then k x 1 x 1, also 3 where it has 5.

    As torchvision has it: the last window is 2 x 7 x 7, and the classifier a convolution averaged over what is left.
    """
    flat_pool = Pool("max", (1, 3, 3), (1, 2, 2))
    network = chain(
        clip(input),
        lambda into: chain(into, _separable(64, 7, 2), flat_pool, _pointwise(64), _separable(192), label="stem"),
        lambda into: chain(into, flat_pool, _module("3a"), _module("3b"), label="stage3"),
        lambda into: chain(into, Pool("max", 3, 2), *(_module(f"4{x}") for x in "abcde"), label="stage4"),
        lambda into: chain(into, fitting_pool("max", 2, 2), _module("5a"), _module("5b"), label="stage5"),
        lambda into: chain(
            into,
            fitting_pool("average", (2, 7, 7), 1),
            Dropout(0.2),
            Conv(classes, bias=True, label="classifier"),
            AdaptivePool(),
            Flatten(),
            label="head",
        ),
    )
    return renorm(Architecture(input, network), 1e-3)


def _pointwise(out: int) -> Chain:
    return Chain(tuple(unit(Conv(out, label="pointwise"), "relu")))


def _separable(out: int, kernel: int = 3, stride: int = 1) -> Callable[[Shape], Chain]:
    return lambda into: Chain(tuple(spatial(into, out=out, kernel=kernel, stride=stride, factorization="p3d_a")))


def _module(name: str) -> Callable[[Shape], Chain]:
    """Four branches side by side: 1 x 1 x 1, two separable ones behind a 1 x 1 x 1, and pooling before one."""
    one, before_three, three, before_five, five, pooled = MODULES[name]

    def module(into: Shape) -> Chain:
        branches = (
            _pointwise(one),
            chain(into, _pointwise(before_three), _separable(three)),
            chain(into, _pointwise(before_five), _separable(five)),
            chain(into, Pool("max", 3, 1), _pointwise(pooled)),
        )
        return Chain((Concat(branches),), label=name)

    return module
