"""Operations that only move elements about: they are applied to the maps of cells as they are to the data."""

from __future__ import annotations

from collections.abc import Hashable
from math import isnan
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from pruning.cells import compact, core, mapped, numbers, varying
from pruning.run import Piece, Run, also

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
ALIKE = frozenset(
    ("cat", "stack", "expand", "unsqueeze", "squeeze", "clone", "contiguous", "detach", "alias", "_to_copy")
)


def move(run: Run, func: Any, args: Any, kwargs: Any) -> Any:
    name, flat = run.place.operation, tree_flatten((args, kwargs))[0]
    operands = [a for a in flat if isinstance(a, Tensor) and a.is_floating_point()]
    if name == "index_select" and not run.free:
        return None
    if name == "roll" and not {int(a) % args[0].dim() for a in args[2]}.isdisjoint(varying(run.read(args[0]))):
        return None  # by a number of channels
    source = operands[0] if operands else None
    if source is None or (len(operands) > 1 and any(run.named(x) for x in operands)):
        return None
    named = run.named(source)
    known = {id(x): named[1] if named else run.read(x) for x in operands}
    out = func(*args, **kwargs)
    moved = _alike(name, func, args, kwargs, known)
    pairs = zip(out, moved, strict=True) if isinstance(out, list | tuple) else [(out, moved)]
    for i, (y, cells) in enumerate(pairs):
        if named:
            y._elements = (named[0], cells)
            continue
        after = compact(cells)
        if not run.free:
            _bind(run, name, args, known[id(source)], after)
        if name not in ALIKE or y.dtype != source.dtype:
            after = _told_apart(run, after, (name, repr(args[1:]), str(y.dtype), i), y.dtype)
        alias = y.untyped_storage()._cdata == source.untyped_storage()._cdata
        run.give(y, after, source._version if alias else 0)
        if name in CUTS and not run.free:
            _piece(run, name, args, source, known[id(source)], after)
    return out


def _told_apart(run: Run, cells: Tensor, how: Hashable, dtype: torch.dtype) -> Tensor:
    """The same channels in `dtype`, equal to none but those that were moved alike."""
    table = run.cells

    def apart(n: int) -> int:
        value = table.values[n]
        value = value if isnan(value) else float(torch.tensor(value, dtype=torch.float64).to(dtype))
        return table.add(table.slots[n], value, also(table.equal[n], how))

    return mapped(cells, apart)


def _bind(run: Run, name: str, args: Any, before: Tensor, after: Tensor) -> None:
    """What Python's code of a view or a shuffle demands of the widths, as far as that can be guessed."""
    if name in VIEWS and before.shape != after.shape:
        axes = varying(after)
        if run.rigid:
            run.pin(after, f"is laid out by numbers in {run.where}")
        elif len(axes) > 1 and len(varying(before)) < len(axes):  # the outer axes are groups of a fixed count
            grid = core(after).movedim(axes[-1], -1)
            run.graph.tie_rows(grid.reshape(-1, grid.shape[-1]).T.tolist(), run.cells.slots)
    if name in ("channel_shuffle", "native_channel_shuffle"):
        found = numbers(before, 1)
        if found is None or run.rigid:
            run.pin(before, f"is shuffled by numbers in {run.where}")
        else:
            each = len(found) // args[1]
            run.graph.tie_rows([found[place::each] for place in range(each)], run.cells.slots)


def _piece(run: Run, name: str, args: Any, source: Tensor, before: Tensor, after: Tensor) -> None:
    """Note that a slice takes some channels and not others."""
    whole, taken = core(before), run.cells.slots_of(core(after).flatten().tolist())
    if not varying(before) or whole.numel() == core(after).numel():
        return
    if run.rigid or name == "split_with_sizes":
        run.pin(before, f"is cut at fixed places in {run.where}")
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
    reason = f"is cut at fixed places in {run.where}"
    piece = Piece(taken, run.cells.slots_of(held.flatten().tolist()), whole.numel(), reason)
    run.pieces.setdefault(source._cells[2], []).append(piece)  # type: ignore[attr-defined]


def _alike(name: str, func: Any, args: Any, kwargs: Any, known: dict[int, Tensor]) -> Any:
    """The operation on what stands for its operands; strides that nothing is owed to are copied away."""
    args, kwargs = tree_map(lambda a: known.get(id(a), a), (args, kwargs))
    if name in VIEWS:
        return args[0].reshape(args[1])
    if name in ("clone", "contiguous", "_to_copy", "detach", "alias", "lift_fresh"):
        return args[0]
    return func(*args, **kwargs)
