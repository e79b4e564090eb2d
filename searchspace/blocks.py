"""Blocks: functions that return a fragment of an architecture for the shape it will read.

Every block has the form `block(into, *, out, stride=1, ...) -> Chain`. The keyword arguments it takes are the
choices a stage of a space may make for it; a block of the user's own works alike.

| option | meaning |
|---|---|
| `out`, `stride`, `kernel`, `dilation` | width, stride, kernel (odd) and dilation of the spatial convolution |
| `groups`, `shuffle` | groups of its convolutions; channels shuffled after the first grouped one |
| `alpha` | share of channels at half resolution, rounded down to a multiple of `groups` |
| `factorization` | "none"; "stacked": k x k as (k - 1) / 2 of 3 x 3; "asymmetric": 1 x k, then k x 1 |
| `expansion`, `squeeze` | inner width: of the input (inverted residual), of the output (others); see each block |
| `squeeze_excite` | hidden share of squeeze-excite; 0 is none |
| `activation` | one of `leaves.ACTIVATIONS` |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from searchspace.architecture import (
    Activation,
    Add,
    ArchitectureError,
    Axes,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Node,
    Norm,
    Pool,
    Shape,
    Shuffle,
    SqueezeExcite,
    axes,
)

Block = Callable[..., Chain]

FACTORIZATIONS = ("none", "stacked", "asymmetric")


def whole_width(width: float, groups: int = 1) -> int:
    """`width` as the nearest multiple of `groups`, at least one of it."""
    return max(1, round(width / groups)) * groups


def low_width(alpha: float, width: int, groups: int = 1) -> int:
    """How many of `width` channels live at half resolution: int(alpha * width), in whole groups."""
    if not 0 <= alpha <= 1:
        raise ArchitectureError(f"`alpha` must be in [0, 1], but got {alpha}.")
    return int(alpha * width) // groups * groups


def unit(conv: Conv | Depthwise, activation: str | None, norm: bool = True) -> Iterator[Node]:
    """A convolution, its norm, and its activation (None: linear)."""
    yield conv
    if norm:
        yield Norm()
    if activation is not None:
        yield Activation(activation)


def factorized(kernel: Axes, stride: Axes, dims: int, factorization: str, octave: bool) -> list[tuple[Axes, Axes]]:
    """(kernel, stride) of each convolution that stands for one of `kernel` and `stride`.

    An asymmetric pair shares the stride axis by axis, which is the same function as striding at its end; an octave
    pair strides at its start, where striding is average pooling. In 3D the time axis stays with the first.
    """
    if factorization not in FACTORIZATIONS:
        raise ArchitectureError(
            f"`factorization` must be one of {', '.join(FACTORIZATIONS)}, but got {factorization!r}."
        )
    sizes, strides = axes(kernel, dims), axes(stride, dims)
    if any(k % 2 == 0 for k in sizes):
        raise ArchitectureError(f"`kernel` of a block must be odd, but got {kernel}.")
    if factorization == "stacked" and max(sizes) > 3:
        n = (max(sizes) - 1) // 2
        small: list[Axes] = [tuple(3 if (k - 1) // 2 > i else 1 for k in sizes) for i in range(n)]
        return [(k, strides if i == 0 else 1) for i, k in enumerate(small)]
    if factorization == "asymmetric" and sizes[-1] > 1 and sizes[-2] > 1:
        time, (high, wide), (down, across) = sizes[:-2], sizes[-2:], strides[-2:]
        first = (*strides[:-2], down, across) if octave else (*strides[:-2], 1, across)
        last = (1,) * dims if octave else (*(1 for _ in time), down, 1)
        return [((*time, 1, wide), first), ((*(1 for _ in time), high, 1), last)]
    return [(kernel, stride)]


def spatial(
    into: Shape,
    *,
    out: int,
    low: int = 0,
    kernel: Axes = 3,
    stride: Axes = 1,
    dilation: int = 1,
    groups: int = 1,
    factorization: str = "none",
    activation: str = "relu",
    linear: bool = False,
) -> list[Node]:
    """A k x k convolution to `out` with norm and activation, factorized or not; `linear`: none after the last."""
    parts = factorized(kernel, stride, len(into.space), factorization, bool(low or into.low))
    nodes: list[Node] = []
    for i, (size, step) in enumerate(parts):
        wide = spread(size, dilation, len(into.space))
        conv = Conv(out, size, step, dilation=wide, groups=groups, low=low, label="spatial")
        last = i == len(parts) - 1
        nodes += unit(conv, None if last and linear else activation)
    return nodes


def depthwise(
    into: Shape,
    *,
    kernel: Axes = 3,
    stride: Axes = 1,
    dilation: int = 1,
    factorization: str = "none",
    activation: str | None = "relu",
) -> list[Node]:
    """A k x k depthwise convolution with norm and activation, factorized or not."""
    parts = factorized(kernel, stride, len(into.space), factorization, bool(into.low))
    nodes: list[Node] = []
    for i, (size, step) in enumerate(parts):
        wide = spread(size, dilation, len(into.space))
        last = i == len(parts) - 1
        nodes += unit(Depthwise(size, step, dilation=wide, label="depthwise"), activation if last else None)
    return nodes


def spread(kernel: Axes, dilation: Axes, dims: int) -> Axes:
    """A dilation says nothing along an axis where the kernel is 1; written so, equal networks are equal values."""
    return tuple(d if k > 1 else 1 for k, d in zip(axes(kernel, dims), axes(dilation, dims), strict=True))


def _shuffle(shuffle: bool, groups: int) -> list[Node]:
    return [Shuffle(groups)] if shuffle and groups > 1 else []


def _squeeze_excite(ratio: float, width: int) -> list[Node]:
    if not 0 <= ratio <= 1:
        raise ArchitectureError(f"`squeeze_excite` must be in [0, 1], but got {ratio}.")
    return [SqueezeExcite(max(1, int(ratio * width)))] if ratio else []


def _strides(stride: Axes) -> bool:
    return stride != 1


def _shortcut(into: Shape, out: int, low: int, stride: Axes) -> Chain:
    """The identity where shapes allow it, else a 1 x 1 projection with norm."""
    if not _strides(stride) and (into.channels, into.low) == (out, low):
        return Chain()
    return Chain(tuple(unit(Conv(out, 1, stride, low=low, label="projection"), None)))


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
    dilation: int = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
) -> Chain:
    """One k x k convolution: f(x)."""
    conv = spatial(
        into,
        out=out,
        low=low_width(alpha, out, groups),
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        factorization=factorization,
        activation=activation,
    )
    return Chain((*conv, *_shuffle(shuffle, groups), *_squeeze_excite(squeeze_excite, out)), label="plain")


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
    dilation: int = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
) -> Chain:
    """Basic residual block: act(x + f(x)), f = two k x k convolutions (He et al. 2015, arXiv 1512.03385)."""
    low = low_width(alpha, out, groups)
    between = Shape(out, into.space, low)
    first = spatial(
        into,
        out=out,
        low=low,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        factorization=factorization,
        activation=activation,
    )
    second = spatial(
        between,
        out=out,
        low=low,
        kernel=kernel,
        dilation=dilation,
        groups=groups,
        factorization=factorization,
        activation=activation,
        linear=True,
    )
    branch = Chain((*first, *_shuffle(shuffle, groups), *second, *_squeeze_excite(squeeze_excite, out)))
    return Chain((Add((branch, _shortcut(into, out, low, stride))), Activation(activation)), label="residual")


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
    dilation: int = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
) -> Chain:
    """Residual bottleneck: act(x + f(x)), f = 1 x 1 to out / `expansion`, k x k in `groups`, 1 x 1 to out.

    With groups it is ResNeXt's (Xie et al. 2016, arXiv 1611.05431). The stride is on the k x k convolution.
    """
    mid = whole_width(out / expansion, groups)
    low, low_mid = low_width(alpha, out), low_width(alpha, mid, groups)
    branch = Chain(
        (
            *unit(Conv(mid, low=low_mid, label="reduce"), activation),
            *spatial(
                Shape(mid, into.space, low_mid),
                out=mid,
                low=low_mid,
                kernel=kernel,
                stride=stride,
                dilation=dilation,
                groups=groups,
                factorization=factorization,
                activation=activation,
            ),
            *_shuffle(shuffle, groups),
            *unit(Conv(out, low=low, label="restore"), None),
            *_squeeze_excite(squeeze_excite, out),
        )
    )
    return Chain((Add((branch, _shortcut(into, out, low, stride))), Activation(activation)), label="bottleneck")


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
    dilation: int = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
) -> Chain:
    """Depthwise k x k, then 1 x 1 to out in `groups` (Howard et al. 2017, arXiv 1704.04861)."""
    conv = depthwise(
        into, kernel=kernel, stride=stride, dilation=dilation, factorization=factorization, activation=activation
    )
    point = unit(Conv(out, groups=groups, low=low_width(alpha, out, groups), label="pointwise"), activation)
    tail = (*_shuffle(shuffle, groups), *_squeeze_excite(squeeze_excite, out))
    return Chain((*conv, *point, *tail), label="depthwise_separable")


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
    dilation: int = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu6",
) -> Chain:
    """x + f(x), f = 1 x 1 to in * `expansion`, depthwise k x k, linear 1 x 1 (Sandler et al. 2018, arXiv 1801.04381).

    No expansion where it is 1; no sum where shapes differ. Both 1 x 1 convolutions are in `groups`.
    """
    mid = whole_width(into.channels * expansion, groups)
    low, low_mid = low_width(alpha, out, groups), low_width(alpha, mid, groups)
    expand: list[Node] = []
    shape = into
    if expansion != 1:
        expand = [*unit(Conv(mid, groups=groups, low=low_mid, label="expand"), activation), *_shuffle(shuffle, groups)]
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
            ),
            *_squeeze_excite(squeeze_excite, shape.channels),
            *unit(Conv(out, groups=groups, low=low, label="project"), None),
        )
    )
    if _strides(stride) or (into.channels, into.low) != (out, low):
        return Chain((branch,), label="inverted_residual")
    return Chain((Add((branch, Chain())),), label="inverted_residual")


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
    dilation: int = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
) -> Chain:
    """1 x 1 to `squeeze` * out, then 1 x 1 beside k x k, half of out each (Iandola et al. 2016, arXiv 1602.07360).

    A stride is max pooling before the block. `groups` are those of the k x k convolution.
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
    )
    pool = [Pool("max", 3, stride)] if _strides(stride) else []
    point = Chain(tuple(unit(Conv(half, low=low, label="pointwise"), activation)))
    return Chain(
        (
            *pool,
            *unit(Conv(narrow, low=low_narrow, label="reduce"), activation),
            Concat((point, Chain((*wide, *_shuffle(shuffle, groups))))),
            *_squeeze_excite(squeeze_excite, out),
        ),
        label="fire",
    )


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
    dilation: int = 1,
    squeeze_excite: float = 0.0,
    activation: str = "relu",
) -> Chain:
    """Grouped 1 x 1 to out / `expansion`, shuffle, depthwise k x k, grouped 1 x 1 (Zhang et al., arXiv 1707.01083).

    Where shapes allow it the input is added; where the block strides or widens, the (average-pooled) input is
    concatenated and the branch makes the rest.
    """
    mid = whole_width(out / expansion, groups)
    low_mid, low = low_width(alpha, mid, groups), low_width(alpha, out, groups)
    joined = not _strides(stride) and (into.channels, into.low) == (out, low)
    rest, rest_low = (out, low) if joined else (out - into.channels, low - into.low)
    if not joined and not (rest > 0 and 0 <= rest_low <= rest):
        raise ArchitectureError(
            f"A shuffle unit that strides or changes shape must widen, in both frequencies, but got "
            f"(into={into}, {out=}, {low=})."
        )
    branch = Chain(
        (
            *unit(Conv(mid, groups=groups, low=low_mid, label="reduce"), activation),
            *_shuffle(shuffle, groups),
            *depthwise(
                Shape(mid, into.space, low_mid),
                kernel=kernel,
                stride=stride,
                dilation=dilation,
                factorization=factorization,
                activation=None,
            ),
            *unit(Conv(rest, groups=groups, low=rest_low, label="restore"), None),
            *_squeeze_excite(squeeze_excite, rest),
        )
    )
    pooled = Chain((Pool("average", 3, stride),)) if _strides(stride) else Chain()
    join: Node = Add((branch, Chain())) if joined else Concat((pooled, branch))
    return Chain((join, Activation(activation)), label="shuffle_unit")


# Inception modules and the 3D forms join this table with the networks that need them.
BLOCKS: dict[str, Block] = {
    "plain": plain,
    "residual": residual,
    "bottleneck": bottleneck,
    "depthwise_separable": depthwise_separable,
    "inverted_residual": inverted_residual,
    "fire": fire,
    "shuffle_unit": shuffle_unit,
}
