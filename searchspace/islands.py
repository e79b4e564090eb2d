"""Islands: groups of channels that grouped convolutions keep apart, followed through an architecture.

A grouped convolution reads each of its groups by itself. If a second one reads what the first made, in the same
groups, then no output ever sees more than one group of the first one's inputs: the map consists of islands (Zhang et
al. 2017, arXiv 1707.01083, section 3.1). A dense convolution joins them, and so does a shuffle once a grouped
convolution has read across it. A join by which every channel has seen all that the join reads has mixed it, too: so
in a shuffle unit, whose shuffle lies between its two grouped convolutions. A pair 1 x k, k x 1 counts as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from searchspace import architecture as language
from searchspace.architecture import Architecture, Chain, Concat, Conv, Leaf, Node, Shape, Site, Tap, axes, children


@dataclass(frozen=True, slots=True)
class Stack:
    """The grouped convolution at `site` reads `islands` groups of channels that nothing has mixed since `since`."""

    site: Site
    since: Site
    islands: int


@dataclass(frozen=True, slots=True)
class _Channel:
    """`seen`: what it depends on, of the last map of which every channel had seen everything.

    `since`: the first grouped convolution on the way from there; None for a channel that has seen everything.
    """

    seen: frozenset[int]
    since: Site | None = None


_Part = tuple[_Channel, ...]
_Map = tuple[_Part, _Part]  # the high channels, the low ones


def stacked_groups(architecture: Architecture) -> list[Stack]:
    """The grouped convolutions that read islands and leave them apart, in order of execution."""
    if not any(isinstance(site.leaf, Conv) and site.leaf.groups > 1 for site in architecture.sites):
        return []
    walk = _Walk(architecture)
    walk.follow(architecture.body, walk.mixed(Shape(architecture.input[0], architecture.input[1:])))
    return walk.stacks


class _Walk:
    def __init__(self, architecture: Architecture) -> None:
        self.sites, self.next = architecture.sites, 0
        self.names = count()
        self.stacks: list[Stack] = []

    def mixed(self, shape: Shape) -> _Map:
        """A map of which every channel has seen everything."""

        return tuple(self.channel() for _ in range(shape.high)), tuple(self.channel() for _ in range(shape.low))

    def channel(self) -> _Channel:
        return _Channel(frozenset((next(self.names),)))

    def follow(self, node: Node, read: _Map) -> _Map:
        """The map that `node` makes of `read`; its leaves are the next of the sites."""
        if isinstance(node, Leaf):
            self.next += 1
            return self.leaf(self.sites[self.next - 1], read)
        if isinstance(node, Chain):
            for item in node.items:
                read = self.follow(item, read)
            return read
        start, stacks = self.next, list(self.stacks)
        mixed = all(c.since is None for part in read for c in part)
        anew = read if mixed else self.mixed(Shape(len(read[0]) + len(read[1]), (), len(read[1])))
        alone = _joined(node, self.branches(node, anew), anew)
        if isinstance(node, Tap):
            return read
        ends = alone
        if not mixed:
            self.next, self.stacks = start, stacks
            ends = _joined(node, self.branches(node, read), read)
        before = _seen(anew)  # what the join mixes by itself it has mixed, however its input came to be
        high, low = (
            tuple(self.channel() if a.seen.isdisjoint(before) else c for a, c in zip(*parts, strict=True))
            for parts in zip(alone, ends, strict=True)
        )
        return high, low

    def branches(self, node: Node, read: _Map) -> list[_Map]:
        return [self.follow(branch, read) for branch in children(node)]

    def leaf(self, site: Site, read: _Map) -> _Map:
        leaf = site.leaf
        if isinstance(leaf, Conv):
            if leaf.groups == 1:
                return self.mixed(site.after)
            if leaf.groups == site.before.channels:  # a filter for each channel, or several
                return _spread((*read[0], *read[1]), site.after)
            return self.grouped(site, leaf.groups, read)
        if isinstance(leaf, language.Shuffle):
            sizes = [len(part) // leaf.groups for part in read]
            high, low = (tuple(c for i in range(n) for c in part[i::n]) for n, part in zip(sizes, read, strict=True))
            return high, low
        if isinstance(leaf, language.Select):
            chosen = [(*read[0], *read[1])[i] for i in leaf.channels]
            return tuple(chosen[: site.after.high]), tuple(chosen[site.after.high :])
        if isinstance(leaf, language.Flatten | language.Linear):
            return self.mixed(site.after)
        return (read[0] + read[1], ()) if isinstance(leaf, language.AdaptivePool) else read

    def grouped(self, site: Site, groups: int, read: _Map) -> _Map:
        chunks = [[c for part in read for c in _chunk(part, groups, g)] for g in range(groups)]
        islands = _connected(frozenset[int]().union(*(c.seen for c in chunk)) for chunk in chunks)
        since = [next((c.since for c in chunk if c.since is not None), None) for chunk in chunks]
        if len(set(islands)) == 1:
            return self.mixed(site.after)
        apart = {island for island, earlier in zip(islands, since, strict=True) if earlier is not None}
        earliest = next((s for s in since if s is not None), None)
        if earliest is not None and len(apart) > 1 and not _factors(earliest, site):
            self.stacks.append(Stack(site, earliest, len(apart)))
        made = [_Channel(island, earlier or site) for island, earlier in zip(islands, since, strict=True)]
        return _spread(made, site.after)


def _spread(made: Sequence[_Channel], shape: Shape) -> _Map:
    """A map of `shape` whose groups are each like one of `made`."""
    high, low = (tuple(c for c in made for _ in range(n // len(made))) for n in (shape.high, shape.low))
    return high, low


def _joined(node: Node, ends: list[_Map], read: _Map) -> _Map:
    """The map that Concat or Add makes of the ends of its branches."""
    if isinstance(node, Concat):
        return tuple(c for high, _ in ends for c in high), tuple(c for _, low in ends for c in low)
    before = _seen(read)
    high, low = (tuple(_summed(c, before) for c in zip(*parts, strict=True)) for parts in zip(*ends, strict=True))
    return high, low


def _summed(channels: Sequence[_Channel], before: frozenset[int]) -> _Channel:
    """The sum of a channel of each branch; `before` is what the branches read. One that mixed it has mixed the sum."""
    for c in channels:
        if c.seen.isdisjoint(before):
            return c
    since = next((c.since for c in channels if c.since is not None), None)
    largest = max(channels, key=lambda c: len(c.seen))
    if all(c.seen <= largest.seen for c in channels):
        return _Channel(largest.seen, since)
    return _Channel(frozenset[int]().union(*(c.seen for c in channels)), since)


def _factors(first: Site, second: Site) -> bool:
    """Whether the two stand for one grouped convolution: 1 x k and k x 1, or 1 x k x k and k x 1 x 1."""
    n = len(first.before.space)
    kernels = [axes(site.leaf.kernel, n) for site in (first, second) if isinstance(site.leaf, Conv)]
    return all(max(kernel) > 1 for kernel in kernels) and all(min(sizes) == 1 for sizes in zip(*kernels, strict=True))


def _seen(read: _Map) -> frozenset[int]:
    return frozenset[int]().union(*(c.seen for part in read for c in part))


def _connected(sets: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """For each set, the union of those that it meets, directly or through others."""
    given = list(sets)
    islands: list[frozenset[int]] = []
    for one in dict.fromkeys(given):
        met = [island for island in islands if not island.isdisjoint(one)]
        islands = [island for island in islands if island.isdisjoint(one)] + [one.union(*met)]
    return [next(island for island in islands if one <= island) for one in given]


def _chunk(part: _Part, groups: int, group: int) -> _Part:
    size = len(part) // groups
    return part[group * size : (group + 1) * size]
