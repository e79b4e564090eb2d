"""Frames: the input's size, a time axis for an architecture of images, and what happens along it."""

from __future__ import annotations

from dataclasses import replace

from searchspace.architecture import (
    AdaptivePool,
    Add,
    Architecture,
    ArchitectureError,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Leaf,
    Node,
    Pool,
    Shape,
    Site,
    Tap,
    axes,
    windows,
)
from searchspace.fields import integer
from searchspace.transforms.rewriting import replaced
from searchspace.transforms.where import SLIDING, Sliding, Where, everywhere, matching
from searchspace.widths import Index


def resize(architecture: Architecture, space: tuple[int, ...]) -> Architecture:
    """The same body on an input of another (height, width) or (frames, height, width)."""
    if not isinstance(space, list | tuple) or len(space) != len(architecture.input) - 1:
        raise ArchitectureError(
            f"`space` must have as many axes as the input, but got {space!r} for {architecture.input[1:]}."
        )
    return Architecture((architecture.input[0], *space), architecture.body)


def inflate(architecture: Architecture, frames: int, where: Where = everywhere) -> Architecture:
    """An architecture of images as one of `frames` of them: k x k becomes k x k x k (Carreira & Zisserman 2017,
    arXiv 1705.07750).

    Where `where` matches, square kernels, strides and dilations hold for time too, padded "same"; everything else
    works on each frame by itself. An even kernel that would not fit is 1 along time. Adaptive pooling joins all
    frames. `where` must take in all summands: with a strided convolution, the projection beside it. `factorize`
    after it, and `retime` where time has a kernel or a stride of its own.
    """
    if len(architecture.input) != 3:
        raise ArchitectureError(
            f"inflate needs an architecture of images, (channels, height, width), but got input {architecture.input}. "
            "`resize` changes its frames, `retime` what happens along them."
        )
    channels, *image = architecture.input
    chosen = {site.index for site, _ in matching(architecture, where, *SLIDING)}
    sites = {site.index: site for site in architecture.sites}
    body, _ = _inflated(architecture.body, integer("frames", frames), (), sites, chosen)
    assert isinstance(body, Chain)
    return Architecture((channels, frames, *image), body)


def _inflated(node: Node, frames: int, index: Index, sites: dict[Index, Site], chosen: set[Index]) -> tuple[Node, int]:
    """`node` with a time axis, and how many of the `frames` that it reads it leaves."""
    match node:
        case Conv() | Depthwise() | Pool():
            site = sites[index]
            leaf = _cubed(node, frames) if index in chosen else _timed(node, 2, 1, 1, 0, 1)
            return leaf, leaf.after(Shape(site.before.channels, (frames, *site.before.space), site.before.low)).space[0]
        case AdaptivePool():
            return replace(node, size=(1, *axes(node.size, 2))), 1
        case Tap():
            return replace(node, head=_inflated(node.head, frames, (*index, 0), sites, chosen)[0]), frames
        case Chain():
            items: list[Node] = []
            for i, item in enumerate(node.items):
                new, frames = _inflated(item, frames, (*index, i), sites, chosen)
                items.append(new)
            return replace(node, items=tuple(items)), frames
        case Add() | Concat():
            parts = [_inflated(branch, frames, (*index, i), sites, chosen) for i, branch in enumerate(node.branches)]
            return replace(node, branches=tuple(part for part, _ in parts)), parts[0][1]
    return node, frames


def retime(
    architecture: Architecture,
    where: Where,
    kernel: int | None = None,
    stride: int | None = None,
    padding: int | None = None,
) -> Architecture:
    """Convolutions and pools with this kernel, stride and padding along time; what is not given stays.

    A kernel without a padding is padded "same". Raises `ArchitectureError` for an architecture of images.
    """
    if len(architecture.input) != 4:
        raise ArchitectureError(
            f"retime needs an architecture of (channels, frames, height, width), but got input {architecture.input}. "
            "`inflate` gives it frames."
        )
    change: dict[Index, Leaf] = {}
    for site, leaf in matching(architecture, where, *SLIDING):
        size, step, pad, spread = (window[0] for window in windows(leaf, 3))
        if kernel is not None:
            size, pad = integer("kernel", kernel), (kernel - 1) * spread // 2
            spread = spread if size > 1 else 1
        pad = pad if padding is None else padding
        change[site.index] = _timed(leaf, 3, size, step if stride is None else stride, pad, spread)
    return replaced(architecture, change)


def _cubed(leaf: Sliding, frames: int) -> Sliding:
    """A leaf of images that does along time what it does along both image axes; 1 where those differ."""
    kernel, stride, _, dilation = (high if high == wide else 1 for high, wide in windows(leaf, 2))
    if frames == 1 and dilation * (kernel - 1) % 2:
        kernel = 1
    return _timed(leaf, 2, kernel, stride, dilation * (kernel - 1) // 2, dilation if kernel > 1 else 1)


def _timed(leaf: Sliding, n: int, kernel: int, stride: int, padding: int, dilation: int) -> Sliding:
    """A leaf for `n` axes with its own window along the image and this one along time."""
    kernels, strides, paddings, dilations = (window[-2:] for window in windows(leaf, n))
    window = {"kernel": (kernel, *kernels), "stride": (stride, *strides), "padding": (padding, *paddings)}
    if not isinstance(leaf, Pool):
        window["dilation"] = (dilation, *dilations)
    return replace(leaf, **window)  # type: ignore[arg-type]
