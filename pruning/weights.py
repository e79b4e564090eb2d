"""Weights as maps between numbered channels: one view of convolutions, octave convolutions and linear layers.

Channels of an octave map are numbered high ones first, then low ones. What is said here is true of the tensors as
they are; which channels are worth keeping is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from searchspace import layers


@dataclass(frozen=True, eq=False)
class Path:
    """One convolution or linear map: `weight` (rows, columns / groups, *kernel) in float64.

    `columns` and `rows` are the numbers its inputs and outputs have in the whole leaf; `name` is the module's.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    columns: range
    rows: range
    groups: int

    @cached_property
    def sums(self) -> Tensor:
        """(rows, columns): each kernel summed over its taps, which a constant input is multiplied by."""
        return self._dense(self.weight.flatten(2).sum(2) if self.weight.dim() > 2 else self.weight)

    @cached_property
    def used(self) -> Tensor:
        """(rows, columns): whether any tap is other than 0."""
        return self._dense((self.weight.flatten(2) != 0).any(2) if self.weight.dim() > 2 else self.weight != 0)

    def _dense(self, blocks: Tensor) -> Tensor:
        if self.groups == 1:
            return blocks
        whole = blocks.new_zeros(len(self.rows), len(self.columns))
        for rows, columns in self.blocks():
            whole[rows, columns] = blocks[rows]
        return whole

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """(rows, columns) of each group, counted within this path."""
        rows, columns = len(self.rows) // self.groups, len(self.columns) // self.groups
        for j in range(self.groups):
            yield slice(j * rows, (j + 1) * rows), slice(j * columns, (j + 1) * columns)


def paths(name: str, module: nn.Module) -> list[Path]:
    """The maps inside `module`: one, or the up to four of an octave convolution; those into one frequency together."""
    if not isinstance(module, layers.OctaveConv):
        weight = _weight(module)
        return [_path(name, module, range(weight.shape[1] * _groups(module)), range(len(weight)))]
    high_in = _width(module.hh, 1) or _width(module.hl, 1)
    low_in = _width(module.lh, 1) or _width(module.ll, 1)
    high_out = _width(module.hh, 0) or _width(module.lh, 0)
    low_out = _width(module.hl, 0) or _width(module.ll, 0)
    high, low = range(high_in), range(high_in, high_in + low_in)
    to_high, to_low = range(high_out), range(high_out, high_out + low_out)
    ends = {"hh": (high, to_high), "lh": (low, to_high), "hl": (high, to_low), "ll": (low, to_low)}
    found = ((key, getattr(module, key), *end) for key, end in ends.items())
    return [_path(f"{name}.{key}", path, columns, rows) for key, path, columns, rows in found if path is not None]


def parts(name: str, module: nn.Module) -> list[tuple[str, nn.Module, range]]:
    """(name, module, channels) of a per-channel layer, or of each frequency's where it works on an octave map."""
    if not isinstance(module, layers.Branches):
        return [(name, module, range(len(_weight(module))))]
    found, start = [], 0
    for key, part in (("high", module.high), ("low", module.low)):
        if part is not None:
            stop = start + len(_weight(part))
            found.append((f"{name}.{key}", part, range(start, stop)))
            start = stop
    return found


def exact(tensor: Tensor) -> Tensor:
    """`tensor` in float64 on the CPU, without a graph; the original is not to be written through it."""
    return tensor.detach().to("cpu", torch.float64)


def _path(name: str, module: nn.Module, columns: range, rows: range) -> Path:
    bias = module.bias
    return Path(
        name,
        exact(_weight(module)),
        exact(bias) if isinstance(bias, Tensor) else None,
        columns,
        rows,
        _groups(module),
    )


def _weight(module: nn.Module) -> Tensor:
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight


def _groups(module: nn.Module) -> int:
    return module.groups if isinstance(module, nn.Conv2d | nn.Conv3d) else 1


def _width(module: nn.Module | None, axis: int) -> int:
    return 0 if module is None else _weight(module).shape[axis] * (_groups(module) if axis else 1)
