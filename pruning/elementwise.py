"""Operations on each element by itself: what meets shares its fate, and parameters among it are theirs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import isnan
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from pruning import rules
from pruning.cells import FIXED, VARIES, core, line
from pruning.places import in_place
from pruning.rules import exact
from pruning.run import Run


def elementwise(run: Run, func: Any, args: Any, kwargs: Any) -> Any:
    name, flat = run.place.operation, tree_flatten((args, kwargs))[0]
    operands = [a for a in flat if isinstance(a, Tensor)]
    named = {id(x): run.named(x) for x in operands}
    wide = [x for x in operands if x.dim() or hasattr(x, "_cells")]
    data = {id(x): exact(x) for x in operands if not x.dim() and not hasattr(x, "_cells")}
    if (in_place(func) and named[id(args[0])]) or all(named[id(x)] for x in wide):
        return None
    if any(not x.numel() for x in wide):
        return None
    grids = [n[1] if (n := named[id(x)]) else run.read(x) for x in wide]
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
        values[id(x)] = exact(run.tensors[n[0]]).flatten()[column] if n else run.cells.values_of(column)
    after = rules.elementwise(name, func, args, kwargs, values)
    spread = [any(n > 1 and s == 1 for n, s in zip(shape, _aligned(x, out), strict=True)) for x in wide]
    slots = _together(
        run, [(n[0] if (n := named[id(x)]) else None, column) for x, column in zip(wide, columns, strict=True)], spread
    )
    facts: list[Sequence[Hashable]] = []  # of each operand, for each that meet
    for a in flat:
        if isinstance(a, Tensor) and id(a) in named and named[id(a)] is None and id(a) not in data:
            facts.append([run.cells.equal[n] for n in columns[[id(x) for x in wide].index(id(a))]])
        else:
            known = values[id(a)].tolist() if isinstance(a, Tensor) else repr(a)
            facts.append([("is", v) for v in (known if isinstance(known, list) else [known] * len(met))])
    keys = [None if None in row else run.graph.key((name, str(func), row)) for row in zip(*facts, strict=True)]
    new = [run.cells.add(s, v, k) for s, v, k in zip(slots, after.tolist(), keys, strict=True)]
    run.give(out, torch.tensor(new, dtype=torch.long)[inverse].view(shape), version)
    followed = [i for i, x in enumerate(wide) if not named[id(x)]]
    if name == "add" and "alpha" not in kwargs and not any(spread[i] for i in followed):
        run.passes.add(run.number)
    _compare(run, out, wide, followed, columns, new[0])
    return out


def _together(run: Run, operands: Sequence[tuple[str | None, Sequence[int]]], spread: Sequence[bool]) -> list[int]:
    """The slot of each combination of cells and elements of parameters that meet; what meets shares its fate."""
    graph, table, found = run.graph, run.cells, list[int]()
    for row in range(len(operands[0][1])):
        slots = []
        for (name, column), wide in zip(operands, spread, strict=True):
            slot = table.slots[column[row]] if name is None else FIXED
            if name is None and not wide:
                slots.append(slot)
            elif slot != FIXED:
                graph.pin([slot], f"is spread over channels in {run.where}")
        if len(slots) > 1:
            graph.tie(slots)
        found.append(slots[0] if slots else FIXED)
        for (name, column), wide in zip(operands, spread, strict=True):
            if name is not None and not wide:
                run.met.setdefault(name, []).append((column[row], found[-1]))
    return found


def _compare(
    run: Run,
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
    table, graph, name = run.cells, run.graph, run.place.operation
    before = {i: [columns[i][n - first] for n in channels] for i in followed}
    was = [VARIES if any(isnan(table.values[b[c]]) for b in before.values()) else 0.0 for c in range(len(channels))]
    causes = ["activation of a constant" if len(wide) == 1 else "constant input"] * len(channels)
    lost = "is added to a channel that varies" if name == "add" else f"varies after {name} in {run.where}"
    if name == "mul" and len(followed) > 1:
        lost = f"is multiplied by a gate that varies in {run.where}"
        largest = max(followed, key=lambda i: wide[i].numel())
        for i in followed:
            if wide[i].numel() < wide[largest].numel():
                graph.followers.update({*table.slots_of(before[i])} - {*table.slots_of(before[largest])})
                causes = [
                    "closed gate" if table.values[n] == 0 else why for n, why in zip(before[i], causes, strict=True)
                ]
    values = table.values_of(channels).tolist()
    if axis == 1:
        values, causes = run._observed(values, causes)
        for n, value in zip(channels, values, strict=True):
            table.values[n] = value
    for c, value in enumerate(values):
        if isnan(value):
            for b in before.values():
                if not isnan(table.values[b[c]]):
                    graph.lost[table.slots[b[c]]] = lost
    run.note(axis, table.slots_of(channels), was, values, causes, lost)


def _aligned(x: Tensor, out: Tensor) -> list[int]:
    return [1] * (out.dim() - x.dim()) + list(x.shape)
