"""The few modules torch lacks: octave convolution, per-frequency layers, shuffle, squeeze-excite, joins.

A feature map is a tensor (batch, channels, *space), or, where some channels live at half resolution, a pair
(high, low) of which either may be None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[Tensor | None, Tensor | None]
Feature = Tensor | Pair

ACTIVATION_MODULES: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardswish": nn.Hardswish,
    "hardsigmoid": nn.Hardsigmoid,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
}


def split(x: Feature) -> Pair:
    """(high, low) of any feature map."""
    return x if isinstance(x, tuple) else (x, None)


def average_pool(x: Tensor, window: Sequence[int]) -> Tensor:
    """Average pooling by `window`, its stride alike, sizes rounded up; a window past the border shrinks."""
    if all(w == 1 for w in window):
        return x
    kernel = [min(w, size) for w, size in zip(window, x.shape[2:], strict=True)]
    pool = F.avg_pool2d if len(window) == 2 else F.avg_pool3d
    return pool(x, kernel, list(window), ceil_mode=True)


def every(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Every stride-th element along each axis of space."""
    return x[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]


class StridedPointwise2d(nn.Conv2d):
    """A strided 1 x 1 convolution as a plain one on every stride-th element: the same function and cost.

    oneDNN 3.12 (torch 2.13, AVX2, channels last, under 8 input channels) writes past its buffer in the backward pass
    of the strided form, which kills the process; `tests/searchspace/test_strided_pointwise.py` shows it.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(every(x, self.stride), self.weight, self.bias, groups=self.groups)


class StridedPointwise3d(nn.Conv3d):
    """The same in 3D."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv3d(every(x, self.stride), self.weight, self.bias, groups=self.groups)


class OctaveConv(nn.Module):
    """Octave convolution: up to four convolutions `hh`, `hl`, `lh`, `ll`, named from input to output frequency.

    Down is average pooling, up is nearest; a stride is average pooling before the convolution, and at image
    stride 2 the low input already has the size of the high output. `size` is the high output's space, needed
    only where the input has no high part. A bias sits in the first convolution into each output.
    """

    def __init__(
        self,
        inputs: tuple[int, int],
        outputs: tuple[int, int],
        conv: Callable[[int, int, bool], nn.Module],
        stride: tuple[int, ...],
        bias: bool,
        size: tuple[int, ...],
    ) -> None:
        """`inputs` and `outputs` are (high, low) channels; `conv(in, out, bias)` makes one path at stride 1."""
        super().__init__()
        (high_in, low_in), (high_out, low_out) = inputs, outputs
        self.stride, self.size = stride, size
        self.hh = conv(high_in, high_out, bias) if high_in and high_out else None
        self.lh = conv(low_in, high_out, bias and not high_in) if low_in and high_out else None
        self.hl = conv(high_in, low_out, bias) if high_in and low_out else None
        self.ll = conv(low_in, low_out, bias and not high_in) if low_in and low_out else None

    def forward(self, x: Feature) -> Feature:
        high, low = split(x)
        strided = self.stride[-1] == 2
        still = (*self.stride[:-2], 1, 1)  # what a low input needs to become a high output at image stride 2
        half = (*(1 for _ in self.stride[:-2]), 2, 2)
        to_high: list[Tensor] = []
        to_low: list[Tensor] = []
        if high is not None:
            high = average_pool(high, self.stride)
            if self.hh is not None:
                to_high.append(self.hh(high))
            if self.hl is not None:
                to_low.append(self.hl(average_pool(high, half)))
        if low is not None:
            if self.lh is not None:
                up = self.lh(average_pool(low, still))
                if not strided:
                    size = self.size if high is None else high.shape[2:]
                    up = F.interpolate(up, size=tuple(size), mode="nearest")
                to_high.append(up)
            if self.ll is not None:
                to_low.append(self.ll(average_pool(low, self.stride)))
        new_high, new_low = (sum(paths[1:], paths[0]) if paths else None for paths in (to_high, to_low))
        if new_low is None:
            assert new_high is not None
            return new_high
        return new_high, new_low

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class Branches(nn.Module):
    """The same kind of layer on each frequency by itself, after average pooling by `stride`."""

    def __init__(self, high: nn.Module | None, low: nn.Module | None, stride: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.high, self.low, self.stride = high, low, stride

    def forward(self, x: Pair) -> Pair:
        high, low = x
        if high is not None:
            assert self.high is not None
            high = self.high(average_pool(high, self.stride) if self.stride else high)
        if low is not None:
            assert self.low is not None
            low = self.low(average_pool(low, self.stride) if self.stride else low)
        return high, low

    def extra_repr(self) -> str:
        return f"stride={self.stride}" if self.stride else ""


class PaddedAvgPool3d(nn.AvgPool3d):
    """Average pooling over explicit zeros: torch refuses a 3D window that fits the map only with its padding."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride, padding = (_three(v) for v in (self.kernel_size, self.stride, self.padding))
        around = [p for p in reversed(padding) for _ in range(2)]
        x = F.pad(x, around)
        window = [min(k, size) for k, size in zip(kernel, x.shape[2:], strict=True)]  # `ceil_mode` may reach past x
        y = F.avg_pool3d(x, window, stride, ceil_mode=self.ceil_mode)
        for axis, (size, s, p) in enumerate(zip(x.shape[2:], stride, padding, strict=True), 2):
            if self.ceil_mode and (y.shape[axis] - 1) * s >= size - p:  # torch lets no window start in the padding
                y = y.narrow(axis, 0, y.shape[axis] - 1)
        return y


def _three(value: int | tuple[int, int, int]) -> tuple[int, int, int]:
    return (value, value, value) if isinstance(value, int) else value


class JoinFrequencies(nn.Module):
    """Global average pooling of both frequencies, side by side: (batch, channels, 1, 1[, 1])."""

    def forward(self, x: Pair) -> Tensor:
        return torch.cat([global_average(part) for part in x if part is not None], dim=1)


def global_average(x: Tensor) -> Tensor:
    """Mean over space, kept as a map of size 1."""
    return F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else F.adaptive_avg_pool3d(x, 1)


class ChannelShuffle(nn.Module):
    """Channel (i, j) of `groups` goes to (j, i)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        return F.channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class SqueezeExcite(nn.Module):
    """Channels scaled by gate(expand(activation(squeeze(mean over space)))); both frequencies share the gate."""

    def __init__(self, channels: int, squeeze: int, activation: str, gate: str, dims: int) -> None:
        super().__init__()
        conv = nn.Conv2d if dims == 2 else nn.Conv3d
        self.squeeze = conv(channels, squeeze, 1)
        self.activation = ACTIVATION_MODULES[activation]()
        self.expand = conv(squeeze, channels, 1)
        self.gate = ACTIVATION_MODULES[gate]()

    def forward(self, x: Feature) -> Feature:
        parts = [part for part in split(x) if part is not None]
        mean = (
            torch.cat([global_average(part) for part in parts], dim=1) if len(parts) > 1 else global_average(parts[0])
        )
        scale: Tensor = self.gate(self.expand(self.activation(self.squeeze(mean))))
        if not isinstance(x, tuple):
            return x * scale
        high, low = x
        cut = 0 if high is None else high.shape[1]
        return (
            None if high is None else high * scale[:, :cut],
            None if low is None else low * scale[:, cut:],
        )


class Select(nn.Module):
    """The given channels in the given order, high ones (below `high`) before low ones."""

    def __init__(self, channels: tuple[int, ...], high: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer(
            "high", torch.tensor([c for c in channels if c < high], dtype=torch.long), persistent=False
        )
        self.register_buffer(
            "low", torch.tensor([c - high for c in channels if c >= high], dtype=torch.long), persistent=False
        )
        self.high: Tensor
        self.low: Tensor

    def forward(self, x: Feature) -> Feature:
        high, low = split(x)
        new_high = high.index_select(1, self.high) if high is not None and len(self.high) else None
        new_low = low.index_select(1, self.low) if low is not None and len(self.low) else None
        if new_low is None:
            assert new_high is not None
            return new_high
        return new_high, new_low

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


class Sum(nn.Module):
    """The sum of its children's outputs on one input, frequency by frequency."""

    def forward(self, x: Feature) -> Feature:
        outputs = [child(x) for child in self.children()]
        if not isinstance(outputs[0], tuple):
            total: Tensor = sum(outputs[1:], outputs[0])
            return total
        high, low = (None if parts[0] is None else sum(parts[1:], parts[0]) for parts in zip(*outputs, strict=True))
        return high, low


class Concatenation(nn.Module):
    """The channels of its children's outputs on one input, side by side, frequency by frequency."""

    def forward(self, x: Feature) -> Feature:
        outputs = [split(child(x)) for child in self.children()]
        high, low = (
            torch.cat(parts, dim=1) if (parts := [part for part in side if part is not None]) else None
            for side in zip(*outputs, strict=True)
        )
        if low is None:
            assert high is not None
            return high
        return high, low


class AuxiliaryHead(nn.Module):
    """Passes its input on; in training it also runs its head and keeps the output until it is taken."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.add_module("0", head)
        self.output: Tensor | None = None

    def forward(self, x: Feature) -> Feature:
        self.output = self.get_submodule("0")(x) if self.training else None
        return x

    def take(self) -> Tensor:
        """The head's last output, forgotten here."""
        output, self.output = self.output, None
        if output is None:
            raise RuntimeError("An auxiliary head has an output only after a forward pass in training mode.")
        return output
