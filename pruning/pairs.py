"""How much each filter's output follows each of its inputs: the input-channel x filter matrix of a layer.

For input c of filter o the *contribution* is what the kernel slice W[o, c] alone makes of the input, and the entry is
its correlation with the filter's whole output over samples and places. A filter that follows few inputs gives a row
with few entries, and a layer whose strong pairs form blocks is a grouped convolution in the making: the filters of
consecutive layers correlate in blocks where a network was trained with groups [1], and weakly tied pairs are what
learned groups cut [2]. Correlation has no scale, so that pairs whose contribution is tiny are weak, too; what cutting
pairs costs is the `power`, the variance, of their contributions.

[1] Ioannou, Robertson, Cipolla, Criminisi: Deep Roots. CVPR 2017. [2] Huang et al.: CondenseNet. CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ENTRIES = 1 << 22  # of one product of patches and outputs at a time: 32 MB
ROUNDING = 1e-9  # a variance below this share of the mean square is rounding


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Of one layer, (filters, inputs / groups) each: `correlation`, and `power`, the variances of contributions.

    `deviation`: (inputs,) the standard deviation of each input, at the kernel's taps. Over `positions` places in all.
    """

    correlation: Tensor
    power: Tensor
    deviation: Tensor
    groups: int
    positions: int

    @property
    def strength(self) -> Tensor:
        """(filters, inputs / groups): the deviation of each contribution, of the largest one of its filter."""
        deviation = self.power.sqrt()
        return deviation / deviation.amax(1, keepdim=True).clamp_min(torch.finfo(deviation.dtype).tiny)

    def strong(self, weak: float, tiny: float) -> Tensor:
        """(filters, inputs / groups): pairs that correlate by `weak` at least, with a strength of `tiny` at least."""
        return (self.correlation.abs() >= weak) & (self.strength >= tiny) & (self.power > 0)


class PairSums:
    """Running float64 sums of patches and outputs at some places; `weight` is (filters, inputs / groups, taps)."""

    def __init__(self, weight: Tensor, groups: int) -> None:
        self.weight, self.groups, self.positions = weight, groups, 0
        filters, inputs, taps = weight.shape
        like = {"dtype": torch.float64}
        self.first = torch.zeros(groups, inputs, taps, **like)  # type: ignore[call-overload]
        self.second = torch.zeros(groups, inputs, taps, taps, **like)  # type: ignore[call-overload]
        self.out_first, self.out_second = torch.zeros(2, filters, **like)  # type: ignore[call-overload]
        self.cross = torch.zeros(filters, inputs, **like)  # type: ignore[call-overload]
        self._shift: tuple[Tensor, Tensor] | None = None

    def add(self, patches: Tensor, outputs: Tensor) -> None:
        """`patches` (places, inputs, taps) and `outputs` (places, filters) at the same places."""
        x, y = patches.double().view(len(patches), self.groups, *self.weight.shape[1:]), outputs.double()
        if self._shift is None:  # moments about a value near the mean lose no digits
            self._shift = x.mean(0), y.mean(0)
        x, y = x - self._shift[0], y - self._shift[1]
        self.positions += len(x)
        self.first += x.sum(0)
        self.second += torch.einsum("pgck,pgcl->gckl", x, x)
        self.out_first += y.sum(0)
        self.out_second += (y * y).sum(0)
        rows = len(self.weight) // self.groups
        step = max(1, ENTRIES // self.weight[0].numel())
        for g in range(self.groups):
            flat = x[:, g].flatten(1).T
            for start in range(g * rows, (g + 1) * rows, step):
                some = slice(start, min(start + step, (g + 1) * rows))
                joint = (flat @ y[:, some]).view(*self.weight.shape[1:], -1)
                self.cross[some] += torch.einsum("cko,ock->oc", joint, self.weight[some].double())

    def result(self) -> Pairs:
        n = max(self.positions, 1)
        mean = self.first / n
        spread = self.second / n - mean[..., :, None] * mean[..., None, :]
        taps = spread.diagonal(dim1=-2, dim2=-1).clamp_min(0)
        weight = self.weight.double().view(self.groups, -1, *self.weight.shape[1:])
        power = torch.einsum("gock,gckl,gocl->goc", weight, spread, weight).flatten(0, 1).clamp_min(0)
        means = torch.einsum("gock,gck->goc", weight, mean).flatten(0, 1)
        square = torch.einsum("gock,gckl,gocl->goc", weight, self.second / n, weight).flatten(0, 1)
        power[power <= ROUNDING * square] = 0
        out_mean = self.out_first / n
        out_power = (self.out_second / n - out_mean**2).clamp_min(0)
        joint = self.cross / n - means * out_mean[:, None]
        scale = (power * out_power[:, None]).sqrt()
        correlation = torch.where(scale > 0, joint / scale.where(scale > 0, 1.0), 0.0).clamp(-1, 1)
        return Pairs(
            correlation=correlation.float(),
            power=power.float(),
            deviation=taps.mean(2).sqrt().flatten().float(),
            groups=self.groups,
            positions=self.positions,
        )


def drawn(samples: int, places: int, each: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(which sample, which place) of `each` of the `places` of every sample, or of all where they are no more."""
    if places <= each:
        index = torch.arange(places).expand(samples, places)
    else:
        index = torch.rand(samples, places, generator=rng).argsort(1)[:, :each]
    return torch.arange(samples).repeat_interleave(index.shape[1]), index.flatten()


def values_at(y: Tensor, sample: Tensor, place: Tensor) -> Tensor:
    """(places, channels) of a map (batch, channels, *space)."""
    return y[sample] if y.dim() == 2 else y.flatten(2)[sample, :, place]


def patches(
    x: Tensor, space: Sequence[int], taps: Sequence[int], how: Sequence[Sequence[int]], sample: Tensor, place: Tensor
) -> Tensor:
    """(places, channels, taps): what a kernel reads of `x` (batch, channels, *space) for some places of its output.

    `space` is the output's, `taps` the kernel's sizes, `how` the (stride, padding, dilation).
    """
    stride, padding, dilation = (list(h) * len(space) if len(h) == 1 else list(h) for h in how)
    x = F.pad(x, [p for size in reversed(padding) for p in (size, size)])
    spots, offsets, rest, kernel = torch.zeros_like(place), torch.zeros(1, dtype=torch.long), place, 1
    for axis in reversed(range(len(space))):
        spots = spots + rest % space[axis] * stride[axis] * kernel
        steps = torch.arange(taps[axis]) * dilation[axis] * kernel
        offsets = (steps[:, None] + offsets[None]).flatten()
        rest, kernel = rest // space[axis], kernel * x.shape[2 + axis]
    return x.flatten(2)[sample[:, None], :, spots[:, None] + offsets].transpose(1, 2)
