"""Small modules wired as others wire theirs, 2D or 3D, each of 12 channels where nothing else is said."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 12


def conv(dims: int, before: int, after: int, kernel: int = 3, **options: int | bool | str) -> nn.Module:
    """A convolution that keeps the extent at stride 1; `options` are torch's."""
    options = {"padding": kernel // 2, "bias": False, **options}
    return (nn.Conv2d if dims == 2 else nn.Conv3d)(before, after, kernel, **options)  # type: ignore[arg-type]


def norm(dims: int, width: int = WIDTH) -> nn.Module:
    return (nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d)(width)


def unit(dims: int, before: int = WIDTH, after: int = WIDTH, kernel: int = 3, **options: int | bool | str) -> nn.Module:
    return nn.Sequential(conv(dims, before, after, kernel, **options), norm(dims, after), nn.ReLU())


def spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


class Headed(nn.Module):
    """A stem, a `body` that a subclass writes, a mean over space, a linear layer."""

    def __init__(self, dims: int, width: int = WIDTH) -> None:
        super().__init__()
        self.dims = dims
        self.stem = unit(dims, 3)
        self.head = nn.Linear(width, 5)

    def body(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(self.stem(x))
        return self.head(x.mean(spatial(x)))


class Plain(Headed):
    """A convolution with the options given, a norm, a relu."""

    def __init__(self, dims: int, kernel: int = 3, **options: int | bool | str) -> None:
        super().__init__(dims)
        self.mix = unit(dims, WIDTH, WIDTH, kernel, **options)

    def body(self, x: Tensor) -> Tensor:
        return self.mix(x)


class SplitShuffle(Headed):
    """ShuffleNet v2: half of the channels go by, both are concatenated and shuffled."""

    def __init__(self, dims: int, by_module: bool = False) -> None:
        super().__init__(dims, 2 * WIDTH)
        self.units = nn.ModuleList(
            nn.Sequential(
                unit(dims, 6, 6, 1),
                conv(dims, 6, 6, groups=6),
                norm(dims, 6),
                unit(dims, 6, 6, 1),
            )
            for _ in range(2)
        )
        self.shuffles = nn.ModuleList(nn.ChannelShuffle(2) for _ in range(2 * by_module))
        self.last = unit(dims, WIDTH, 2 * WIDTH, 1)

    def body(self, x: Tensor) -> Tensor:
        for i, each in enumerate(self.units):
            left, right = x.chunk(2, dim=1)
            x = torch.cat((left, each(right)), dim=1)
            if self.shuffles:
                x = self.shuffles[i](x)
            else:
                batch, width, *space = x.shape
                x = x.view(batch, 2, width // 2, *space).transpose(1, 2).contiguous().view(batch, -1, *space)
        return self.last(x)


class Shuffled(Headed):
    """Grouped convolution, shuffle, convolution of as many groups or of one: ShuffleNet v1."""

    def __init__(self, dims: int, groups: int = 2, reader: int = 2) -> None:
        super().__init__(dims)
        self.before = unit(dims, kernel=1, groups=groups)
        self.groups = groups
        self.after = unit(dims, kernel=1, groups=reader)

    def body(self, x: Tensor) -> Tensor:
        return self.after(F.channel_shuffle(self.before(x), self.groups))


class Outputs(NamedTuple):
    logits: Tensor
    aux: Tensor | None


class Auxiliary(nn.Module):
    """GoogLeNet: branches of several kernels, a head that runs in training alone, a named tuple."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.stem = unit(dims, 3)
        self.one = unit(dims, kernel=1)
        self.three = nn.Sequential(unit(dims, kernel=1), unit(dims))
        self.pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(3, 1, padding=1, ceil_mode=True)
        self.pooled = unit(dims, kernel=1)
        self.last = unit(dims, 3 * WIDTH, WIDTH, 1)
        self.head = nn.Linear(WIDTH, 5)
        self.aux = nn.Sequential(unit(dims, 3 * WIDTH, WIDTH, 1), nn.Flatten(2))
        self.aux_head = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Outputs | Tensor:
        x = self.stem(x)
        x = torch.cat([self.one(x), self.three(x), self.pooled(self.pool(x))], 1)
        aux = self.aux_head(self.aux(x).mean(2)) if self.training else None
        x = F.dropout(self.last(x), 0.2, training=self.training)
        logits = self.head(torch.flatten(x, 2).mean(-1))
        return Outputs(logits, aux) if self.training else logits


class SqueezeExcite(Headed):
    """A gate by linear layers, or by 1x1 convolutions; multiplied in place or not."""

    def __init__(self, dims: int, by_linear: bool = True) -> None:
        super().__init__(dims)
        self.by_linear = by_linear
        if by_linear:
            self.down, self.up = nn.Linear(WIDTH, 4, bias=False), nn.Linear(4, WIDTH, bias=False)
        else:
            self.down, self.up = conv(dims, WIDTH, 4, 1, bias=True), conv(dims, 4, WIDTH, 1, bias=True)
        self.mix = unit(dims)

    def body(self, x: Tensor) -> Tensor:
        if self.by_linear:
            gate = self.up(F.relu(self.down(x.mean(spatial(x))))).sigmoid().view(x.shape[0], -1, *[1] * self.dims)
            return self.mix(x * gate.expand_as(x))
        pool = F.adaptive_avg_pool2d if self.dims == 2 else F.adaptive_avg_pool3d
        return self.mix(F.hardsigmoid(self.up(F.relu(self.down(pool(x, 1)), inplace=True)), inplace=True).mul(x))


class DenseConcat(Headed):
    """DenseNet: pre-activation layers that read everything made before."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims, 3 * WIDTH)
        self.layers = nn.ModuleList(
            nn.Sequential(norm(dims, (i + 1) * WIDTH), nn.ReLU(inplace=True), conv(dims, (i + 1) * WIDTH, WIDTH))
            for i in range(2)
        )
        self.last = norm(dims, 3 * WIDTH)

    def body(self, x: Tensor) -> Tensor:
        made = [x]
        for layer in self.layers:
            made.append(layer(torch.cat(made, 1)))
        return F.relu(self.last(torch.cat(made, 1)), inplace=True)


class Flat(nn.Module):
    """A linear layer on all of a map, laid out by `how`."""

    def __init__(self, dims: int, how: str = "flatten") -> None:
        super().__init__()
        self.dims, self.how = dims, how
        self.stem = unit(dims, 3)
        self.pool = (nn.AdaptiveMaxPool2d if dims == 2 else nn.AdaptiveMaxPool3d)(2)
        self.head = nn.Linear(WIDTH * 2**dims, WIDTH)
        self.last = nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        if self.how == "flatten":
            x = torch.flatten(x, 1)
        elif self.how == "computed":
            x = x.view(-1, x.shape[1] * 2**self.dims)
        elif self.how == "hard-coded":
            x = x.view(-1, WIDTH * 2**self.dims)
        else:
            x = x.movedim(1, -1).reshape(len(x), -1)
        return self.last(F.relu(self.head(x)))


class PreActivation(Headed):
    """Residual blocks that norm first, one with a shortcut of ResNet's option A: stride, and zeros for channels."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims, 2 * WIDTH)
        self.first = nn.Sequential(norm(dims), nn.ReLU(), unit(dims, kernel=1), conv(dims, WIDTH, WIDTH))
        self.second = nn.Sequential(norm(dims), nn.ReLU(), unit(dims), conv(dims, WIDTH, 2 * WIDTH, stride=2))
        self.last = norm(dims, 2 * WIDTH)

    def body(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        short = x[(slice(None), slice(None)) + (slice(None, None, 2),) * self.dims]
        x = F.pad(short, [0, 0] * self.dims + [6, 6]) + self.second(x)
        return F.relu(self.last(x))


class Residual(Headed):
    """Two blocks on one trunk: a sum loses what is dead in every summand."""

    def __init__(self, dims: int, kernel: int = 3) -> None:
        super().__init__(dims)
        self.blocks = nn.ModuleList(
            nn.Sequential(unit(dims, kernel=kernel), conv(dims, WIDTH, WIDTH, kernel), norm(dims)) for _ in range(2)
        )

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            out = block(x)
            out += x
            x = F.relu(out)
        return x


class Functional(nn.Module):
    """Weights and statistics that a module holds itself."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.dims = dims
        self.first = nn.Parameter(torch.randn(WIDTH, 3, *[3] * dims))
        self.second = nn.Parameter(torch.randn(WIDTH, WIDTH, *[1] * dims))
        self.shift = nn.Parameter(torch.zeros(WIDTH))
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.register_buffer("mu", torch.zeros(WIDTH))
        self.register_buffer("var", torch.ones(WIDTH))
        self.mu: Tensor
        self.var: Tensor
        self.matrix = nn.Parameter(torch.randn(5, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        convolve = F.conv2d if self.dims == 2 else F.conv3d
        x = convolve(x, self.first)
        x = F.relu(F.batch_norm(x, self.mu, self.var, self.scale, self.shift))
        return F.linear(torch.tanh(convolve(x, self.second)).mean(spatial(x)), self.matrix)


class Separable(Headed):
    """Depthwise and pointwise, dilated, strided, with an expansion: MobileNet v2."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        wide = 2 * WIDTH
        self.expand = unit(dims, WIDTH, wide, 1)
        self.depth = unit(dims, wide, wide, 3, groups=wide, stride=2, dilation=2, padding=2)
        self.project = nn.Sequential(conv(dims, wide, WIDTH, 1), norm(dims))

    def body(self, x: Tensor) -> Tensor:
        return self.project(self.depth(self.expand(x)))


class Octave(Headed):
    """Two frequencies by hand: average pooling, nearest upsampling."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.low = unit(dims)
        self.hh, self.ll = conv(dims, WIDTH, WIDTH), conv(dims, WIDTH, WIDTH)
        self.hl, self.lh = conv(dims, WIDTH, WIDTH), conv(dims, WIDTH, WIDTH)
        self.high_norm, self.low_norm = norm(dims), norm(dims)
        self.last = unit(dims, 2 * WIDTH, WIDTH, 1)

    def body(self, x: Tensor) -> Tensor:
        pool = F.avg_pool2d if self.dims == 2 else F.avg_pool3d
        low = self.low(pool(x, 2))
        high, low = (
            self.hh(x) + F.interpolate(self.lh(low), scale_factor=2.0, mode="nearest"),
            self.ll(low) + self.hl(pool(x, 2)),
        )
        high, low = F.relu(self.high_norm(high)), F.relu(self.low_norm(low))
        return self.last(torch.cat((high, F.interpolate(low, size=high.shape[2:])), 1))


class Scaled(Headed):
    """Layer scale, a learned affine map of each channel, PReLU, a gate by sigmoid, a temperature."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        ones = [1] * dims
        self.gamma = nn.Parameter(torch.rand(WIDTH, *ones))
        self.alpha, self.beta = nn.Parameter(torch.rand(1, WIDTH, *ones)), nn.Parameter(torch.rand(1, WIDTH, *ones))
        self.act, self.one = nn.PReLU(WIDTH), nn.PReLU()
        self.heat = nn.Parameter(torch.tensor(1.5))
        self.mix, self.gate, self.again = unit(dims, kernel=1), conv(dims, WIDTH, WIDTH, 1), unit(dims, kernel=1)

    def body(self, x: Tensor) -> Tensor:
        x = x * self.gamma / self.heat
        x = self.act(x * self.alpha - 0.5) + self.beta
        x = self.mix(x)
        return self.one(self.again(x * torch.sigmoid(self.gate(x))))


class Positioned(Headed):
    """A value learned for each element of a map."""

    def __init__(self, dims: int, extent: int = 8) -> None:
        super().__init__(dims)
        self.place = nn.Parameter(torch.randn(1, WIDTH, *[extent] * dims))
        self.mix = unit(dims)

    def body(self, x: Tensor) -> Tensor:
        return self.mix(x + self.place)


class Reused(Headed):
    """One block that runs twice, and two layers that share their weight."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.block = unit(dims, kernel=1)
        self.left, self.right = conv(dims, WIDTH, WIDTH, 1, bias=True), conv(dims, WIDTH, WIDTH, 1, bias=True)
        self.right.weight = self.left.weight
        self.last = unit(dims, kernel=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.block(self.block(x))
        return self.last(F.relu(self.left(x)) + F.relu(self.right(x)))


class UNet(nn.Module):
    """Down, up by a transposed convolution, concatenated with what was; a map of classes comes out."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.down = unit(dims, 3)
        self.pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(2)
        self.deep = unit(dims)
        self.rise = (nn.ConvTranspose2d if dims == 2 else nn.ConvTranspose3d)(WIDTH, WIDTH, 2, stride=2)
        self.merge = unit(dims, 2 * WIDTH)
        self.out = conv(dims, WIDTH, 4, 1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        return self.out(self.merge(torch.cat((x, self.rise(self.deep(self.pool(x)))), 1)))


class FixedSplit(Headed):
    """Res2Net: parts of fixed sizes, each convolved and handed on to the next."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.parts = nn.ModuleList(unit(dims, 4, 4) for _ in range(2))
        self.mix = unit(dims, kernel=1)
        self.last = unit(dims)

    def body(self, x: Tensor) -> Tensor:
        first, second, third = torch.split(x, [4, 4, 4], dim=1)
        second = self.parts[0](second)
        third = self.parts[1](third + second)
        return self.last(self.mix(torch.cat((first, second, third), 1)))


class Sliced(Headed):
    """FasterNet: a part of the channels is convolved, in place or not; the number of them is written down."""

    def __init__(self, dims: int, in_place: bool = False) -> None:
        super().__init__(dims)
        self.in_place = in_place
        self.part = conv(dims, 4, 4)
        self.mix = unit(dims, kernel=1)
        self.last = unit(dims, kernel=1)

    def body(self, x: Tensor) -> Tensor:
        if self.in_place:
            x = x.clone()
            x[:, :4] = self.part(x[:, :4].clone())
        else:
            x = torch.cat((self.part(x[:, :4]), x[:, 4:]), 1)
        x = self.mix(x) * 1.0
        x[:, 0].add_(1.0)
        x.view(len(x), -1).mul_(0.5)
        return self.last(x)


class OverChannels(Headed):
    """CBAM: attention over places by the mean and the largest of the channels."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.see = conv(dims, 2, 1)
        self.mix = unit(dims)
        self.last = unit(dims, kernel=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        seen = torch.cat((x.mean(1, keepdim=True), x.max(1, keepdim=True).values), 1)
        return self.last(x * torch.sigmoid(self.see(seen)))


class OtherNorms(Headed):
    """Norms over what batch normalisation does not reach: groups of channels, samples, all channels of a place."""

    def __init__(self, dims: int, kind: str = "group") -> None:
        super().__init__(dims)
        one = {
            "group": lambda: nn.GroupNorm(3, WIDTH),
            "instance": lambda: (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(WIDTH, affine=True),
            "tracked": lambda: (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(WIDTH, track_running_stats=True),
            "local": lambda: nn.LocalResponseNorm(3),
        }
        self.mix = nn.Sequential(conv(dims, WIDTH, WIDTH), one[kind](), nn.ReLU())
        self.last = unit(dims)

    def body(self, x: Tensor) -> Tensor:
        return self.last(self.mix(x))


class ConvNeXt(Headed):
    """Depthwise, permuted, LayerNorm, two linear layers, layer scale, permuted back, added."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.depth = conv(dims, WIDTH, WIDTH, groups=WIDTH, bias=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.gamma = nn.Parameter(torch.rand(WIDTH))
        self.last = unit(dims, kernel=1)

    def body(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).movedim(1, -1))
        y = self.gamma * self.down(F.gelu(self.up(y)))
        return self.last(x + y.movedim(-1, 1))


class PixelShuffled(nn.Module):
    """Channels become places."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        self.stem, self.mix = unit(2, 3), unit(2)
        self.out = unit(2, 3, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.pixel_shuffle(self.mix(self.stem(x)), 2))


class Largest(Headed):
    """The larger of two branches, and of stacked ones."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.left, self.right, self.last = unit(dims), unit(dims, kernel=1), unit(dims, kernel=1)

    def body(self, x: Tensor) -> Tensor:
        return self.last(torch.maximum(self.left(x), self.right(x)))


class PaddedByHand(Headed):
    """Zeros padded by a function, then a convolution without padding."""

    def __init__(self, dims: int, mode: str = "constant") -> None:
        super().__init__(dims)
        self.mode = mode
        self.mix = unit(dims, WIDTH, WIDTH, 3, padding=0)

    def body(self, x: Tensor) -> Tensor:
        return self.mix(F.pad(x, [1, 1] * self.dims, mode=self.mode))


class Standardised(Headed):
    """Weights that are standardised where they are used."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.mix, self.last = conv(dims, WIDTH, WIDTH), unit(dims, kernel=1)

    def body(self, x: Tensor) -> Tensor:
        weight = self.mix.weight
        assert isinstance(weight, Tensor)
        axes = tuple(range(1, weight.dim()))
        weight = (weight - weight.mean(axes, keepdim=True)) / weight.std(axes, keepdim=True)
        return self.last((F.conv2d if self.dims == 2 else F.conv3d)(x, weight, padding=1))


class Video(nn.Module):
    """R(2+1)D: space, then time, each with its norm; clips of (batch, channels, time, height, width)."""

    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        self.space = nn.Sequential(nn.Conv3d(3, WIDTH, (1, 3, 3), padding=(0, 1, 1), bias=False), norm(3), nn.ReLU())
        self.time = nn.Sequential(nn.Conv3d(WIDTH, WIDTH, (3, 1, 1), padding=(1, 0, 0), bias=False), norm(3), nn.ReLU())
        self.drop = nn.Dropout3d(0.5)
        self.frames = unit(2)
        self.head = nn.Linear(WIDTH, 5)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.drop(self.time(self.space(clip)))
        batch, width, time, *space = x.shape
        frames = self.frames(x.transpose(1, 2).reshape(batch * time, width, *space))
        return self.head(frames.mean((2, 3)).view(batch, time, -1).mean(1))


class Nested(Headed):
    """Returns what it made in a mapping, with a list, a number and a word."""

    def forward(self, x: Tensor) -> OrderedDict[str, object]:  # type: ignore[override]
        x = self.stem(x)
        logits = self.head(x.mean(spatial(x)))
        return OrderedDict(logits=logits, parts=[logits.softmax(1), (logits.argmax(1),)], loss=logits.mean(), scale=3)


class Features(Headed):
    """Returns a map of features beside its logits."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.mix = unit(dims)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:  # type: ignore[override]
        features = self.mix(self.stem(x))
        return self.head(features.mean(spatial(x))), [features]


class Counting(Headed):
    """Buffers of whole numbers, one of which counts its runs; a choice of channels by number."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))
        self.register_buffer("order", torch.randperm(WIDTH))
        self.runs: Tensor
        self.order: Tensor
        self.mix, self.last = unit(dims), unit(dims)

    def body(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.last(self.mix(x)[:, self.order])


class Checked(Headed):
    """Insists on its width."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.mix = unit(dims)

    def body(self, x: Tensor) -> Tensor:
        if x.shape[1] != WIDTH:
            raise ValueError(f"Expected {WIDTH} channels, but got {x.shape[1]}.")
        return self.mix(x)


class OwnNorm(Headed):
    """A norm by a function in a module that has children, in training where the module is."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.conv = conv(dims, WIDTH, WIDTH)
        self.register_buffer("running_mean", torch.randn(WIDTH))
        self.register_buffer("running_var", torch.rand(WIDTH) + 0.5)
        self.running_mean: Tensor
        self.running_var: Tensor
        self.last = unit(dims, kernel=1)

    def body(self, x: Tensor) -> Tensor:
        x = F.batch_norm(self.conv(x), self.running_mean, self.running_var, training=self.training)
        return self.last(F.relu(x))


class NoGrad(Headed):
    """Runs its stem without gradients."""

    def __init__(self, dims: int, inference: bool = False) -> None:
        super().__init__(dims)
        self.inference = inference
        self.mix = unit(dims)

    def forward(self, x: Tensor) -> Tensor:
        with torch.inference_mode() if self.inference else torch.no_grad():
            x = self.stem(x)
        x = self.mix(x.clone())
        return self.head(x.mean(spatial(x)))


class ChannelsLast(Headed):
    """Attention heads over places: linear layers on permuted maps, a product of matrices."""

    def __init__(self, dims: int) -> None:
        super().__init__(dims)
        self.mix = unit(dims)
        self.attend = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.last = unit(dims, kernel=1)

    def body(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        tokens = x.flatten(2).transpose(1, 2)
        seen, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        return self.last(x + seen.transpose(1, 2).reshape_as(x))


class InPlaceInput(Headed):
    """Writes into its input."""

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.5).div_(2.0)
        x = self.stem(x)
        return self.head(x.mean(spatial(x)))
