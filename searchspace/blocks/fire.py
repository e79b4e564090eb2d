"""SqueezeNet's block."""

from __future__ import annotations

from searchspace.architecture import ArchitectureError, Axes, Chain, Concat, Shape
from searchspace.blocks.options import checked
from searchspace.blocks.pieces import (
    convolution,
    low_width,
    pooling,
    shuffled,
    spatial,
    squeezed,
    strides,
    unit,
    whole_width,
)


@checked
def fire(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    kernel: Axes = 3,
    squeeze: float = 0.125,
    groups: int = 1,
    shuffle: bool = False,
    alpha: float = 0.0,
    factorization: str = "none",
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
    bias: bool = False,
    pool: str = "max",
) -> Chain:
    """1 x 1 to `squeeze` * out, then 1 x 1 beside k x k, half of out each (Iandola et al. 2016, arXiv 1602.07360).

    A stride is pooling before the block. `groups` are those of the k x k convolution.
    """
    if out % 2:
        raise ArchitectureError(f"`out` of a fire block must be even, but got {out}.")
    narrow, half = whole_width(squeeze * out, groups), out // 2
    low_narrow, low = low_width(alpha, narrow, groups), low_width(alpha, half, groups)
    wide = spatial(
        Shape(narrow, into.space, low_narrow),
        out=half,
        low=low,
        kernel=kernel,
        dilation=dilation,
        groups=groups,
        factorization=factorization,
        activation=activation,
        bias=bias,
    )
    pooled = [pooling(pool, 3, stride)] if strides(stride) else []
    point = Chain(tuple(unit(convolution(half, low=low, bias=bias, label="pointwise"), activation)))
    return Chain(
        (
            *pooled,
            *unit(convolution(narrow, low=low_narrow, bias=bias, label="reduce"), activation),
            Concat((point, Chain((*wide, *shuffled(shuffle, groups))))),
            *squeezed(squeeze_excite, out),
        ),
        label="fire",
    )
