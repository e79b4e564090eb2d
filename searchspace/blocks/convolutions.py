"""Blocks without a shortcut: one convolution, and its depthwise separable form."""

from __future__ import annotations

from searchspace.architecture import Axes, Chain, Shape
from searchspace.blocks.options import checked
from searchspace.blocks.pieces import convolution, depthwise, grouped, low_width, shuffled, spatial, squeezed, unit


@checked
def plain(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    kernel: Axes = 3,
    groups: int = 1,
    shuffle: bool = False,
    alpha: float = 0.0,
    factorization: str = "none",
    separation: str = "none",
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
    bias: bool = False,
) -> Chain:
    """One k x k convolution: f(x)."""
    groups = grouped(groups, separation)
    conv = spatial(
        into,
        out=out,
        low=low_width(alpha, out, groups),
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        factorization=factorization,
        separation=separation,
        activation=activation,
        bias=bias,
    )
    return Chain((*conv, *shuffled(shuffle, groups), *squeezed(squeeze_excite, out)), label="plain")


@checked
def depthwise_separable(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    kernel: Axes = 3,
    groups: int = 1,
    shuffle: bool = False,
    alpha: float = 0.0,
    factorization: str = "none",
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
    bias: bool = False,
) -> Chain:
    """Depthwise k x k, then 1 x 1 to out in `groups` (Howard et al. 2017, arXiv 1704.04861)."""
    conv = depthwise(
        into,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        factorization=factorization,
        activation=activation,
        bias=bias,
    )
    low = low_width(alpha, out, groups)
    point = unit(convolution(out, groups=groups, low=low, bias=bias, label="pointwise"), activation)
    tail = (*shuffled(shuffle, groups), *squeezed(squeeze_excite, out))
    return Chain((*conv, *point, *tail), label="depthwise_separable")
