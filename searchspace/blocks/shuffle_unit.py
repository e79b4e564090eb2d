"""ShuffleNet's block."""

from __future__ import annotations

from searchspace.architecture import (
    Add,
    ArchitectureError,
    Axes,
    Chain,
    Concat,
    Node,
    Shape,
)
from searchspace.blocks.options import checked
from searchspace.blocks.pieces import (
    IDENTITY,
    activated,
    convolution,
    depthwise,
    low_width,
    pooling,
    shuffled,
    squeezed,
    strides,
    unit,
    whole_width,
)


@checked
def shuffle_unit(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    kernel: Axes = 3,
    expansion: float = 4.0,
    groups: int = 1,
    shuffle: bool = True,
    alpha: float = 0.0,
    factorization: str = "none",
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
    bias: bool = False,
    pool: str = "average",
) -> Chain:
    """Grouped 1 x 1 to out / `expansion`, shuffle, depthwise k x k, grouped 1 x 1 (Zhang et al., arXiv 1707.01083).

    Where shapes allow it the input is added; where the block strides or widens, the pooled input is concatenated
    and the branch makes the rest.
    """
    mid = whole_width(out / expansion, groups)
    low_mid, low = low_width(alpha, mid, groups), low_width(alpha, out, groups)
    together = not strides(stride) and (into.channels, into.low) == (out, low)
    rest, rest_low = (out, low) if together else (out - into.channels, low - into.low)
    if not together and not (rest > 0 and 0 <= rest_low <= rest):
        raise ArchitectureError(
            f"A shuffle unit that strides or changes shape must widen, in both frequencies, but got "
            f"(into={into}, {out=}, {low=})."
        )
    branch = Chain(
        (
            *unit(convolution(mid, groups=groups, low=low_mid, bias=bias, label="reduce"), activation),
            *shuffled(shuffle, groups),
            *depthwise(
                Shape(mid, into.space, low_mid),
                kernel=kernel,
                stride=stride,
                dilation=dilation,
                factorization=factorization,
                activation=None,
                bias=bias,
            ),
            *unit(convolution(rest, groups=groups, low=rest_low, bias=bias, label="restore"), None),
            *squeezed(squeeze_excite, rest),
        )
    )
    pooled = Chain((pooling(pool, 3, stride),)) if strides(stride) else IDENTITY
    join: Node = Add((branch, IDENTITY)) if together else Concat((pooled, branch))
    return Chain((join, activated(activation)), label="shuffle_unit")
