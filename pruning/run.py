"""What one run of a module carries from operation to operation: the cells of tensors, and what is noted of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from pruning.cells import FIXED, NOTHING, VARIES, Cells, core, line, mapped, numbers
from pruning.graph import Constant, Dense, Graph, Made, Norm, Start
from pruning.places import Observed, Place, Places, in_place
from searchspace import layers


@dataclass(frozen=True, slots=True)
class Piece:
    """Slots that a slice `taken` of `whole` channels has; those `held` must stay if its numbers are written down."""

    taken: list[int]
    held: list[int]
    whole: int
    reason: str


class Run(Places):
    """One run, noted in `graph`.

    `rigid`: numbers that Python may compute from widths (of a view, of a slice) are taken as fixed. `title` tells
    this run from others of the same graph. Each tensor carries its map of cells, the version of its memory that the
    map describes, and the number of the operation that made it.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: Graph,
        *,
        title: str,
        seen: Observed | None = None,
        rigid: bool = False,
        until: float = inf,
    ) -> None:
        super().__init__(module, until)
        self.module = module
        self.graph, self.title, self.seen, self.rigid = graph, title, seen, rigid
        self.cells = Cells()
        self.place = Place("", "input", 0)
        self.owned = {id(t): name for name, t in (*module.named_parameters(), *module.named_buffers())}
        self.tensors = dict((*module.named_parameters(), *module.named_buffers()))
        self.octave = {  # their paths have the same groups, so one alone does not lose a channel of each
            f"{name}.{path}"
            for name, part in module.named_modules()
            if isinstance(part, layers.OctaveConv)
            for path, _ in part.named_children()
        }
        self.free = 0  # depth in modules whose numbers follow the widths
        self.number = 0
        self.readers: dict[int, list[int]] = {}
        self.weights: list[tuple[int, Dense]] = []
        self.uses: Counter[str] = Counter()
        self.norms: dict[int, Norm] = {}
        self.passes: set[int] = set()  # operations after which a constant that was added before is the same
        self.pieces: dict[int, list[Piece]] = {}
        self.met: dict[str, list[tuple[int, int]]] = {}
        self.held: dict[str, str] = {}

    # what tensors carry

    def give(self, x: Tensor, cells: Tensor, version: int = 0) -> None:
        x._cells = (cells.expand(x.shape), version, self.number)  # type: ignore[attr-defined]

    def read(self, x: Tensor) -> Tensor:
        """The cells of `x`, noting that this operation reads them; all 0 where `x` is not followed."""
        cells, version, made = getattr(x, "_cells", (NOTHING.expand(x.shape), x._version, -1))
        if x._version != version:
            self.pin(cells, f"is written in part in {self.where}")
            return NOTHING.expand(x.shape)
        self.readers.setdefault(made, []).append(self.number)
        assert isinstance(cells, Tensor)
        return cells

    def named(self, x: Tensor | None) -> tuple[str, Tensor] | None:
        """(name, number of each element) of a parameter or buffer, or of a view of one."""
        if x is None or hasattr(x, "_elements"):
            return None if x is None else x._elements
        name = self.owned.get(id(x))
        return None if name is None else (name, torch.arange(x.numel()).view(x.shape))

    def whole(self, x: Tensor | None, *, transposed: bool = False) -> str | None:
        """The name of the parameter that `x` is, all of it."""
        named = self.named(x)
        if named is None:
            return None
        elements = named[1].T if transposed else named[1]
        whole = self.tensors[named[0]]
        same = elements.shape == whole.shape and torch.equal(elements.flatten(), torch.arange(elements.numel()))
        return named[0] if same else None

    @property
    def where(self) -> str:
        return self.place.module or "the module itself"

    def pin(self, cells: Tensor, reason: str) -> None:
        self.graph.pin(self.cells.slots_of(torch.unique(core(cells)).tolist()), reason)

    def pin_all(self, ends: Sequence[Sequence[Tensor]], reason: str) -> None:
        for x in (x for end in ends for x in end):
            self.pin(self.read(x), reason)

    def slots_along(self, cells: Tensor, axis: int) -> list[int] | None:
        found = numbers(cells, axis)
        return None if found is None else self.cells.slots_of(found)

    # what operations make of it

    def unknown(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Nothing is followed through this operation: what it reads keeps its width."""
        reason = f"is read by {self.place.operation} in {self.where}, which is not followed"
        operands = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor)]
        fixed = not any(hasattr(x, "_cells") for x in operands)
        for x in operands:
            if (named := self.named(x)) is not None:
                self.held[named[0]] = reason
            else:
                self.pin(self.read(x), reason)
        version = args[0]._version + 1 if in_place(func) and args and isinstance(args[0], Tensor) else 0
        out = func(*args, **kwargs)
        for y in tree_flatten(out)[0]:
            if isinstance(y, Tensor) and not self.named(y) and not fixed:
                self.give(y, NOTHING, version)
        return out

    def keys(self, channels: Sequence[int], facts: Sequence[Hashable]) -> list[Hashable]:
        """Keys of channels after each was treated by its `facts`."""
        keys = (self.cells.equal[n] for n in channels)
        return [None if k is None else self.graph.key((k, f)) for k, f in zip(keys, facts, strict=True)]

    def give_channels(
        self,
        out: Tensor,
        slots: Sequence[int],
        equal: Sequence[Hashable],
        values: Sequence[float] | None = None,
        causes: Sequence[str] | None = None,
        was: Sequence[float] | None = None,
    ) -> None:
        """Give `out` the channels `slots` along axis 1: new ones, or those that had the values `was` before."""
        count = len(slots)
        if was is None:
            for c, slot in enumerate(slots):
                self.graph.add_made(slot, Made(self.place, 1, (c,)))
        known, why = self._observed(values or [VARIES] * count, causes or [""] * count)
        cells = [self.cells.add(s, v, e) for s, v, e in zip(slots, known, equal, strict=True)]
        self.give(out, torch.tensor(cells, dtype=torch.long).view(1, -1, *(1 for _ in out.shape[2:])))
        self.note(1, slots, was or [VARIES] * count, known, why, f"varies at the zero-padded border in {self.where}")

    def pass_on(self, out: Tensor, cells: Tensor, *, constant: bool, border: float, how: str) -> None:
        """The same channels in another shape; where not every `constant` stays one, `border` does."""
        table, lost = self.cells, f"varies at the zero-padded border in {self.where}"
        if constant:
            self.passes.add(self.number)

        def kept(n: int) -> int:
            value = table.values[n]
            stays = constant or value == border
            if not stays and not isnan(value):
                self.graph.lost[table.slots[n]] = lost
            key = also(table.equal[n], (self.place.operation, how))
            return table.add(table.slots[n], value if stays else VARIES, key)

        after = mapped(cells, kept)
        self.give(out, after)
        found = line(after.expand(out.shape))
        if found is not None:
            values = table.values_of(found[1]).tolist()
            self.note(found[0], table.slots_of(found[1]), values, values, ["constant input"] * len(values), lost)

    def _observed(self, values: Sequence[float], causes: Sequence[str]) -> tuple[list[float], list[str]]:
        """Along axis 1: what samples showed, where nothing is proved."""
        seen = self.seen.values.get(self.place) if self.seen else None
        if self.seen is None or seen is None or len(seen) != len(values):
            return list(values), list(causes)
        known, why = list(values), list(causes)
        for c, value in enumerate(seen.tolist()):
            if isnan(known[c]) and not isnan(value):
                known[c] = value
                why[c] = f"{'zero' if value == 0 else 'constant'} on all {self.seen.samples} samples"
        return known, why

    def note(
        self,
        axis: int,
        slots: Sequence[int],
        was: Sequence[float],
        values: Sequence[float],
        causes: Sequence[str],
        lost: str,
    ) -> None:
        """List the constants here; those that varied before start here, and others may vary from here on."""
        module, graph = self.place.module, self.graph
        found = [
            Constant(channel=c, value=value, cause=causes[c], at=module)
            for c, value in enumerate(values)
            if not isnan(value)
        ]
        starting: dict[tuple[int, int], list[Constant]] = {}
        for constant in found:
            if isnan(was[constant.channel]):
                alone = constant.channel if slots[constant.channel] == FIXED else -1
                starting.setdefault((slots[constant.channel], alone), []).append(constant)
        for (slot, _), constants in starting.items():
            made = Made(self.place, axis, tuple(c.channel for c in constants))
            graph.add_start(slot, Start(made, constants[0]))
        for c, value in enumerate(values):
            if isnan(value) and not isnan(was[c]):
                graph.lost[slots[c]] = lost
        graph.constants.pop(module, None)
        if found:
            graph.constants[module] = found


def also(key: Hashable, how: Hashable) -> Hashable:
    return None if key is None else (key, how)
