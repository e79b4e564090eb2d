"""The leaves of the architecture language: one layer each, as frozen data, and the shape it makes of a shape.

Scalars mean every axis, so 2D and 3D are one language: the input decides. A leaf says only what it makes; what it
reads follows the data. Nothing here imports torch.

An octave feature map (Chen et al. 2019, arXiv 1904.05049) is a pair: `low` of its channels live at half the
resolution of the last two axes, rounded up. Channels are numbered high first, then low.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Literal

from searchspace.fields import ArchitectureError, Axes, axes, between, one_of, per_axis, truth, whole

ACTIVATIONS = ("relu", "relu6", "hardswish", "hardsigmoid", "sigmoid", "silu", "gelu", "leaky_relu", "tanh")
POOLS = ("max", "average")


@dataclass(frozen=True, slots=True)
class Shape:
    """A feature map: `channels` in all, `low` of them at half resolution, `space` that of the high ones."""

    channels: int
    space: tuple[int, ...]
    low: int = 0

    @property
    def high(self) -> int:
        return self.channels - self.low

    @property
    def low_space(self) -> tuple[int, ...]:
        return halved(self.space)

    @property
    def elements(self) -> int:
        whole = self.high * prod(self.space)
        return whole + self.low * prod(self.low_space) if self.low else whole

    def __str__(self) -> str:
        low = f" ({self.low} low)" if self.low else ""
        return "x".join(map(str, (self.channels, *self.space))) + low


def halved(space: tuple[int, ...]) -> tuple[int, ...]:
    """Space of the low map: the last two axes halved, rounded up; a time axis stays."""
    return (*space[:-2], -(-space[-2] // 2), -(-space[-1] // 2)) if len(space) >= 2 else space


def same(kernel: int, dilation: int) -> int:
    """The padding that keeps an odd kernel's map at its size (at stride 1)."""
    return dilation * (kernel - 1) // 2


@dataclass(frozen=True, slots=True)
class Node:
    """Anything in a body. `label` addresses it for transforms; it takes no part in equality or digest."""

    label: str = field(default="", compare=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Leaf(Node):
    """One layer. `after(shape)` is the shape it makes of `shape`, or an error."""

    def after(self, shape: Shape) -> Shape:
        return shape


def _explicit_padding(node: Conv | Depthwise | Pool, dilation: Axes) -> None:
    """Write a padding equal to "same" as "same": one value, one digest, for one network."""
    if node.padding == "same":
        return
    per_axis(node, "padding", 0)
    n = next((len(v) for v in (node.kernel, node.padding, dilation) if isinstance(v, tuple)), 2)
    kernel, padding, spread = axes(node.kernel, n), axes(node.padding, n), axes(dilation, n)
    if all(p == same(k, d) for k, p, d in zip(kernel, padding, spread, strict=True)):
        object.__setattr__(node, "padding", "same")


def windows(
    leaf: Conv | Depthwise | Pool, n: int
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """(kernel, stride, padding, dilation) of a sliding leaf, spelled out for `n` axes."""
    kernel, stride = axes(leaf.kernel, n), axes(leaf.stride, n)
    dilation = (1,) * n if isinstance(leaf, Pool) else axes(leaf.dilation, n)
    if leaf.padding == "same":
        padding = tuple(same(k, d) for k, d in zip(kernel, dilation, strict=True))
    else:
        padding = axes(leaf.padding, n)
    return kernel, stride, padding, dilation


def _map(leaf: Leaf, shape: Shape) -> int:
    if len(shape.space) not in (2, 3):
        raise ArchitectureError(f"{type(leaf).__name__} needs a map with 2 or 3 axes, but got shape {shape}.")
    return len(shape.space)


def _slide(leaf: Conv | Depthwise | Pool, space: tuple[int, ...], ceil: bool = False) -> tuple[int, ...]:
    """Space after sliding the leaf's window over `space`, with torch's rule for `ceil`."""
    sizes = []
    for size, k, s, p, d in zip(space, *windows(leaf, len(space)), strict=True):
        reach = size + 2 * p - d * (k - 1) - 1
        out = (-(-reach // s) if ceil else reach // s) + 1
        if ceil and (out - 1) * s >= size + p:
            out -= 1
        if (reach < 0 and not ceil) or out < 1:
            raise ArchitectureError(
                f"The window must fit the padded map, but got kernel {k} (dilation {d}, padding {p}) on size {size}. "
                f"Use a larger input, fewer strides or a smaller kernel."
            )
        sizes.append(out)
    return tuple(sizes)


def _keeps(leaf: Conv | Depthwise) -> bool:
    """Whether the window leaves every map its size, as most do: seen without sliding it."""
    odd = type(leaf.kernel) is int and leaf.kernel % 2 == 1
    return odd and leaf.stride == 1 and leaf.padding == "same" and type(leaf.dilation) is int


def _octave_slide(leaf: Conv | Depthwise, space: tuple[int, ...]) -> tuple[int, ...]:
    """Space after an octave convolution: the stride is an average pooling before it, rounded up."""
    n = len(space)
    kernel, stride, padding, dilation = windows(leaf, n)
    if stride[-2:] not in ((1, 1), (2, 2)):
        raise ArchitectureError(f"An octave convolution's image stride must be 1 or 2 on both axes, but got {stride}.")
    if any(2 * p != d * (k - 1) for k, p, d in zip(kernel, padding, dilation, strict=True)):
        raise ArchitectureError(
            f"An octave convolution needs odd kernels and padding 'same', but got ({kernel=}, {padding=}, {dilation=})."
        )
    return tuple(-(-size // s) for size, s in zip(space, stride, strict=True))


@dataclass(frozen=True, slots=True)
class Conv(Leaf):
    """Convolution to `out` channels, `low` of them at half resolution; grouped, dilated, 2D or 3D."""

    out: int
    kernel: Axes = 1
    stride: Axes = 1
    padding: Axes | Literal["same"] = "same"
    dilation: Axes = 1
    groups: int = 1
    bias: bool = False
    low: int = 0

    def __post_init__(self) -> None:
        for name, least in (("out", 1), ("groups", 1), ("low", 0)):
            whole(self, name, least)
        for name in ("kernel", "stride", "dilation"):
            per_axis(self, name, 1)
        truth(self, "bias")
        _explicit_padding(self, self.dilation)
        if self.low > self.out:
            raise ArchitectureError(f"`low` must be at most `out`, but got (low={self.low}, out={self.out}).")

    def after(self, shape: Shape) -> Shape:
        _map(self, shape)
        if self.groups > 1:
            self._divided(shape)
        if _keeps(self):
            return Shape(self.out, shape.space, self.low)
        space = _octave_slide(self, shape.space) if self.low or shape.low else _slide(self, shape.space)
        return Shape(self.out, space, self.low)

    def _divided(self, shape: Shape) -> None:
        for name, width in (("input", shape.high), ("low input", shape.low)):
            if width % self.groups:
                raise ArchitectureError(
                    f"`groups` must divide the {name} channels, but got ({width=}, groups={self.groups})."
                )
        for name, width in (("out", self.out - self.low), ("low", self.low)):
            if width % self.groups:
                raise ArchitectureError(f"`groups` must divide `{name}`, but got ({width=}, groups={self.groups}).")


@dataclass(frozen=True, slots=True)
class Depthwise(Leaf):
    """One filter a channel. It has no width of its own; the two frequencies of an octave map exchange nothing."""

    kernel: Axes = 3
    stride: Axes = 1
    padding: Axes | Literal["same"] = "same"
    dilation: Axes = 1
    bias: bool = False

    def __post_init__(self) -> None:
        for name in ("kernel", "stride", "dilation"):
            per_axis(self, name, 1)
        truth(self, "bias")
        _explicit_padding(self, self.dilation)

    def after(self, shape: Shape) -> Shape:
        _map(self, shape)
        if _keeps(self):
            return shape
        space = _octave_slide(self, shape.space) if shape.low else _slide(self, shape.space)
        return Shape(shape.channels, space, shape.low)


@dataclass(frozen=True, slots=True)
class Norm(Leaf):
    """Batch normalisation with scale and shift (Ioffe & Szegedy 2015, arXiv 1502.03167)."""

    eps: float = 1e-5

    def __post_init__(self) -> None:
        between(self, "eps", 0.0, 1.0)

    def after(self, shape: Shape) -> Shape:
        _map(self, shape)
        return shape


@dataclass(frozen=True, slots=True)
class LocalNorm(Leaf):
    """Local response normalisation across `size` channels (Krizhevsky et al. 2012)."""

    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 2.0

    def __post_init__(self) -> None:
        whole(self, "size", 1)
        for name in ("alpha", "beta", "k"):
            between(self, name, 0.0, 1e6)

    def after(self, shape: Shape) -> Shape:
        _map(self, shape)
        return shape


@dataclass(frozen=True, slots=True)
class Activation(Leaf):
    """An elementwise nonlinearity, one of `ACTIVATIONS`."""

    kind: str = "relu"

    def __post_init__(self) -> None:
        one_of(self, "kind", ACTIVATIONS)


@dataclass(frozen=True, slots=True)
class Dropout(Leaf):
    """Elements zeroed with probability `p` in training."""

    p: float = 0.5

    def __post_init__(self) -> None:
        between(self, "p", 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Pool(Leaf):
    """Max or average pooling; `ceil` rounds the size up. Average pooling counts the padding, as torch does."""

    kind: str = "max"
    kernel: Axes = 3
    stride: Axes = 2
    padding: Axes | Literal["same"] = "same"
    ceil: bool = False

    def __post_init__(self) -> None:
        one_of(self, "kind", POOLS)
        for name in ("kernel", "stride"):
            per_axis(self, name, 1)
        truth(self, "ceil")
        _explicit_padding(self, 1)

    def rounding(self, shape: Shape) -> bool:
        """Whether to round up: as said, except on an octave map, where the low half must stay half."""
        if not shape.low:
            return self.ceil
        for ceil in (self.ceil, True):
            if halved(_slide(self, shape.space, ceil)) == _slide(self, shape.low_space, ceil):
                return ceil
        raise ArchitectureError(f"Pooling must keep the low map at half the high one, but {self} does not on {shape}.")

    def after(self, shape: Shape) -> Shape:
        n = _map(self, shape)
        kernel, _, padding, _ = windows(self, n)
        if any(2 * p > k for k, p in zip(kernel, padding, strict=True)):
            raise ArchitectureError(
                f"Pooling's padding must be at most half its kernel, but got ({kernel=}, {padding=})."
            )
        return Shape(shape.channels, _slide(self, shape.space, self.rounding(shape)), shape.low)


@dataclass(frozen=True, slots=True)
class AdaptivePool(Leaf):
    """Average pooling to `size` per axis. Size 1 joins the two frequencies of an octave map."""

    size: Axes = 1

    def __post_init__(self) -> None:
        per_axis(self, "size", 1)

    def after(self, shape: Shape) -> Shape:
        n = _map(self, shape)
        if shape.low and self.size != 1:
            raise ArchitectureError(f"Adaptive pooling of an octave map must be to size 1, but got size {self.size}.")
        return Shape(shape.channels, axes(self.size, n))


@dataclass(frozen=True, slots=True)
class Flatten(Leaf):
    """A map as one vector, channel by channel."""

    def after(self, shape: Shape) -> Shape:
        if shape.low:
            raise ArchitectureError(f"Flatten needs one resolution: pool to size 1 before it, but got shape {shape}.")
        return Shape(shape.channels * prod(shape.space), ())


@dataclass(frozen=True, slots=True)
class Linear(Leaf):
    """A fully connected layer to `out`."""

    out: int
    bias: bool = True

    def __post_init__(self) -> None:
        whole(self, "out", 1)
        truth(self, "bias")

    def after(self, shape: Shape) -> Shape:
        if shape.space:
            raise ArchitectureError(f"Linear needs a vector: put Flatten before it, but got shape {shape}.")
        return Shape(self.out, ())


@dataclass(frozen=True, slots=True)
class Shuffle(Leaf):
    """Channel (i, j) of `groups` goes to (j, i) (Zhang et al. 2017, arXiv 1707.01083); each frequency by itself."""

    groups: int

    def __post_init__(self) -> None:
        whole(self, "groups", 2)

    def after(self, shape: Shape) -> Shape:
        _map(self, shape)
        for width in (shape.high, shape.low):
            if width % self.groups:
                raise ArchitectureError(
                    f"A shuffle's `groups` must divide the channels, but got ({width=}, groups={self.groups})."
                )
        return shape


@dataclass(frozen=True, slots=True)
class SqueezeExcite(Leaf):
    """Channels scaled by gate(W2 act(W1 mean)), through `squeeze` units (Hu et al. 2017, arXiv 1709.01507)."""

    squeeze: int
    activation: str = "relu"
    gate: str = "sigmoid"

    def __post_init__(self) -> None:
        whole(self, "squeeze", 1)
        for name in ("activation", "gate"):
            one_of(self, name, ACTIVATIONS)

    def after(self, shape: Shape) -> Shape:
        _map(self, shape)
        return shape


@dataclass(frozen=True, slots=True)
class Select(Leaf):
    """The given channels in the given order: a permutation, a subset or a repetition; high ones before low ones."""

    channels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.channels, list | tuple):
            raise ArchitectureError(f"`channels` of Select must be a list of channels, but got {self.channels!r}.")
        object.__setattr__(self, "channels", tuple(self.channels))
        if not self.channels or any(type(c) is not int or c < 0 for c in self.channels):
            raise ArchitectureError(
                f"`channels` of Select must be whole numbers >= 0, at least one, but got {self.channels}."
            )

    def after(self, shape: Shape) -> Shape:
        if max(self.channels) >= shape.channels:
            raise ArchitectureError(f"Select needs channels below {shape.channels}, but got {max(self.channels)}.")
        low = [c >= shape.high for c in self.channels]
        if sorted(low) != low:
            raise ArchitectureError(f"Select must name high channels (below {shape.high}) before low ones.")
        return Shape(len(self.channels), shape.space, sum(low))
