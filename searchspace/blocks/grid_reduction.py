"""The grid reduction of the Inception networks: half the map, more channels, in three forms."""

from __future__ import annotations

from searchspace.architecture import ArchitectureError, Axes, Chain, Concat, Shape
from searchspace.blocks.options import checked
from searchspace.blocks.pieces import grouped, low_width, pooling, shuffled, spatial, squeezed, strides


@checked
def grid_reduction(
    into: Shape,
    *,
    out: int,
    stride: Axes = 2,
    kernel: Axes = 3,
    reduction: str = "parallel",
    pool: str = "max",
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
    """From a map to one 1 / `stride` its size with `out` channels (Szegedy et al. 2015, arXiv 1512.00567, figure 10).

    "conv_pool": a convolution, then pooling: the map stays rich, at four times the cost. "pool_conv": pooling first,
    cheap, a representational bottleneck. "parallel": a strided convolution beside pooling, which must widen.
    Without a stride it is a convolution.
    """
    groups = grouped(groups, separation)
    beside = reduction == "parallel" and strides(stride)
    low = low_width(alpha, out, groups)
    rest, rest_low = (out - into.channels, low - into.low) if beside else (out, low)
    if not (rest > 0 and 0 <= rest_low <= rest):
        raise ArchitectureError(
            f"A parallel grid reduction must widen, in both frequencies, but got (into={into}, {out=}, {low=}). "
            f"Use a larger `out` or another `reduction`."
        )
    conv = spatial(
        into,
        out=rest,
        low=rest_low,
        kernel=kernel,
        stride=stride if beside else 1,
        dilation=dilation,
        groups=groups,
        factorization=factorization,
        separation=separation,
        activation=activation,
        bias=bias,
    )
    nodes = (*conv, *shuffled(shuffle, groups))
    tail = squeezed(squeeze_excite, out)
    if not strides(stride):
        return Chain((*nodes, *tail), label="grid_reduction")
    pooled = pooling(pool, 3, stride)
    if beside:
        return Chain((Concat((Chain(nodes), pooled)), *tail), label="grid_reduction")
    order = (*nodes, pooled) if reduction == "conv_pool" else (pooled, *nodes)
    return Chain((*order, *tail), label="grid_reduction")
