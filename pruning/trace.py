"""Follow the channels of any module through a real run, operation by operation, into a `Graph`.

What only moves elements about (views, transposes, concatenation, slices) is applied to maps of cells as it is to the
data. What is not known pins what it reads, by name: nothing leaves there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import inf, isnan
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from pruning import rules
from pruning.cells import FIXED, NOTHING, VARIES, Cells, compact, core, line, mapped, numbers, varying
from pruning.graph import Constant, Dense, Graph, Made, Map, Moved, Norm, Start, Width
from pruning.places import NORMS, Observed, Place, Places, PruneError, evaluating, in_place, pointwise, tensors
from pruning.rules import exact
from searchspace import layers

SHUFFLES = (nn.ChannelShuffle, layers.ChannelShuffle, layers.Select)  # a selection can stand for these
FREE = (*SHUFFLES, layers.SqueezeExcite)  # whose numbers follow the widths
VIEWS = frozenset(("view", "_unsafe_view", "reshape", "_reshape_alias"))
CUTS = frozenset(("slice", "select", "split", "split_with_sizes", "unbind", "narrow"))
MOVES = (
    VIEWS
    | CUTS
    | frozenset(("permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "cat", "stack", "clone", "contiguous"))
    | frozenset(
        ("detach", "alias", "channel_shuffle", "native_channel_shuffle", "flip", "roll", "_to_copy", "lift_fresh")
    )
    | frozenset(("pixel_shuffle", "pixel_unshuffle", "index_select"))
)
SHAPED = frozenset(("new_empty", "new_zeros", "new_ones", "new_full", "empty_like", "zeros_like", "ones_like"))
ALIKE = frozenset(
    ("cat", "stack", "expand", "unsqueeze", "squeeze", "clone", "contiguous", "detach", "alias", "_to_copy")
)
REDUCES = frozenset(("mean", "amax", "amin", "sum"))
POOLS = frozenset(
    name.format(d)
    for d in (2, 3)
    for name in (
        *("max_pool{}d_with_indices", "_adaptive_avg_pool{}d", "adaptive_max_pool{}d", "avg_pool{}d"),
        *("upsample_nearest{}d", "reflection_pad{}d", "replication_pad{}d"),
    )
) | {"upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "constant_pad_nd"}
PLAIN = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)  # layers whose own forward adds a bias if they have one


@dataclass(frozen=True, slots=True)
class _Piece:
    """Slots that a slice `taken` of `whole` channels has; those `held` must stay if its numbers are written down."""

    taken: list[int]
    held: list[int]
    whole: int
    reason: str


class Trace(Places):
    """One run, followed into `graph`.

    `rigid`: numbers that Python may compute from widths (of a view, of a slice) are taken as fixed. `run` tells this
    run from others of the same graph. Each tensor carries its map of cells, the version of its memory that the map
    describes, and the number of the operation that made it.
    """

    def __init__(
        self,
        module: nn.Module,
        graph: Graph,
        *,
        run: str,
        seen: Observed | None = None,
        rigid: bool = False,
        until: float = inf,
    ) -> None:
        super().__init__(module, until)
        self.module = module
        self.graph, self.run, self.seen, self.rigid = graph, run, seen, rigid
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
        self._free = 0  # depth in modules whose numbers follow the widths
        self._entered: dict[str, list[Tensor]] = {}
        self._number = 0
        self._readers: dict[int, list[int]] = {}
        self._dense: list[tuple[int, Dense]] = []
        self._uses: Counter[str] = Counter()
        self._norms: dict[int, Norm] = {}
        self._passes: set[int] = set()  # operations after which a constant that was added before is the same
        self._pieces: dict[int, list[_Piece]] = {}
        self._met: dict[str, list[tuple[int, int]]] = {}
        self._held: dict[str, str] = {}

    # a run

    def follow(self, module: nn.Module, x: Tensor) -> None:
        """Run `module` on `x`, (batch, channels, *space)."""
        with self:
            with self._rest():
                slots = self.graph.new("input", x.shape[1])
                self.graph.pin(slots, "is an input of the network")
                self._give_channels(x, slots, [("input", c) for c in range(len(slots))])
            try:
                output = module(x)
            except PruneError:
                raise
            except Exception as error:  # of what is followed, or of the code that follows it
                raise PruneError(
                    f"A run could not be followed at {self.place.operation} in {self._where}: {error}"
                ) from error
            with self._rest():
                self.place = Place("", "output", 0)
                self._number += 1
                for i, y in enumerate(tensors(output)):
                    what = "is an output of the network" if i == 0 else "is an output of an auxiliary head"
                    named = self._named(y)
                    if named is None:
                        self._pin(self._read(y), what)
                    else:
                        self._held[named[0]] = what
                self._settle()

    def entering(self, module: nn.Module, inputs: Any) -> None:
        if isinstance(module, FREE):
            self._free += 1
        if isinstance(module, SHUFFLES):
            self._entered[self.names[module]] = tensors(inputs)

    def leaving(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(module, FREE):
            self._free -= 1
        if isinstance(module, SHUFFLES):
            name, ends = self.names[module], (self._entered[self.names[module]], tensors(output))
            self.place = Place(name, "leaves", 0)
            self._number += 1
            lines = [[self._slots_along(self._read(x), 1) for x in end] for end in ends]
            known = self.graph.moved.get(name)
            if any(slots is None for end in lines for slots in end):
                self._pin_all(ends, f"is moved in {name}")
            elif known is None:
                self.graph.moved[name] = Moved(*(tuple(s for s in end if s is not None) for end in lines))
            else:
                for a, b in zip((*known.before, *known.after), (*lines[0], *lines[1]), strict=True):
                    self.graph.tie_all(a, b or [])

    def ran(self, place: Place, func: Any, args: Any, kwargs: Any) -> Any:
        self.place = place
        self._number += 1
        operands = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor)]
        if not any(hasattr(x, "_cells") or self._named(x) for x in operands):
            return func(*args, **kwargs)
        if place.operation in SHAPED:  # nothing but shapes is read
            return func(*args, **kwargs)
        rule = self._rule(place.operation, func)
        out = rule(func, args, kwargs)
        return self._unknown(func, args, kwargs) if out is None else out

    def _rule(self, name: str, func: Any) -> Callable[[Any, Any, Any], Any]:
        """A rule runs the operation and follows it; it returns None, before it runs, what it cannot follow."""
        if name in MOVES:
            return self._move
        if name == "convolution":
            return self._convolution
        if name in ("addmm", "mm"):
            return self._linear
        if name in NORMS:
            return self._norm
        if pointwise(func):
            return self._elementwise
        if name in REDUCES:
            return self._reduce
        return self._pool if name in POOLS else self._unknown

    # what tensors carry

    def _give(self, x: Tensor, cells: Tensor, version: int = 0) -> None:
        x._cells = (cells.expand(x.shape), version, self._number)  # type: ignore[attr-defined]

    def _read(self, x: Tensor) -> Tensor:
        """The cells of `x`, noting that this operation reads them; all 0 where `x` is not followed."""
        cells, version, made = getattr(x, "_cells", (NOTHING.expand(x.shape), x._version, -1))
        if x._version != version:
            self._pin(cells, f"is written in part in {self._where}")
            return NOTHING.expand(x.shape)
        self._readers.setdefault(made, []).append(self._number)
        assert isinstance(cells, Tensor)
        return cells

    def _named(self, x: Tensor | None) -> tuple[str, Tensor] | None:
        """(name, number of each element) of a parameter or buffer, or of a view of one."""
        if x is None or hasattr(x, "_elements"):
            return None if x is None else x._elements
        name = self.owned.get(id(x))
        return None if name is None else (name, torch.arange(x.numel()).view(x.shape))

    @property
    def _where(self) -> str:
        return self.place.module or "the module itself"

    def _pin(self, cells: Tensor, reason: str) -> None:
        self.graph.pin(self.cells.slots_of(torch.unique(core(cells)).tolist()), reason)

    def _pin_all(self, ends: Sequence[Sequence[Tensor]], reason: str) -> None:
        for x in (x for end in ends for x in end):
            self._pin(self._read(x), reason)

    def _slots_along(self, cells: Tensor, axis: int) -> list[int] | None:
        found = numbers(cells, axis)
        return None if found is None else self.cells.slots_of(found)

    def _unknown(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Nothing is followed through this operation: what it reads keeps its width."""
        reason = f"is read by {self.place.operation} in {self._where}, which is not followed"
        operands = [a for a in tree_flatten((args, kwargs))[0] if isinstance(a, Tensor)]
        fixed = not any(hasattr(x, "_cells") for x in operands)
        for x in operands:
            if (named := self._named(x)) is not None:
                self._held[named[0]] = reason
            else:
                self._pin(self._read(x), reason)
        version = args[0]._version + 1 if in_place(func) and args and isinstance(args[0], Tensor) else 0
        out = func(*args, **kwargs)
        for y in tree_flatten(out)[0]:
            if isinstance(y, Tensor) and not self._named(y) and not fixed:
                self._give(y, NOTHING, version)
        return out

    # what moves elements about

    def _move(self, func: Any, args: Any, kwargs: Any) -> Any:
        name, flat = self.place.operation, tree_flatten((args, kwargs))[0]
        operands = [a for a in flat if isinstance(a, Tensor) and a.is_floating_point()]
        if name == "index_select" and not self._free:
            return None
        if name == "roll" and not {int(a) % args[0].dim() for a in args[2]}.isdisjoint(varying(self._read(args[0]))):
            return None  # by a number of channels
        source = operands[0] if operands else None
        if source is None or (len(operands) > 1 and any(self._named(x) for x in operands)):
            return None
        named = self._named(source)
        known = {id(x): named[1] if named else self._read(x) for x in operands}
        out = func(*args, **kwargs)
        moved = _alike(name, func, args, kwargs, known)
        pairs = zip(out, moved, strict=True) if isinstance(out, list | tuple) else [(out, moved)]
        for i, (y, cells) in enumerate(pairs):
            if named:
                y._elements = (named[0], cells)
                continue
            after = compact(cells)
            if not self._free:
                self._bind(name, args, known[id(source)], after)
            if name not in ALIKE or y.dtype != source.dtype:
                after = self._told_apart(after, (name, repr(args[1:]), str(y.dtype), i), y.dtype)
            alias = y.untyped_storage()._cdata == source.untyped_storage()._cdata
            self._give(y, after, source._version if alias else 0)
            if name in CUTS and not self._free:
                self._piece(name, args, source, known[id(source)], after)
        return out

    def _told_apart(self, cells: Tensor, how: Hashable, dtype: torch.dtype) -> Tensor:
        """The same channels in `dtype`, equal to none but those that were moved alike."""
        table = self.cells

        def apart(n: int) -> int:
            value = table.values[n]
            value = value if isnan(value) else float(torch.tensor(value, dtype=torch.float64).to(dtype))
            return table.add(table.slots[n], value, _also(table.equal[n], how))

        return mapped(cells, apart)

    def _bind(self, name: str, args: Any, before: Tensor, after: Tensor) -> None:
        """What Python's code of a view or a shuffle demands of the widths, as far as that can be guessed."""
        if name in VIEWS and before.shape != after.shape:
            axes = varying(after)
            if self.rigid:
                self._pin(after, f"is laid out by numbers in {self._where}")
            elif len(axes) > 1 and len(varying(before)) < len(axes):  # the outer axes are groups of a fixed count
                grid = core(after).movedim(axes[-1], -1)
                self.graph.tie_rows(grid.reshape(-1, grid.shape[-1]).T.tolist(), self.cells.slots)
        if name in ("channel_shuffle", "native_channel_shuffle"):
            found = numbers(before, 1)
            if found is None or self.rigid:
                self._pin(before, f"is shuffled by numbers in {self._where}")
            else:
                each = len(found) // args[1]
                self.graph.tie_rows([found[place::each] for place in range(each)], self.cells.slots)

    def _piece(self, name: str, args: Any, source: Tensor, before: Tensor, after: Tensor) -> None:
        """Note that a slice takes some channels and not others."""
        whole, taken = core(before), self.cells.slots_of(core(after).flatten().tolist())
        if not varying(before) or whole.numel() == core(after).numel():
            return
        if self.rigid or name == "split_with_sizes":
            self._pin(before, f"is cut at fixed places in {self._where}")
            return
        axis = int(args[1] if len(args) > 1 else 0) % source.dim()
        held = whole
        if name == "slice" and varying(before) == [axis] and args[4:] in ((), (1,)):  # what must stay for its numbers
            start, end = (args[i] if len(args) > i and args[i] is not None else d for i, d in ((2, 0), (3, 2**63 - 1)))
            size = source.shape[axis]
            if end >= size:
                held = whole.narrow(axis, 0, start) if start >= 0 else whole.narrow(axis, size + start, -start)
            elif start >= 0 and end >= 0:
                held = whole.narrow(axis, 0, end)
        reason = f"is cut at fixed places in {self._where}"
        piece = _Piece(taken, self.cells.slots_of(held.flatten().tolist()), whole.numel(), reason)
        self._pieces.setdefault(source._cells[2], []).append(piece)  # type: ignore[attr-defined]

    # what has weights

    def _convolution(self, func: Any, args: Any, kwargs: Any) -> Any:
        x, weight, bias, _, padding, _, transposed, _, groups = args
        channels = numbers(self._read(x), 1)
        name, biased = self._whole(weight), self._whole(bias)
        if transposed or channels is None or name is None or (bias is not None and biased is None):
            return None
        out = func(*args, **kwargs)
        padded = any(p > 0 for p in padding)
        if groups == len(channels) == len(weight) and groups > 1 and self.place.module not in self.octave:
            if self.rigid and not isinstance(self.module.get_submodule(self.place.module), PLAIN):
                self._pin(self._read(x), f"is convolved in as many groups as are written in {self._where}")
            self._depthwise(out, channels, name, biased, padded, repr(args[3:]))
        else:
            self._weights(out, channels, name, biased, groups, padded, repr(args[3:]))
        return out

    def _linear(self, func: Any, args: Any, kwargs: Any) -> Any:
        bias, x, weight = args if self.place.operation == "addmm" else (None, *args)
        if self._named(x):
            return None
        channels = numbers(self._read(x), 1)
        name, biased = self._whole(weight, transposed=True), self._whole(bias)
        if kwargs or channels is None or name is None or (bias is not None and biased is None):
            return None
        out = func(*args, **kwargs)
        self._weights(out, channels, name, biased, 1, padded=False)
        return out

    def _whole(self, x: Tensor | None, *, transposed: bool = False) -> str | None:
        """The name of the parameter that `x` is, all of it."""
        named = self._named(x)
        if named is None:
            return None
        elements = named[1].T if transposed else named[1]
        whole = self.tensors[named[0]]
        same = elements.shape == whole.shape and torch.equal(elements.flatten(), torch.arange(elements.numel()))
        return named[0] if same else None

    def _weights(
        self, out: Tensor, channels: list[int], name: str, biased: str | None, groups: int, padded: bool, how: str = ""
    ) -> None:
        table, weight = self.cells, exact(self.tensors[name])
        known = self.graph.dense.get(name)
        outputs = known.outputs if known else self.graph.new(name.rpartition(".")[0], len(weight))
        dense = Dense(
            name=name.rpartition(".")[0],
            weight=name,
            takes=biased or self._new_bias(name),
            tensor=weight,
            offset=None if biased is None else exact(self.tensors[biased]),
            groups=groups,
            padded=padded,
            inputs=Map(table.slots_of(channels), table.values_of(channels), [table.equal[n] for n in channels]),
            outputs=outputs,
        )
        self.graph.read(dense)
        if biased is not None:
            self.graph.cut(biased, 0, outputs)
            self._uses[biased] += 1
        self._dense.append((self._number, dense))
        self._uses[name] += 1
        values, causes = rules.dense(dense)
        self._give_channels(out, outputs, self._rows(dense, how), values.tolist(), causes)

    def _new_bias(self, weight: str) -> str | None:
        """The name of a bias that the layer that runs would add, if it had one."""
        layer, name = self.module.get_submodule(self.place.module), f"{self.place.module}.bias".removeprefix(".")
        plain = isinstance(layer, PLAIN) and type(layer).forward in {kind.forward for kind in PLAIN}
        return name if plain and layer.bias is None and layer.weight is self.tensors[weight] else None

    def _rows(self, dense: Dense, how: str) -> list[Hashable]:
        """Rows of equal weights on equal inputs are equal; `how` the weights are laid on them."""
        flat, found = dense.tensor.flatten(1).numpy(), list[Hashable]()
        for rows, columns in dense.blocks():
            read = tuple(dense.inputs.equal[columns])
            reads = self.graph.key(read) if None not in read else (self.run, self._number, columns.start)
            for row in range(rows.start, rows.stop):
                offset = 0.0 if dense.offset is None else float(dense.offset[row])
                found.append(self.graph.key((reads, dense.weight, flat[row].tobytes(), offset, how)))
        return found

    def _depthwise(
        self, out: Tensor, channels: list[int], name: str, biased: str | None, padded: bool, how: str
    ) -> None:
        slots, values = self.cells.slots_of(channels), self.cells.values_of(channels)
        self.graph.cut(name, 0, slots)
        filters, offsets = exact(self.tensors[name]).flatten(1), torch.zeros(len(slots), dtype=torch.float64)
        if biased is not None:
            self.graph.cut(biased, 0, slots)
            offsets = exact(self.tensors[biased])
        facts = [(name, f.tobytes(), o, how) for f, o in zip(filters.numpy(), offsets.tolist(), strict=True)]
        after, causes = rules.depthwise(filters, offsets, values, padded)
        self._give_channels(out, slots, self._also(channels, facts), after.tolist(), causes, values.tolist())

    def _norm(self, func: Any, args: Any, kwargs: Any) -> Any:
        short = self.place.operation == "_native_batch_norm_legit_no_training"
        x, weight, bias, mean, variance, training, _, eps = (*args[:5], False, *args[5:]) if short else args
        channels, names = numbers(self._read(x), 1), [self._whole(t) for t in (weight, bias, mean, variance)]
        given = [t is not None for t in (weight, bias, mean, variance)]
        if training or channels is None or given[2:] != [True, True] or given != [n is not None for n in names]:
            return None
        slots, values = self.cells.slots_of(channels), self.cells.values_of(channels)
        for name in names:
            if name is not None:
                self.graph.cut(name, 0, slots)
        scale, shift, mu, var = (
            torch.full((len(slots),), float(default), dtype=torch.float64)
            if name is None
            else exact(self.tensors[name])
            for name, default in zip(names, (1, 0, 0, 1), strict=True)
        )
        facts = [("norm", eps, *row) for row in torch.stack([scale, shift, mu, var], 1).tolist()]
        after, causes = rules.norm(scale, shift, mu, var, eps, values)
        out = func(*args, **kwargs)
        if names[2] is not None:
            self._uses[names[2]] += 1
            self._norms[self._number] = Norm(names[0], names[2])
        self._give_channels(out[0], slots, self._also(channels, facts), after.tolist(), causes, values.tolist())
        return out

    def _also(self, channels: Sequence[int], facts: Sequence[Hashable]) -> list[Hashable]:
        """Keys of channels after each was treated by its `facts`."""
        keys = (self.cells.equal[n] for n in channels)
        return [None if k is None else self.graph.key((k, f)) for k, f in zip(keys, facts, strict=True)]

    def _give_channels(
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
        self._give(out, torch.tensor(cells, dtype=torch.long).view(1, -1, *(1 for _ in out.shape[2:])))
        self._note(1, slots, was or [VARIES] * count, known, why, f"varies at the zero-padded border in {self._where}")

    # what works on each element, or each channel, by itself

    def _elementwise(self, func: Any, args: Any, kwargs: Any) -> Any:
        name, flat = self.place.operation, tree_flatten((args, kwargs))[0]
        operands = [a for a in flat if isinstance(a, Tensor)]
        named = {id(x): self._named(x) for x in operands}
        wide = [x for x in operands if x.dim() or hasattr(x, "_cells")]
        data = {id(x): exact(x) for x in operands if not x.dim() and not hasattr(x, "_cells")}
        if (in_place(func) and named[id(args[0])]) or all(named[id(x)] for x in wide):
            return None
        if any(not x.numel() for x in wide):
            return None
        grids = [n[1] if (n := named[id(x)]) else self._read(x) for x in wide]
        version = args[0]._version + 1 if in_place(func) else 0
        out = func(*args, **kwargs)
        cores = [core(grid.expand(out.shape)) for grid in grids]
        shape = torch.broadcast_shapes(*(c.shape for c in cores))  # type: ignore[no-untyped-call]
        rows = torch.stack([c.expand(shape).flatten() for c in cores], 1)
        met, inverse = torch.unique(rows, dim=0, return_inverse=True)
        columns = met.T.tolist()
        values = dict(data)
        for x, column in zip(wide, columns, strict=True):
            n = named[id(x)]
            values[id(x)] = exact(self.tensors[n[0]]).flatten()[column] if n else self.cells.values_of(column)
        after = rules.elementwise(name, func, args, kwargs, values)
        spread = [any(n > 1 and s == 1 for n, s in zip(shape, _aligned(x, out), strict=True)) for x in wide]
        slots = self._together(
            [(n[0] if (n := named[id(x)]) else None, column) for x, column in zip(wide, columns, strict=True)], spread
        )
        facts: list[Sequence[Hashable]] = []  # of each operand, for each that meet
        for a in flat:
            if isinstance(a, Tensor) and id(a) in named and named[id(a)] is None and id(a) not in data:
                facts.append([self.cells.equal[n] for n in columns[[id(x) for x in wide].index(id(a))]])
            else:
                known = values[id(a)].tolist() if isinstance(a, Tensor) else repr(a)
                facts.append([("is", v) for v in (known if isinstance(known, list) else [known] * len(met))])
        keys = [None if None in row else self.graph.key((name, str(func), row)) for row in zip(*facts, strict=True)]
        new = [self.cells.add(s, v, k) for s, v, k in zip(slots, after.tolist(), keys, strict=True)]
        self._give(out, torch.tensor(new, dtype=torch.long)[inverse].view(shape), version)
        followed = [i for i, x in enumerate(wide) if not named[id(x)]]
        if name == "add" and "alpha" not in kwargs and not any(spread[i] for i in followed):
            self._passes.add(self._number)
        self._compare(out, wide, followed, columns, new[0])
        return out

    def _together(self, operands: Sequence[tuple[str | None, Sequence[int]]], spread: Sequence[bool]) -> list[int]:
        """The slot of each combination of cells and elements of parameters that meet; what meets shares its fate."""
        graph, table, found = self.graph, self.cells, list[int]()
        for row in range(len(operands[0][1])):
            slots = []
            for (name, column), wide in zip(operands, spread, strict=True):
                slot = table.slots[column[row]] if name is None else FIXED
                if name is None and not wide:
                    slots.append(slot)
                elif slot != FIXED:
                    graph.pin([slot], f"is spread over channels in {self._where}")
            if len(slots) > 1:
                graph.tie(slots)
            found.append(slots[0] if slots else FIXED)
            for (name, column), wide in zip(operands, spread, strict=True):
                if name is not None and not wide:
                    self._met.setdefault(name, []).append((column[row], found[-1]))
        return found

    def _compare(
        self,
        out: Tensor,
        wide: Sequence[Tensor],
        followed: Sequence[int],
        columns: Sequence[Sequence[int]],
        first: int,
    ) -> None:
        """Note which channels became constant here, or ceased to be; take over what data showed."""
        found = line(out._cells[0])  # type: ignore[attr-defined]
        if found is None:
            return
        axis, channels = found
        table, graph, name = self.cells, self.graph, self.place.operation
        before = {i: [columns[i][n - first] for n in channels] for i in followed}
        was = [VARIES if any(isnan(table.values[b[c]]) for b in before.values()) else 0.0 for c in range(len(channels))]
        causes = ["activation of a constant" if len(wide) == 1 else "constant input"] * len(channels)
        lost = "is added to a channel that varies" if name == "add" else f"varies after {name} in {self._where}"
        if name == "mul" and len(followed) > 1:
            lost = f"is multiplied by a gate that varies in {self._where}"
            largest = max(followed, key=lambda i: wide[i].numel())
            for i in followed:
                if wide[i].numel() < wide[largest].numel():
                    graph.followers.update({*table.slots_of(before[i])} - {*table.slots_of(before[largest])})
                    causes = [
                        "closed gate" if table.values[n] == 0 else why for n, why in zip(before[i], causes, strict=True)
                    ]
        values = table.values_of(channels).tolist()
        if axis == 1:
            values, causes = self._observed(values, causes)
            for n, value in zip(channels, values, strict=True):
                table.values[n] = value
        for c, value in enumerate(values):
            if isnan(value):
                for b in before.values():
                    if not isnan(table.values[b[c]]):
                        graph.lost[table.slots[b[c]]] = lost
        self._note(axis, table.slots_of(channels), was, values, causes, lost)

    def _reduce(self, func: Any, args: Any, kwargs: Any) -> Any:
        x = args[0]
        if self._named(x) or len(args) < 2 or not args[1]:
            return None
        cells = self._read(x)
        axes = sorted({int(a) % x.dim() for a in args[1]}, reverse=True)
        if any(a in axes for a in varying(cells)):
            return None
        out, small = func(*args, **kwargs), cells
        for a in axes:
            small = small.narrow(a, 0, 1) if out.dim() == x.dim() else small.select(a, 0)
        self._pass_on(out, small, constant=self.place.operation != "sum", border=0.0, how=repr(args[1:]))
        return out

    def _pool(self, func: Any, args: Any, kwargs: Any) -> Any:
        x, name = args[0], self.place.operation
        cells = self._read(x)
        border, constant = 0.0, True
        axes = 3 if "3d" in name else 2
        if name == "constant_pad_nd":
            constant, border, axes = False, float(args[2]) if len(args) > 2 else 0.0, len(args[1]) // 2
        if name.startswith("avg_pool"):
            padded = len(args) > 3 and any(args[3]) and (len(args) < 6 or args[5])
            constant = not padded and (len(args) < 7 or args[6] is None)
        if any(a >= x.dim() - axes for a in varying(cells)):
            return None
        out = func(*args, **kwargs)
        small = cells
        for a in range(x.dim() - axes, x.dim()):
            small = small.narrow(a, 0, 1)
        first = out[0] if isinstance(out, tuple) else out
        self._pass_on(first, small, constant=constant, border=border, how=repr(args[1:]))
        return out

    def _pass_on(self, out: Tensor, cells: Tensor, *, constant: bool, border: float, how: str) -> None:
        """The same channels in another shape; where not every `constant` stays one, `border` does."""
        table, lost = self.cells, f"varies at the zero-padded border in {self._where}"
        if constant:
            self._passes.add(self._number)

        def kept(n: int) -> int:
            value = table.values[n]
            stays = constant or value == border
            if not stays and not isnan(value):
                self.graph.lost[table.slots[n]] = lost
            key = _also(table.equal[n], (self.place.operation, how))
            return table.add(table.slots[n], value if stays else VARIES, key)

        after = mapped(cells, kept)
        self._give(out, after)
        found = line(after.expand(out.shape))
        if found is not None:
            values = table.values_of(found[1]).tolist()
            self._note(found[0], table.slots_of(found[1]), values, values, ["constant input"] * len(values), lost)

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

    def _note(
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

    # after the run

    def _settle(self) -> None:
        graph = self.graph
        for pieces in self._pieces.values():
            parts = [piece.taken for piece in pieces]
            if len({*map(len, parts)}) == 1 and len(parts) * len(parts[0]) == pieces[0].whole > len(parts[0]):
                graph.widths.append(Width("a split into equal parts", parts))
                continue
            for piece in pieces:
                graph.pin(piece.held, piece.reason)
        for name, met in self._met.items():
            self._settle_parameter(name, met)
        for name, reason in self._held.items():
            for slots in graph.cuts.get(name, {}).values():
                graph.pin(slots, f"has weights that are {reason[3:]}")
            for dense in graph.dense.values():
                if name in (dense.weight, dense.takes):
                    graph.pin([*dense.outputs, *dense.inputs.slots], f"has weights that are {reason[3:]}")
        for number, dense in self._dense:
            if dense.takes is not None and (self._uses[dense.takes] > 1 or dense.takes in self._met):
                others = [other for _, other in self._dense if other.takes == dense.takes]
                if dense.takes in self._met or len({other.weight for other in others}) > 1:
                    graph.dense[dense.weight].takes = None
            norm = self._norm_after(number, dense.outputs) if self._uses[dense.weight] == 1 else None
            kept = graph.dense[dense.weight]
            kept.norm = norm if kept is dense or kept.norm == norm else None

    def _norm_after(self, number: int, slots: list[int]) -> Norm | None:
        """The norm that alone reads the `slots` that operation `number` makes, past what passes constants on."""
        while True:
            readers = self._readers.get(number, [])
            if len(readers) != 1:
                return None
            number = readers[0]
            if number in self._norms:
                norm, root = self._norms[number], self.graph.root
                same = [*map(root, self.graph.cuts[norm.mean][0])] == [*map(root, slots)]
                return norm if same and self._uses[norm.mean] == 1 else None
            if number not in self._passes:
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


def _also(key: Hashable, how: Hashable) -> Hashable:
    return None if key is None else (key, how)


def _aligned(x: Tensor, out: Tensor) -> list[int]:
    return [1] * (out.dim() - x.dim()) + list(x.shape)


def _alike(name: str, func: Any, args: Any, kwargs: Any, known: dict[int, Tensor]) -> Any:
    """The operation on what stands for its operands; strides that nothing is owed to are copied away."""
    args, kwargs = tree_map(lambda a: known.get(id(a), a), (args, kwargs))
    if name in VIEWS:
        return args[0].reshape(args[1])
    if name in ("clone", "contiguous", "_to_copy", "detach", "alias", "lift_fresh"):
        return args[0]
    return func(*args, **kwargs)


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
    for run in ("eval", "heads") if heads else ("eval",):
        with evaluating(module, heads=run == "heads"):
            Trace(module, graph, run=run, seen=seen, rigid=rigid, until=until).follow(module, x.clone())
    return graph
