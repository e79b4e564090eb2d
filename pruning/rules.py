"""What operations make of constant channels, in evaluation mode: one small rule for each kind.

Values are (channels,) in float64: what a channel is over the whole map, for every input; NaN where it varies. A rule
returns the values after the operation and, per channel, the cause of a constant there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from pruning.cells import VARIES
from pruning.graph import Dense

Known = tuple[Tensor, list[str]]


def exact(tensor: Tensor) -> Tensor:
    """`tensor` in float64 on the CPU, without a graph; the original is not to be written through it."""
    return tensor.detach().to("cpu", torch.float64)


def dense(weights: Dense) -> Known:
    """Convolution or linear map; zero padding turns a non-zero constant into a map."""
    values = weights.inputs.values
    known = values.nan_to_num(0.0)
    moving = values.isnan() | (known != 0 if weights.padded else torch.zeros(len(values), dtype=torch.bool))
    total = weights.sums @ known + (0.0 if weights.offset is None else weights.offset)
    total[weights.used[:, moving].any(1)] = VARIES
    return total, ["constant input" if used else "zero filter" for used in weights.used.any(1).tolist()]


def depthwise(filters: Tensor, offsets: Tensor, values: Tensor, padded: bool) -> Known:
    """One filter (row) a channel: constant under a zero filter, or on a constant that no zero padding borders."""
    empty = (filters == 0).all(1)
    varies = values.isnan() | (values != 0 if padded else torch.zeros_like(empty))
    after = torch.where(empty, 0.0, torch.where(varies, VARIES, values * filters.sum(1))) + offsets
    return after, ["zero filter" if e else "constant input" for e in empty.tolist()]


def norm(scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, eps: float, values: Tensor) -> Known:
    """Batch normalisation by its running statistics: its shift under a zero scale, an affine map of a constant."""
    zero = scale == 0
    after = torch.where(zero, 0.0, (values - mean) / torch.sqrt(variance + eps) * scale) + shift
    return after, ["norm scale 0" if z else "norm of a constant" for z in zero.tolist()]


def elementwise(name: str, func: Any, args: Any, kwargs: Any, values: Mapping[int, Tensor]) -> Tensor:
    """`func` of constants: `values` are (channels,) or single, by the id of the operand that they stand for."""
    some = list(values.values())
    size = max((v.numel() for v in some if v.dim()), default=1)
    unknown = torch.zeros(size, dtype=torch.bool)
    for value in some:
        unknown = unknown | value.isnan()
    try:
        args, kwargs = tree_map(lambda a: values[id(a)].clone() if id(a) in values else a, (args, kwargs))
        after = func(*args, **kwargs).double().expand(size)
    except (RuntimeError, TypeError):  # a mask among the operands, or the like
        return torch.full((size,), VARIES, dtype=torch.float64)
    after = torch.where(unknown, VARIES, after)
    if name == "mul":
        for value in some:
            after = torch.where(value == 0, 0.0, after)
    return after
