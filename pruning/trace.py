"""Follow the channels of any module through a real run, operation by operation, into a `Graph`.

What an operation does to them says its rule. What is not known pins what it reads, by name: nothing leaves there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from pruning.cells import FIXED, compact, line
from pruning.elementwise import elementwise
from pruning.graph import Graph, Moved, Norm, Width
from pruning.moves import MOVES, move
from pruning.places import NORMS, Observed, Place, PruneError, evaluating, pointwise, tensors
from pruning.pooling import POOLS, REDUCES, pool, reduce
from pruning.run import Run
from pruning.weighted import convolution, linear, norm
from searchspace import layers

SHUFFLES = (nn.ChannelShuffle, layers.ChannelShuffle, layers.Select)  # a selection can stand for these
FREE = (*SHUFFLES, layers.SqueezeExcite)  # whose numbers follow the widths
SHAPED = frozenset(("new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like", "ones_like"))


class Trace(Run):
    """One run, followed by rules."""

    def __init__(self, module: nn.Module, graph: Graph, **options: Any) -> None:
        super().__init__(module, graph, **options)
        self._entered: dict[str, list[Tensor]] = {}

    def follow(self, module: nn.Module, x: Tensor) -> None:
        """Run `module` on `x`, (batch, channels, *space)."""
        with self:
            with self._rest():
                slots = self.graph.new("input", x.shape[1])
                self.graph.pin(slots, "is an input of the network")
                self.give_channels(x, slots, [("input", c) for c in range(len(slots))])
            try:
                output = module(x)
            except PruneError:
                raise
            except Exception as error:  # of what is followed, or of the code that follows it
                raise PruneError(
                    f"A run could not be followed at {self.place.operation} in {self.where}: {error}"
                ) from error
            with self._rest():
                self.place = Place("", "output", 0)
                self.number += 1
                for i, y in enumerate(tensors(output)):
                    what = "is an output of the network" if i == 0 else "is an output of an auxiliary head"
                    named = self.named(y)
                    if named is None:
                        self.pin(self.read(y), what)
                    else:
                        self.held[named[0]] = what
                self._settle()

    def entering(self, module: nn.Module, inputs: Any) -> None:
        if isinstance(module, FREE):
            self.free += 1
        if isinstance(module, SHUFFLES):
            self._entered[self.names[module]] = tensors(inputs)

    def leaving(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, FREE):
            self.free -= 1
        if isinstance(module, SHUFFLES):
            name, ends = self.names[module], (self._entered[self.names[module]], tensors(output))
            self.place = Place(name, "leaves", 0)
            self.number += 1
            lines = [[self.slots_along(self.read(x), 1) for x in end] for end in ends]
            known = self.graph.moved.get(name)
            if any(slots is None for end in lines for slots in end):
                self.pin_all(ends, f"is moved in {name}")
            elif known is None:
                self.graph.moved[name] = Moved(*(tuple(s for s in end if s is not None) for end in lines))
            else:
                for a, b in zip((*known.before, *known.after), (*lines[0], *lines[1]), strict=True):
                    self.graph.tie_all(a, b or [])

    def ran(self, place: Place, func: Any, args: Any, kwargs: Any) -> Any:
        self.place = place
        self.number += 1
        operands = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor)]
        if not any(hasattr(x, "_cells") or self.named(x) for x in operands):
            return func(*args, **kwargs)
        if place.operation in SHAPED:  # nothing but shapes is read
            return func(*args, **kwargs)
        rule = _rule(place.operation, func)
        out = rule(self, func, args, kwargs)
        return self.unknown(func, args, kwargs) if out is None else out

    # after the run

    def _settle(self) -> None:
        graph = self.graph
        for pieces in self.pieces.values():
            parts = [piece.taken for piece in pieces]
            if len({*map(len, parts)}) == 1 and len(parts) * len(parts[0]) == pieces[0].whole > len(parts[0]):
                graph.widths.append(Width("a split into equal parts", parts))
                continue
            for piece in pieces:
                graph.pin(piece.held, piece.reason)
        for name, met in self.met.items():
            self._settle_parameter(name, met)
        for name, reason in self.held.items():
            for slots in graph.cuts.get(name, {}).values():
                graph.pin(slots, f"has weights that are {reason[3:]}")
            for dense in graph.dense.values():
                if name in (dense.weight, dense.takes):
                    graph.pin([*dense.outputs, *dense.inputs.slots], f"has weights that are {reason[3:]}")
        for name in graph.cuts.keys() & graph.dense.keys():
            dense = graph.dense[name]
            graph.pin([*dense.outputs, *dense.inputs.slots], f"has weights {name}, which are used in another way, too")
        for number, dense in self.weights:
            if dense.takes is not None and (self.uses[dense.takes] > 1 or dense.takes in self.met):
                others = [other for _, other in self.weights if other.takes == dense.takes]
                if dense.takes in self.met or len({other.weight for other in others}) > 1:
                    graph.dense[dense.weight].takes = None
            norm = self._norm_after(number, dense.outputs) if self.uses[dense.weight] == 1 else None
            kept = graph.dense[dense.weight]
            kept.norm = norm if kept is dense or kept.norm == norm else None

    def _norm_after(self, number: int, slots: list[int]) -> Norm | None:
        """The norm that alone reads the `slots` that operation `number` makes, past what passes constants on."""
        while True:
            readers = self.readers.get(number, [])
            if len(readers) != 1:
                return None
            number = readers[0]
            if number in self.norms:
                norm, root = self.norms[number], self.graph.root
                same = [*map(root, self.graph.cuts[norm.mean][0])] == [*map(root, slots)]
                return norm if same and self.uses[norm.mean] == 1 else None
            if number not in self.passes:
                return None

    def _settle_parameter(self, name: str, met: Sequence[tuple[int, int]]) -> None:
        """A parameter that channels were added to or multiplied by: which of its axes are theirs."""
        whole = self.tensors[name]
        slots = [FIXED] * whole.numel()
        for element, slot in met:
            if slots[element] != FIXED and slots[element] != slot:
                self.graph.tie((slots[element], slot))
            slots[element] = slots[element] or slot
        grid = compact(torch.tensor(slots).view(whole.shape))
        found = line(grid)
        if found is None:
            self.graph.pin(slots, f"meets {name}, whose shape is fixed")
        else:
            self.graph.cut(name, found[0], found[1])


def _rule(name: str, func: Any) -> Callable[[Run, Any, Any, Any], Any]:
    """A rule runs the operation and follows it; it returns None, before it runs, what it cannot follow."""
    if name in MOVES:
        return move
    if name == "convolution":
        return convolution
    if name in ("addmm", "mm"):
        return linear
    if name in NORMS:
        return norm
    if pointwise(func):
        return elementwise
    if name in REDUCES:
        return reduce
    return pool if name in POOLS else Run.unknown


def trace(
    module: nn.Module,
    x: Tensor,
    *,
    heads: bool = True,
    seen: Observed | None = None,
    rigid: bool = False,
    until: float = inf,
) -> Graph:
    """The graph of `module`, whose weights are in float64, from runs on `x`; with `heads`, auxiliary heads run, too."""
    graph = Graph()
    for title in ("eval", "heads") if heads else ("eval",):
        with evaluating(module, heads=title == "heads"):
            Trace(module, graph, title=title, seen=seen, rigid=rigid, until=until).follow(module, x.clone())
    return graph
