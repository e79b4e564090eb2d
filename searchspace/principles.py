"""Design principles that an architecture breaks, as advice: each breach says where, by how much, and what to do.

Four principles of convolutional networks, each as a rule on numbers. A breach is no error: published networks have
some, and know why. `breaches` looks at the trunk (what stands outside of Add and Concat, which count as one layer
each), at the longest path, and at groups of channels.

[inception] Szegedy et al. 2015, arXiv 1512.00567: sections 2 (principles) and 5 (grid reduction);
[squeezenet] Iandola et al. 2016, arXiv 1602.07360: section 3.1; [shufflenet] Zhang et al. 2017, arXiv 1707.01083.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from searchspace.architecture import (
    Add,
    Architecture,
    Chain,
    Concat,
    Conv,
    Depthwise,
    Leaf,
    Linear,
    Node,
    Pool,
    Shape,
    Site,
    Tap,
    axes,
    children,
    shape_after,
)
from searchspace.islands import stacked_groups

FALL, WIDENING = 4, 1.5  # of a map's elements in one reduction; of the channels right after it
WIDTH_PER_CONVOLUTION = (1, 300)  # the networks of published/printed.json: 3.0 (dilated context) to 228 (ResNet-26)
EARLY, SMALL = 8, 16  # the image's reduction per axis; the fewest positions per axis worth three convolutions


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """`principle` by name, `place` as labels and module, `message` with what was found and what the papers advise."""

    principle: str
    place: str
    message: str


def breaches(architecture: Architecture) -> tuple[Breach, ...]:
    """The principles that `architecture` breaks, each at its first place; the message counts further places."""
    found = (bottlenecks, width_against_depth, early_downsampling, stacked_without_shuffle)
    result = []
    for rule in found:
        places = list(rule(architecture))
        if len(places) > 1:
            more = f" ({len(places) - 1} more such place{'s' if len(places) > 2 else ''})"
            first = places[0]
            places[0] = Breach(principle=first.principle, place=first.place, message=first.message + more)
        result += places[:1]
    return tuple(result)


# Representational bottlenecks -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Step:
    """One node of the trunk: a leaf, or a join as a whole."""

    node: Node
    place: str
    before: Shape
    after: Shape


def bottlenecks(architecture: Architecture) -> Iterator[Breach]:
    """A grid reduced before the width grows: [inception] figure 9, left.

    The map loses 3/4 of its elements or more in a pooling, or a convolution that does not widen, and the next layer
    makes it 1.5 times as wide or wider. A depthwise convolution is half of a separable one and does not count. Nor
    does the pooling of a stem in front of residual or dense blocks, while the map is no smaller than the image, nor
    a pooling to one position.
    """
    steps = list(_trunk(architecture))
    stem = True
    for i, step in enumerate(steps):
        stem = stem and not isinstance(step.node, Add | Concat)
        before, after = step.before, step.after
        reduces = isinstance(step.node, Pool | Conv) and prod(after.space) < prod(before.space)
        if not reduces or after.channels > before.channels or before.elements < FALL * after.elements:
            continue
        following = next((s for s in steps[i + 1 :] if isinstance(s.node, Conv | Add | Concat | Pool | Linear)), step)
        blocks = isinstance(following.node, Add | Concat)
        if not (blocks or isinstance(following.node, Conv)) or max(after.space) == 1:
            continue
        if stem and blocks and after.elements >= prod(architecture.input):
            continue
        wide = following.after.channels
        if wide >= WIDENING * after.channels:
            yield Breach(
                principle="representational bottleneck",
                place=step.place,
                message=f"{_verb(step.node)} takes the map from {before} to {after}, "
                f"{before.elements / after.elements:.3g} times fewer elements, before the next layer widens it to "
                f"{wide} channels: widen first, or put a strided convolution and a pooling side by side and join "
                f"them (arXiv 1512.00567, section 5)",
            )


def _verb(node: Node) -> str:
    return f"{node.kind} pooling" if isinstance(node, Pool) else "a strided convolution"


def _trunk(architecture: Architecture) -> Iterator[_Step]:
    shape = Shape(architecture.input[0], architecture.input[1:])

    def walk(node: Node, index: tuple[int, ...], path: tuple[str, ...]) -> Iterator[_Step]:
        nonlocal shape
        if isinstance(node, Chain):
            path = (*path, node.label) if node.label else path
            for i, item in enumerate(node.items):
                yield from walk(item, (*index, i), path)
        elif not isinstance(node, Tap):
            before, shape = shape, shape_after(node, shape)
            name = node.label or (type(node).__name__.lower())
            yield _Step(node, _place((*path, name), index), before, shape)

    return walk(architecture.body, (), ())


def _place(words: tuple[str, ...], index: tuple[int, ...]) -> str:
    return f"{'/'.join(words)} (body.{'.'.join(map(str, index))})"


def _site(site: Site) -> str:
    return _place((*site.path, site.role or type(site.leaf).__name__.lower()), site.index)


# Width against depth --------------------------------------------------------------------------------------------


def width_against_depth(architecture: Architecture) -> Iterator[Breach]:
    """The widest map of the trunk, over the spatial convolutions on the longest path: [inception] principle 4."""
    steps = list(_trunk(architecture))
    last = max((i for i, step in enumerate(steps) if isinstance(step.node, Conv | Linear)), default=len(steps))
    widest = max((s for s in steps[:last] if s.after.space), key=lambda s: s.after.channels, default=None)
    depth = max((number for number, _ in _spatial(architecture)), default=0)
    if widest is None or not depth:
        return
    ratio, (least, most) = widest.after.channels / depth, WIDTH_PER_CONVOLUTION
    if not least <= ratio <= most:
        yield Breach(
            principle="width against depth",
            place=widest.place,
            message=f"the widest map has {widest.after.channels} channels and the longest path {depth} convolutions "
            f"with a spatial kernel, {ratio:.2g} channels each, where published networks have {least} to {most}: "
            f"{'widen it or take layers out' if ratio < least else 'narrow it or add layers'}, since both should grow "
            f"together (arXiv 1512.00567, section 2)",
        )


def _spatial(architecture: Architecture) -> list[tuple[int, Site]]:
    """The convolutions with a kernel above 1 on an image axis, each with its number on the longest path to it."""
    sites = iter(architecture.sites)
    found: list[tuple[int, Site]] = []

    def walk(node: Node, depth: int) -> int:
        if isinstance(node, Leaf):
            site = next(sites)
            if isinstance(node, Conv | Depthwise) and max(axes(node.kernel, len(site.before.space))[-2:]) > 1:
                depth += 1
                if not site.auxiliary:
                    found.append((depth, site))
            return depth
        if isinstance(node, Chain):
            for item in node.items:
                depth = walk(item, depth)
            return depth
        ends = [walk(branch, depth) for branch in children(node)]
        return depth if isinstance(node, Tap) else max(ends)

    walk(architecture.body, 0)
    return found


# Early downsampling ---------------------------------------------------------------------------------------------


def early_downsampling(architecture: Architecture) -> Iterator[Breach]:
    """An image reduced by 8 per axis when few convolutions have seen it: [squeezenet] strategy 3, to do so late.

    It counts before the second spatial convolution; before the third, only where fewer than 16 positions are left.
    """
    image = architecture.input[-2:]
    for number, site in _spatial(architecture):
        small = site.before.space[-2:]
        reduced = all(size <= -(-whole // EARLY) for size, whole in zip(small, image, strict=True))
        if number > 3 or not reduced or (number == 3 and min(small) >= SMALL):
            continue
        yield Breach(
            principle="early downsampling",
            place=_site(site),
            message=f"the {('first', 'second', 'third')[number - 1]} convolution with a spatial kernel reads "
            f"{'x'.join(map(str, small))} of an image of {'x'.join(map(str, image))}: keep the resolution longer, "
            f"large maps early are worth more than many channels late (arXiv 1602.07360, section 3.1)",
        )
        return


# Groups ---------------------------------------------------------------------------------------------------------


def stacked_without_shuffle(architecture: Architecture) -> Iterator[Breach]:
    """Grouped convolutions one after the other whose groups never meet: [shufflenet] section 3.1."""
    for stack in stacked_groups(architecture):
        groups = getattr(stack.site.leaf, "groups", 1)
        yield Breach(
            principle="stacked groups without shuffle",
            place=_site(stack.site),
            message=f"a convolution in {groups} groups reads {stack.islands} islands of channels that nothing has "
            f"mixed since {_site(stack.since)}: shuffle the channels or put a dense 1 x 1 convolution between "
            f"(arXiv 1707.01083, section 3.1)",
        )
