"""Inception-v3 (Szegedy et al. 2015, arXiv 1512.00567) as released: the paper's table has another stem."""

from __future__ import annotations

from typing import Literal

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    ArchitectureError,
    Axes,
    Chain,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Linear,
    Node,
    Norm,
    Pool,
    Shape,
    Tap,
)
from searchspace.blocks import chain
from searchspace.fields import integer, switch


def inception_v3(
    *,
    n: int = 7,
    pool: str = "average",
    aux: bool = True,
    classes: int = 1000,
    input: tuple[int, ...] = (3, 299, 299),
) -> Architecture:
    """Three modules A, a reduction, four modules B of 1 x `n` and `n` x 1, a reduction, two modules C.

    `pool` is the kind of the modules' pooling branches; `aux` the auxiliary head, which has norms here.
    """
    if integer("n", n) % 2 == 0:
        raise ArchitectureError(f"`n` must be odd, since 1 x n and n x 1 keep the size of their map, but got {n}.")
    stem = (
        *_conv(32, "stem", 3, 2, 0),
        *_conv(32, "stem", 3, padding=0),
        *_conv(64, "stem", 3),
        Pool("max", 3, 2, padding=0),
        *_conv(80, "stem"),
        *_conv(192, "stem", 3, padding=0),
        Pool("max", 3, 2, padding=0),
    )
    fifth = [inception_a(projected, pool, label) for projected, label in ((32, "5b"), (64, "5c"), (64, "5d"))]
    sixth = [
        inception_b(inner, n, pool, label) for inner, label in ((128, "6b"), (160, "6c"), (160, "6d"), (192, "6e"))
    ]
    seventh = [inception_c(pool, label) for label in ("7b", "7c")]
    body = chain(
        Architecture(input, Chain()).output,
        Chain(stem, label="stem"),
        Chain(tuple(fifth), label="stage5"),
        Chain((reduction_a("6a"), *sixth), label="stage6"),
        (lambda into: _auxiliary(into, classes)) if switch("aux", aux) else Chain(),
        Chain((reduction_b(n, "7a"), *seventh), label="stage7"),
        Chain((AdaptivePool(), Dropout(), Flatten(), Linear(classes, label="classifier")), label="head"),
    )
    return Architecture(input, body)


def inception_a(projected: int, pool: str, label: str) -> Chain:
    """1 x 1, 5 x 5, a 5 x 5 as two 3 x 3, and pooling to `projected` channels, for the finest grid."""
    return _module(
        label,
        _conv(64, "pointwise"),
        (*_conv(48, "reduce"), *_conv(64, "spatial", 5)),
        (*_conv(64, "reduce"), *_conv(96, "spatial", 3), *_conv(96, "spatial", 3)),
        (Pool(pool, 3, 1), *_conv(projected, "project")),
    )


def inception_b(inner: int, n: int, pool: str, label: str) -> Chain:
    """1 x 1, an n x n and two n x n as 1 x n and n x 1 through `inner` channels, and pooling, 192 channels each."""
    across, down = (1, n), (n, 1)
    return _module(
        label,
        _conv(192, "pointwise"),
        (*_conv(inner, "reduce"), *_conv(inner, "spatial", across), *_conv(192, "spatial", down)),
        (
            *_conv(inner, "reduce"),
            *_conv(inner, "spatial", down),
            *_conv(inner, "spatial", across),
            *_conv(inner, "spatial", down),
            *_conv(192, "spatial", across),
        ),
        (Pool(pool, 3, 1), *_conv(192, "project")),
    )


def inception_c(pool: str, label: str) -> Chain:
    """1 x 1, and 3 x 3 whose last layer is 1 x 3 beside 3 x 1: wide outputs for the coarsest grid."""
    pair = Concat((Chain(_conv(384, "spatial", (1, 3))), Chain(_conv(384, "spatial", (3, 1)))))
    return _module(
        label,
        _conv(320, "pointwise"),
        (*_conv(384, "reduce"), pair),
        (*_conv(448, "reduce"), *_conv(384, "spatial", 3), pair),
        (Pool(pool, 3, 1), *_conv(192, "project")),
    )


def reduction_a(label: str) -> Chain:
    """The grid halved by convolutions and pooling in parallel, neither a bottleneck nor costly."""
    return _module(
        label,
        _conv(384, "spatial", 3, 2, 0),
        (*_conv(64, "reduce"), *_conv(96, "spatial", 3), *_conv(96, "spatial", 3, 2, 0)),
        (Pool("max", 3, 2, padding=0),),
    )


def reduction_b(n: int, label: str) -> Chain:
    """The same, with an n x n as 1 x n and n x 1 before one of the strided convolutions."""
    return _module(
        label,
        (*_conv(192, "reduce"), *_conv(320, "spatial", 3, 2, 0)),
        (
            *_conv(192, "reduce"),
            *_conv(192, "spatial", (1, n)),
            *_conv(192, "spatial", (n, 1)),
            *_conv(192, "spatial", 3, 2, 0),
        ),
        (Pool("max", 3, 2, padding=0),),
    )


def _auxiliary(into: Shape, classes: int) -> Tap:
    """The head on the 17 x 17 grid; its windows are at most the map, which small inputs make small."""

    def window(into: Shape) -> tuple[int, ...]:
        return tuple(min(5, size) for size in into.space)

    head = chain(
        into,
        Pool("average", window(into), 3, padding=0),
        *_conv(128, "reduce"),
        lambda into: Chain(_conv(768, "spatial", window(into), padding=0)),
        *(AdaptivePool(), Flatten(), Linear(classes, label="classifier")),
    )
    return Tap(head, 0.4)


def _module(label: str, *branches: tuple[Node, ...]) -> Chain:
    return Chain((Concat(tuple(Chain(branch) for branch in branches)),), label=label)


def _conv(
    out: int, label: str, kernel: Axes = 1, stride: Axes = 1, padding: Axes | Literal["same"] = "same"
) -> tuple[Node, ...]:
    return Conv(out, kernel, stride, padding, label=label), Norm(1e-3), Activation()
