"""Cells: what one channel is at one point of a run, and maps of them in the shape of the data.

A cell has the *slot* it belongs to, the value it has for every input (NaN where it varies), and a key that channels
equal for every input share (None where that is not known). A map of cells is an integer tensor of the data's shape
whose strides are 0 where nothing varies, so that it costs what its channels cost, not what its pixels cost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

FIXED = 0  # the slot, and the cell, of everything that is not followed
VARIES = float("nan")
NOTHING = torch.zeros((), dtype=torch.long)


class Cells:
    """The table of the cells of one run."""

    def __init__(self) -> None:
        self.slots: list[int] = [FIXED]
        self.values: list[float] = [VARIES]
        self.equal: list[Hashable] = [None]

    def add(self, slot: int, value: float, equal: Hashable) -> int:
        """The number of a new cell."""
        self.slots.append(slot)
        self.values.append(value)
        self.equal.append(equal)
        return len(self.slots) - 1

    def slots_of(self, numbers: Sequence[int]) -> list[int]:
        return [self.slots[n] for n in numbers]

    def values_of(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([self.values[n] for n in numbers], dtype=torch.float64)


def core(cells: Tensor) -> Tensor:
    """The map with one entry along each axis that nothing varies along."""
    for axis in range(cells.dim()):
        if cells.stride(axis) == 0 and cells.shape[axis] > 1:
            cells = cells.narrow(axis, 0, 1)
    return cells


def compact(cells: Tensor) -> Tensor:
    """The same map with stride 0 along each axis that nothing varies along."""
    shape, small = cells.shape, core(cells)
    for axis in range(small.dim()):
        first = small.narrow(axis, 0, 1) if small.shape[axis] else small
        if small.shape[axis] > 1 and bool((small == first).all()):
            small = first
    return small.contiguous().expand(shape)


def varying(cells: Tensor) -> list[int]:
    """The axes that a compact map varies along."""
    return [axis for axis, size in enumerate(core(cells).shape) if size > 1]


def numbers(cells: Tensor, axis: int) -> list[int] | None:
    """The cells along `axis`, or None where the map varies along another."""
    if any(a != axis for a in varying(cells)):
        return None
    line = core(cells).flatten()
    found: list[int] = line.expand(cells.shape[axis]).tolist()
    return found


def line(cells: Tensor) -> tuple[int, list[int]] | None:
    """(axis, cells) of a map that varies along one axis at most; axis 1, if there is one, where along none."""
    axes = varying(cells)
    if len(axes) > 1 or not cells.dim():
        return None
    axis = axes[0] if axes else min(1, cells.dim() - 1)
    found = numbers(cells, axis)
    return None if found is None else (axis, found)


def mapped(cells: Tensor, change: Callable[[int], int]) -> Tensor:
    """Each followed cell replaced by `change` of it."""
    unique, inverse = torch.unique(core(cells), return_inverse=True)
    new = torch.tensor([change(n) if n else FIXED for n in unique.tolist()], dtype=torch.long)
    return new[inverse].expand(cells.shape)
