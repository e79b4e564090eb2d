"""Inception modules A, B and C: four branches side by side (Szegedy et al. 2015, arXiv 1512.00567, figures 5 to 7).

Each branch makes a quarter of `out`, the pooling branch what is left; inner convolutions are `squeeze` of a quarter
wide. A stride is a grid reduction before the module.
"""

from __future__ import annotations

from collections.abc import Callable

from searchspace.architecture import ArchitectureError, Axes, Chain, Concat, Node, Shape
from searchspace.blocks.grid_reduction import grid_reduction
from searchspace.blocks.options import checked
from searchspace.blocks.pieces import (
    convolution,
    factorized,
    low_width,
    pooling,
    shuffled,
    spatial,
    squeezed,
    strides,
    unit,
    whole_width,
)

_Layer = Callable[..., list[Node]]


class _Module:
    """What the branches of one module share: how to make a 1 x 1 and an n x n convolution of a width."""

    def __init__(
        self,
        *,
        out: int,
        squeeze: float,
        groups: int,
        shuffle: bool,
        alpha: float,
        dilation: Axes,
        activation: str,
        bias: bool,
    ) -> None:
        self.quarter = whole_width(out / 4, groups)
        self.inner = whole_width(squeeze * self.quarter, groups)
        self.rest = out - 3 * self.quarter
        if self.rest < 1:
            raise ArchitectureError(f"`out` of an Inception module must leave its four branches channels, got {out}.")
        self.groups, self.shuffle, self.alpha = groups, shuffle, alpha
        self.dilation, self.activation, self.bias = dilation, activation, bias

    def point(self, width: int, label: str = "reduce") -> list[Node]:
        conv = convolution(width, low=low_width(self.alpha, width, self.groups), bias=self.bias, label=label)
        return [*unit(conv, self.activation)]

    def three(self, into: Shape, width: int) -> list[Node]:
        """A 3 x 3 convolution that neither kernel nor dilation changes."""
        return self.wide(into, width, 3, dilation=1)

    def wide(
        self, into: Shape, width: int, kernel: Axes, factorization: str = "none", dilation: Axes | None = None
    ) -> list[Node]:
        conv = spatial(
            into,
            out=width,
            low=low_width(self.alpha, width, self.groups),
            kernel=kernel,
            dilation=self.dilation if dilation is None else dilation,
            groups=self.groups,
            factorization=factorization,
            activation=self.activation,
            bias=self.bias,
        )
        return [*conv, *shuffled(self.shuffle, self.groups)]

    def shape(self, into: Shape, width: int) -> Shape:
        return Shape(width, into.space, low_width(self.alpha, width, self.groups))

    def joined(self, branches: list[list[Node]], pool: str) -> Concat:
        """The branches between the 1 x 1 one and the pooling one."""
        pooled: list[Node] = [pooling(pool, 3, 1), *self.point(self.rest, "project")]
        return Concat(tuple(Chain(tuple(b)) for b in (self.point(self.quarter, "pointwise"), *branches, pooled)))


@checked
def inception_a(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    kernel: Axes = 5,
    squeeze: float = 0.75,
    pool: str = "average",
    reduction: str = "parallel",
    groups: int = 1,
    shuffle: bool = False,
    alpha: float = 0.0,
    factorization: str = "none",
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
    bias: bool = False,
) -> Chain:
    """1 x 1 beside 1 x 1, k x k beside 1 x 1, 3 x 3, 3 x 3 beside pooling, 1 x 1; "stacked" it is figure 5's."""
    module = _Module(
        out=out,
        squeeze=squeeze,
        groups=groups,
        shuffle=shuffle,
        alpha=alpha,
        dilation=dilation,
        activation=activation,
        bias=bias,
    )
    inner = module.shape(into, module.inner)
    quarter = module.shape(into, module.quarter)
    branches = [
        [*module.point(module.inner), *module.wide(inner, module.quarter, kernel, factorization)],
        [
            *module.point(module.inner),
            *module.three(inner, module.quarter),
            *module.three(quarter, module.quarter),
        ],
    ]
    return _after_reduction(into, module, branches, out, stride, pool, reduction, squeeze_excite, "inception_a")


@checked
def inception_b(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    kernel: Axes = 7,
    squeeze: float = 0.75,
    pool: str = "average",
    reduction: str = "parallel",
    groups: int = 1,
    shuffle: bool = False,
    alpha: float = 0.0,
    factorization: str = "asymmetric",
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
    bias: bool = False,
) -> Chain:
    """1 x 1 beside 1 x 1, n x n beside 1 x 1, n x n, n x n beside pooling, 1 x 1; each n x n as 1 x n, n x 1."""
    module = _Module(
        out=out,
        squeeze=squeeze,
        groups=groups,
        shuffle=shuffle,
        alpha=alpha,
        dilation=dilation,
        activation=activation,
        bias=bias,
    )
    inner = module.shape(into, module.inner)
    last = module.wide(inner, module.quarter, kernel, factorization)
    branches = [
        [*module.point(module.inner), *last],
        [*module.point(module.inner), *module.wide(inner, module.inner, kernel, factorization), *last],
    ]
    return _after_reduction(into, module, branches, out, stride, pool, reduction, squeeze_excite, "inception_b")


@checked
def inception_c(
    into: Shape,
    *,
    out: int,
    stride: Axes = 1,
    kernel: Axes = 3,
    squeeze: float = 1.0,
    pool: str = "average",
    reduction: str = "parallel",
    groups: int = 1,
    shuffle: bool = False,
    alpha: float = 0.0,
    dilation: Axes = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
    bias: bool = False,
) -> Chain:
    """1 x 1 beside 1 x 1, {1 x n, n x 1} beside 1 x 1, 3 x 3, {1 x n, n x 1} beside pooling, 1 x 1.

    The pair in braces reads one map and is concatenated: the expanded filter bank of the coarsest grid.
    """
    module = _Module(
        out=out,
        squeeze=squeeze,
        groups=groups,
        shuffle=shuffle,
        alpha=alpha,
        dilation=dilation,
        activation=activation,
        bias=bias,
    )
    inner = module.shape(into, module.inner)
    sizes = [size for size, _ in factorized(kernel, 1, len(into.space), "asymmetric", False)]
    half = whole_width(module.quarter / 2, groups)
    if len(sizes) == 2 and half >= module.quarter:
        raise ArchitectureError(f"`out` of an Inception module C must leave its split channels, but got {out}.")
    widths = (half, module.quarter - half) if len(sizes) == 2 else (module.quarter,)
    split = Concat(tuple(Chain(tuple(module.wide(inner, w, k))) for w, k in zip(widths, sizes, strict=True)))
    branches: list[list[Node]] = [
        [*module.point(module.inner), split],
        [*module.point(module.inner), *module.three(inner, module.inner), split],
    ]
    return _after_reduction(into, module, branches, out, stride, pool, reduction, squeeze_excite, "inception_c")


def _after_reduction(
    into: Shape,
    module: _Module,
    branches: list[list[Node]],
    out: int,
    stride: Axes,
    pool: str,
    reduction: str,
    squeeze_excite: float,
    label: str,
) -> Chain:
    """The module, behind a grid reduction to `out` channels where it strides."""
    tail = squeezed(squeeze_excite, out)
    if not strides(stride):
        return Chain((module.joined(branches, pool), *tail), label=label)
    reduced = grid_reduction(
        into,
        out=out,
        stride=stride,
        reduction=reduction,
        groups=module.groups,
        shuffle=module.shuffle,
        alpha=module.alpha,
        activation=module.activation,
        bias=module.bias,
    )
    return Chain((reduced, module.joined(branches, pool), *tail), label=label)
