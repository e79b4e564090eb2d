"""VGG (Simonyan & Zisserman 2014, arXiv 1409.1556)."""

from __future__ import annotations

from searchspace.architecture import (
    Activation,
    AdaptivePool,
    Architecture,
    Chain,
    Conv,
    Dropout,
    Flatten,
    Linear,
    Node,
    Pool,
)
from searchspace.blocks import unit
from searchspace.fields import choice, switch

WIDTHS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(
    *, depth: int = 16, batch_norm: bool = False, classes: int = 1000, input: tuple[int, ...] = (3, 224, 224)
) -> Architecture:
    """Five stages of biased 3 x 3 convolutions, each halved by max pooling, then three fully connected layers.

    The paper trains without `batch_norm`; the form with it is torchvision's, as is the pooling to 7 x 7 that lets
    another input in and does nothing at 224.
    """
    counts = CONVOLUTIONS[choice("depth", depth, CONVOLUTIONS)]
    switch("batch_norm", batch_norm)

    def stage(number: int, out: int, count: int) -> Chain:
        convolutions = [
            node for _ in range(count) for node in unit(Conv(out, 3, bias=True, label="spatial"), "relu", batch_norm)
        ]
        return Chain((*convolutions, Pool("max", 2, 2)), label=f"stage{number}")

    stages = [stage(i, out, n) for i, (out, n) in enumerate(zip(WIDTHS, counts, strict=True), 1)]
    hidden: tuple[Node, ...] = (Linear(4096), Activation(), Dropout(), Linear(4096), Activation(), Dropout())
    head = Chain((AdaptivePool(7), Flatten(), *hidden, Linear(classes, label="classifier")), label="head")
    return Architecture(input, Chain((*stages, head)))
