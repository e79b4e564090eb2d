"""What real samples show of each channel: one pass in float32, in which nothing but sums is kept.

Least and greatest values and zeros count every place of a map; moments of pairs of channels, whose number grows as
its square, take some places of each sample, drawn with a fixed seed.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from pruning.pairs import PairSums, drawn, patches, values_at
from pruning.places import Place, Places, evaluating
from pruning.tracks import Track

CHANNELS = 4096  # of one map, whose pairs are compared: 128 MB
PAIRS = 1 << 24  # of one layer: 128 MB


class Spread:
    """Running figures of each channel, (channels,): count, zeros, least, greatest, moments about `shift`."""

    def __init__(self, y: Tensor) -> None:
        self.count = 0
        self.shift = _by_channel(y).mean(1, dtype=torch.float64).float()
        zero = torch.zeros(y.shape[1], dtype=torch.float64)
        self.zeros, self.first, self.second = zero, zero, zero
        self.low, self.high = torch.full_like(zero, inf), torch.full_like(zero, -inf)

    def add(self, y: Tensor) -> None:
        flat = _by_channel(y)
        self.count += flat.shape[1]
        self.zeros = self.zeros + (flat == 0).sum(1)
        self.low, self.high = torch.minimum(self.low, flat.amin(1)), torch.maximum(self.high, flat.amax(1))
        off = flat - self.shift[:, None]
        self.first = self.first + off.sum(1, dtype=torch.float64)
        self.second = self.second + off.square_().sum(1, dtype=torch.float64)

    @property
    def mean(self) -> Tensor:
        return torch.where(self.low == self.high, self.low, self.shift + self.first / self.count)

    @property
    def deviation(self) -> Tensor:
        variance = (self.second / self.count - (self.first / self.count) ** 2).clamp_min(0)
        return torch.where(self.low == self.high, 0.0, variance).sqrt()


class Likeness:
    """Running moments of pairs of channels at sampled places."""

    def __init__(self, y: Tensor) -> None:
        self.shift = y.double().mean(0)
        self.count = 0
        self.first = torch.zeros(y.shape[1], dtype=torch.float64)
        self.second = torch.zeros(y.shape[1], y.shape[1], dtype=torch.float64)

    def add(self, y: Tensor) -> None:
        """`y` is (places, channels)."""
        off = y.double() - self.shift
        self.count += len(y)
        self.first += off.sum(0)
        self.second += off.T @ off

    def correlation(self) -> Tensor:
        """(channels, channels); 0 where a channel is constant."""
        mean = self.first / self.count
        spread = self.second / self.count - mean[:, None] * mean
        scale = spread.diagonal().clamp_min(0).sqrt()
        both = scale[:, None] * scale
        return torch.where(both > 0, spread / both.where(both > 0, 1.0), 0.0).clamp(-1, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """By place, what a pass over `samples` showed: of outputs, and of `inputs` that layers read; `pairs` by weight."""

    samples: int
    spreads: Mapping[Place, Spread]
    inputs: Mapping[Place, Spread]
    likeness: Mapping[Place, Likeness]
    pairs: Mapping[str, PairSums]


class _Measures(Places):  # type: ignore[no-untyped-call]
    def __init__(
        self, module: nn.Module, tracks: Iterable[Track], at: Collection[Place], alike: Collection[Place], each: int,
        seed: int,
    ) -> None:  # fmt: skip
        super().__init__(module)
        self.layers = {track.place: track for track in tracks}
        self.weights = dict(module.named_parameters())
        self.at, self.alike, self.each = at, alike, each
        self.rng = torch.Generator().manual_seed(seed)
        self.spreads: dict[Place, Spread] = {}
        self.inputs: dict[Place, Spread] = {}
        self.likeness: dict[Place, Likeness] = {}
        self.pairs: dict[str, PairSums] = {}

    def ran(self, place: Place, func: Any, args: Any, kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        y = out[0] if isinstance(out, tuple) else out
        if place in self.at:
            self.spreads.setdefault(place, Spread(y)).add(y)
        if place in self.alike and y.shape[1] <= CHANNELS:
            some = values_at(y, *drawn(len(y), y[0, 0].numel(), self.each, self.rng))
            self.likeness.setdefault(place, Likeness(some)).add(some)
        if (track := self.layers.get(place)) is not None:
            x = args[1] if place.operation == "addmm" else args[0]
            self.inputs.setdefault(place, Spread(x)).add(x)
            self._pair(track, x, y, args)
        return out

    def _pair(self, track: Track, x: Tensor, y: Tensor, args: Any) -> None:
        weight = self.weights[track.weight].detach()
        convolution = track.place.operation == "convolution"
        groups = args[8] if convolution else 1
        if weight.shape[1] < 2 or weight.shape[:2].numel() > PAIRS or (convolution and args[6]):
            return
        sample, place = drawn(len(y), y[0, 0].numel(), self.each, self.rng)
        if convolution:
            taken = patches(x, y.shape[2:], weight.shape[2:], args[3:6], sample, place)
        else:
            taken = x[sample][:, :, None]
        sums = self.pairs.setdefault(track.weight, PairSums(weight[..., None].flatten(2), groups))
        sums.add(taken, values_at(y, sample, place))


def measure(
    module: nn.Module,
    batches: Iterable[Tensor],
    tracks: Iterable[Track],
    *,
    at: Collection[Place],
    alike: Collection[Place],
    each: int,
    seed: int = 0,
) -> Measured:
    """Run a float32 copy of `module` over `batches`, (batch, channels, *space) each, in evaluation mode.

    `at`: the places whose channels are measured; `alike`: those whose pairs of channels are, at `each` places of a
    sample.
    """
    plain, samples = copy.deepcopy(module).cpu().float(), 0
    watch = _Measures(plain, tracks, at, alike, each, seed)
    with evaluating(plain, heads=False):
        for x in batches:
            samples += len(x)
            with watch:
                plain(x.cpu().float())
    return Measured(samples, watch.spreads, watch.inputs, watch.likeness, watch.pairs)


def _by_channel(y: Tensor) -> Tensor:
    return y.transpose(0, 1).flatten(1)
