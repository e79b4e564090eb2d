"""Modules as others write them: reused and tied parts, a shuffle, an auxiliary head, settings without annotations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from nowhere import Kind  # an annotation that only a type checker could read

kept = 3  # no factory


class Wired(nn.Module):
    """A block that runs twice under two names, a shuffle, two heads that share their weight."""

    def __init__(self, width: int = 8, classes: int = 3, dims: int = 2) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.stem = conv(3, width, 3, padding=1, bias=False)
        self.norm = norm(width)
        self.block = nn.Sequential(conv(width, width, 3, padding=1, bias=False), norm(width), nn.ReLU())
        self.again = self.block
        self.shuffle = nn.ChannelShuffle(2)
        self.mix = conv(width, width, 1, groups=2)
        self.head = nn.Linear(width, classes)
        self.aux = nn.Linear(width, classes)
        self.aux.weight = self.head.weight
        self.register_buffer("scale", torch.rand(()), persistent=False)
        self.scale: Tensor

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.norm(self.stem(x)).relu()
        x = x + self.again(self.block(x))
        y = self.head(self.mix(self.shuffle(x)).flatten(2).mean(2) * self.scale)
        return (y, self.aux(x.flatten(2).mean(2))) if self.training else y


def wired(width: int = 8, classes: int = 3) -> Wired:
    return Wired(width, classes)


def unsaid(path="somewhere"):  # type: ignore[no-untyped-def]
    """Says of nothing what it is, and leaves a trace."""
    Path(path).mkdir()
    return Wired()


def kind(kind: Kind = 1, **more: object) -> nn.Module:
    """Takes any setting; makes a module that remembers what it was given."""
    made = Wired()
    made.given = {"kind": kind, **more}
    return made


def needs(width: int) -> Wired:
    return Wired(width)


def broken() -> nn.Module:
    raise KeyError("no such file of settings\nand more lines")


def leaving() -> nn.Module:
    raise SystemExit(3)


def nothing() -> None:
    return None


def tensorless() -> nn.Module:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "a word"

    return Silent()


def fixed_batch() -> nn.Module:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(2, -1)

    return Fixed()


instance = nn.Linear(1, 1)
