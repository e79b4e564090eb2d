"""Who decides each width and who has to live with it: widths followed through an architecture.

A convolution or a linear layer decides a width; sums, groups, shuffles and selections bind it. `settled` takes
changes of widths and drops those that do not fit together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import lcm

from searchspace.architecture import (
    Add,
    Architecture,
    ArchitectureError,
    Chain,
    Conv,
    Leaf,
    Linear,
    Node,
    Select,
    Shape,
    Shuffle,
    Tap,
    children,
)

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Stream:
    """A map on its way: its shape and the layers that decide its width, in order."""

    shape: Shape
    sources: tuple[Index, ...] = ()


class _Clash(Exception):
    """A changed width that something on its way cannot take; `sides` are what meets in an Add."""

    def __init__(self, error: ArchitectureError, sources: Iterable[Index], sides: tuple[_Stream, ...] = ()) -> None:
        super().__init__(str(error))
        self.error, self.sources, self.sides = error, frozenset(sources), sides


class Flow:
    """Follows each width from the layer that decides it, with some leaves `changed`; raises `_Clash`.

    `held` are sources that a Select picks channels from, `outputs` those of the network and of auxiliary heads.
    """

    def __init__(self, architecture: Architecture, changed: dict[Index, Leaf] | None = None) -> None:
        self.changed = changed or {}
        self.held: set[Index] = set()
        self.outputs: set[Index] = set()
        self._parts: dict[Index, int] = {}
        self._ties: list[set[Index]] = []
        channels, *space = architecture.input
        self._end(self._walk(architecture.body, _Stream(Shape(channels, tuple(space))), ()))

    def parts(self, index: Index) -> int:
        """What must divide the channels (high and low) of the source at `index`: groups on either side of it."""
        tied, reached = {index}, 0
        while len(tied) > reached:
            reached = len(tied)
            tied = tied.union(*(tie for tie in self._ties if tie & tied))
        return lcm(*(self._parts.get(i, 1) for i in tied))

    def _divide(self, sources: Iterable[Index], groups: int) -> None:
        for source in sources:
            self._parts[source] = lcm(self._parts.get(source, 1), groups)

    def _end(self, stream: _Stream) -> None:
        self.outputs.update(stream.sources)
        if stream.shape.low and not self.changed.keys().isdisjoint(stream.sources):
            error = ArchitectureError(f"An output must have one resolution, but got {stream.shape}.")
            raise _Clash(error, stream.sources)

    def _walk(self, node: Node, stream: _Stream, index: Index) -> _Stream:
        if isinstance(node, Leaf):
            return self._leaf(self.changed.get(index, node), stream, index)
        if isinstance(node, Chain):
            for i, item in enumerate(node.items):
                stream = self._walk(item, stream, (*index, i))
            return stream
        if isinstance(node, Tap):
            self._end(self._walk(node.head, stream, (*index, 0)))
            return stream
        sides = tuple(self._walk(branch, stream, (*index, i)) for i, branch in enumerate(children(node)))
        sources = tuple(dict.fromkeys(source for side in sides for source in side.sources))
        shapes = [side.shape for side in sides]
        if isinstance(node, Add):
            self._ties.append(set(sources))
            if any(shape != shapes[0] for shape in shapes):
                raise _Clash(ArchitectureError(f"All branches of Add must be alike: {shapes}."), sources, sides)
            return _Stream(shapes[0], sources)
        if any(shape.space != shapes[0].space for shape in shapes):
            raise _Clash(ArchitectureError(f"All branches of Concat must be of one space: {shapes}."), sources)
        joined = Shape(sum(s.channels for s in shapes), shapes[0].space, sum(s.low for s in shapes))
        return _Stream(joined, sources)

    def _leaf(self, leaf: Leaf, stream: _Stream, index: Index) -> _Stream:
        try:
            shape = leaf.after(stream.shape)
        except ArchitectureError as error:
            raise _Clash(error, (*stream.sources, index)) from None
        if isinstance(leaf, Select):
            self.held.update(stream.sources)
        elif isinstance(leaf, Shuffle):
            self._divide(stream.sources, leaf.groups)
        elif isinstance(leaf, Conv):
            self._divide((*stream.sources, index), leaf.groups)
        return _Stream(shape, (index,) if isinstance(leaf, Conv | Linear) else stream.sources)


def settled(architecture: Architecture, change: dict[Index, Leaf], flow: Flow) -> dict[Index, Leaf]:
    """The changes that fit together: where some clash, those that meet there are dropped, until none clash.

    A concatenation that is added to a single convolution first tries to make up the rounding in its last part.
    """
    yielded: set[Index] = set()
    while True:
        try:
            Flow(architecture, change)
        except _Clash as clash:
            rest = _made_up(clash, change, flow)
            if rest and not rest.keys() & yielded:
                yielded |= rest.keys()
                change = {**change, **rest}
                continue
            if not change.keys() & clash.sources:
                raise clash.error from None
            change = {index: leaf for index, leaf in change.items() if index not in clash.sources}
        else:
            return change


def _made_up(clash: _Clash, change: dict[Index, Leaf], flow: Flow) -> dict[Index, Leaf]:
    """The last part of a concatenation changed to make it equal to the one convolution it is added to, if it can."""
    single = [side for side in clash.sides if len(side.sources) == 1]
    joined = [side for side in clash.sides if len(side.sources) > 1]
    if len(single) != 1 or len(joined) != 1 or not change.keys() >= {single[0].sources[0], joined[0].sources[-1]}:
        return {}
    last = joined[0].sources[-1]
    leaf, one, several = change[last], single[0].shape, joined[0].shape
    if not isinstance(leaf, Conv):
        return {}
    out, low = leaf.out + one.channels - several.channels, leaf.low + one.low - several.low
    if not 0 <= low <= out or out < 1 or any(width % flow.parts(last) for width in (out, low)):
        return {}
    return {last: replace(leaf, out=out, low=low)}
