"""DenseNet's block: every layer reads what all layers before it made (Huang et al. 2016, arXiv 1608.06993)."""

from __future__ import annotations

from searchspace.architecture import ArchitectureError, Axes, Chain, Concat, Node, Shape
from searchspace.blocks.options import checked
from searchspace.blocks.pieces import (
    IDENTITY,
    NORM,
    activated,
    convolution,
    low_width,
    pooling,
    shuffled,
    spread,
    squeezed,
    strides,
    whole_width,
)


def dense_layer(
    growth: int,
    mid: int,
    *,
    kernel: Axes = 3,
    dilation: Axes = 1,
    groups: int = 1,
    shuffle: bool = False,
    low: int = 0,
    low_mid: int = 0,
    activation: str = "relu",
    bias: bool = False,
) -> Concat:
    """x beside f(x), f = norm, act, 1 x 1 to `mid`, norm, act, k x k to `growth`."""
    layer: list[Node] = [
        NORM,
        activated(activation),
        convolution(mid, low=low_mid, bias=bias, label="reduce"),
        NORM,
        activated(activation),
        *shuffled(shuffle, groups),
        convolution(growth, kernel, dilation=dilation, groups=groups, low=low, bias=bias, label="spatial"),
    ]
    return Concat((IDENTITY, Chain(tuple(layer))))


@checked
def dense(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    layers: int = 4,
    kernel: Axes = 3,
    expansion: float = 4.0,
    squeeze: float = 0.5,
    groups: int = 1,
    shuffle: bool = False,
    alpha: float = 0.0,
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
    bias: bool = False,
    pool: str = "average",
) -> Chain:
    """`layers` dense layers that grow the map to `out`, then norm and act.

    Where the block strides, or the input is already as wide, a transition comes first: 1 x 1 to `squeeze` * out,
    then pooling. A layer's inner width is `expansion` times its growth.
    """
    nodes: list[Node] = []
    start = into.channels
    if strides(stride) or into.channels >= out:
        start = whole_width(squeeze * out, groups)
        nodes.append(convolution(start, low=low_width(alpha, start, groups), bias=bias, label="transition"))
        if strides(stride):
            nodes.append(pooling(pool, stride, stride, padding=0, ceil=True))
    step = (out - start) // layers // groups * groups
    if step < 1:
        raise ArchitectureError(
            f"A dense block must grow by at least one channel (a group of them) in each layer, but got "
            f"({start=}, {out=}, {layers=}, {groups=}). Use fewer layers or a larger `out`."
        )
    wide = spread(kernel, dilation, len(into.space))
    for growth in (*[step] * (layers - 1), out - start - step * (layers - 1)):
        mid = whole_width(expansion * growth, groups)
        layer = dense_layer(
            growth,
            mid,
            kernel=kernel,
            dilation=wide,
            groups=groups,
            shuffle=shuffle,
            low=low_width(alpha, growth, groups),
            low_mid=low_width(alpha, mid, groups),
            activation=activation,
            bias=bias,
        )
        nodes.append(layer)
    return Chain((*nodes, NORM, activated(activation), *squeezed(squeeze_excite, out)), label="dense")
