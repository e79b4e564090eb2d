"""Xception (Chollet 2016, arXiv 1610.02357)."""

from __future__ import annotations

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Add,
    Architecture,
    Chain,
    Conv,
    Depthwise,
    Flatten,
    Linear,
    Node,
    Norm,
    Pool,
)

RELU, NORM = Activation(), Norm(1e-3)


def xception(*, classes: int = 1000, input: tuple[int, ...] = (3, 299, 299)) -> Architecture:
    """Depthwise separable convolutions with linear residuals: three strided blocks, eight at 728, one strided.

    Unlike in MobileNet nothing stands between depthwise and pointwise: one norm and one activation for the two.
    """
    stem = (Conv(32, 3, 2, 0, label="stem"), NORM, RELU, Conv(64, 3, 1, 0, label="stem"), NORM, RELU)
    entry = (
        _strided(*_separable(128), RELU, *_separable(128)),
        _strided(RELU, *_separable(256), RELU, *_separable(256)),
        _strided(RELU, *_separable(728), RELU, *_separable(728)),
    )
    middle = Add((Chain((RELU, *_separable(728)) * 3), Chain()))
    ending = (
        _strided(RELU, *_separable(728), RELU, *_separable(1024)),
        *(*_separable(1536), RELU),
        *(*_separable(2048), RELU),
    )
    body = Chain(
        (
            Chain(stem, label="stem"),
            Chain(entry, label="stage1"),
            Chain((middle,) * 8, label="stage2"),
            Chain(ending, label="stage3"),
            Chain((AdaptivePool(), Flatten(), Linear(classes, label="classifier")), label="head"),
        )
    )
    return Architecture(input, body)


def _separable(out: int) -> tuple[Node, ...]:
    return Depthwise(3, label="depthwise"), Conv(out, label="pointwise"), NORM


def _strided(*branch: Node) -> Add:
    """The branch with max pooling at its end, plus a strided projection to its width."""
    out = next(node.out for node in reversed(branch) if isinstance(node, Conv))
    return Add((Chain((*branch, Pool("max", 3, 2))), Chain((Conv(out, 1, 2, label="projection"), NORM))))
