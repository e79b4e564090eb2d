"""Transforms: what the papers propose as plug-ins, as rewrites of any architecture into another.

Each takes `where`, a predicate over sites (`under("stage2") & ~role("projection")`), and returns an equal
architecture where nothing matches. Labels survive. What a rewrite does follows from the values alone:

* `widen` and `octave` change a width only where everything it meets can follow: a convolution whose output is added
  to one that `where` leaves out, is picked from by a `Select`, or (octave) is read by a layer that takes no pair,
  stays as it is. The output of the network and of each auxiliary head keeps its width and its one resolution.
* `regroup`, `factorize` and `dilate` do exactly what was asked or raise `ArchitectureError` with the place; a site
  that has nothing to rewrite (a 1 x 1 kernel has no factors) stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import lcm

from searchspace.architecture import (
    Activation,
    Architecture,
    ArchitectureError,
    Axes,
    Chain,
    Conv,
    Depthwise,
    Leaf,
    Linear,
    Node,
    Norm,
    Pool,
    Shuffle,
    Site,
    SqueezeExcite,
    Tap,
    axes,
    children,
    windows,
)
from searchspace.blocks import FACTORIZATIONS, factorized, low_width, spread, whole_width
from searchspace.widths import Flow, Index, settled

Where = Callable[[Site], bool]


# Where ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Predicate:
    """A test of a site; `&`, `|` and `~` make others of it."""

    test: Where

    def __call__(self, site: Site) -> bool:
        return self.test(site)

    def __and__(self, other: Where) -> Predicate:
        return Predicate(lambda site: self(site) and other(site))

    def __or__(self, other: Where) -> Predicate:
        return Predicate(lambda site: self(site) or other(site))

    def __invert__(self) -> Predicate:
        return Predicate(lambda site: not self(site))


everywhere = Predicate(lambda site: True)


def under(*labels: str) -> Predicate:
    """Sites inside a join with one of these labels: a stage, a block."""
    return Predicate(lambda site: not set(labels).isdisjoint(site.path))


def role(*labels: str) -> Predicate:
    """Sites whose own label is one of these: "spatial", "reduce", "projection", ..."""
    return Predicate(lambda site: site.role in labels)


def divisible_by(groups: int) -> Predicate:
    """Convolutions that can have this many groups: it divides what they read and make, in each frequency."""
    return Predicate(lambda site: isinstance(site.leaf, Conv) and not _indivisible(site, groups))


# Widths ---------------------------------------------------------------------------------------------------------


def widen(architecture: Architecture, factor: float, where: Where, multiple: int = 1) -> Architecture:
    """Convolutions and hidden linear layers `factor` times as wide, rounded to whole `multiple`s and groups.

    Low channels keep their share. A squeeze-excite keeps its ratio to what it reads. A width that cannot follow
    (see above) stays; so does the network's output.
    """
    if not factor > 0 or multiple < 1:
        raise ArchitectureError(f"`factor` and `multiple` must be positive, but got ({factor=}, {multiple=}).")
    flow = Flow(architecture)
    wider: dict[Index, Leaf] = {}
    for site in architecture.sites:
        leaf, index = site.leaf, site.index
        if not isinstance(leaf, Conv | Linear) or index in flow.held | flow.outputs or not where(site):
            continue
        parts = flow.parts(index)
        out = whole_width(leaf.out * factor, lcm(parts, multiple))
        if isinstance(leaf, Linear):
            wider[index] = replace(leaf, out=out)
        else:
            low = min(out, round(leaf.low * out / leaf.out / parts) * parts)
            wider[index] = replace(leaf, out=out, low=low)
    result = _replaced(architecture, settled(architecture, wider, flow))
    squeezed: dict[Index, Leaf] = {}
    for old, new in zip(architecture.sites, result.sites, strict=True):
        if isinstance(new.leaf, SqueezeExcite) and new.before.channels != old.before.channels:
            units = whole_width(new.leaf.squeeze * new.before.channels / old.before.channels)
            squeezed[new.index] = replace(new.leaf, squeeze=units)
    return _replaced(result, squeezed)


def resize(architecture: Architecture, space: tuple[int, ...]) -> Architecture:
    """The same body on an input of another (height, width) or (frames, height, width)."""
    if len(space) != len(architecture.input) - 1:
        raise ArchitectureError(
            f"`space` must have as many axes as the input, but got {tuple(space)} for {architecture.input[1:]}."
        )
    return Architecture((architecture.input[0], *space), architecture.body)


def octave(architecture: Architecture, alpha: float, where: Where) -> Architecture:
    """int(`alpha` * out) channels of each convolution at half resolution (Chen et al. 2019, arXiv 1904.05049).

    Rounded down to whole groups of the convolution and of its readers. A convolution that cannot have a low part,
    or whose readers cannot take one (a Flatten, a window that is not "same"), stays as it is. Before `factorize`:
    an asymmetric pair that shares a stride axis by axis cannot become octave.
    """
    low_width(alpha, 1)
    flow = Flow(architecture)
    lower: dict[Index, Leaf] = {}
    for site in architecture.sites:
        leaf, index = site.leaf, site.index
        if isinstance(leaf, Conv) and index not in flow.held and where(site):
            lower[index] = replace(leaf, low=low_width(alpha, leaf.out, flow.parts(index)))
    return _replaced(architecture, settled(architecture, lower, flow))


# Convolutions ---------------------------------------------------------------------------------------------------


def regroup(architecture: Architecture, groups: int, shuffle: bool, where: Where) -> Architecture:
    """Convolutions in `groups`; with `shuffle`, channels shuffled after the norm and the activation that follow.

    A convolution without an activation in its chain ends a branch and gets no shuffle, as in ShuffleNet. A shuffle
    that already stands there takes the new count, and goes where it is 1. Raises `ArchitectureError` where `groups`
    does not divide: `where=... & divisible_by(groups)` leaves those out. Regroup before `factorize`, which then
    keeps one shuffle a pair, and before `octave`, which then rounds to whole groups.
    """
    change: dict[Index, tuple[Node, ...]] = {}
    for site in architecture.sites:
        leaf = site.leaf
        if not isinstance(leaf, Conv) or not where(site):
            continue
        if widths := _indivisible(site, groups):
            got = ", ".join(f"{name}={width}" for name, width in widths.items())
            raise _at(
                site, f"`groups` must be a whole number that divides the channels, but got ({groups=}, {got}). "
                f"Leave the site out: `where & divisible_by({groups})`"
            )  # fmt: skip
        change[site.index] = (replace(leaf, groups=groups),)
        tail, after = _tail(architecture, site)
        if isinstance(after, Shuffle) and groups == leaf.groups:
            continue
        if isinstance(after, Shuffle):
            change[_next(site.index, len(tail) + 1)] = (replace(after, groups=groups),) if groups > 1 else ()
        elif shuffle and groups > 1 and tail and isinstance(tail[-1], Activation):
            change[_next(site.index, len(tail))] = (tail[-1], Shuffle(groups))
    return _spliced(architecture, change)


def factorize(architecture: Architecture, kind: str, where: Where) -> Architecture:
    """k x k convolutions as "stacked" 3 x 3 or as an "asymmetric" pair 1 x k, k x 1: the pieces of `blocks.factorized`.

    Between pieces stand the norm that follows the original and, except for depthwise ones, its activation; a linear
    convolution takes the activation before it in its chain, or "relu". Raises `ArchitectureError` for an even
    kernel or a padding that is not "same".
    """
    if kind not in FACTORIZATIONS:
        raise ArchitectureError(f"`kind` must be one of {', '.join(FACTORIZATIONS)}, but got {kind!r}.")
    change: dict[Index, tuple[Node, ...]] = {}
    for site in architecture.sites:
        leaf = site.leaf
        if not isinstance(leaf, Conv | Depthwise) or not where(site):
            continue
        n = len(site.before.space)
        kernel, _, _, dilation = windows(leaf, n)
        if kind == "none" or (max(kernel) <= 3 if kind == "stacked" else min(kernel[-2:]) == 1):
            continue
        if leaf.padding != "same" or any(k % 2 == 0 for k in kernel):
            raise _at(
                site, f"factorize needs odd kernels and padding 'same', but got ({kernel=}, padding={leaf.padding}). "
                "Leave the site out with `where`"
            )  # fmt: skip
        between = _between(architecture, site)
        pieces: list[Node] = []
        for size, stride in factorized(leaf.kernel, leaf.stride, n, kind, bool(site.before.low or site.after.low)):
            piece = replace(leaf, kernel=size, stride=stride, dilation=spread(size, dilation, n))
            pieces += [*between, piece] if pieces else [piece]
        change[site.index] = tuple(pieces)
    return _spliced(architecture, change)


def dilate(architecture: Architecture, dilation: Axes, where: Where, keep_stride: bool = True) -> Architecture:
    """Kernels spread by `dilation` along axes where they are wider than 1; every map keeps its size.

    With `keep_stride` false, convolutions and pools that match lose their stride as well: dilation takes its place,
    as segmentation does (Yu & Koltun 2016, arXiv 1511.07122). `where` must then take in all summands.
    """
    change: dict[Index, tuple[Node, ...]] = {}
    for site in architecture.sites:
        leaf = site.leaf
        if not isinstance(leaf, Conv | Depthwise | Pool) or not where(site):
            continue
        n = len(site.before.space)
        if not isinstance(leaf, Pool):
            kernel, _, padding, old = windows(leaf, n)
            new = tuple(d if k > 1 else o for k, d, o in zip(kernel, axes(dilation, n), old, strict=True))
            changed = replace(leaf, dilation=new)  # refuses a dilation below 1
            if leaf.padding != "same":
                grown = [(d - o) * (k - 1) for k, d, o in zip(kernel, new, old, strict=True)]
                if any(g % 2 for g in grown):
                    raise _at(
                        site, f"An even kernel keeps its map's size only at odd dilations, but got ({kernel=}, "
                        f"dilation={new}). Leave the site out with `where`"
                    )  # fmt: skip
                wider = tuple(p + g // 2 for p, g in zip(padding, grown, strict=True))
                changed = replace(leaf, dilation=new, padding=wider)
            leaf = changed
        change[site.index] = (leaf if keep_stride else replace(leaf, stride=1),)
    return _spliced(architecture, change)


# Places ---------------------------------------------------------------------------------------------------------


def _at(site: Site, problem: str) -> ArchitectureError:
    words = "/".join((*site.path, site.role or type(site.leaf).__name__.lower()))
    return ArchitectureError(f"{problem}. At {words} ({site.name}).")


def _indivisible(site: Site, groups: int) -> dict[str, int]:
    """The widths of a convolution that `groups` does not divide, by name."""
    widths = {"in": site.before.high, "low in": site.before.low, "out": site.after.high, "low out": site.after.low}
    return {name: width for name, width in widths.items() if groups < 1 or width % groups}


def _next(index: Index, steps: int) -> Index:
    return (*index[:-1], index[-1] + steps)


def _neighbours(architecture: Architecture, site: Site) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """What stands before and after the site in its chain; nothing where it is a branch itself."""
    node: Node = architecture.body
    for i in site.index[:-1]:
        node = children(node)[i]
    position = site.index[-1]
    return (node.items[:position], node.items[position + 1 :]) if isinstance(node, Chain) else ((), ())


def _tail(architecture: Architecture, site: Site) -> tuple[tuple[Node, ...], Node | None]:
    """The norm and the activation that follow the site, as far as they do, and what comes next."""
    _, following = _neighbours(architecture, site)
    length = 0
    for kind in (Norm, Activation):
        if length < len(following) and isinstance(following[length], kind):
            length += 1
    return following[:length], following[length] if length < len(following) else None


def _between(architecture: Architecture, site: Site) -> list[Node]:
    """What stands between the pieces of a factorized convolution."""
    tail, _ = _tail(architecture, site)
    norms: list[Node] = [node for node in tail if isinstance(node, Norm)]
    if isinstance(site.leaf, Depthwise):
        return norms
    preceding, _ = _neighbours(architecture, site)
    near = [node for node in (*reversed(tail), *reversed(preceding)) if isinstance(node, Activation)]
    return [*norms, near[0] if near else Activation()]


def _replaced(architecture: Architecture, change: dict[Index, Leaf]) -> Architecture:
    return _spliced(architecture, {index: (leaf,) for index, leaf in change.items()})


def _spliced(architecture: Architecture, change: dict[Index, tuple[Node, ...]]) -> Architecture:
    """`architecture` with the leaves at the given index paths replaced by any number of nodes."""
    body = Chain(_splice(architecture.body, change, ()), label=architecture.body.label)
    return Architecture(architecture.input, body)


def _splice(node: Node, change: dict[Index, tuple[Node, ...]], index: Index) -> tuple[Node, ...]:
    """What stands for `node`, or for the items of it where it is the chain at `index`."""
    if not isinstance(node, Chain):
        return change.get(index, (_joined(node, change, index),))
    items: list[Node] = []
    for i, item in enumerate(node.items):
        if isinstance(item, Chain):
            items.append(replace(item, items=_splice(item, change, (*index, i))))
        else:
            items += _splice(item, change, (*index, i))
    return tuple(items)


def _joined(node: Node, change: dict[Index, tuple[Node, ...]], index: Index) -> Node:
    """A leaf or a join with its branches rewritten; a branch that becomes several nodes becomes a chain of them."""
    branches: list[Node] = []
    for i, branch in enumerate(children(node)):
        new = _splice(branch, change, (*index, i))
        if isinstance(branch, Chain):
            branches.append(replace(branch, items=new))
        else:
            branches.append(new[0] if len(new) == 1 else Chain(new))
    if not branches:
        return node
    return replace(node, head=branches[0]) if isinstance(node, Tap) else replace(node, branches=tuple(branches))  # type: ignore[call-arg]
