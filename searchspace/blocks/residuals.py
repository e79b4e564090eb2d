"""Residual blocks: basic, bottleneck and inverted; each without its sum where `shortcut` is off."""

from __future__ import annotations

from searchspace.architecture import Axes, Chain, Node, Shape
from searchspace.blocks.options import checked
from searchspace.blocks.pieces import (
    activated,
    convolution,
    depthwise,
    grouped,
    low_width,
    shuffled,
    spatial,
    squeezed,
    strides,
    summed,
    unit,
    whole_width,
)


@checked
def residual(
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
    shortcut: bool = True,
) -> Chain:
    """Basic residual block: act(x + f(x)), f = two k x k convolutions (He et al. 2015, arXiv 1512.03385)."""
    groups = grouped(groups, separation)
    low = low_width(alpha, out, groups)
    first = spatial(
        into,
        out=out,
        low=low,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        factorization=factorization,
        separation=separation,
        activation=activation,
        bias=bias,
    )
    second = spatial(
        Shape(out, into.space, low),
        out=out,
        low=low,
        kernel=kernel,
        dilation=dilation,
        groups=groups,
        factorization=factorization,
        separation=separation,
        activation=activation,
        linear=True,
        bias=bias,
    )
    branch = Chain((*first, *shuffled(shuffle, groups), *second, *squeezed(squeeze_excite, out)))
    sum_ = summed(branch, into, out, low, stride, bias, shortcut)
    return Chain((sum_, activated(activation)), label="residual")


@checked
def bottleneck(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    kernel: Axes = 3,
    expansion: float = 4.0,
    groups: int = 1,
    shuffle: bool = False,
    alpha: float = 0.0,
    factorization: str = "none",
    separation: str = "none",
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
    bias: bool = False,
    shortcut: bool = True,
    stride_in: str = "spatial",
) -> Chain:
    """Residual bottleneck: act(x + f(x)), f = 1 x 1 to out / `expansion`, k x k in `groups`, 1 x 1 to out.

    With groups it is ResNeXt's (Xie et al. 2016, arXiv 1611.05431). The stride is on the k x k convolution, or on
    the first 1 x 1 (`stride_in` "reduce", as He et al. print it).
    """
    groups = grouped(groups, separation)
    mid = whole_width(out / expansion, groups)
    low, low_mid = low_width(alpha, out), low_width(alpha, mid, groups)
    early, late = (stride, 1) if stride_in == "reduce" else (1, stride)
    branch = Chain(
        (
            *unit(convolution(mid, 1, early, low=low_mid, bias=bias, label="reduce"), activation),
            *spatial(
                Shape(mid, into.space, low_mid),
                out=mid,
                low=low_mid,
                kernel=kernel,
                stride=late,
                dilation=dilation,
                groups=groups,
                factorization=factorization,
                separation=separation,
                activation=activation,
                bias=bias,
            ),
            *shuffled(shuffle, groups),
            *unit(convolution(out, low=low, bias=bias, label="restore"), None),
            *squeezed(squeeze_excite, out),
        )
    )
    sum_ = summed(branch, into, out, low, stride, bias, shortcut)
    return Chain((sum_, activated(activation)), label="bottleneck")


@checked
def inverted_residual(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    kernel: Axes = 3,
    expansion: float = 6.0,
    groups: int = 1,
    shuffle: bool = False,
    alpha: float = 0.0,
    factorization: str = "none",
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu6",
    bias: bool = False,
    shortcut: bool = True,
) -> Chain:
    """x + f(x), f = 1 x 1 to in * `expansion`, depthwise k x k, linear 1 x 1 (Sandler et al. 2018, arXiv 1801.04381).

    No expansion where it is 1; no sum where shapes differ. Both 1 x 1 convolutions are in `groups`.
    """
    mid = whole_width(into.channels * expansion, groups)
    low, low_mid = low_width(alpha, out, groups), low_width(alpha, mid, groups)
    expand: list[Node] = []
    shape = into
    if expansion != 1:
        conv = convolution(mid, groups=groups, low=low_mid, bias=bias, label="expand")
        expand = [*unit(conv, activation), *shuffled(shuffle, groups)]
        shape = Shape(mid, into.space, low_mid)
    branch = Chain(
        (
            *expand,
            *depthwise(
                shape,
                kernel=kernel,
                stride=stride,
                dilation=dilation,
                factorization=factorization,
                activation=activation,
                bias=bias,
            ),
            *squeezed(squeeze_excite, shape.channels),
            *unit(convolution(out, groups=groups, low=low, bias=bias, label="project"), None),
        )
    )
    wanted = shortcut and not strides(stride) and (into.channels, into.low) == (out, low)
    return Chain((summed(branch, into, out, low, stride, bias, wanted),), label="inverted_residual")
