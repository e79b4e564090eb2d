"""What a layer makes of constant channels, in evaluation mode: one small rule for each kind.

Values are (channels,) in float64: what a channel is over the whole map, for every input; NaN where it varies. A rule
returns the values after the layer and, per channel, the cause of a constant there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pruning.weights import Path, exact, parts
from searchspace.layers import ACTIVATION_MODULES

VARIES = float("nan")
Known = tuple[Tensor, list[str]]


def dense(maps: Iterable[Path], values: Tensor, width: int, padded: bool) -> Known:
    """Convolution or linear map to `width` channels. `padded`: zero padding turns a non-zero constant into a map."""
    total = torch.zeros(width, dtype=torch.float64)
    varies, empty = torch.zeros(width, dtype=torch.bool), torch.ones(width, dtype=torch.bool)
    known = values.nan_to_num(0.0)
    moving = values.isnan() | (known != 0 if padded else False)
    for path in maps:
        rows, columns = _slice(path.rows), _slice(path.columns)
        total[rows] += path.sums @ known[columns] + (0.0 if path.bias is None else path.bias)
        varies[rows] |= path.used[:, moving[columns]].any(1)
        empty[rows] &= ~path.used.any(1)
    total[varies] = VARIES
    return total, ["zero filter" if e else "constant input" for e in empty.tolist()]


def depthwise(name: str, module: nn.Module, values: Tensor, padded: bool) -> Known:
    """One filter a channel: constant under a zero filter, or on a constant that no zero padding borders."""
    after, causes = values.clone(), ["constant input"] * len(values)
    for _, part, channels in parts(name, module):
        weight, bias = _tensor(part, "weight").flatten(1), getattr(part, "bias", None)
        here = values[_slice(channels)]
        empty = (weight == 0).all(1)
        varies = here.isnan() | (here != 0 if padded else False)
        offset = 0.0 if bias is None else exact(bias)
        after[_slice(channels)] = torch.where(empty, 0.0, torch.where(varies, VARIES, here * weight.sum(1))) + offset
        for c in empty.nonzero().flatten().tolist():
            causes[channels[c]] = "zero filter"
    return after, causes


def norm(name: str, module: nn.Module, values: Tensor) -> Known:
    """Batch normalisation by its running statistics: its shift under a zero scale, an affine map of a constant."""
    after, causes = values.clone(), ["norm of a constant"] * len(values)
    for _, part, channels in parts(name, module):
        scale, shift = _tensor(part, "weight"), _tensor(part, "bias")
        mean, variance = _tensor(part, "running_mean"), _tensor(part, "running_var")
        assert isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d)
        here = (values[_slice(channels)] - mean) / torch.sqrt(variance + part.eps) * scale
        after[_slice(channels)] = torch.where(scale == 0, 0.0, here) + shift
        for c in (scale == 0).nonzero().flatten().tolist():
            causes[channels[c]] = "norm scale 0"
    return after, causes


def activation(kind: str, values: Tensor) -> Known:
    """An elementwise function of a constant; of 0 it need not be 0."""
    after = torch.where(values.isnan(), VARIES, ACTIVATION_MODULES[kind]()(values.nan_to_num(0.0)))
    return after, ["activation of a constant"] * len(values)


def padded_average(values: Tensor) -> Known:
    """Average pooling that counts zero padding: only 0 stays constant."""
    return torch.where(values == 0, values, VARIES), ["constant input"] * len(values)


def gated(values: Tensor, gate: Tensor) -> Known:
    """Channels times their gates: constant where both are, or where either is 0."""
    closed = (values == 0) | (gate == 0)
    causes = ["closed gate" if c else "constant input" for c in (gate == 0).tolist()]
    return torch.where(closed, 0.0, values * gate), causes


def shuffle(groups: int, high: int, low: int) -> list[int]:
    """The channel that each place of a shuffled map comes from; each frequency by itself."""
    places: list[int] = []
    for start, width in ((0, high), (high, low)):
        each = width // groups
        places += [start + group * each + place for place in range(each) for group in range(groups)]
    return places


def _slice(channels: range) -> slice:
    return slice(channels.start, channels.stop)


def _tensor(module: nn.Module, name: str) -> Tensor:
    tensor = getattr(module, name)
    assert isinstance(tensor, Tensor)
    return exact(tensor)
