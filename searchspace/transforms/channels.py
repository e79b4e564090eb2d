"""Channels: how many there are, at which resolution they live, and which of them meet in a filter."""

from __future__ import annotations

from dataclasses import replace
from math import lcm

from searchspace.architecture import (
    Activation,
    Architecture,
    Conv,
    Leaf,
    Linear,
    Node,
    Shuffle,
    SqueezeExcite,
)
from searchspace.blocks import low_width, whole_width
from searchspace.fields import integer, multiplier, switch
from searchspace.transforms.rewriting import at, beyond, replaced, spliced, tail_of
from searchspace.transforms.where import Where, indivisible, matching
from searchspace.widths import Flow, Index, settled

WIDE: tuple[type[Conv | Linear], ...] = (Conv, Linear)


def widen(architecture: Architecture, factor: float, where: Where, multiple: int = 1) -> Architecture:
    """Convolutions and hidden linear layers `factor` times as wide, rounded to whole `multiple`s and groups.

    Low channels keep their share. A squeeze-excite keeps its ratio to what it reads. A width that cannot follow
    (see above) stays; so does the network's output.
    """
    multiplier("factor", factor)
    integer("multiple", multiple)
    flow = Flow(architecture)
    wider: dict[Index, Leaf] = {}
    for site, leaf in matching(architecture, where, *WIDE):
        index = site.index
        if index in flow.held | flow.outputs:
            continue
        low = leaf.low if isinstance(leaf, Conv) else 0
        parts = flow.parts(index)
        if leaf.out % parts or low % parts:  # a part of a concatenation, which is in whole groups only as a whole
            parts = 1
        out = whole_width(leaf.out * factor, lcm(parts, multiple))
        if isinstance(leaf, Linear):
            wider[index] = replace(leaf, out=out)
        else:
            low = min(out, round(low * out / leaf.out / parts) * parts)
            wider[index] = replace(leaf, out=out, low=low)
    result = replaced(architecture, settled(architecture, wider, flow))
    squeezed: dict[Index, Leaf] = {}
    for old, new in zip(architecture.sites, result.sites, strict=True):
        if isinstance(new.leaf, SqueezeExcite) and new.before.channels != old.before.channels:
            units = whole_width(new.leaf.squeeze * new.before.channels / old.before.channels)
            squeezed[new.index] = replace(new.leaf, squeeze=units)
    return replaced(result, squeezed)


def octave(architecture: Architecture, alpha: float, where: Where) -> Architecture:
    """int(`alpha` * out) channels of each convolution at half resolution (Chen et al. 2019, arXiv 1904.05049).

    Rounded down to whole groups of the convolution and of its readers. A convolution that cannot have a low part,
    or whose readers cannot take one (a Flatten, a window that is not "same"), stays as it is. Before `factorize`:
    an asymmetric pair that shares a stride axis by axis cannot become octave.
    """
    low_width(alpha, 1)  # refuses what is no share
    flow = Flow(architecture)
    lower: dict[Index, Leaf] = {
        site.index: replace(leaf, low=low_width(alpha, leaf.out, flow.parts(site.index)))
        for site, leaf in matching(architecture, where, Conv)
        if site.index not in flow.held
    }
    return replaced(architecture, settled(architecture, lower, flow))


def regroup(architecture: Architecture, groups: int, shuffle: bool, where: Where) -> Architecture:
    """Convolutions in `groups`; with `shuffle`, channels shuffled after the norm and the activation that follow.

    A convolution without an activation in its chain ends a branch and gets no shuffle, as in ShuffleNet. A shuffle
    that already stands there takes the new count, and goes where it is 1. Raises `ArchitectureError` where `groups`
    does not divide: `where=... & divisible_by(groups)` leaves those out. Regroup before `factorize`, which then
    keeps one shuffle a pair, and before `octave`, which then rounds to whole groups.
    """
    integer("groups", groups)
    switch("shuffle", shuffle)
    change: dict[Index, tuple[Node, ...]] = {}
    for site, leaf in matching(architecture, where, Conv):
        if widths := indivisible(site, groups):
            got = ", ".join(f"{name}={width}" for name, width in widths.items())
            raise at(
                site, f"`groups` must be a whole number that divides the channels, but got ({groups=}, {got}). "
                f"Leave the site out: `where & divisible_by({groups})`"
            )  # fmt: skip
        change[site.index] = (replace(leaf, groups=groups),)
        tail, after = tail_of(architecture, site)
        if isinstance(after, Shuffle) and groups == leaf.groups:
            continue
        if isinstance(after, Shuffle):
            change[beyond(site.index, len(tail) + 1)] = (replace(after, groups=groups),) if groups > 1 else ()
        elif shuffle and groups > 1 and tail and isinstance(tail[-1], Activation):
            change[beyond(site.index, len(tail))] = (tail[-1], Shuffle(groups))
    return spliced(architecture, change)
