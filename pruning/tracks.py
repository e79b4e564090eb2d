"""Where the channels of each layer go: through norm and activation, into sums, to the layers that read them.

A *track* belongs to one run of one layer (a convolution or linear layer, depthwise ones too). Tensors of a traced run
carry *trails*: which channel of which track stands where along axis 1. A trail ends where weights read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from pruning.cells import FIXED, numbers
from pruning.edges import layers_of, maps
from pruning.graph import Graph
from pruning.places import NORMS, Place, evaluating, pointwise, tensors
from pruning.trace import MOVES, POOLS, REDUCES, Trace

OUTPUT = "the output"
AFFINE = frozenset(("add", "sub", "rsub", "mul", "div", "neg"))  # with one operand from data they are no activation
PLACID = frozenset(("clone", "contiguous", "_to_copy", "detach", "alias", "lift_fresh"))
GROUP_NORMS = NORMS | {"native_group_norm"}
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a channel is measured: `index` along axis 1 of what the operation at `place` makes."""

    place: Place
    index: int


@dataclass(eq=False, slots=True)
class Track:
    """One run of a layer at `place`, and its channels' ways; all dictionaries are by channel.

    `own`: the last spot at which a channel is this layer's alone: its activation, else its norm, else its output.
    `active`: its activation; one in `summed` comes after a sum with other channels. `met`: (module, index) where
    a channel passed before any sum. `slots`: as the graph numbers the outputs, empty where it does not follow.
    """

    layer: str
    weight: str
    place: Place
    depthwise: bool
    slots: Sequence[int]
    own: dict[int, Spot] = field(default_factory=dict)
    active: dict[int, Spot] = field(default_factory=dict)
    summed: set[int] = field(default_factory=set)
    met: dict[int, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))

    def reach(self, channels: Sequence[int], place: Place) -> None:
        """Its channels are still its own at `place`; nothing after the activation counts."""
        for index, channel in enumerate(channels):
            if channel != NOWHERE and channel not in self.active:
                self.own[channel] = Spot(place, index)
                self.met[channel].add((place.module, index))

    def activate(self, channels: Sequence[int], place: Place, *, own: bool, again: bool = False) -> None:
        """Its channels pass an activation; the first one counts, or with `again` this one."""
        for index, channel in enumerate(channels):
            if channel == NOWHERE or (channel in self.active and not again):
                continue
            self.active[channel] = Spot(place, index)
            if own:
                self.own[channel] = self.active[channel]
                self.met[channel].add((place.module, index))
            else:
                self.summed.add(channel)


@dataclass(frozen=True, slots=True)
class Trail:
    """`channels` of `track` along axis 1 of a tensor; `own`: before any sum, `seeking`: before the activation.

    In the middle of a shuffle by views channels lie along several axes: there `by_slot` has them, and `channels` none.
    """

    track: Track
    channels: tuple[int, ...]
    own: bool = True
    seeking: bool = True
    by_slot: tuple[tuple[int, int], ...] = ()


class Tracks(Trace):  # type: ignore[no-untyped-call]
    """A traced run in evaluation mode that lays the tracks of all layers.

    `reads`: by the weight that reads, or `OUTPUT`, the trails of its input along axis 1.
    """

    def __init__(self, module: nn.Module, graph: Graph) -> None:
        super().__init__(module, graph, title="eval")
        self.homes = homes(module)
        self.tracks: list[Track] = []
        self.reads: dict[str, list[Trail]] = defaultdict(list)

    def leaving(self, module: nn.Module, inputs: Any, output: Any) -> None:
        super().leaving(module, inputs, output)
        if self.names[module] == "":
            for y in tensors(output):
                self.reads[OUTPUT] += _trails(y)

    def ran(self, place: Place, func: Any, args: Any, kwargs: Any) -> Any:
        name = place.operation
        operands = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor) and not self.named(a)]
        data = [(x, _trails(x), self._line(x)) for x in operands if x.dim()]
        weight = self._weight(name, args)
        out = super().ran(place, func, args, kwargs)
        made = [y for y in tree_flatten(out)[0] if isinstance(y, Tensor) and y.is_floating_point()]
        for y in made:
            if weight is not None:
                found = self._layer(place, args, weight, data[0][1], y)
            elif name in MOVES:
                found = self._shifted(name, args, data, y)
            elif name in GROUP_NORMS | POOLS | REDUCES or pointwise(func):
                found = self._passed(place, pointwise(func), data, y) if y is made[0] else ()
            else:
                found = ()
            y._trails = found  # type: ignore[attr-defined]
        return out

    def _weight(self, name: str, args: Any) -> str | None:
        """The parameter by which an operation is a layer's."""
        if name == "convolution":
            return self.whole(args[1])
        return self.whole(args[-1], transposed=True) if name in ("addmm", "mm") else None

    def _line(self, x: Tensor) -> Sequence[int] | None:
        """The slots along axis 1."""
        cells = getattr(x, "_cells", None)
        found = None if cells is None or x.dim() < 2 else numbers(cells[0], 1)
        return None if found is None else self.cells.slots_of(found)

    def _layer(self, place: Place, args: Any, weight: str, trails: Sequence[Trail], out: Tensor) -> tuple[Trail, ...]:
        width = out.shape[1]
        depthwise = place.operation == "convolution" and 1 < args[8] == args[0].shape[1] == width and not args[6]
        slots = self._line(out) or ()
        track = Track(weight.rpartition(".")[0], weight, place, depthwise, () if FIXED in slots else slots)
        self.tracks.append(track)
        track.reach(range(width), place)
        fresh = Trail(track, tuple(range(width)))
        if depthwise:
            return fresh, *(replace(t, own=False, seeking=False) for t in trails)
        self.reads[weight] += trails
        return (fresh,)

    def _shifted(
        self, name: str, args: Any, data: Sequence[tuple[Tensor, Sequence[Trail], Sequence[int] | None]], y: Tensor
    ) -> tuple[Trail, ...]:
        """Trails through what moves elements about: by the slots, or by place where channels are set side by side."""
        found: list[Trail] = []
        after, start = self._line(y), 0
        beside = name == "cat" and len(args) > 1 and args[1] % y.dim() == 1 and len(args[0]) == len(data)
        for x, trails, before in data:
            for t in trails:
                if beside and t.channels:
                    rest = y.shape[1] - start - x.shape[1]
                    found.append(replace(t, channels=(NOWHERE,) * start + t.channels + (NOWHERE,) * rest))
                elif name in PLACID or (t.channels and before is not None and before == after):
                    found.append(t)
                else:
                    index = dict(t.by_slot)
                    if t.channels and before is not None:
                        index = {s: c for s, c in zip(before, t.channels, strict=True) if s != FIXED and c != NOWHERE}
                    if after is None and index:
                        found.append(replace(t, channels=(), by_slot=tuple(index.items())))
                    elif after is not None and index.keys() & set(after):
                        found.append(replace(t, channels=tuple(index.get(s, NOWHERE) for s in after), by_slot=()))
            start += x.shape[1] if beside else 0
        return _joined(found)

    def _passed(
        self, place: Place, pointwise: bool, data: Sequence[tuple[Tensor, Sequence[Trail], Any]], y: Tensor
    ) -> tuple[Trail, ...]:
        """Trails through what keeps channels where they are."""
        several = pointwise and len(data) > 1
        activation = pointwise and not several and place.operation not in AFFINE
        gates = {t.track for _, trails, _ in data for t in trails if not t.seeking} if several else set()
        found: list[Trail] = []
        for x, trails, _ in data:
            if x.dim() < 2 or y.dim() < 2 or x.shape[1] != y.shape[1] or (pointwise and x.dim() != y.dim()):
                continue
            for t in (t for t in trails if t.channels):
                if activation and t.seeking:
                    t.track.activate(t.channels, place, own=t.own)
                    t = replace(t, own=False, seeking=False)
                elif place.operation == "mul" and t.seeking and t.track in gates:  # x * sigmoid(x), spelled out
                    t.track.activate(t.channels, place, own=t.own, again=True)
                    t = replace(t, own=False, seeking=False)
                elif several and not self._inside(place, t.track):
                    t = replace(t, own=False)
                elif t.own and (pointwise or place.operation in GROUP_NORMS):
                    t.track.reach(t.channels, place)
                found.append(t)
        return _joined(found)

    def _inside(self, place: Place, track: Track) -> bool:
        """Whether the operation is the layer's own: an octave convolution sums its paths."""
        leaf = self.homes.get(track.layer, (track.layer, 0))[0]
        return leaf != track.layer and (place.module == leaf or place.module.startswith(f"{leaf}."))


def homes(module: nn.Module) -> dict[str, tuple[str, int]]:
    """Convolutions and linear layers by name -> (the layer they belong to, the number of their first channel there)."""
    names, found = {part: name for name, part in module.named_modules()}, dict[str, tuple[str, int]]()
    for name, layer in layers_of(module):
        found |= {names[part.module]: (name, part.rows.start) for part in maps(layer)}
    return found


def _trails(x: Tensor) -> tuple[Trail, ...]:
    found: tuple[Trail, ...] = getattr(x, "_trails", ())
    return found


def _joined(trails: Sequence[Trail]) -> tuple[Trail, ...]:
    """One trail for those with the same channels in the same places."""
    found: dict[object, Trail] = {}
    for t in trails:
        known = found.get((t.track, t.channels, t.by_slot))
        if known is not None:
            t = replace(t, own=t.own and known.own, seeking=t.seeking or known.seeking)
        found[t.track, t.channels, t.by_slot] = t
    return tuple(found.values())


def lay_tracks(module: nn.Module, x: Tensor) -> Tracks:
    """The tracks of `module`, whose weights are in float64, from a run on `x`; the graph is at `.graph`."""
    tracks = Tracks(module, Graph())
    with evaluating(module, heads=False):
        tracks.follow(module, x.clone())
    return tracks
