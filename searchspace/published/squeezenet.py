"""SqueezeNet (Iandola et al. 2016, arXiv 1602.07360)."""

from __future__ import annotations

from typing import Literal

from searchspace.architecture import (
    AdaptivePool,
    Architecture,
    Chain,
    Concat,
    Conv,
    Dropout,
    Flatten,
    Node,
    Pool,
)
from searchspace.blocks import unit
from searchspace.fields import choice

# Squeeze widths of fire modules 2 to 9; each expands fourfold, to 1 x 1 and to 3 x 3.
SQUEEZES = (16, 16, 32, 32, 48, 48, 64, 64)

# (width and kernel of the stem, fire modules that a max pooling precedes).
VERSIONS = {"1.0": (96, 7, (2, 5, 9)), "1.1": (64, 3, (2, 4, 6))}


def squeezenet(
    *, version: str | float = "1.0", classes: int = 1000, input: tuple[int, ...] = (3, 224, 224)
) -> Architecture:
    """Eight fire modules, 1 x 1 to few channels, then 1 x 1 beside 3 x 3, and a 1 x 1 convolution as classifier.

    1.0 is the paper's; 1.1, of the authors' repository, has a smaller stem and pools earlier, at 2.3 times less cost.
    """
    version = f"{version}.0" if type(version) is int else str(version)  # YAML reads unquoted ones as numbers
    width, kernel, pooled = VERSIONS[choice("version", version, VERSIONS)]
    pool = Pool("max", 3, 2, padding=0, ceil=True)
    stages: list[list[Node]] = []
    for number, squeeze in enumerate(SQUEEZES, 2):
        if number in pooled:
            stages.append([pool])
        stages[-1].append(_fire(squeeze, f"fire{number}"))
    stem = Chain(_conv(width, "stem", kernel, 2, padding=0), label="stem")
    head = Chain((Dropout(), *_conv(classes, "classifier"), AdaptivePool(), Flatten()), label="head")
    named = [Chain(tuple(stage), label=f"stage{i}") for i, stage in enumerate(stages, 1)]
    return Architecture(input, Chain((stem, *named, head)))


def _fire(squeeze: int, label: str) -> Chain:
    """1 x 1 to `squeeze`, then 1 x 1 and 3 x 3 to four times as many each, side by side."""
    point, wide = Chain(_conv(4 * squeeze, "pointwise")), Chain(_conv(4 * squeeze, "spatial", 3))
    return Chain((*_conv(squeeze, "reduce"), Concat((point, wide))), label=label)


def _conv(
    out: int, label: str, kernel: int = 1, stride: int = 1, padding: int | Literal["same"] = "same"
) -> tuple[Node, ...]:
    """A biased convolution without norm."""
    return tuple(unit(Conv(out, kernel, stride, padding, bias=True, label=label), "relu", norm=False))
