"""What blocks are made of: convolutions with their norm and activation, factorized and separated forms, shortcuts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import ParamSpec, TypeVar

from searchspace.architecture import (
    Activation,
    Add,
    ArchitectureError,
    Axes,
    Chain,
    Conv,
    Depthwise,
    Node,
    Norm,
    Pool,
    Shape,
    Shuffle,
    SqueezeExcite,
    axes,
    shape_after,
)
from searchspace.fields import choice, integers, share
from searchspace.leaves import ACTIVATIONS

Part = Node | Callable[[Shape], Node]

FACTORIZATIONS = ("none", "stacked", "asymmetric", "r2plus1d", "p3d_a", "p3d_b", "p3d_c")
SPATIOTEMPORAL = FACTORIZATIONS[3:]
SEPARATIONS = ("none", "reduced", "preserved")

WIDEST = 999  # of any kernel: what is larger is a slip, and is half as many when stacked


def chain(into: Shape, *parts: Part, label: str = "") -> Chain:
    """The parts one after the other on a map of shape `into`; a function is given the shape that it reads."""
    nodes: list[Node] = []
    for part in parts:
        node = part if isinstance(part, Node) else part(into)
        into = shape_after(node, into)
        nodes.append(node)
    return Chain(tuple(nodes), label=label)


def whole_width(width: float, groups: int = 1) -> int:
    """`width` as the nearest multiple of `groups`, at least one of it."""
    return max(1, round(width / groups)) * groups


def low_width(alpha: float, width: int, groups: int = 1) -> int:
    """How many of `width` channels live at half resolution: int(alpha * width), in whole groups."""
    return part(share("alpha", alpha), width, groups)


def part(alpha: float, width: int, groups: int = 1) -> int:
    """`low_width` of what is a share."""
    return int(alpha * width) // groups * groups


def middle_width(inputs: int, out: int, kernel: tuple[int, ...], groups: int = 1) -> int:
    """The inner width that keeps a (2+1)D pair at the params of its 3D kernel (Tran et al. 2018, arXiv 1711.11248)."""
    time, image = kernel[0], prod(kernel[1:])
    width = time * image * inputs * out // (image * inputs + time * out)
    return max(1, width // groups) * groups


Args = ParamSpec("Args")
Made = TypeVar("Made", bound=Node)


def shared(leaf: Callable[Args, Made]) -> Callable[Args, Made]:
    """`leaf`, of which equal ones are one value: nodes do not change, and blocks put the same in many places."""
    return lru_cache(maxsize=1 << 14, typed=True)(leaf)  # type: ignore[return-value]


convolution, windowed = shared(Conv), shared(Depthwise)
pooling, shuffling, squeezing = shared(Pool), shared(Shuffle), shared(SqueezeExcite)
NORM, IDENTITY = Norm(), Chain()
_ACTIVATIONS = {kind: Activation(kind) for kind in ACTIVATIONS}


def activated(kind: str) -> Activation:
    """The activation of this kind."""
    return _ACTIVATIONS[choice("activation", kind, ACTIVATIONS)]


def unit(conv: Conv | Depthwise, activation: str | None, norm: bool = True) -> tuple[Node, ...]:
    """A convolution, its norm, and its activation (None: linear)."""
    head = (conv, NORM) if norm else (conv,)
    return head if activation is None else (*head, activated(activation))


def factorized(kernel: Axes, stride: Axes, dims: int, factorization: str, octave: bool) -> list[tuple[Axes, Axes]]:
    """(kernel, stride) of each convolution that stands for one of `kernel` and `stride`.

    An asymmetric pair shares the stride axis by axis, which is the same function as striding at its end; an octave
    pair strides at its start, where striding is average pooling. In 3D the time axis stays with the first.
    The spatiotemporal kinds need a time axis: 1 x k x k, then k x 1 x 1, each striding along its own axes, except
    that parallel ones ("p3d_b") both stride along all, and of "p3d_c" the first alone.
    """
    choice("factorization", factorization, FACTORIZATIONS)
    sizes, strides = axes(kernel, dims), axes(stride, dims)
    if any(k % 2 == 0 or k > WIDEST for k in sizes):
        raise ArchitectureError(f"`kernel` of a block must be odd, at most {WIDEST}, but got {kernel}.")
    if factorization in SPATIOTEMPORAL:
        if dims != 3:
            raise ArchitectureError(f"`factorization` {factorization!r} needs a time axis, but got a 2D map.")
        if sizes[0] == 1 or max(sizes[1:]) == 1:
            return [(kernel, stride)]
        (first, second) = {
            "p3d_b": (strides, strides),
            "p3d_c": (strides, (1, 1, 1)),
        }.get(factorization, ((1, *strides[1:]), (strides[0], 1, 1)))
        return [((1, *sizes[1:]), first), ((sizes[0], 1, 1), second)]
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


def joined(units: list[list[Node]], factorization: str) -> list[Node]:
    """The units that stand for one convolution: in a row, side by side ("p3d_b"), or first + second ("p3d_c")."""
    if len(units) == 2 and factorization == "p3d_b":
        return [Add(tuple(Chain(tuple(nodes)) for nodes in units))]
    if len(units) == 2 and factorization == "p3d_c":
        return [*units[0], Add((Chain(tuple(units[1])), IDENTITY))]
    return [node for nodes in units for node in nodes]


def spatial(
    into: Shape,
    *,
    out: int,
    low: int = 0,
    kernel: Axes = 3,
    stride: Axes = 1,
    dilation: Axes = 1,
    groups: int = 1,
    factorization: str = "none",
    separation: str = "none",
    activation: str = "relu",
    linear: bool = False,
    bias: bool = False,
) -> list[Node]:
    """A k x k convolution to `out` with norm and activation; `linear`: none after the last.

    Separated (Tran et al. 2019, arXiv 1904.02811) it is depthwise, behind a linear 1 x 1 in `groups`, which keeps
    the interactions ("preserved") or stands only where the width changes ("reduced").
    """
    choice("separation", separation, SEPARATIONS)
    dims = len(into.space)
    if separation != "none":
        point: list[Node] = []
        if separation == "preserved" or (into.channels, into.low) != (out, low):
            point = [*unit(convolution(out, groups=groups, low=low, bias=bias, label="pointwise"), None)]
        return point + depthwise(
            Shape(out, into.space, low),
            kernel=kernel,
            stride=stride,
            dilation=dilation,
            factorization=factorization,
            activation=None if linear else activation,
            bias=bias,
        )
    parts = factorized(kernel, stride, dims, factorization, bool(low or into.low))
    units: list[list[Node]] = []
    for i, (size, step) in enumerate(parts):
        last = i == len(parts) - 1
        width, part = out, low
        if factorization == "r2plus1d" and not last:
            width = middle_width(into.channels, out, axes(kernel, dims), groups)
            part = width * low // out // groups * groups
        temporal = dims == 3 and axes(size, dims)[1:] == (1, 1) and axes(size, dims)[0] > 1
        wide = spread(size, dilation, dims)
        role = "temporal" if temporal else "spatial"
        conv = convolution(width, size, step, dilation=wide, groups=groups, low=part, bias=bias, label=role)
        quiet = linear and (last or factorization == "p3d_b")
        units.append([*unit(conv, None if quiet else activation)])
    return joined(units, factorization)


def depthwise(
    into: Shape,
    *,
    kernel: Axes = 3,
    stride: Axes = 1,
    dilation: Axes = 1,
    factorization: str = "none",
    activation: str | None = "relu",
    bias: bool = False,
) -> list[Node]:
    """A k x k depthwise convolution with norm and activation, factorized or not; no activation between its parts."""
    parts = factorized(kernel, stride, len(into.space), factorization, bool(into.low))
    units: list[list[Node]] = []
    for i, (size, step) in enumerate(parts):
        wide = spread(size, dilation, len(into.space))
        heard = i == len(parts) - 1 or factorization == "p3d_b"
        conv = windowed(size, step, dilation=wide, bias=bias, label="depthwise")
        units.append([*unit(conv, activation if heard else None)])
    return joined(units, factorization)


def spread(kernel: Axes, dilation: Axes, dims: int) -> Axes:
    """A dilation says nothing along an axis where the kernel is 1; written so, equal networks are equal values."""
    if dilation == 1:
        return 1
    return tuple(d if k > 1 else 1 for k, d in zip(axes(kernel, dims), axes(dilation, dims), strict=True))


def grouped(groups: int, separation: str) -> int:
    """The groups that a separated block has: none where what it groups is depthwise."""
    return 1 if separation == "reduced" else groups


def shuffled(shuffle: bool, groups: int) -> list[Node]:
    """A shuffle, where it is wanted and does something."""
    return [shuffling(groups)] if shuffle and groups > 1 else []


def squeezed(ratio: float, width: int) -> list[Node]:
    """Squeeze-excite through `ratio` of `width` units; none where it is 0."""
    return [squeezing(max(1, int(ratio * width)))] if ratio else []


def strides(stride: Axes) -> bool:
    """Whether a block strides at all."""
    return integers("stride", stride) != 1


def summed(branch: Chain, into: Shape, out: int, low: int, stride: Axes, bias: bool, wanted: bool) -> Node:
    """x + branch, x as it is where shapes allow it, else through a 1 x 1 projection with norm; not `wanted`: no x."""
    if not wanted:
        return branch
    if not strides(stride) and (into.channels, into.low) == (out, low):
        return Add((branch, IDENTITY))
    return Add((branch, Chain(tuple(unit(convolution(out, 1, stride, low=low, bias=bias, label="projection"), None)))))
