"""The most groups that connected channels fit into: equal groups, every component whole in one of them.

Channels are nodes, numbered; a *span* is a range of them that every group takes an equal share of (the inputs of a
convolution, its outputs; for an octave convolution each frequency by itself). Nodes with one label are one component
of live edges; a node alone fills up whatever group has room. So it is bin packing in as many dimensions as there are
spans, solved exactly: groups are filled one after the other, the largest component that is left first, and none is
closed while it has room for another component (moving that there does no harm to the rest).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

STEPS = 30_000  # fillings tried for one count of groups, some 0.6 s; most layers take as many as they have groups

Sizes = tuple[int, ...]
"""How many nodes of each span."""

Component = list[list[int]]
"""The nodes of a component, or of a group, by span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """`groups` equal groups: `orders` has, for each span, its nodes group after group.

    `certain`: there is no larger count; else the search for one was cut short.
    """

    groups: int
    orders: tuple[tuple[int, ...], ...]
    certain: bool


def most_groups(labels: NDArray[np.integer], spans: Sequence[range], least: int = 1, steps: int = STEPS) -> Blocks:
    """The most groups for nodes with these `labels` (nodes,); `least` is a count that the natural order fits.

    The order is the natural one where that fits; else one that leaves the nodes of some spans where they are, if it
    finds one.
    """
    components = _components(labels, spans)
    sizes = [tuple(map(len, component)) for component in components]
    widths, certain = tuple(map(len, spans)), True
    most = gcd(*widths)
    for groups in (g for g in range(most, least, -1) if most % g == 0):
        room = tuple(width // groups for width in widths)
        if _natural(components, spans, room):
            return Blocks(groups=groups, orders=tuple(map(tuple, spans)), certain=certain)
        bins, sure = pack(sizes, room, groups, steps)
        certain &= sure
        if bins is not None:
            return Blocks(groups=groups, orders=_orders(components, bins, spans, room), certain=certain)
    return Blocks(groups=least, orders=tuple(map(tuple, spans)), certain=certain)


def pack(sizes: Sequence[Sizes], room: Sizes, bins: int, steps: int = STEPS) -> tuple[list[list[int]] | None, bool]:
    """(the items in each of `bins` bins of `room`, or None where they do not fit; whether that is certain).

    `sizes` has each item's size in every dimension. Not certain: `steps` fillings were tried in vain.
    """
    if not all(_fits(item, room) for item in sizes):
        return None, True
    items: dict[Sizes, list[int]] = defaultdict(list)
    for i, size in enumerate(sizes):
        items[size].append(i)
    kinds = sorted(items, key=lambda kind: (max(s / r for s, r in zip(kind, room)), kind), reverse=True)
    left = [tuple(len(items[kind]) for kind in kinds)]  # of each kind, before each bin
    filled: list[Sizes] = []
    tries = [_fillings(kinds, left[0], room)]
    hopeless: set[tuple[int, Sizes]] = set()
    while tries and any(left[-1]):
        if steps == 0:
            return None, False
        steps -= 1
        filling = next(tries[-1], ())
        if filling is None:
            continue
        if not filling:
            hopeless.add((len(filled), left[-1]))
            tries.pop()
            left.pop()
            if filled:
                filled.pop()
            continue
        rest = tuple(n - k for n, k in zip(left[-1], filling))
        after = len(filled) + 1
        needs = (sum(n * kind[d] for n, kind in zip(rest, kinds)) for d in range(len(room)))
        if (after, rest) in hopeless or any(need > (bins - after) * most for need, most in zip(needs, room)):
            continue
        filled.append(filling)
        left.append(rest)
        tries.append(_fillings(kinds, rest, room))
    if not left:
        return None, True
    packed = [[items[kind].pop() for kind, k in zip(kinds, filling) for _ in range(k)] for filling in filled]
    return packed + [[] for _ in range(bins - len(packed))], True


def _fillings(kinds: Sequence[Sizes], counts: Sizes, room: Sizes) -> Iterator[Sizes | None]:
    """How many of each kind to put into one bin: the first kind that is left among them, and no more would fit.

    None for each way that was looked at and left room for more.
    """
    filling = [0] * len(kinds)

    def fill(i: int, room: Sizes) -> Iterator[bool]:
        while i < len(kinds) and not (counts[i] and _fits(kinds[i], room)):
            i += 1
        if i == len(kinds):
            yield not any(n > k and _fits(kind, room) for n, k, kind in zip(counts, filling, kinds))
            return
        fits = min(counts[i], *(r // s for r, s in zip(room, kinds[i]) if s))
        for k in range(fits, -1 if any(filling) else 0, -1):
            filling[i] = k
            yield from fill(i + 1, tuple(r - k * s for r, s in zip(room, kinds[i])))
        filling[i] = 0

    for full in fill(0, room):
        yield tuple(filling) if full else None


def _fits(size: Sizes, room: Sizes) -> bool:
    return all(s <= r for s, r in zip(size, room))


def _components(labels: NDArray[np.integer], spans: Sequence[range]) -> list[Component]:
    """The components of more than one node."""
    named = labels.tolist()
    counts = Counter(named)
    found: dict[int, Component] = defaultdict(lambda: [[] for _ in spans])
    for i, span in enumerate(spans):
        for node in span:
            if counts[named[node]] > 1:
                found[named[node]][i].append(node)
    return list(found.values())


def _natural(components: Sequence[Component], spans: Sequence[range], room: Sizes) -> bool:
    """Whether every component lies within one group as the nodes stand."""
    return all(
        len({(node - span.start) // r for nodes, span, r in zip(component, spans, room) for node in nodes}) == 1
        for component in components
    )


def _orders(
    components: Sequence[Component], bins: Sequence[Sequence[int]], spans: Sequence[range], room: Sizes
) -> tuple[tuple[int, ...], ...]:
    """The nodes of each span, group after group, as near to the natural order as one span's allows."""
    groups: list[Component] = [[[] for _ in spans] for _ in bins]
    for group, members in zip(groups, bins):
        for i in members:
            for d, nodes in enumerate(components[i]):
                group[d] += nodes
    ways = []
    for first in range(len(spans)):
        ranked = sorted(groups, key=lambda group: min(group[first], default=spans[first].stop))
        ways.append(tuple(_filled([g[d] for g in ranked], span, r) for d, (span, r) in enumerate(zip(spans, room))))
    return max(ways, key=lambda way: sum(order == tuple(span) for order, span in zip(way, spans)))


def _filled(groups: list[list[int]], span: range, room: int) -> tuple[int, ...]:
    """The groups' nodes in one span, each group filled up with nodes that stand in none: its natural ones first."""
    placed = {node for nodes in groups for node in nodes}
    full, spare = [list(nodes) for nodes in groups], list[int]()
    for node in (node for node in span if node not in placed):
        home = full[(node - span.start) // room]
        (home if len(home) < room else spare).append(node)
    for nodes in full:
        while len(nodes) < room:
            nodes.append(spare.pop(0))
    return tuple(node for nodes in full for node in sorted(nodes))
