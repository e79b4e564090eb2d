"""Kernels: k x k convolutions as smaller ones, as depthwise ones, or spread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from searchspace.architecture import (
    Activation,
    Add,
    Architecture,
    ArchitectureError,
    Axes,
    Chain,
    Conv,
    Depthwise,
    Node,
    Norm,
    Pool,
    Site,
    axes,
    windows,
)
from searchspace.blocks import FACTORIZATIONS, SEPARATIONS, SPATIOTEMPORAL, factorized, middle_width, spread
from searchspace.fields import choice, integers, refusal, switch
from searchspace.transforms.rewriting import at, beyond, neighbours, spliced, tail_of
from searchspace.transforms.where import SLIDING, Where, matching
from searchspace.widths import Index

Middle = Callable[[Site], int]

FILTERS: tuple[type[Conv | Depthwise], ...] = (Conv, Depthwise)


def middle_of(site: Site) -> int:
    """The width inside a (2+1)D pair that keeps the params of its 3D kernel: `blocks.middle_width`."""
    assert isinstance(site.leaf, Conv)
    return middle_width(site.before.channels, site.leaf.out, axes(site.leaf.kernel, 3), site.leaf.groups)


def factorize(architecture: Architecture, kind: str, where: Where, middle: Middle = middle_of) -> Architecture:
    """Convolutions as the pieces of `blocks.factorized`: "stacked" 3 x 3, an "asymmetric" pair 1 x k, k x 1, or, in 3D:

    "r2plus1d": 1 x k x k to `middle(site)` channels, then k x 1 x 1 (Tran et al. 2018, arXiv 1711.11248);
    "p3d_a": the same at the width of the original; "p3d_b": their sum, side by side; "p3d_c": the first, plus the
    second of it (Qiu et al. 2017, arXiv 1711.10305).

    Between pieces stand the norm that follows the original and, except for depthwise ones, its activation; a linear
    convolution takes the activation before it in its chain, or "relu". Side by side, each has its own norm and
    activation. Raises `ArchitectureError` for an even kernel, a padding that is not "same", or a 3D kind in 2D.
    """
    choice("kind", kind, FACTORIZATIONS)
    if not callable(middle):
        raise refusal("middle", "a function of a site", middle)
    n = len(architecture.input) - 1
    if kind in SPATIOTEMPORAL and n == 2:
        raise ArchitectureError(
            f"factorize by {kind!r} needs a time axis, but got input {architecture.input}. `inflate` it first."
        )
    change: dict[Index, tuple[Node, ...]] = {}
    for site, leaf in matching(architecture, where, *FILTERS):
        kernel, _, _, dilation = windows(leaf, n)
        octave = bool(site.before.low or site.after.low)
        odd = tuple(k + 1 - k % 2 for k in kernel)
        sizes = factorized(odd, leaf.stride, n, kind, octave)
        if len(sizes) == 1:
            continue
        if leaf.padding != "same" or odd != kernel:
            raise at(
                site, f"factorize needs odd kernels and padding 'same', but got ({kernel=}, padding={leaf.padding}). "
                "Leave the site out with `where`"
            )  # fmt: skip
        pieces: list[Node] = []
        for i, (size, stride) in enumerate(sizes):
            piece = replace(leaf, kernel=size, stride=stride, dilation=spread(size, dilation, n))
            if isinstance(piece, Conv) and kind in SPATIOTEMPORAL and i:
                piece = replace(piece, label="temporal")
            elif isinstance(piece, Conv) and kind == "r2plus1d":
                width = middle(site)
                low = width * piece.low // piece.out // piece.groups * piece.groups
                piece = replace(piece, out=width, low=low)
            pieces.append(piece)
        tail, _ = tail_of(architecture, site)
        between = _between(architecture, site, tail)
        match kind:
            case "p3d_b":
                change[site.index] = (Add(tuple(Chain((piece, *tail)) for piece in pieces)),)
            case "p3d_c":
                change[site.index] = (pieces[0], *between, Add((Chain((pieces[1], *tail)), Chain())))
            case _:
                change[site.index] = (pieces[0], *(node for piece in pieces[1:] for node in (*between, piece)))
                continue
        change |= {beyond(site.index, i + 1): () for i in range(len(tail))}
    return spliced(architecture, change)


def _between(architecture: Architecture, site: Site, tail: tuple[Node, ...]) -> list[Node]:
    """What stands between the pieces of a factorized convolution that `tail` follows."""
    norms: list[Node] = [node for node in tail if isinstance(node, Norm)]
    if isinstance(site.leaf, Depthwise):
        return norms
    preceding, _ = neighbours(architecture, site)
    near = [node for node in (*reversed(tail), *reversed(preceding)) if isinstance(node, Activation)]
    return [*norms, near[0] if near else Activation()]


def separate(architecture: Architecture, interactions: str, where: Where) -> Architecture:
    """k x k convolutions as depthwise ones: channel separation (Tran et al. 2019, arXiv 1904.02811).

    "preserved": a 1 x 1 convolution in the groups of the original, with its norm and no activation, comes first, so
    that filters join the same pairs of channels. "reduced": it does only where the width changes; they join fewer.
    """
    choice("interactions", interactions, SEPARATIONS)
    change: dict[Index, tuple[Node, ...]] = {}
    for site, leaf in matching(architecture, where, Conv):
        if interactions == "none" or max(axes(leaf.kernel, len(site.before.space))) == 1:
            continue
        alone = Depthwise(leaf.kernel, leaf.stride, leaf.padding, leaf.dilation, leaf.bias, label="depthwise")
        change[site.index] = (alone,)
        if interactions == "preserved" or (site.before.channels, site.before.low) != (leaf.out, leaf.low):
            point = replace(leaf, kernel=1, stride=1, padding="same", dilation=1, label="pointwise")
            tail, _ = tail_of(architecture, site)
            change[site.index] = (point, *(node for node in tail if isinstance(node, Norm)), alone)
    return spliced(architecture, change)


def dilate(architecture: Architecture, dilation: Axes, where: Where, keep_stride: bool = True) -> Architecture:
    """Kernels spread by `dilation` along axes where they are wider than 1; every map keeps its size.

    With `keep_stride` false, convolutions and pools that match lose their stride as well: dilation takes its place,
    as segmentation does (Yu & Koltun 2016, arXiv 1511.07122). `where` must then take in all summands.
    """
    integers("dilation", dilation)
    switch("keep_stride", keep_stride)
    change: dict[Index, tuple[Node, ...]] = {}
    for site, leaf in matching(architecture, where, *SLIDING):
        n = len(site.before.space)
        if not isinstance(leaf, Pool):
            kernel, _, padding, old = windows(leaf, n)
            new = tuple(d if k > 1 else o for k, d, o in zip(kernel, axes(dilation, n), old, strict=True))
            changed = replace(leaf, dilation=new)
            if leaf.padding != "same":
                grown = [(d - o) * (k - 1) for k, d, o in zip(kernel, new, old, strict=True)]
                if any(g % 2 for g in grown):
                    raise at(
                        site, f"An even kernel keeps its map's size only at odd dilations, but got ({kernel=}, "
                        f"dilation={new}). Leave the site out with `where`"
                    )  # fmt: skip
                wider = tuple(p + g // 2 for p, g in zip(padding, grown, strict=True))
                changed = replace(leaf, dilation=new, padding=wider)
            leaf = changed
        change[site.index] = (leaf if keep_stride else replace(leaf, stride=1),)
    return spliced(architecture, change)
