"""Small convolutional modules drawn at random, with dead and doubled channels planted: plain code of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from small_modules import conv, norm, spatial
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Sigmoid, nn.PReLU, nn.LeakyReLU, nn.SiLU, nn.Tanh, nn.GELU, nn.ELU)
Step = tuple[int, int, int, int]
"""(kind, source, second source, option), each taken modulo what there is."""


@dataclass(frozen=True)
class Done:
    """A step as it was built: what it does to which tensors."""

    kind: str
    sources: tuple[int, ...]
    layer: int
    option: int


class Drawn(nn.Module):
    """Runs `steps`, each on what earlier ones made, then a linear layer on the means of what nobody read."""

    KINDS = (
        *("unit", "unit", "unit", "conv", "norm", "act", "depthwise", "max pool", "average pool", "cat", "add", "gate"),
        *(
            "chunk",
            "shuffle",
            "split",
            "slice",
            "pad",
            "scale",
            "linear",
            "group norm",
            "larger",
            "grow",
            "drop",
            "turn",
        ),
        *("again", "in place", "project", "squeeze", "flip", "stack"),
    )

    def __init__(self, steps: Sequence[Step], dims: int) -> None:
        super().__init__()
        self.dims = dims
        self.layers = nn.ModuleList()
        self.scales = nn.ParameterList()
        self.done: list[Done] = []
        self.widths, self.extents = [3], [8]
        self._add(Step_unit, 0, 0, 1)
        for step in steps:
            self._add(self.KINDS[step[0] % len(self.KINDS)], *step[1:])
        read = {source for done in self.done for source in done.sources}
        self.ends = [i for i in range(1, len(self.widths)) if i not in read]
        self.head = nn.Linear(sum(self.widths[i] for i in self.ends), 5)

    def _layer(self, layer: nn.Module) -> int:
        self.layers.append(layer)
        return len(self.layers) - 1

    def _add(self, kind: str, source: int, second: int, option: int) -> None:
        first = len(self.widths) > 1
        i = first + source % (len(self.widths) - first)
        width, extent, dims = self.widths[i], self.extents[i], self.dims
        alike = [j for j in range(first, len(self.widths)) if self.extents[j] == extent]
        same = [j for j in alike if self.widths[j] == width]
        sources, layer, after, size = (i,), -1, width, extent
        match kind:
            case "unit" | "conv" | "project":
                after = (6, 8, 12)[option % 3]
                kernel = 1 if kind == "project" else (1, 3)[option // 3 % 2]
                groups = 2 if option % 5 == 1 and width % 2 == 0 else 1
                stride = 2 if option % 7 == 2 and extent > 3 and kind != "project" else 1
                part: nn.Module = conv(
                    dims, width, after, kernel, groups=groups, stride=stride, bias=option % 2 == 0 and kind != "unit"
                )
                if kind == "unit":
                    part = nn.Sequential(part, norm(dims, after), nn.ReLU())
                layer, size = self._layer(part), -(-extent // stride)
            case "norm":
                layer = self._layer(norm(dims, width))
            case "act":
                layer = self._layer(ACTIVATIONS[option % len(ACTIVATIONS)]())
            case "depthwise":
                layer = self._layer(conv(dims, width, width, groups=width, bias=bool(option % 2)))
            case "max pool" | "average pool" if extent > 3:
                size = (extent - (option % 2 == 0)) // 2 + 1 if kind == "max pool" else extent // 2
                if kind == "max pool":
                    size = extent // 2 + 1 if option % 2 else extent // 2
            case "cat" | "stack" if width < 40:
                sources = (i, (alike if kind == "cat" else same)[second % len(alike if kind == "cat" else same)])
                after = width + self.widths[sources[1]] if kind == "cat" else width
            case "add" | "larger" | "in place":
                sources = (i, same[second % len(same)])
            case "gate":
                layer = self._layer(
                    nn.Sequential(conv(dims, width, 4, 1, bias=True), nn.ReLU(), conv(dims, 4, width, 1))
                )
            case "chunk" if width % 2 == 0 and width > 2:
                layer = self._layer(
                    nn.Sequential(conv(dims, width // 2, width // 2, 1), norm(dims, width // 2), nn.ReLU())
                )
            case "shuffle" if width % 2 == 0 and option % 3 == 0:
                layer = self._layer(nn.ChannelShuffle(2))
            case "split" if width > 4:
                layer = self._layer(conv(dims, 2, 2))
            case "slice" if width > 4:
                after = width - 2 if option % 2 else width // 2
            case "scale":
                self.scales.append(nn.Parameter(torch.randn(1, width, *[1] * dims)))
                layer = len(self.scales) - 1
            case "linear":
                after = (6, 8)[option % 2]
                layer = self._layer(nn.Linear(width, after, bias=option % 3 > 0))
            case "group norm":
                layer = self._layer(nn.GroupNorm(1 + (width % 2 == 0), width))
            case "grow" if extent < 9:
                size = 2 * extent
            case "again":
                kinds = {d.layer: d for d in self.done if d.kind in ("conv", "unit", "project")}
                fits = [
                    d
                    for d in kinds.values()
                    if self.widths[d.sources[0]] == width and self.extents[d.sources[0]] == extent
                ]
                if not fits:
                    kind = "none"
                else:
                    done = fits[second % len(fits)]
                    place = self.done.index(done) + 1
                    layer, after, size = done.layer, self.widths[place], self.extents[place]
            case "squeeze" | "flip" | "drop" | "turn" | "pad":
                size = extent + 2 if kind == "pad" and option % 3 else extent
            case _:
                kind = "none"
        self.done.append(Done(kind, sources, layer, option))
        self.widths.append(after)
        self.extents.append(size)

    def run(self, done: Done, x: Tensor, *others: Tensor) -> Tensor:
        pools = (F.max_pool2d, F.avg_pool2d) if self.dims == 2 else (F.max_pool3d, F.avg_pool3d)
        option = done.option
        match done.kind:
            case "unit" | "conv" | "project" | "norm" | "act" | "depthwise" | "group norm" | "again":
                return self.layers[done.layer](x)
            case "max pool":
                return pools[0](x, 2, 2, padding=option % 2)
            case "average pool":
                return (
                    pools[1](x, 3, 2, padding=1, count_include_pad=bool(option % 2))
                    if x.shape[-1] % 2 == 0
                    else (pools[1](x, 2))
                )
            case "cat":
                return torch.cat((x, *others), 1)
            case "stack":
                return torch.stack((x, *others)).sum(0)
            case "add":
                return x - others[0] if option % 3 == 0 else torch.add(x, others[0], alpha=1 + option % 2)
            case "larger":
                return torch.maximum(x, others[0])
            case "in place":
                x = x.clone()
                x[:, : option % 3] += 1
                x += others[0]
                return x.relu_()
            case "gate":
                return x * torch.sigmoid(self.layers[done.layer](x.mean(spatial(x), keepdim=True)))
            case "chunk":
                left, right = x.chunk(2, 1)
                x = torch.cat((left, self.layers[done.layer](right)), 1)
                return self.shuffled(x) if option % 2 else x
            case "shuffle":
                return self.layers[done.layer](x) if done.layer >= 0 else self.shuffled(x)
            case "split":
                left, right = torch.split(x, [2, x.shape[1] - 2], 1)
                return torch.cat((self.layers[done.layer](left), right), 1)
            case "slice":
                return x[:, 2:] if option % 2 else x[:, : x.shape[1] // 2]
            case "pad":
                return F.pad(x, [1, 1] * self.dims, value=0.5 * (option % 2)) if option % 3 else x
            case "scale":
                return x * self.scales[done.layer] if option % 2 else 1.0 - x * self.scales[done.layer]
            case "linear":
                return self.layers[done.layer](x.movedim(1, -1)).movedim(-1, 1)
            case "grow":
                return F.interpolate(x, scale_factor=2.0)
            case "squeeze":
                return x * (x.abs().mean() + 1) if option % 2 else x / 2 + torch.tensor(0.5, dtype=x.dtype)
            case "flip":
                return x.flip(2 + option % 2)
            case "drop":
                return F.dropout(x, 0.5, training=self.training)
            case "turn":
                return x.transpose(-1, -2)
        return x

    def shuffled(self, x: Tensor) -> Tensor:
        batch, width, *space = x.shape
        if width % 2:
            return x
        return x.view(batch, 2, width // 2, *space).transpose(1, 2).reshape(batch, width, *space)

    def forward(self, x: Tensor) -> Tensor:
        found = [x]
        for done in self.done:
            found.append(self.run(done, *(found[i] for i in done.sources)))
        return self.head(torch.cat([found[i].flatten(2).mean(2) for i in self.ends], 1))


Step_unit = "unit"


def planted(module: nn.Module, seed: int, share: float = 0.3) -> int:
    """Random statistics; about `share` of the channels dead or constant, some doubled. How many are dead."""
    rng = torch.Generator().manual_seed(seed)

    def draw(n: int) -> int:
        return int(torch.randint(n, (), generator=rng))

    def some(width: int) -> Tensor:
        if draw(2):
            return torch.arange(width) % 3 == 1
        return torch.rand(width, generator=rng) < share

    count = 0
    with torch.no_grad():
        for part in module.modules():
            weight, bias = getattr(part, "weight", None), getattr(part, "bias", None)
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d):
                assert part.running_mean is not None
                assert part.running_var is not None
                for tensor, scale, offset in (
                    (part.weight, 0.3, 1.0),
                    (part.bias, 0.5, 0.0),
                    (part.running_mean, 0.3, 0.0),
                ):
                    tensor.copy_(offset + scale * torch.randn(tensor.shape, generator=rng, dtype=torch.float64))
                part.running_var.copy_(0.5 + torch.rand(part.running_var.shape, generator=rng, dtype=torch.float64))
            if not isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d | nn.Conv2d | nn.Conv3d | nn.Linear) or not draw(4):
                continue
            assert isinstance(weight, Tensor)
            if draw(3) == 0 and len(weight) > 1:  # its channel 1 doubles channel 0
                for tensor in (weight, bias, getattr(part, "running_mean", None), getattr(part, "running_var", None)):
                    if isinstance(tensor, Tensor):
                        tensor[1] = tensor[0]
                continue
            if part is getattr(module, "head", None):
                continue
            dead = some(len(weight))
            count += int(dead.sum())
            weight[dead] = 0
            if isinstance(bias, Tensor):
                bias[dead] = (0.0, 0.3, -1.0)[draw(3)]
    return count
